"""Sums and products of tangents, in which the small forms are kept as long as that saves room.

Sums over places are made term by term, and as products of matrices wherever two factors vary along
what is summed: compilers have kernels for these.
"""

import functools
import math
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents import (
    SAME,
    Axis,
    Element,
    Tangent,
    Term,
    cleaned,
    cut,
    joint,
    localize,
    mask,
    spread,
    spread_all,
    stays_inside,
    varies,
    whole,
)

# Over the places of a tangent.


def summed(term: Term, over: Sequence[int], element: Element) -> Term:
    """Sum over axes, which keep the size one; where a term is the same, only its pattern is summed.

    Where values and pattern both vary, the sum is a product of matrices: one for each place along
    the other axes on which both vary, as long as those are few.
    """
    both = [i for i in over if varies(term, [i]) and term.axes[i].kind != "same"]
    other = [i for i in range(len(term.shape)) if i not in over]
    if both and term.pattern is not None:
        shared = [i for i in other if varies(term, [i]) and term.values.shape[i] > 1]
        many = _room(term, shared) > _room(term, both)
        term = localize(term, element) if many else _contracted(term, term.pattern, both, element)
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


def _contracted(term: Term, pattern: Array, over: Sequence[int], element: Element) -> Term:
    """Sum values times their pattern over axes along which both vary."""
    part = cut(pattern, term.axes, term.shape, element)
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


# Of terms, place by place.


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
            factors.append(mask(found, i, element))
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
