"""What a convolution does to a tangent: a window of it becomes a larger window."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import (
    SAME,
    Axis,
    begin,
    filled,
    mapped,
    relative,
    stays_inside,
    whole,
)
from jaxcam.derivatives.tangents.sliding import Side, every, seen, slid, stretched
from jaxcam.derivatives.tangents.step import Step, whole_map
from jaxcam.derivatives.tangents.terms import Tangent, Term, cleaned, cut, localize, spread, trimmed


def convolve(term: Term, step: Step) -> Tangent:
    """Convolve: a window grows by the kernel, and is stored whole once it covers the map."""
    numbers = step.params["dimension_numbers"]
    batch, channel, *spatial = numbers.lhs_spec
    if step.place == 1 or not _is_plain(step.equation):
        return whole_map(term, step)
    sides = _sides(step.equation, step.shape)
    term = cleaned(localize(term, step.element), (*spatial, channel), step.element)
    term = spread(term, batch, step.element)
    axes = [_convolved(term, side, step) for side in sides]
    for side, new in zip(sides, axes, strict=True):
        if not side.pointlike and new.kind != "window":
            term = spread(term, side.axis, step.element)
    order = (*numbers.rhs_spec[2:], *numbers.rhs_spec[1::-1])
    kernel = lax.transpose(step.operands[1], order).astype(term.values.dtype)  # [*sizes, in, out]
    term, kernel, groups, out_axis = _channels(term, kernel, channel, step)
    if groups == 1 and all(axis.kind == "window" for axis in axes) and _few(term, sides, axes):
        convolved = _sent(term, kernel, sides, axes, step)
    else:
        convolved = _seen(term, kernel, groups, sides, axes, step)
    places = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    back = sorted(range(convolved.ndim), key=lambda i: places[i])
    last = (SAME, *axes, out_axis)
    term = Term(lax.transpose(convolved, back), tuple(last[i] for i in back), step.shape)
    return [trimmed(term, step.element)]


def pointlike_axes(equation: Any) -> list[int | None]:
    """For each axis of the result, the one of the operand whose places go to themselves alone."""
    numbers, shape = equation.params["dimension_numbers"], equation.outvars[0].aval.shape
    origins: list[int | None] = [None] * len(shape)
    for side, out in zip(_sides(equation, shape), numbers.out_spec[2:], strict=True):
        if side.pointlike and _is_plain(equation):
            origins[out] = side.axis
    return origins


def _is_plain(equation: Any) -> bool:
    """Say whether it is one image that is convolved."""
    params = equation.params
    images = equation.invars[0].aval.shape[params["dimension_numbers"].lhs_spec[0]]
    return images == params["batch_group_count"] == 1


def _sides(equation: Any, result: Sequence[int]) -> list[Side]:
    """Describe a convolution with a result of this shape, along each of its axes."""
    params, kernel = equation.params, equation.invars[1].aval.shape
    numbers = params["dimension_numbers"]
    return [
        Side(i, kernel[of_kernel], dilation, stride, pads, expansion, result[out])
        for i, of_kernel, dilation, stride, pads, expansion, out in zip(
            numbers.lhs_spec[2:], numbers.rhs_spec[2:], params["rhs_dilation"],
            params["window_strides"], params["padding"], params["lhs_dilation"],
            numbers.out_spec[2:], strict=True,
        )
    ]  # fmt: skip


def _convolved(term: Term, side: Side, step: Step) -> Axis:
    axis = term.axes[side.axis]
    if side.pointlike:
        return axis
    return slid(axis, side, step.element) or whole(side.out)


def _few(term: Term, sides: Sequence[Side], axes: Sequence[Axis]) -> bool:
    """Say whether it is less work to send each place's products on than to gather them."""
    sent = math.prod(term.axes[side.axis].size for side in sides)
    return sent <= math.prod(axis.size for axis in axes)


def _sent(
    term: Term, kernel: Array, sides: Sequence[Side], axes: Sequence[Axis], step: Step
) -> Array:
    """Send a copy of the kernel from every place, and keep what a stride does not pass over."""
    batch, channel, *spatial = step.params["dimension_numbers"].lhs_spec
    x = lax.transpose(term.values, (batch, *spatial, channel))
    sent = _overlap_add(x, kernel, sides, step.params["precision"])
    for n, (side, new) in enumerate(zip(sides, axes, strict=True), 1):
        if side.stride > 1:
            old = stretched(term.axes[side.axis], side)
            strided = [whole(size) for size in sent.shape]
            strided[n] = _between(new, old, side.stride)
            sent = cut(sent, strided, sent.shape, step.element)
            sent = every(sent, n, 0, side.stride, new.size)
    return sent


def _seen(
    term: Term, kernel: Array, groups: int, sides: Sequence[Side], axes: Sequence[Axis], step: Step
) -> Array:
    """Convolve the places that the result sees."""
    params = step.params
    batch, channel, *spatial = params["dimension_numbers"].lhs_spec
    pads, expansions = [], []
    for side, new in zip(sides, axes, strict=True):
        windowed = not side.pointlike and new.kind == "window"
        pads.append((0, 0) if windowed else side.pads)
        expansions.append(1 if windowed else side.expansion)
        if windowed:
            term = seen(term, side, new, step.element)
    x = lax.transpose(term.values, (batch, *spatial, channel))
    rank = x.ndim
    data = (0, rank - 1, *range(1, rank - 1))
    return lax.conv_general_dilated(
        x, kernel, params["window_strides"], pads, expansions, params["rhs_dilation"],
        dimension_numbers=lax.ConvDimensionNumbers(
            data, (rank - 1, rank - 2, *range(rank - 2)), data
        ),
        feature_group_count=groups, precision=params["precision"],
    )  # fmt: skip


def _between(new: Axis, old: Axis, stride: int) -> Axis:
    """Give the places of ``old`` from the first to the last that ``new`` keeps."""
    first = mapped(filled(new), stride, 0, stride * (new.size - 1) + 1, clean=False)
    return relative(first, old)


def _channels(
    term: Term, kernel: Array, channel: int, step: Step
) -> tuple[Term, Array, int, Axis]:  # fmt: skip
    """Take the part of the kernel that a window of channels meets; else store all channels."""
    groups, axis = step.params["feature_group_count"], term.axes[channel]
    if axis.kind == "window" and stays_inside(axis, term.shape[channel]):
        here = begin(axis, step.element)
        if groups == 1:
            kernel = _at(kernel, here, axis.size, kernel.ndim - 2)
            return term, kernel, 1, whole(kernel.shape[-1])
        if groups == term.shape[channel] == kernel.shape[-1]:
            kernel = _at(kernel, here, axis.size, kernel.ndim - 1)
            return term, kernel, axis.size, axis
    return spread(term, channel, step.element), kernel, groups, whole(kernel.shape[-1])


def _at(kernel: Array, place: Array, size: int, axis: int) -> Array:
    return lax.dynamic_slice_in_dim(kernel, place, size, axis, allow_negative_indices=False)


def _overlap_add(x: Array, kernel: Array, sides: Sequence[Side], precision: Any) -> Array:
    """Convolve a small window ``[1, *n, in]`` that stands among zeros, each product once.

    Every place of the window sends a copy of the kernel; a convolution of the padded window would
    multiply mostly zeros.
    """
    sizes = kernel.shape[:-2]
    rank = len(sizes)
    flipped = lax.rev(kernel, tuple(range(rank)))
    over = (((rank,), (rank,)), ((), ()))
    copies = lax.dot_general(x[0], flipped, over, precision=precision)  # [*n, *kernel, out]
    places = copies.shape[:rank]
    if math.prod(places) == 1 and all(side.dilation == 1 for side in sides):
        return copies.reshape(1, *sizes, -1)  # one place becomes a copy of the kernel
    spans = [side.expansion * (n - 1) + 1 for side, n in zip(sides, places, strict=True)]
    shape = [span + side.reach for side, span in zip(sides, spans, strict=True)]
    total = jnp.zeros((*shape, copies.shape[-1]), copies.dtype)
    for taps in itertools.product(*map(range, sizes)):
        begins = [tap * side.dilation for tap, side in zip(taps, sides, strict=True)]
        there = tuple(
            slice(b, b + span, side.expansion)
            for b, span, side in zip(begins, spans, sides, strict=True)
        )
        # Added in place: a sum of padded copies, one for each tap, takes three times as long.
        total = total.at[there].add(copies[(..., *taps, slice(None))])
    return total[None]
