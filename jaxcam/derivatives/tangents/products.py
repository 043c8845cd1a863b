"""Sums and products of tangents, in which the small forms are kept as long as that saves room.

Sums over places are made term by term, and as products of matrices wherever two factors vary along
what is summed: compilers have kernels for these.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.tangents.axes import SAME, Axis, Element, hull, overlap, stays_inside, whole
from jaxcam.derivatives.tangents.terms import (
    Tangent,
    Term,
    cleaned,
    cut,
    joint,
    localize,
    mask,
    placed,
    spread_all,
    varies,
)

FEW, MOST = 4, 9  # terms

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
    running, *others = sorted(factors, key=lambda factor: -factor.size)
    while others:
        other = others.pop(0)
        waiting = [i for i in range(running.ndim) if any(rest.shape[i] > 1 for rest in others)]
        running = _summed_product(running, other, {*kept, *waiting})
    return running.sum([i for i in range(running.ndim) if i not in kept], keepdims=True)


def _summed_product(x: Array, y: Array, kept: set[int]) -> Array:
    sizes = [max(pair) for pair in zip(x.shape, y.shape, strict=True)]
    names = [[i for i, size in enumerate(v.shape) if size > 1] for v in (x, y)]
    left = [i for i in sorted({*names[0], *names[1]}) if i in kept]
    x, y = (v.reshape([v.shape[i] for i in name]) for v, name in zip((x, y), names, strict=True))
    sums = jnp.einsum(x, names[0], y, names[1], left, precision="highest")
    return sums.reshape([size if i in left else 1 for i, size in enumerate(sizes)])


# Of terms, place by place.


def _join(s: Axis, t: Axis, full: int, element: Element) -> Axis:
    """Find the smallest kind of axis on which both can be stored."""
    if s == t:
        return s
    if s.kind == t.kind == "window":
        both = hull(s, t, element)
        if both is not None and both.size < max(full, 2):  # it comes and goes on an axis of one
            return both
    return whole(full)


def plus(s: Term, t: Term, element: Element) -> Term | None:
    """Add two terms as one, or None where that would take more room than the two."""
    axes = tuple(_join(p, q, n, element) for p, q, n in zip(s.axes, t.axes, s.shape, strict=True))
    room = math.prod(axis.size for axis in axes)
    if room >= 2 * max(s.values.size, t.values.size):
        return None
    if s.pattern is not t.pattern:
        mixed = [i for i, axis in enumerate(axes) if axis.kind == "same"]
        if varies(s, mixed) or varies(t, mixed):
            return None
        s, t = localize(s, element), localize(t, element)
    s, t = placed(s, axes, element), placed(t, axes, element)
    return s._replace(values=s.values + t.values)


def collect(terms: Iterable[Term], element: Element) -> Tangent:
    """Add terms where they fit together, and store them whole where there are too many."""
    collected: Tangent = []
    for term in terms:
        for i, other in enumerate(collected):
            both = plus(other, term, element)
            if both is not None:
                collected[i] = both
                break
        else:
            collected.append(term)
    if not _too_many(collected, element):
        return collected
    together = [spread_all(term, element) for term in collected]
    return [together[0]._replace(values=sum((t.values for t in together[1:]), together[0].values))]


def _too_many(terms: Tangent, element: Element) -> bool:
    """Say whether the products of three terms take more work than one that is stored whole."""
    if not FEW <= len(terms) <= MOST:
        return len(terms) > MOST
    places = functools.cache(functools.partial(_places, element=element))

    def work(three: Sequence[Term]) -> int:
        along = zip(*(term.axes for term in three), strict=True)
        return math.prod(places(frozenset(axes)) for axes in along)

    triples = itertools.combinations_with_replacement(terms, 3)
    return sum(map(work, triples)) > 2 * math.prod(terms[0].shape)


def _places(axes: frozenset[Axis], element: Element) -> int:
    """Count the places along an axis at which a product has numbers."""
    windows = [axis for axis in axes if axis.kind == "window"]
    if not windows:
        return max(axis.size for axis in axes)
    shared = _shared(windows, element)
    return 0 if shared is None else shared.size


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
    pattern, first, repeated = joint(pattern, weight, element), together[0], 1
    for i, (axis, full) in enumerate(zip(first.axes, first.shape, strict=True)):
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
    for i, axis in enumerate(first.axes):
        beyond = not (axis.clean or stays_inside(axis, first.shape[i]))
        if beyond and (pattern is None or pattern.shape[i] == 1):
            factors.append(mask(first, i, element))
    if pattern is not None:
        factors.append(cut(pattern, first.axes, first.shape, element))
    return repeated * einsum(factors, ()).reshape(())


def _aligned(terms: Sequence[Term], element: Element) -> list[Term] | None:
    """Store terms on the same axes, on which they are multiplied; None if they never meet.

    Where a term is the same for all places of an axis, its values keep the size one.
    """
    shared = []
    for axes in zip(*(term.axes for term in terms), strict=True):
        windows = [axis for axis in axes if axis.kind == "window"]
        if not windows:
            shared.append(next((axis for axis in axes if axis.kind == "all"), SAME))
            continue
        one = _shared(windows, element)
        if one is None:
            return None
        shared.append(one._replace(clean=one.clean or any(axis.kind == "all" for axis in axes)))
    return [_on_all(term, shared, element) for term in terms]


def _on_all(term: Term, axes: Sequence[Axis], element: Element) -> Term:
    """Store a term on axes, but with one number along those where it is the same."""
    stays = [axis.kind == "same" for axis in term.axes]
    new = [SAME if same else axis for same, axis in zip(stays, axes, strict=True)]
    return placed(term, new, element)._replace(axes=tuple(axes))


def _shared(windows: Sequence[Axis], element: Element) -> Axis | None:
    """Give the part of the smallest window in which all of them meet; None if they never do."""
    least = min(windows, key=lambda axis: axis.size)
    first, last = 0, least.size
    for axis in windows:
        part = overlap(least, axis, element)
        if part is None:
            return None
        first, last = max(first, part[0]), min(last, part[1])
    if first >= last:
        return None
    clean = any(axis.clean for axis in windows)
    return least._replace(low=least.low + first, size=last - first, clean=clean)


def multiplied(first: Tangent, second: Tangent, element: Element) -> Tangent:
    """Multiply two tangents place by place; the square of one is half as much work."""
    pairs = (
        [(s, t, 1 if i == j else 2) for i, s in enumerate(first) for j, t in enumerate(first)
         if i <= j]
        if first is second
        else [(s, t, 1) for s in first for t in second]
    )  # fmt: skip
    products = []
    for s, t, often in pairs:
        both = product(s, t, element)
        if both is not None:
            products.append(scaled(both, often))
    return collect(products, element)


def scaled(term: Term, factor: float) -> Term:
    """Multiply by a number."""
    return term if factor == 1 else term._replace(values=term.values * factor)
