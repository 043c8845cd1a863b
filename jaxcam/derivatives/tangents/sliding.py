"""Operations that slide a window of their own along axes: convolutions and pooling.

Along an axis, place ``q`` of the result sees the places ``stride q - pad + dilation t`` of the
operand, ``t < size``, after ``expansion - 1`` zeros were put between its places.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import Axis, Element, begins, filled, mapped, single, tabled
from jaxcam.derivatives.tangents.terms import Term, on, placed, resized


class Side(NamedTuple):
    """What slides along one axis of the operand; ``out`` places come of it."""

    axis: int
    size: int
    dilation: int
    stride: int
    pads: tuple[int, int]
    expansion: int
    out: int

    @property
    def reach(self) -> int:
        """How far it reaches beyond one place."""
        return (self.size - 1) * self.dilation

    @property
    def pointlike(self) -> bool:
        """Whether every place goes to itself alone."""
        plain = self.size == self.stride == self.expansion == 1
        return plain and tuple(self.pads) == (0, 0)


def slid(axis: Axis, side: Side, element: Element) -> Axis | None:
    """Give the window of the result that a window is seen in, or None where it grows too wide."""
    if axis.kind != "window":
        return None
    window = strided(stretched(axis, side), side.stride, element)
    return window if window is not None and window.size < side.out else None


def stretched(axis: Axis, side: Side) -> Axis:
    """Give the window of the result as if the stride were one."""
    size = side.expansion * (axis.size - 1) + 1 + side.reach
    return mapped(axis, side.expansion, side.pads[0] - side.reach, size, clean=False)


def strided(axis: Axis, stride: int, element: Element) -> Axis | None:
    """Give the window of those places of a window that are multiples of a stride."""
    d = single(axis)
    if stride == 1:
        return axis
    if d is None:
        return None
    spans = [
        None if b is None else (-(-b // stride), (b + axis.size - 1) // stride + 1)
        for b in begins(axis, d, element)
    ]
    size = max((high - low for low, high in filter(None, spans)), default=0)
    table = [None if span is None or span[0] == span[1] else span[0] for span in spans]
    return tabled(max(1, size), table, d, element, clean=axis.clean)


def seen(term: Term, side: Side, new: Axis, element: Element) -> Term:
    """Store a term on those places, zeros between them included, that a window of the result sees.

    They begin at ``stride begin - pad``: there the operation needs no padding of its own.
    """
    i, axis = side.axis, term.axes[side.axis]
    if side.expansion > 1:
        widths = [(0, 0, side.expansion - 1 if i == j else 0) for j in range(len(term.shape))]
        values = lax.pad(term.values, jnp.zeros((), term.values.dtype), widths)
        axis = mapped(axis, side.expansion, 0, values.shape[i], clean=axis.clean)
        term = resized(on(term, i, axis, values), i, side.expansion * (term.shape[i] - 1) + 1)
    size = side.stride * (new.size - 1) + side.reach + 1
    needed = mapped(filled(new), side.stride, -side.pads[0], size, clean=False)
    return placed(term, [*term.axes[:i], needed, *term.axes[i + 1 :]], element)


def every(values: Array, i: int, start: int, stride: int, count: int) -> Array:
    """Take ``count`` places of an axis, a stride apart."""
    return lax.slice_in_dim(values, start, start + stride * (count - 1) + 1, stride, i)


def product_of_sizes(sides: Sequence[Side]) -> int:
    """Count the places that one of the result sees."""
    return math.prod(side.size for side in sides)
