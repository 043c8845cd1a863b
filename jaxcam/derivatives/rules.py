"""What an operation does to a tangent: one table, a line for each operation.

A rule takes a term of the tangent of the one operand that varies and gives the term of the result.
To add an operation: name it in `POINTWISE`, or give it a line in `LINEAR`. An operation without a
line is differentiated as a whole (adjoint.py), which is slower and never wrong.
"""

import functools
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
    return Term(values, tuple(axes), step.shape, _reshaped_pattern(term, step.shape), term.clean)


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
        values = values.reshape(
            (*values.shape, *ones) if step.place == 0 else (*ones, *values.shape)
        )
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
    params, numbers = step.params, step.params["dimension_numbers"]
    batch, channel, *spatial = numbers.lhs_spec
    plain = all(d == 1 for d in params["lhs_dilation"]) and params["batch_group_count"] == 1
    if step.place == 1 or not plain or term.shape[batch] != 1:
        return whole_map(term, step)
    sides = [
        Side(i, size, dilation, stride, pads, step.shape[out])
        for i, size, dilation, stride, pads, out in zip(
            spatial, (step.operands[1].shape[i] for i in numbers.rhs_spec[2:]),
            params["rhs_dilation"], params["window_strides"], params["padding"],
            numbers.out_spec[2:], strict=True,
        )
    ]  # fmt: skip
    term = localize(term, step.element)
    for side in sides:
        if not _stays_small(term.axes[side.axis], side, term.shape[side.axis]):
            term = spread(term, side.axis, step.element)
    order = (*numbers.rhs_spec[2:], *numbers.rhs_spec[1::-1])
    kernel = lax.transpose(step.operands[1], order).astype(term.values.dtype)  # [*sizes, in, out]
    term, kernel, groups, out_axis = _channels(term, kernel, channel, step)
    axes = [_convolved(term.axes[side.axis], side) for side in sides]
    x = lax.transpose(term.values, (batch, *spatial, channel))
    if groups == 1 and all(axis.kind == "window" for axis in axes):
        found = _overlap_add(x, kernel, params["rhs_dilation"], params["precision"])
    else:
        rank = x.ndim
        data = (0, rank - 1, *range(1, rank - 1))
        pads = [_pads(axis, side) for axis, side in zip(axes, sides, strict=True)]
        found = lax.conv_general_dilated(
            x, kernel, params["window_strides"], pads, rhs_dilation=params["rhs_dilation"],
            dimension_numbers=lax.ConvDimensionNumbers(
                data, (rank - 1, rank - 2, *range(rank - 2)), data
            ),
            feature_group_count=groups, precision=params["precision"],
        )  # fmt: skip
    places = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    back = sorted(range(x.ndim), key=lambda i: places[i])
    last = (term.axes[batch], *axes, out_axis)
    clean = all(axis.kind != "window" for axis in axes)
    return Term(
        lax.transpose(found, back), tuple(last[i] for i in back), step.shape, clean=clean
    )  # fmt: skip


class Side(NamedTuple):
    """A convolution along one axis: of the operand, ``size`` of the kernel, ``out`` places."""

    axis: int
    size: int
    dilation: int
    stride: int
    pads: tuple[int, int]
    out: int

    @property
    def reach(self) -> int:
        """How far the kernel reaches beyond one place."""
        return (self.size - 1) * self.dilation

    @property
    def pointlike(self) -> bool:
        """Whether every place goes to itself alone."""
        return self.size == self.stride == 1 and tuple(self.pads) == (0, 0)


def _stays_small(axis: Axis, side: Side, full: int) -> bool:
    if side.pointlike:
        return True
    return (
        axis.kind == "window"
        and side.stride == 1 < side.out  # an axis of size one has no windows
        and axis.size + side.reach < full
    )


def _convolved(axis: Axis, side: Side) -> Axis:
    if axis.kind == "window":
        low = axis.low + side.pads[0] - side.reach
        return Axis("window", axis.size + side.reach, axis.step, low)
    return axis if side.pointlike else whole(side.out)


def _pads(axis: Axis, side: Side) -> tuple[int, int]:
    return (side.reach, side.reach) if axis.kind == "window" else side.pads


def _channels(
    term: Term, kernel: Array, channel: int, step: Step
) -> tuple[Term, Array, int, Axis]:  # fmt: skip
    """Take the part of the kernel that one channel meets; else store all channels."""
    groups, axis = step.params["feature_group_count"], term.axes[channel]
    if axis.kind == "window" and axis.size == 1:
        here = begin(axis, step.element)
        if groups == 1:
            kernel = lax.dynamic_slice_in_dim(kernel, here, 1, kernel.ndim - 2)
            return term, kernel, 1, whole(kernel.shape[-1])
        if groups == term.shape[channel] == kernel.shape[-1]:
            kernel = lax.dynamic_slice_in_dim(kernel, here, 1, kernel.ndim - 1)
            return term, kernel, 1, axis
    return spread(term, channel, step.element), kernel, groups, whole(kernel.shape[-1])


def _overlap_add(x: Array, kernel: Array, dilations: Sequence[int], precision: Any) -> Array:
    """Convolve a small window ``[1, *n, in]`` that stands among zeros, each product once.

    Every place of the window sends a copy of the kernel; a convolution of the padded window would
    multiply mostly zeros.
    """
    sizes = kernel.shape[:-2]
    rank = len(sizes)
    flipped = lax.rev(kernel, tuple(range(rank)))
    over = (((rank,), (rank,)), ((), ()))
    copies = lax.dot_general(x[0], flipped, over, precision=precision)  # [*n, *kernel, out]
    zero = jnp.zeros((), copies.dtype)
    for d, (size, dilation) in enumerate(zip(sizes, dilations, strict=True)):
        moved = []
        for k in range(size):  # the axis of the kernel that stands first among those left
            part = lax.index_in_dim(copies, k, rank, keepdims=False)
            widths = [(0, 0, 0)] * part.ndim
            widths[d] = (k * dilation, (size - 1 - k) * dilation, 0)
            moved.append(lax.pad(part, zero, widths))
        copies = functools.reduce(jnp.add, moved)
    return copies[None]


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
