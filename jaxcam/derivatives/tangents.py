"""Tangents along one element of ``a``, stored only where they differ.

The tangent of a value along the unit vector of one element is a sum of a few terms. A term holds
one number for each place of a *window* along some axes, one for *all* places along others, and one
number that is the *same* everywhere along the rest; times a *pattern*, an array of the value's own
shape that does not depend on the element. So a convolution's tangent is a window of its kernel, the
centring of a LayerNorm is one place and one number that is the same for all channels, and what
stands behind a global pool does not depend on the position.

Terms are written for one element, whose coordinates are traced integers, and mapped over all of
them: what does not depend on the position or the channel is not computed for each of them, because
`jax.vmap` leaves it alone.
"""

import functools
import math
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


def _mask(term: Term, i: int, element: Element) -> Array:
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
            values = term.values * _mask(term, i, element)
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


def _fit(term: Term, axes: tuple[Axis, ...], element: Element) -> Term:
    """Store a term on larger axes that hold its own."""
    for i, (old, new) in enumerate(zip(term.axes, axes, strict=True)):
        if old._replace(clean=new.clean) == new:
            continue
        if new.kind != "window":
            term = spread(term, i, element)
            continue
        widths = [(0, 0, 0)] * len(axes)
        below = old.low - new.low
        widths[i] = (below, new.size - old.size - below, 0)
        padded = lax.pad(term.values, jnp.zeros((), term.values.dtype), widths)
        term = term._replace(values=padded, axes=(*term.axes[:i], new, *term.axes[i + 1 :]))
    return term


def summed(term: Term, over: Sequence[int], element: Element) -> Term:
    """Sum over axes, which keep the size one; where a term is the same, only its pattern is summed.

    Where values and pattern both vary, the sum is a product of matrices: one for each place along
    the other axes on which both vary, as long as those are few.
    """
    both = [i for i in over if varies(term, [i]) and term.axes[i].kind != "same"]
    other = [i for i in range(len(term.shape)) if i not in over]
    if both:
        shared = [i for i in other if varies(term, [i]) and term.values.shape[i] > 1]
        many = _room(term, shared) > _room(term, both)
        term = localize(term, element) if many else _contracted(term, both, element)
    term = cleaned(term, [i for i in over if not varies(term, [i])], element)
    values, pattern = term.values, term.pattern
    for i in over:
        if varies(term, [i]) and pattern is not None:
            pattern = pattern.sum(i, keepdims=True)
        elif term.axes[i].kind == "same":
            values = values * term.shape[i]
    extended = [i for i in over if values.shape[i] > 1]
    values = values.sum(extended, keepdims=True) if extended else values
    axes = tuple(SAME if i in over else axis for i, axis in enumerate(term.axes))
    shape = tuple(1 if i in over else size for i, size in enumerate(term.shape))
    return Term(values, axes, shape, pattern)


def _room(term: Term, over: Iterable[int]) -> int:
    return math.prod(term.values.shape[i] for i in over)


def _contracted(term: Term, over: Sequence[int], element: Element) -> Term:
    """Sum values times pattern over axes along which both vary."""
    assert term.pattern is not None
    part = cut(term.pattern, term.axes, term.shape, element)
    values = einsum([term.values, part], [i for i in range(len(term.shape)) if i not in over])
    axes = list(term.axes)
    for i, (axis, size) in enumerate(zip(term.axes, values.shape, strict=True)):
        if i in over:
            axes[i] = SAME
        elif varies(term, [i]):
            axes[i] = whole(size) if axis.kind == "same" else axis._replace(clean=True)
    shape = tuple(1 if i in over else size for i, size in enumerate(term.shape))
    return Term(values, tuple(axes), shape)


def einsum(factors: Sequence[Array], kept: Sequence[int]) -> Array:
    """Sum a product over all axes but some; factors of size one along an axis are constant there.

    The widest are multiplied first, and summed at once over what no other factor varies along: so
    a sum over channels becomes a product of matrices, one for each place, before what depends on
    the place alone comes in.
    """
    found, *others = sorted(factors, key=lambda factor: -factor.size)
    while others:
        other = others.pop(0)
        waiting = [i for i in range(found.ndim) if any(rest.shape[i] > 1 for rest in others)]
        found = _summed_product(found, other, {*kept, *waiting})
    return found.sum([i for i in range(found.ndim) if i not in kept], keepdims=True)


def _summed_product(x: Array, y: Array, kept: set[int]) -> Array:
    sizes = [max(pair) for pair in zip(x.shape, y.shape, strict=True)]
    names = [[i for i, size in enumerate(v.shape) if size > 1] for v in (x, y)]
    left = [i for i in sorted({*names[0], *names[1]}) if i in kept]
    x, y = (v.reshape([v.shape[i] for i in name]) for v, name in zip((x, y), names, strict=True))
    found = jnp.einsum(x, names[0], y, names[1], left, precision="highest")
    return found.reshape([size if i in left else 1 for i, size in enumerate(sizes)])


# Sums and products.


def _join(s: Axis, t: Axis, full: int) -> Axis:
    """Find the smallest kind of axis on which both can be stored."""
    if s == t:
        return s
    if s.kind == t.kind == "window" and s.step == t.step:
        low = min(s.low, t.low)
        size = max(s.low + s.size, t.low + t.size) - low
        if size < full:
            return Axis("window", size, s.step, low, s.clean and t.clean)
    return whole(full)


def plus(s: Term, t: Term, element: Element) -> Term | None:
    """Add two terms as one, or None where that would take more room than the two."""
    axes = tuple(map(_join, s.axes, t.axes, s.shape))
    room = math.prod(axis.size for axis in axes)
    if room > 2 * max(s.values.size, t.values.size):
        return None
    if s.pattern is not t.pattern:
        mixed = [i for i, axis in enumerate(axes) if axis.kind == "same"]
        if varies(s, mixed) or varies(t, mixed):
            return None
        s, t = localize(s, element), localize(t, element)
    s, t = _fit(s, axes, element)._replace(axes=axes), _fit(t, axes, element)
    return s._replace(values=s.values + t.values)


def collect(terms: Iterable[Term], element: Element, most: int = 6) -> Tangent:
    """Add terms where they fit together, and store them whole where there are too many."""
    found: Tangent = []
    for term in terms:
        for i, other in enumerate(found):
            both = plus(other, term, element)
            if both is not None:
                found[i] = both
                break
        else:
            found.append(term)
    if len(found) <= most:
        return found
    together = [spread_all(term, element) for term in found]
    return [together[0]._replace(values=sum((t.values for t in together[1:]), together[0].values))]


def product(s: Term, t: Term, element: Element) -> Term | None:
    """Multiply two terms place by place; None is zero."""
    both = _aligned([s, t], element)
    if both is None:
        return None
    s, t = both
    return s._replace(values=s.values * t.values, pattern=joint(s.pattern, t.pattern, element))


def total(terms: Sequence[Term], weight: Array | None, element: Element) -> Array | None:
    """Sum a product of terms, times a pattern, over all places; None is zero."""
    together = _aligned(terms, element)
    if together is None:
        return None
    pattern = functools.reduce(lambda p, q: joint(p, q, element), [t.pattern for t in terms])
    pattern, found, repeated = joint(pattern, weight, element), together[0], 1
    for i, (axis, full) in enumerate(zip(found.axes, found.shape, strict=True)):
        if axis.kind != "same":
            continue
        if pattern is None or pattern.shape[i] == 1:
            repeated *= full
        else:
            pattern = pattern.sum(i, keepdims=True)
    by_shape: dict[tuple[int, ...], Array] = {}
    for term in together:
        shape = term.values.shape
        by_shape[shape] = by_shape[shape] * term.values if shape in by_shape else term.values
    factors = [*by_shape.values()]
    for i, axis in enumerate(found.axes):
        beyond = not (axis.clean or stays_inside(axis, found.shape[i], element))
        if beyond and (pattern is None or pattern.shape[i] == 1):
            factors.append(_mask(found, i, element))
    if pattern is not None:
        factors.append(cut(pattern, found.axes, found.shape, element))
    return repeated * einsum(factors, ()).reshape(())


def _aligned(terms: Sequence[Term], element: Element) -> list[Term] | None:
    """Store terms on the same axes, on which they are multiplied; None if they never meet.

    Where a term is the same for all places of an axis, its values keep the size one.
    """
    terms = list(terms)
    for i, full in enumerate(terms[0].shape):
        windows = [term.axes[i] for term in terms if term.axes[i].kind == "window"]
        if len({axis.step for axis in windows}) > 1:  # they follow different coordinates
            windows, terms = [], [
                spread(t, i, element) if t.axes[i].kind == "window" else t for t in terms
            ]  # fmt: skip
        if not windows:
            axis = next((t.axes[i] for t in terms if t.axes[i].kind == "all"), SAME)
            terms = [_on(term, i, axis) for term in terms]
            continue
        low = max(axis.low for axis in windows)
        high = min(axis.low + axis.size for axis in windows)
        if low >= high:
            return None
        cropped = any(term.axes[i].kind == "all" for term in terms)
        clean = cropped or any(axis.clean for axis in windows)
        shared = Axis("window", high - low, windows[0].step, low, clean)
        terms = [_cropped(term, i, shared, full, element) for term in terms]
    return terms


def _on(term: Term, i: int, axis: Axis) -> Term:
    return term._replace(axes=(*term.axes[:i], axis, *term.axes[i + 1 :]))


def _cropped(term: Term, i: int, shared: Axis, full: int, element: Element) -> Term:
    """Keep the part of a term that lies in a window."""
    axis, values = term.axes[i], term.values
    if axis.kind == "all":
        kept = [Axis("all", n) for n in values.shape]
        kept[i] = shared
        values = cut(values, kept, [*values.shape[:i], full, *values.shape[i + 1 :]], element)
    elif axis.kind == "window" and axis.size != shared.size:
        start = shared.low - axis.low
        values = lax.slice_in_dim(values, start, start + shared.size, axis=i)
    return _on(term._replace(values=values), i, shared)


def multiplied(first: Tangent, second: Tangent, element: Element) -> Tangent:
    """Multiply two tangents place by place; the square of one is half as much work."""
    pairs = (
        [(s, t, 1 if i == j else 2) for i, s in enumerate(first) for j, t in enumerate(first)
         if i <= j]
        if first is second
        else [(s, t, 1) for s in first for t in second]
    )  # fmt: skip
    found = []
    for s, t, often in pairs:
        both = product(s, t, element)
        if both is not None:
            found.append(scaled(both, often))
    return collect(found, element)


def scaled(term: Term, factor: float) -> Term:
    """Multiply by a number."""
    return term if factor == 1 else term._replace(values=term.values * factor)


def one_of_each(array: Array, axes: Iterable[int]) -> Array:
    """Keep one place along axes on which an array is constant."""
    for i in axes:
        array = lax.slice_in_dim(array, 0, 1, axis=i)
    return array
