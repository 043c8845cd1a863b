"""What an operation does to a tangent: one table, a line for each operation.

A rule takes a term of the tangent of the one operand that varies and gives the term of the result.
To add an operation: name it in `POINTWISE`, or give it a line in `LINEAR`. An operation without a
line is differentiated as a whole (adjoint.py), which is slower and never wrong.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.structure import run
from jaxcam.derivatives.tangents import (
    SAME,
    Axis,
    Element,
    Term,
    begin,
    dense,
    localize,
    spread,
    spread_all,
    stays_inside,
    varies,
    whole,
)


class Step(NamedTuple):
    """One operation at the point: its equation, its operands' values, and which one varies."""

    equation: Any
    operands: Sequence[Any]
    place: int
    element: Element

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return self.equation.outvars[0].aval.shape

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the operation."""
        return self.equation.params


def whole_map(term: Term, step: Step) -> Term:
    """Apply an operation to the tangent stored whole."""
    x = step.operands[step.place]
    values = spread_all(term, step.element).values

    def apply(x: Array) -> Array:
        operands = [x if i == step.place else v for i, v in enumerate(step.operands)]
        return run(step.equation, operands)[0]

    moved = jax.jvp(apply, (x,), (values.astype(x.dtype),))[1]
    return dense(moved.astype(values.dtype))


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
        term.clean,
    )


def transpose(term: Term, step: Step) -> Term:
    """Take the axes in another order."""
    order = step.params["permutation"]
    return Term(
        lax.transpose(term.values, order),
        tuple(term.axes[i] for i in order),
        step.shape,
        None if term.pattern is None else lax.transpose(term.pattern, order),
        term.clean,
    )


def reshape(term: Term, step: Step) -> Term:
    """Join or divide axes: windows of one place can be joined, the rest is stored whole."""
    if step.params.get("dimensions") is not None:
        return whole_map(term, step)
    axes = [SAME] * len(step.shape)
    pattern_old = list(term.shape)
    pattern_new = [1] * len(step.shape)
    for olds, news in _groups(term.shape, step.shape):
        if varies(term, olds):
            for j in news:
                pattern_new[j] = step.shape[j]
        else:
            for i in olds:
                pattern_old[i] = 1
        kinds = {term.axes[i].kind for i in olds}
        if len(olds) == len(news) == 1:
            axes[news[0]] = term.axes[olds[0]]
        elif kinds == {"same"}:
            pass
        elif len(news) == 1 and _are_places(term, olds, step.element):
            axes[news[0]] = _joined(term, olds)
        else:
            for i in olds:
                term = spread(term, i, step.element)
            for j in news:
                axes[j] = whole(step.shape[j])
    for i, size in enumerate(term.shape):
        if size == 1:
            pattern_old[i] = 1
    pattern = term.pattern
    if pattern is not None:
        pattern = jnp.broadcast_to(pattern, pattern_old).reshape(pattern_new)
    values = term.values.reshape([axis.size for axis in axes])
    return Term(values, tuple(axes), step.shape, pattern, term.clean)


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair the axes of two shapes, those of size one aside, into the smallest groups of one size."""
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
    """Sum over axes; where a term is the same along them, only its pattern is summed."""
    over = step.params["axes"]
    rest = [i for i in range(len(term.shape)) if i not in over]
    if varies(term, over) and any(term.axes[i].kind != "same" for i in over):
        term = localize(term, step.element)
    if not varies(term, over):
        pattern, term = term.pattern, localize(term._replace(pattern=None), step.element)
        term = term._replace(pattern=pattern)
    values, pattern = term.values, term.pattern
    for i in over:
        if varies(term, [i]) and pattern is not None:
            pattern = pattern.sum(i, keepdims=True)
        elif term.axes[i].kind == "same":
            values = values * term.shape[i]
    values = values.sum(over)
    pattern = None if pattern is None else pattern.reshape([pattern.shape[i] for i in rest])
    return Term(values, tuple(term.axes[i] for i in rest), step.shape, pattern, term.clean)


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
    part = matrix if same else lax.dynamic_slice(matrix, starts, sizes)
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
        pattern = contract(full, part)
        new, values = [SAME] * len(free), values.reshape([axis.size for axis in kept])
        ones = (1,) * len(free)
        values = values.reshape((*values.shape, *ones) if step.place == 0 else (*ones, *values.shape))
    else:
        values = contract(values, part)
        new = [whole(size) for size in free]
        if pattern is not None:
            left = [n for i, n in enumerate(pattern.shape) if i not in over]
            ones = [1] * len(free)
            pattern = pattern.reshape(left + ones if step.place == 0 else ones + left)
    axes = (*kept, *new) if step.place == 0 else (*new, *kept)
    return Term(values, axes, step.shape, pattern, term.clean)


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


def convolve(term: Term, step: Step) -> Term:
    """Convolve: a window grows by the kernel, and is stored whole once it covers the map."""
    params = step.params
    numbers = params["dimension_numbers"]
    groups = params["feature_group_count"]
    plain = all(d == 1 for d in params["lhs_dilation"]) and params["batch_group_count"] == 1
    batch, channel, *spatial = numbers.lhs_spec
    if step.place == 1 or not plain or term.shape[batch] != 1:
        return whole_map(term, step)
    kernel = lax.transpose(step.operands[1], (*numbers.rhs_spec[2:], *numbers.rhs_spec[1::-1]))
    kernel = kernel.astype(term.values.dtype)  # [*window, in, out]
    term = localize(term, step.element)
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    sizes, outputs = kernel.shape[:-2], [step.shape[i] for i in numbers.out_spec[2:]]
    reach = [(n - 1) * d for n, d in zip(sizes, dilations, strict=True)]
    for i, grown, stride, (low, high) in zip(spatial, reach, strides, params["padding"], strict=True):
        axis, full = term.axes[i], term.shape[i]
        pointlike = grown == 0 and stride == 1 and low == high == 0
        if axis.kind == "all" or pointlike:
            continue
        if axis.kind == "same" or stride != 1 or axis.size + grown >= full:
            term = spread(term, i, step.element)
    term = spread(term, batch, step.element)
    depthwise = groups == term.shape[channel] == kernel.shape[-1]
    one = term.axes[channel].kind == "window" and term.axes[channel].size == 1
    if one and depthwise:
        here = begin(term.axes[channel], step.element)
        kernel = lax.dynamic_slice_in_dim(kernel, here, 1, kernel.ndim - 1)
        groups, out_axis = 1, term.axes[channel]
    elif one and groups == 1:
        here = begin(term.axes[channel], step.element)
        kernel = lax.dynamic_slice_in_dim(kernel, here, 1, kernel.ndim - 2)
        out_axis = whole(kernel.shape[-1])
    else:
        term = spread(term, channel, step.element)
        out_axis = whole(kernel.shape[-1])
    x = lax.transpose(term.values, (batch, *spatial, channel))
    axes, padding = [], []
    for i, grown, stride, pads, out in zip(
        spatial, reach, strides, params["padding"], outputs, strict=True
    ):
        axis = term.axes[i]
        if axis.kind == "window":
            axes.append(Axis("window", axis.size + grown, axis.step, axis.low + pads[0] - grown))
            padding.append((grown, grown))
        elif axis.kind == "same" and term.shape[i] != 1:
            axes.append(SAME)
            padding.append((0, 0))
        else:
            axes.append(whole(out))
            padding.append(pads)
    windows = all(axis.kind == "window" for axis in axes)
    if windows and groups == 1:
        found = _overlap_add(x, kernel, dilations, params["precision"])
    else:
        found = lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=dilations, feature_group_count=groups,
            dimension_numbers=lax.ConvDimensionNumbers(*_last(x.ndim)),
            precision=params["precision"],
        )  # fmt: skip
    order = [0] * x.ndim
    for place, i in enumerate((numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])):
        order[i] = place
    all_axes = (term.axes[batch], *axes, out_axis)
    return Term(
        lax.transpose(found, order),
        tuple(all_axes[i] for i in order),
        step.shape,
        clean=all(axis.kind != "window" for axis in axes),
    )


def _last(rank: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Number the axes of a convolution with channels last."""
    data = (0, rank - 1, *range(1, rank - 1))
    return data, (rank - 1, rank - 2, *range(rank - 2)), data


def _overlap_add(x: Array, kernel: Array, dilations: Sequence[int], precision: Any) -> Array:
    """Convolve a small window ``[1, *n, in]`` that stands among zeros, each product once.

    Every place of the window sends a copy of the kernel; a convolution of the padded window would
    multiply mostly zeros.
    """
    *sizes, _, out = kernel.shape
    flipped = lax.rev(kernel, tuple(range(len(sizes))))
    sent = lax.dot_general(x[0], flipped, (((x.ndim - 2,), (len(sizes),)), ((), ())),
                           precision=precision)  # fmt: skip  [*n, *kernel, out]
    n = x.shape[1:-1]
    zero = jnp.zeros((), sent.dtype)
    # One axis after the other: the copies of a place lie where the place is.
    for d, (size, dilation) in enumerate(zip(sizes, dilations, strict=True)):
        rank = len(n)
        where = rank  # the kernel axis that stands first among those left
        moved = 0
        for k in range(size):
            part = lax.index_in_dim(sent, k, where, keepdims=False)
            widths = [(0, 0, 0)] * part.ndim
            widths[d] = (k * dilation, (size - 1 - k) * dilation, 0)
            moved = moved + lax.pad(part, zero, widths)
        sent = moved
    return sent[None]


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
    return Term(values, axes, step.shape, clean=term.clean)


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
