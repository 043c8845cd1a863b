"""Tangents along one element of ``a``, stored only where they differ.

The tangent of a value along the unit vector of one element is a sum of a few terms. A term holds
one number for each place of a *window* along some axes, one for *all* places along others, and one
number that is the *same* everywhere along the rest; times a *pattern*, an array of the value's own
shape that does not depend on the element. So a convolution's tangent is a window of its kernel, the
centring of a LayerNorm is one place and one number that is the same for all channels, and what
stands behind a global pool does not depend on the position.

Terms are written for one element, whose coordinates are traced integers, and mapped over all of
them: what does not depend on the position or the channel is not computed for each of them, because
`jax.vmap` leaves it alone. Where windows are: axes.py. Sums and products: products.py.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import (
    SAME,
    Axis,
    Element,
    as_window,
    begin,
    begins,
    ends,
    filled,
    relative,
    single,
    stays_inside,
    tabled,
    vanishes,
    whole,
)


class Term(NamedTuple):
    """``values * pattern`` on the places that ``axes`` name, zero elsewhere.

    values: as many axes as the value of shape ``shape``, of the sizes that ``axes`` say. pattern:
    the same, of size one where it is constant; None is one everywhere.
    """

    values: Array
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    pattern: Array | None = None


Tangent = list[Term]


def unit_vector(element: Element, dtype: jnp.dtype) -> Term:
    """Give the tangent of ``a`` itself: one, at one place."""
    rank = len(element.extents)
    axes = tuple(
        tabled(1, range(size), d, element) if size > 1 else SAME
        for d, size in enumerate(element.extents)
    )
    return Term(jnp.ones((1,) * rank, dtype), axes, element.extents)


def dense(values: Array) -> Term:
    """Store a tangent whole."""
    return Term(values, tuple(map(whole, values.shape)), values.shape)


# Parts of arrays.


def cut(
    array: Array, axes: Sequence[Axis], shape: Sequence[int], element: Element
) -> Array:  # fmt: skip
    """Cut the windows out of an array, zero beyond its ends; axes of size one are left."""
    widths, sizes = [(0, 0, 0)] * array.ndim, list(array.shape)
    starts: dict[int, Array] = {}
    for i, (given, full) in enumerate(zip(axes, shape, strict=True)):
        if given.kind != "window" or array.shape[i] == 1 != full:
            continue
        axis = filled(given)
        first, last = ends(axis) or (0, 0)
        sizes[i], below, above = axis.size, -first, last + axis.size - full
        if first == last:
            widths[i] = (below, above, 0)
            continue
        # Of what lies beyond the ends, no more than one window is ever seen.
        below, above = min(max(0, below), axis.size), min(max(0, above), axis.size)
        widths[i], starts[i] = (below, above, 0), begin(axis, element) + below
        if first < -below or last > full:
            starts[i] = jnp.clip(starts[i], 0, full + below + above - axis.size)
    if any(width != (0, 0, 0) for width in widths):
        array = lax.pad(array, jnp.zeros((), array.dtype), widths)
    if not starts or tuple(sizes) == array.shape:
        return array
    zero = jnp.zeros((), jnp.int32)
    begun = [starts.get(i, zero) for i in range(array.ndim)]
    return lax.dynamic_slice(array, begun, sizes, allow_negative_indices=False)


def along(i: int, vector: Array, rank: int) -> Array:
    """Lay a vector along one axis."""
    return vector.reshape([-1 if j == i else 1 for j in range(rank)])


def one_of_each(array: Array, axes: Iterable[int]) -> Array:
    """Keep one place along axes on which an array is constant."""
    for i in axes:
        array = lax.slice_in_dim(array, 0, 1, axis=i)
    return array


# One term.


def times(term: Term, pattern: Array | None, element: Element) -> Term:
    """Multiply by an array that does not depend on the element."""
    return term._replace(pattern=joint(term.pattern, pattern, element))


def joint(p: Array | None, q: Array | None, element: Element) -> Array | None:
    """Multiply two patterns; the same two give the same array."""
    if p is None or q is None:
        return q if p is None else p
    key = (min(id(p), id(q)), max(id(p), id(q)))
    if key not in element.done:
        element.done[key] = (p, q, p * q)  # p and q stay alive, so that no other has their id
    return element.done[key][2]


def varies(term: Term, axes: Iterable[int]) -> bool:
    """Say whether a term's pattern varies along any of these axes."""
    return term.pattern is not None and any(term.pattern.shape[i] > 1 for i in axes)


def localize(term: Term, element: Element) -> Term:
    """Multiply the pattern in."""
    if term.pattern is None:
        return term
    axes = tuple(
        axis if size == 1 else whole(full) if axis.kind == "same" else axis._replace(clean=True)
        for axis, full, size in zip(term.axes, term.shape, term.pattern.shape, strict=True)
    )
    part = cut(term.pattern, term.axes, term.shape, element)
    return Term(term.values * part, axes, term.shape)


def on(term: Term, i: int, axis: Axis, values: Array | None = None) -> Term:
    """Change one axis of a term, and its values."""
    axes = (*term.axes[:i], axis, *term.axes[i + 1 :])
    return term._replace(axes=axes, values=term.values if values is None else values)


def resized(term: Term, i: int, size: int) -> Term:
    """Say that one axis of the value has another size."""
    return term._replace(shape=(*term.shape[:i], size, *term.shape[i + 1 :]))


def mask(term: Term, i: int, element: Element, first: int = 0, last: int | None = None) -> Array:
    """Mark the places of a window that are on the axis, or from ``first`` to before ``last``."""
    last = term.shape[i] if last is None else last
    axis = term.axes[i]
    places = begin(axis, element) + jnp.arange(axis.size, dtype=jnp.int32)
    inside = ((places >= first) & (places < last)).astype(term.values.dtype)
    return along(i, inside, len(term.shape))


def kept(term: Term, i: int, first: int, last: int, element: Element) -> Tangent:
    """Put zeros on all places of a window but those from ``first`` to before ``last``.

    Nothing is left where no element has its window there; elements whose own is elsewhere are
    marked in the axis.
    """
    axis = term.axes[i]
    reach = ends(axis)
    if reach is None or reach[1] + axis.size <= first or reach[0] >= last:
        return []
    if reach[0] >= first and reach[1] + axis.size <= last:
        return [on(term, i, axis._replace(clean=True))]
    values = term.values * mask(term, i, element, first, last)
    d = single(axis)
    if d is not None:
        table = [
            b if b is not None and b + axis.size > first and b < last else None
            for b in begins(axis, d, element)
        ]
        axis = tabled(axis.size, table, d, element)
        if vanishes(axis):
            return []
    return [on(term, i, axis._replace(clean=True), values)]


def trimmed(term: Term, element: Element) -> Term:
    """Leave out of windows what lies beyond the ends, where that makes them smaller.

    So of what a padding has repeated no more is left than is seen of it.
    """
    for i, (axis, full) in enumerate(zip(term.axes, term.shape, strict=True)):
        d = single(axis)
        if axis.kind != "window" or d is None or vanishes(axis):
            continue
        spans = [
            None if b is None else (min(max(b, 0), full), max(0, min(b + axis.size, full)))
            for b in begins(axis, d, element)
        ]
        size = max(1, *(high - low for low, high in filter(None, spans)))
        if size < axis.size:
            table = [span and max(0, min(span[0], full - size)) for span in spans]
            new = tabled(size, table, d, element)
            term = placed(term, [*term.axes[:i], new, *term.axes[i + 1 :]], element)
    return term


def cleaned(term: Term, over: Iterable[int], element: Element) -> Term:
    """Put zeros where windows along these axes lie beyond the ends."""
    for i in over:
        axis = term.axes[i]
        if not (axis.clean or stays_inside(axis, term.shape[i])):
            values = term.values * mask(term, i, element)
            term = on(term, i, axis._replace(clean=True), values)
    return term


def placed(term: Term, new: Sequence[Axis], element: Element) -> Term:
    """Store a term on other axes, with zeros where it has nothing; its pattern stays."""
    parts, repeated = [], []
    for old, axis in zip(term.axes, new, strict=True):
        same = old.kind == "same"
        repeated.append(axis.size if same else old.size)
        moved = not same and old != axis
        windows = as_window(axis, element), as_window(old, element)
        parts.append(relative(*windows) if moved else SAME)
    values = cut(term.values, parts, term.values.shape, element)
    shape = [n if axis.kind == "same" else m
             for n, m, axis in zip(repeated, values.shape, term.axes, strict=True)]  # fmt: skip
    return term._replace(values=jnp.broadcast_to(values, shape), axes=tuple(new))


def spread(term: Term, i: int, element: Element) -> Term:
    """Store a term whole along one axis; its pattern stays."""
    axis, full = term.axes[i], term.shape[i]
    if axis.kind == "window" and axis.size == 1:
        here = jnp.arange(full, dtype=jnp.int32) == begin(axis, element)
        here = along(i, here.astype(term.values.dtype), len(term.shape))
        return on(term, i, whole(full), term.values * here)
    return placed(term, [*term.axes[:i], whole(full), *term.axes[i + 1 :]], element)


def spread_all(term: Term, element: Element) -> Term:
    """Store a term whole, and multiply its pattern in."""
    for i in range(len(term.shape)):
        term = spread(term, i, element)
    return localize(term, element)
