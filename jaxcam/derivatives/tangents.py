"""Tangents along one element of ``a``, stored only where they differ.

The tangent of a value along the unit vector of one element is a sum of a few terms. A term holds
one number for each place of a *window* along some axes, one for *all* places along others, and one
number that is the *same* everywhere along the rest; times a *pattern*, an array of the value's own
shape that does not depend on the element. So a convolution's tangent is a window of its kernel, the
centring of a LayerNorm is one place and one number that is the same for all channels, and what
stands behind a global pool does not depend on the position.

Terms are written for one element, whose coordinates are traced integers, and mapped over all of
them: what does not depend on the position or the channel is not computed for each of them, because
`jax.vmap` leaves it alone. Sums and products are in products.py.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Axis(NamedTuple):
    """How a term extends along one axis: ``size`` numbers, for ``all`` places, for a ``window`` or
    the ``same`` one for all. A window begins at ``step . coordinates + low`` and may run over the
    ends of the axis; what it holds there does not count, and is known to be zero if it is
    ``clean``.
    """

    kind: Literal["all", "same", "window"]
    size: int
    step: tuple[int, ...] = ()
    low: int = 0
    clean: bool = True


class Element(NamedTuple):
    """The element of ``a: extents`` along which is differentiated.

    products: patterns that were multiplied before, so that equal ones are known to be equal.
    """

    coordinates: tuple[Array, ...]
    extents: tuple[int, ...]
    products: dict[tuple[int, int], tuple[Array, Array, Array]]


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

SAME = Axis("same", 1)


def whole(size: int) -> Axis:
    """Name all places of an axis."""
    return Axis("all", size) if size > 1 else SAME


def unit_vector(element: Element, dtype: jnp.dtype) -> Term:
    """Give the tangent of ``a`` itself: one, at one place."""
    rank = len(element.extents)
    steps = [tuple(int(i == d) for d in range(rank)) for i in range(rank)]
    axes = tuple(
        Axis("window", 1, step) if size > 1 else SAME
        for step, size in zip(steps, element.extents, strict=True)
    )
    return Term(jnp.ones((1,) * rank, dtype), axes, element.extents)


def dense(values: Array) -> Term:
    """Store a tangent whole."""
    return Term(values, tuple(map(whole, values.shape)), values.shape)


# Where windows are.


def _range(axis: Axis, element: Element) -> tuple[int, int]:
    """Give the first and the last place at which a window may begin."""
    ends = [s * (n - 1) for s, n in zip(axis.step, element.extents, strict=True)]
    return axis.low + sum(min(e, 0) for e in ends), axis.low + sum(max(e, 0) for e in ends)


def begin(axis: Axis, element: Element) -> Array:
    """Give the place at which a window begins."""
    parts = [s * c for s, c in zip(axis.step, element.coordinates, strict=True) if s]
    return sum(parts, start=jnp.asarray(axis.low, jnp.int32))


def stays_inside(axis: Axis, size: int, element: Element) -> bool:
    """Say whether a window never runs over the ends of its axis."""
    if axis.kind != "window":
        return True
    first, last = _range(axis, element)
    return first >= 0 and last + axis.size <= size


def cut(
    pattern: Array, axes: Sequence[Axis], shape: Sequence[int], element: Element
) -> Array:  # fmt: skip
    """Cut the windows out of an array, zero beyond its ends; axes of size one are left."""
    widen, starts, sizes = [], [], []
    for axis, full, size in zip(axes, shape, pattern.shape, strict=True):
        if axis.kind != "window" or size == 1 != full:
            widen.append((0, 0, 0))
            starts.append(jnp.zeros((), jnp.int32))
            sizes.append(size)
            continue
        first, last = _range(axis, element)
        below, above = max(0, -first), max(0, last + axis.size - full)
        widen.append((below, above, 0))
        starts.append(begin(axis, element) + below)
        sizes.append(axis.size)
    if any(w != (0, 0, 0) for w in widen):
        pattern = lax.pad(pattern, jnp.zeros((), pattern.dtype), widen)
    if tuple(sizes) == pattern.shape:
        return pattern
    return lax.dynamic_slice(pattern, starts, sizes, allow_negative_indices=False)


def mask(term: Term, i: int, element: Element) -> Array:
    """Mark the places of a window that are on the axis."""
    axis, full = term.axes[i], term.shape[i]
    places = begin(axis, element) + jnp.arange(axis.size, dtype=jnp.int32)
    shape = [1] * len(term.shape)
    shape[i] = axis.size
    return ((places >= 0) & (places < full)).astype(term.values.dtype).reshape(shape)


# One term.


def times(term: Term, pattern: Array | None, element: Element) -> Term:
    """Multiply by an array that does not depend on the element."""
    return term._replace(pattern=joint(term.pattern, pattern, element))


def joint(p: Array | None, q: Array | None, element: Element) -> Array | None:
    """Multiply two patterns; the same two give the same array."""
    if p is None or q is None:
        return q if p is None else p
    key = (min(id(p), id(q)), max(id(p), id(q)))
    if key not in element.products:
        element.products[key] = (p, q, p * q)  # p and q stay alive, so that no other has their id
    return element.products[key][2]


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


def cleaned(term: Term, over: Iterable[int], element: Element) -> Term:
    """Put zeros where windows along these axes lie beyond the ends."""
    for i in over:
        axis = term.axes[i]
        if not (axis.clean or stays_inside(axis, term.shape[i], element)):
            values = term.values * mask(term, i, element)
            axes = (*term.axes[:i], axis._replace(clean=True), *term.axes[i + 1 :])
            term = term._replace(values=values, axes=axes)
    return term


def spread(term: Term, i: int, element: Element) -> Term:
    """Store a term whole along one axis; its pattern stays."""
    axis, full = term.axes[i], term.shape[i]
    if axis.kind == "all" or full == 1:
        return term
    axes = (*term.axes[:i], whole(full), *term.axes[i + 1 :])
    if axis.kind == "same":
        shape = list(term.values.shape)
        shape[i] = full
        return term._replace(values=jnp.broadcast_to(term.values, shape), axes=axes)
    if axis.size == 1:
        here = jnp.arange(full, dtype=jnp.int32) == begin(axis, element)
        shape = [1] * len(term.shape)
        shape[i] = full
        values = term.values * here.astype(term.values.dtype).reshape(shape)
        return term._replace(values=values, axes=axes)
    first, last = _range(axis, element)
    below, above = max(0, last), max(0, full - axis.size - first)
    widths = [(0, 0, 0)] * len(term.shape)
    widths[i] = (below, above, 0)
    padded = lax.pad(term.values, jnp.zeros((), term.values.dtype), widths)
    start = below - begin(axis, element)
    values = lax.dynamic_slice_in_dim(padded, start, full, i, allow_negative_indices=False)
    return term._replace(values=values, axes=axes)


def spread_all(term: Term, element: Element) -> Term:
    """Store a term whole, and multiply its pattern in."""
    for i in range(len(term.shape)):
        term = spread(term, i, element)
    return localize(term, element)


def one_of_each(array: Array, axes: Iterable[int]) -> Array:
    """Keep one place along axes on which an array is constant."""
    for i in axes:
        array = lax.slice_in_dim(array, 0, 1, axis=i)
    return array
