"""What an operation does to a tangent: one table, a line for each operation.

A rule takes a term of the tangent of the one operand that varies and gives the term of the result.
To add an operation: name it in `POINTWISE`, or give it a line in `LINEAR`. An operation without a
line is differentiated as a whole (adjoint.py), which is slower and never wrong.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.convolution import convolve, pointlike_axes
from jaxcam.derivatives.products import summed
from jaxcam.derivatives.step import Step, whole_map
from jaxcam.derivatives.tangents import (
    SAME,
    Axis,
    Element,
    Term,
    begin,
    localize,
    spread,
    stays_inside,
    varies,
    whole,
)


def broadcast(term: Term, step: Step) -> Term:
    """Repeat along new axes: the same for all."""
    placed = step.params["broadcast_dimensions"]
    rank = len(step.shape)
    axes = [SAME] * rank
    values_shape, pattern_shape = [1] * rank, [1] * rank
    for i, (axis, size) in enumerate(zip(term.axes, term.shape, strict=True)):
        if size == step.shape[placed[i]]:
            axes[placed[i]] = axis
            values_shape[placed[i]] = term.values.shape[i]
            pattern_shape[placed[i]] = 1 if term.pattern is None else term.pattern.shape[i]
    return Term(
        term.values.reshape(values_shape),
        tuple(axes),
        step.shape,
        None if term.pattern is None else term.pattern.reshape(pattern_shape),
    )


def transpose(term: Term, step: Step) -> Term:
    """Take the axes in another order."""
    order = step.params["permutation"]
    return Term(
        lax.transpose(term.values, order),
        tuple(term.axes[i] for i in order),
        step.shape,
        None if term.pattern is None else lax.transpose(term.pattern, order),
    )


def reshape(term: Term, step: Step) -> Term:
    """Join or divide axes: windows of one place can be joined, the rest is stored whole."""
    if step.equation.primitive.name == "reshape" and step.params["dimensions"] is not None:
        return whole_map(term, step)  # it transposes too
    axes = [SAME] * len(step.shape)
    for olds, news in _groups(term.shape, step.shape):
        if len(olds) == len(news) == 1:
            axes[news[0]] = term.axes[olds[0]]
        elif len(news) == 1 and _are_places(term, olds, step.element):
            axes[news[0]] = _joined(term, olds)
        elif any(term.axes[i].kind != "same" for i in olds):
            for i in olds:
                term = spread(term, i, step.element)
            for j in news:
                axes[j] = whole(step.shape[j])
    values = term.values.reshape([axis.size for axis in axes])
    return Term(values, tuple(axes), step.shape, _reshaped_pattern(term, step.shape))


def _reshaped_pattern(term: Term, shape: Sequence[int]) -> Array | None:
    """Reshape the pattern; a group of axes along which it is constant stays of size one."""
    if term.pattern is None:
        return None
    full, new = [1] * len(term.shape), [1] * len(shape)
    for olds, news in _groups(term.shape, shape):
        if varies(term, olds):
            for i in olds:
                full[i] = term.shape[i]
            for j in news:
                new[j] = shape[j]
    return jnp.broadcast_to(term.pattern, full).reshape(new)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair the axes of two shapes, those of size one aside, in the smallest groups of one size."""
    left = [i for i, size in enumerate(old) if size != 1]
    right = [i for i, size in enumerate(new) if size != 1]
    while left:
        olds, news = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(old[i] for i in olds)) != (b := math.prod(new[j] for j in news)):
            (olds.append(left.pop(0)) if a < b else news.append(right.pop(0)))
        yield olds, news


def _are_places(term: Term, axes: Sequence[int], element: Element) -> bool:
    return all(
        term.axes[i].kind == "window"
        and term.axes[i].size == 1
        and stays_inside(term.axes[i], term.shape[i], element)
        for i in axes
    )


def _joined(term: Term, axes: Sequence[int]) -> Axis:
    step, low, stride = [0] * len(term.axes[axes[0]].step), 0, 1
    for i in reversed(axes):
        step = [s + stride * t for s, t in zip(step, term.axes[i].step, strict=True)]
        low, stride = low + stride * term.axes[i].low, stride * term.shape[i]
    return Axis("window", 1, tuple(step), low)


def reduce_sum(term: Term, step: Step) -> Term:
    """Sum over axes, and leave them out."""
    over = step.params["axes"]
    term = summed(term, over, step.element)
    axes = tuple(axis for i, axis in enumerate(term.axes) if i not in over)
    pattern = None if term.pattern is None else lax.squeeze(term.pattern, over)
    return Term(lax.squeeze(term.values, over), axes, step.shape, pattern)


def dot_general(term: Term, step: Step) -> Term:
    """Multiply by a matrix: a row of it where the term is one place, once where it is the same."""
    contracted, batched = step.params["dimension_numbers"]
    if batched[0]:
        return whole_map(term, step)
    over, rows = contracted[step.place], contracted[1 - step.place]
    term = _contractible(term, over, step.element)
    matrix = step.operands[1 - step.place].astype(term.values.dtype)
    starts = [jnp.zeros((), jnp.int32)] * matrix.ndim
    sizes = list(matrix.shape)
    pattern, values = term.pattern, term.values
    same = all(term.axes[i].kind == "same" for i in over)
    for i, row in zip(over, rows, strict=True):
        axis = term.axes[i]
        if axis.kind == "window":
            starts[row], sizes[row] = begin(axis, step.element), axis.size
    if not same:
        matrix = lax.dynamic_slice(matrix, starts, sizes, allow_negative_indices=False)
    precision = step.params["precision"]

    def contract(x: Array, matrix: Array) -> Array:
        pair = (x, matrix) if step.place == 0 else (matrix, x)
        return lax.dot_general(*pair, step.params["dimension_numbers"], precision=precision)

    kept = [term.axes[i] for i in range(len(term.shape)) if i not in over]
    free = [size for i, size in enumerate(matrix.shape) if i not in rows]
    if same:
        ones = [term.shape[i] if i in over else 1 for i in range(len(term.shape))]
        full = jnp.ones(ones, values.dtype) if pattern is None else pattern
        full = jnp.broadcast_to(
            full, [term.shape[i] if i in over else n for i, n in enumerate(full.shape)]
        )
        pattern = contract(full, matrix)
        new, values = [SAME] * len(free), values.reshape([axis.size for axis in kept])
        ones = (1,) * len(free)
        values = values.reshape(
            (*values.shape, *ones) if step.place == 0 else (*ones, *values.shape)
        )
    else:
        values = contract(values, matrix)
        new = [whole(size) for size in free]
        if pattern is not None:
            left = [n for i, n in enumerate(pattern.shape) if i not in over]
            ones = [1] * len(free)
            pattern = pattern.reshape(left + ones if step.place == 0 else ones + left)
    axes = (*kept, *new) if step.place == 0 else (*new, *kept)
    return Term(values, axes, step.shape, pattern)


def _contractible(term: Term, over: Sequence[int], element: Element) -> Term:
    """Bring a term to a form in which it can be contracted over some of its axes."""
    kinds = {term.axes[i].kind for i in over}
    if kinds == {"same"}:
        return term
    if varies(term, over):
        term = localize(term, element)
    for i in over:
        axis = term.axes[i]
        if axis.kind == "same" or not stays_inside(axis, term.shape[i], element):
            term = spread(term, i, element)
    return term


def concatenate(term: Term, step: Step) -> Term:
    """Put one of the operands in its place, with zeros for the others."""
    i = step.params["dimension"]
    sizes = [v.shape[i] for v in step.operands]
    before = sum(sizes[: step.place])
    term = spread(localize(term, step.element), i, step.element)
    widths = [(0, 0, 0)] * len(term.shape)
    widths[i] = (before, sum(sizes) - before - sizes[step.place], 0)
    values = lax.pad(term.values, jnp.zeros((), term.values.dtype), widths)
    axes = (*term.axes[:i], whole(step.shape[i]), *term.axes[i + 1 :])
    return Term(values, axes, step.shape)


def axes_before(equation: Any, place: int, over: Sequence[int]) -> list[int] | None:
    """Say over which axes of an operand to sum instead of these axes of an operation's result.

    None where the sum and the operation cannot change places.
    """
    name, found = equation.primitive.name, list[int | None]()
    if name == "transpose":
        found = list(equation.params["permutation"])
    elif name in ("reshape", "squeeze", "expand_dims"):
        found = _same_places(equation)
    elif name == "dot_general":
        contracted, batched = equation.params["dimension_numbers"]
        free = [
            [i for i in range(len(atom.aval.shape)) if i not in axes]
            for atom, axes in zip(equation.invars, contracted, strict=True)
        ]
        found = free[0] + [None] * len(free[1]) if place == 0 else [None] * len(free[0]) + free[1]
        found = [] if batched[0] else found
    elif name == "conv_general_dilated" and place == 0:
        found = pointlike_axes(equation)
    before = [axis for i in over if found and (axis := found[i]) is not None]
    return before if len(before) == len(over) else None


def _same_places(equation: Any) -> list[int | None]:
    """For each axis of a reshaped array, the axis that it was, if it was one."""
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    found: list[int | None] = [None] * len(new)
    if equation.params.get("dimensions") is None or equation.primitive.name != "reshape":
        for olds, news in _groups(old, new):
            if len(olds) == len(news) == 1:
                found[news[0]] = olds[0]
    return found


LINEAR: dict[str, Callable[[Term, Step], Term]] = {
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "reduce_sum": reduce_sum,
    "dot_general": dot_general,
    "conv_general_dilated": convolve,
    "concatenate": concatenate,
    "slice": whole_map,
    "dynamic_slice": whole_map,
    "gather": whole_map,
    "pad": whole_map,
    "rev": whole_map,
    "cumsum": whole_map,
    "reduce_window_sum": whole_map,
    # Linear at a point, since they pick elements: the derivative of the choice is zero.
    "reduce_max": whole_map,
    "reduce_min": whole_map,
    "reduce_window_max": whole_map,
    "sort": whole_map,
}

POINTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "div", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "integer_pow", "log", "log1p", "logistic", "max", "min", "mul",
    "neg", "pow", "reduce_precision", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge",
    "is_finite", "floor", "ceil", "round",
}  # fmt: skip
