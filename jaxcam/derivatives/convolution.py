"""What a convolution does to a tangent: a window of it becomes a larger window."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.step import Step, whole_map
from jaxcam.derivatives.tangents import Axis, Term, begin, cleaned, localize, spread, whole


def convolve(term: Term, step: Step) -> Term:
    """Convolve: a window grows by the kernel, and is stored whole once it covers the map."""
    numbers = step.params["dimension_numbers"]
    batch, channel, *spatial = numbers.lhs_spec
    if step.place == 1 or not _is_plain(step.equation):
        return whole_map(term, step)
    params, sides = step.params, _sides(step.equation, step.shape)
    term = cleaned(localize(term, step.element), spatial, step.element)
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
    return Term(lax.transpose(found, back), tuple(last[i] for i in back), step.shape)


def pointlike_axes(equation: Any) -> list[int | None]:
    """For each axis of the result, the one of the operand whose places go to themselves alone."""
    numbers, shape = equation.params["dimension_numbers"], equation.outvars[0].aval.shape
    found: list[int | None] = [None] * len(shape)
    for side, out in zip(_sides(equation, shape), numbers.out_spec[2:], strict=True):
        if side.pointlike and _is_plain(equation):
            found[out] = side.axis
    return found


def _is_plain(equation: Any) -> bool:
    """Say whether one image is convolved, and its places are not spread out before."""
    params = equation.params
    images = equation.invars[0].aval.shape[params["dimension_numbers"].lhs_spec[0]]
    plain = all(d == 1 for d in params["lhs_dilation"])
    return plain and images == params["batch_group_count"] == 1


def _sides(equation: Any, result: Sequence[int]) -> list["Side"]:
    """Describe a convolution with a result of this shape, along each of its axes."""
    params, kernel = equation.params, equation.invars[1].aval.shape
    numbers = params["dimension_numbers"]
    return [
        Side(i, kernel[of_kernel], dilation, stride, pads, result[out])
        for i, of_kernel, dilation, stride, pads, out in zip(
            numbers.lhs_spec[2:], numbers.rhs_spec[2:], params["rhs_dilation"],
            params["window_strides"], params["padding"], numbers.out_spec[2:], strict=True,
        )
    ]  # fmt: skip


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
        return Axis("window", axis.size + side.reach, axis.step, low, clean=side.pointlike)
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
            kernel = _at(kernel, here, kernel.ndim - 2)
            return term, kernel, 1, whole(kernel.shape[-1])
        if groups == term.shape[channel] == kernel.shape[-1]:
            kernel = _at(kernel, here, kernel.ndim - 1)
            return term, kernel, 1, axis
    return spread(term, channel, step.element), kernel, groups, whole(kernel.shape[-1])


def _at(kernel: Array, place: Array, axis: int) -> Array:
    return lax.dynamic_slice_in_dim(kernel, place, 1, axis, allow_negative_indices=False)


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
    places = copies.shape[:rank]
    reach = [(size - 1) * dilation for size, dilation in zip(sizes, dilations, strict=True)]
    if math.prod(places) == 1 and not any(d > 1 for d in dilations):
        return copies.reshape(1, *sizes, -1)  # one place becomes a copy of the kernel
    shape = [n + more for n, more in zip(places, reach, strict=True)]
    found = jnp.zeros((*shape, copies.shape[-1]), copies.dtype)
    for taps in itertools.product(*map(range, sizes)):
        begins = [tap * dilation for tap, dilation in zip(taps, dilations, strict=True)]
        there = tuple(slice(b, b + n) for b, n in zip(begins, places, strict=True))
        # Added in place: a sum of padded copies, one for each tap, takes three times as long.
        found = found.at[there].add(copies[(..., *taps, slice(None))])
    return found[None]
