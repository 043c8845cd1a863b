"""What a product with a matrix does to a tangent: rows of it, or its product with the pattern.

The matrix is the operand that does not vary, whichever of the two it is and whatever its rank.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import (
    SAME,
    Axis,
    Element,
    begin,
    begins,
    single,
    stays_inside,
    tabled,
    vanishes,
    whole,
)
from jaxcam.derivatives.tangents.step import Step, whole_map
from jaxcam.derivatives.tangents.terms import Tangent, Term, cut, localize, spread, varies


def dot_general(term: Term, step: Step) -> Tangent:
    """Multiply by a matrix: a row of it where the term is one place, once where it is the same."""
    contracted, batched = step.params["dimension_numbers"]
    if batched[0]:
        return whole_map(term, step)
    over = contracted[step.place]
    term = _contractible(term, over, step.element)
    same = all(term.axes[i].kind == "same" for i in over)
    return [_pattern_times_matrix(term, step) if same else _values_times_rows(term, step)]


def _pattern_times_matrix(term: Term, step: Step) -> Term:
    """Multiply a term that is the same along all that is summed.

    With values ``v`` and the pattern ``p``, ``sum_j v p_j M_jk = v sum_j p_j M_jk``: the sum is one
    for all elements.
    """
    over, matrix = _summed_axes(step)[0], _matrix(term, step)
    kept = [axis for i, axis in enumerate(term.axes) if i not in over]
    new = [SAME] * (matrix.ndim - len(over))
    values = term.values.reshape(_beside([axis.size for axis in kept], [1] * len(new), step))
    sizes = [1] * len(term.shape) if term.pattern is None else term.pattern.shape
    full = [term.shape[i] if i in over else size for i, size in enumerate(sizes)]
    pattern = (
        jnp.ones(full, values.dtype)
        if term.pattern is None
        else jnp.broadcast_to(term.pattern, full)
    )
    axes = tuple(_beside(kept, new, step))
    return Term(values, axes, step.shape, _contracted(pattern, matrix, step))


def _values_times_rows(term: Term, step: Step) -> Term:
    """Multiply what a term holds by those rows of the matrix that it meets; its pattern stays.

    Of a known matrix only the columns that are not all zero there (`_band`).
    """
    (over, rows), matrix = _summed_axes(step), _matrix(term, step)
    free = [i for i in range(matrix.ndim) if i not in rows]
    band = _band(term, over[0], rows[0], step) if len(over) == len(free) == 1 else None
    if band is None:
        matrix = _rows_met(term, matrix, step)
        new = [whole(matrix.shape[i]) for i in free]
    else:
        matrix = cut(matrix, band, matrix.shape, step.element)
        new = [band[free[0]]]
    pattern = term.pattern
    if pattern is not None:
        left = [size for i, size in enumerate(pattern.shape) if i not in over]
        pattern = pattern.reshape(_beside(left, [1] * len(free), step))
    kept = [axis for i, axis in enumerate(term.axes) if i not in over]
    values = _contracted(term.values, matrix, step)
    return Term(values, tuple(_beside(kept, new, step)), step.shape, pattern)


def _summed_axes(step: Step) -> tuple[Sequence[int], Sequence[int]]:
    """Give the axes that are summed of the operand that varies, and those of the other, the matrix.

    These are the matrix's rows, whichever axes they are.
    """
    contracted, _ = step.params["dimension_numbers"]
    return contracted[step.place], contracted[1 - step.place]


def _matrix(term: Term, step: Step) -> Array:
    return step.operands[1 - step.place].astype(term.values.dtype)


def _rows_met(term: Term, matrix: Array, step: Step) -> Array:
    """Take the rows at which windows of a term lie."""
    starts, sizes = [jnp.zeros((), jnp.int32)] * matrix.ndim, list(matrix.shape)
    for i, row in zip(*_summed_axes(step), strict=True):
        axis = term.axes[i]
        if axis.kind == "window":
            starts[row], sizes[row] = begin(axis, step.element), axis.size
    return lax.dynamic_slice(matrix, starts, sizes, allow_negative_indices=False)


def _contracted(x: Array, matrix: Array, step: Step) -> Array:
    (left, right), params = _beside([x], [matrix], step), step.params
    return lax.dot_general(left, right, params["dimension_numbers"], precision=params["precision"])


def _beside(own: Sequence[Any], others: Sequence[Any], step: Step) -> list[Any]:
    """Put what belongs to the operand that varies, and to the matrix, in the operands' order."""
    return [*own, *others] if step.place == 0 else [*others, *own]


def _contractible(term: Term, over: Sequence[int], element: Element) -> Term:
    """Bring a term to a form in which it can be contracted over some of its axes."""
    kinds = {term.axes[i].kind for i in over}
    if kinds == {"same"}:
        return term
    if varies(term, over):
        term = localize(term, element)
    for i in over:
        axis = term.axes[i]
        if axis.kind == "same" or not stays_inside(axis, term.shape[i]):
            term = spread(term, i, element)
    return term


def _band(term: Term, over: int, row: int, step: Step) -> list[Axis] | None:
    """Give the part of a known matrix, such as of a resizing, that a window meets, if it is small.

    A list of its two axes: the rows of the window, and the columns that are not zero in them.
    """
    axis, place = term.axes[over], 1 - step.place
    d = single(axis) if axis.kind == "window" else None
    matrix = None if d is None else step.constant(place)
    if d is None or matrix is None:
        return None
    columns = np.moveaxis(matrix != 0, row, 0)
    spans = [
        None if b is None else np.flatnonzero(columns[max(0, b) : max(0, b + axis.size)].any(0))
        for b in begins(axis, d, step.element)
    ]
    met = [(int(s[0]), int(s[-1]) + 1) if s is not None and len(s) else None for s in spans]
    size = max((high - low for low, high in filter(None, met)), default=1)
    new = tabled(size, [None if m is None else m[0] for m in met], d, step.element)
    if 2 * size > columns.shape[1] or vanishes(new):
        return None
    return [axis, new] if row == 0 else [new, axis]
