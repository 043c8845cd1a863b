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

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Axis(NamedTuple):
    """How a term extends along one axis: ``size`` numbers, for ``all`` places, for a ``window`` or
    the ``same`` one for all. A window begins at ``step . coordinates + low`` and may run over the
    ends of the axis.
    """

    kind: Literal["all", "same", "window"]
    size: int
    step: tuple[int, ...] = ()
    low: int = 0


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
    the same, of size one where it is constant; None is one everywhere. clean: values that a window
    has beyond the ends of an axis are known to be zero.
    """

    values: Array
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    pattern: Array | None = None
    clean: bool = True


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


def is_inside(term: Term, element: Element) -> bool:
    """Say the same of all windows of a term."""
    return all(
        stays_inside(axis, size, element)
        for axis, size in zip(term.axes, term.shape, strict=True)
    )  # fmt: skip


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
    return term._replace(pattern=_pattern(term.pattern, pattern, element))


def _pattern(p: Array | None, q: Array | None, element: Element) -> Array | None:
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
    """Multiply the pattern in, and clean what lies beyond the ends."""
    values, axes, cleaned = term.values, term.axes, set()
    if term.pattern is not None:
        part = cut(term.pattern, axes, term.shape, element)
        axes = tuple(
            whole(full) if axis.kind == "same" and size > 1 else axis
            for axis, full, size in zip(axes, term.shape, term.pattern.shape, strict=True)
        )
        cleaned = {i for i, size in enumerate(term.pattern.shape) if size > 1}
        values = values * part
    found = Term(values, axes, term.shape)
    for i, (axis, full) in enumerate(zip(axes, term.shape, strict=True)):
        if not (term.clean or i in cleaned or stays_inside(axis, full, element)):
            found = found._replace(values=found.values * _mask(found, i, element))
    return found


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
        if old == new:
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


def total(term: Term, element: Element) -> Array:
    """Sum a term over all places."""
    pattern, values = term.pattern, term.values
    for i, (axis, full) in enumerate(zip(term.axes, term.shape, strict=True)):
        if axis.kind != "same":
            continue
        if pattern is None or pattern.shape[i] == 1:
            values = values * full
        else:
            pattern = pattern.sum(i, keepdims=True)
    found = term._replace(values=values, pattern=None)
    if pattern is None:
        return localize(found, element).values.sum()
    part = cut(pattern, term.axes, term.shape, element)
    for i, size in enumerate(pattern.shape):
        if size == 1:
            inside = term.clean or stays_inside(term.axes[i], term.shape[i], element)
            masked = values if inside else values * _mask(term, i, element)
            values = masked.sum(i, keepdims=True)
    return jnp.dot(values.reshape(-1), part.reshape(-1), precision="highest")


def summed(term: Term, over: Sequence[int], element: Element) -> Term:
    """Sum over axes, which keep the size one; where a term is the same, only its pattern is summed.

    Where values and pattern both vary, and along no other axis, the sum is a product of matrices.
    """
    both = [i for i in over if varies(term, [i]) and term.axes[i].kind != "same"]
    other = [i for i in range(len(term.shape)) if i not in over]
    if both:
        apart = not any(varies(term, [i]) and term.values.shape[i] > 1 for i in other)
        term = _contracted(term, both, element) if apart else localize(term, element)
    if not varies(term, over):
        pattern, term = term.pattern, localize(term._replace(pattern=None), element)
        term = term._replace(pattern=pattern)
    values, pattern = term.values, term.pattern
    for i in over:
        if varies(term, [i]) and pattern is not None:
            pattern = pattern.sum(i, keepdims=True)
        elif term.axes[i].kind == "same":
            values = values * term.shape[i]
    values = values.sum([i for i in over if term.axes[i].kind != "same"], keepdims=True)
    axes = tuple(SAME if i in over else axis for i, axis in enumerate(term.axes))
    shape = tuple(1 if i in over else size for i, size in enumerate(term.shape))
    return Term(values, axes, shape, pattern, term.clean)


def _contracted(term: Term, over: Sequence[int], element: Element) -> Term:
    """Sum values times pattern over axes, where no other axis is one of both."""
    assert term.pattern is not None
    part = cut(term.pattern, term.axes, term.shape, element)
    found = lax.dot_general(term.values, part, ((over, over), ((), ())), precision="highest")
    # The axes left, of the values and then of the pattern; of each pair one has size one.
    others = [i for i in range(len(term.shape)) if i not in over]
    places = {i: term.values.shape[i] * part.shape[i] for i in others}
    pairs = [n + k * len(others) for n in range(len(others)) for k in range(2)]
    values = lax.transpose(found, pairs)
    values = values.reshape([places.get(i, 1) for i in range(len(term.shape))])
    axes = tuple(
        SAME
        if i in over
        else whole(term.shape[i])
        if axis.kind == "same" and places[i] > 1
        else axis
        for i, axis in enumerate(term.axes)
    )
    shape = tuple(1 if i in over else size for i, size in enumerate(term.shape))
    return Term(values, axes, shape, None, term.clean)


# Sums and products.


def _join(s: Axis, t: Axis, full: int) -> Axis:
    """Find the smallest kind of axis on which both can be stored."""
    if s == t:
        return s
    if s.kind == t.kind == "window" and s.step == t.step:
        low = min(s.low, t.low)
        size = max(s.low + s.size, t.low + t.size) - low
        if size < full:
            return Axis("window", size, s.step, low)
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
    s, t = _fit(s, axes, element), _fit(t, axes, element)
    return s._replace(values=s.values + t.values, clean=s.clean and t.clean)


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
    axes = []
    for i, full in enumerate(s.shape):
        s, t = _aligned(s, t, i, element)
        x, y = s.axes[i], t.axes[i]
        if x.kind == y.kind == "window":
            low, high = max(x.low, y.low), min(x.low + x.size, y.low + y.size)
            if low >= high:
                return None
            shared = Axis("window", high - low, x.step, low)
            s, t = _crop(s, i, shared), _crop(t, i, shared)
            axes.append(shared)
        elif x.kind == "window" or y.kind == "window":
            window, other = (s, t) if x.kind == "window" else (t, s)
            axis = window.axes[i]
            if other.axes[i].kind == "all":
                kept = [Axis("all", n) for n in other.values.shape]
                kept[i] = axis
                shape = [*other.values.shape[:i], full, *other.values.shape[i + 1 :]]
                values = cut(other.values, kept, shape, element)
                other = other._replace(values=values)
                s, t = (s, other) if window is s else (other, t)
            axes.append(axis)
        else:
            axes.append(x if x.kind == "all" else y)
    pattern = _pattern(s.pattern, t.pattern, element)
    return Term(s.values * t.values, tuple(axes), s.shape, pattern, s.clean and t.clean)


def _aligned(s: Term, t: Term, i: int, element: Element) -> tuple[Term, Term]:
    """Store two windows that follow different coordinates whole."""
    x, y = s.axes[i], t.axes[i]
    if x.kind == y.kind == "window" and x.step != y.step:
        return spread(s, i, element), spread(t, i, element)
    return s, t


def _crop(term: Term, i: int, axis: Axis) -> Term:
    if term.axes[i] == axis:
        return term
    start = axis.low - term.axes[i].low
    values = lax.slice_in_dim(term.values, start, start + axis.size, axis=i)
    return term._replace(values=values, axes=(*term.axes[:i], axis, *term.axes[i + 1 :]))


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
