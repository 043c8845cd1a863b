"""Operations that lay the numbers of an array out in another shape."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import (
    SAME,
    Axis,
    Element,
    begins,
    mapped,
    relative,
    single,
    stays_inside,
    tabled,
    whole,
)
from jaxcam.derivatives.tangents.rearrange import rearrange
from jaxcam.derivatives.tangents.step import Step, whole_map
from jaxcam.derivatives.tangents.terms import Tangent, Term, cleaned, spread, varies

Group = tuple[list[int], list[int]]
"""Axes that become other axes, of as many places together."""


def broadcast(term: Term, step: Step) -> Tangent:
    """Repeat along new axes: the same for all."""
    placed = step.params["broadcast_dimensions"]
    stretched = {
        i: np.zeros(step.shape[placed[i]], int)
        for i, size in enumerate(term.shape)
        if size != step.shape[placed[i]] and term.axes[i].kind == "window"
    }
    return [_broadcast(new, placed, step.shape) for new in rearrange(term, stretched, step.element)]


def _broadcast(term: Term, placed: Sequence[int], shape: Sequence[int]) -> Term:
    rank = len(shape)
    axes = [SAME] * rank
    values_shape, pattern_shape = [1] * rank, [1] * rank
    for i, axis in enumerate(term.axes):
        axes[placed[i]] = axis
        values_shape[placed[i]] = term.values.shape[i]
        pattern_shape[placed[i]] = 1 if term.pattern is None else term.pattern.shape[i]
    pattern = None if term.pattern is None else term.pattern.reshape(pattern_shape)
    return Term(term.values.reshape(values_shape), tuple(axes), tuple(shape), pattern)


def transpose(term: Term, step: Step) -> Tangent:
    """Take the axes in another order."""
    order = step.params["permutation"]
    pattern = None if term.pattern is None else lax.transpose(term.pattern, order)
    axes = tuple(term.axes[i] for i in order)
    return [Term(lax.transpose(term.values, order), axes, step.shape, pattern)]


def reshape(term: Term, step: Step) -> Tangent:
    """Join or divide axes: a window among axes of one place and whole ones stays one."""
    if step.equation.primitive.name == "reshape" and step.params["dimensions"] is not None:
        return whole_map(term, step)  # it transposes too
    axes = [SAME] * len(step.shape)
    term, groups = _with_lonely(term, list(_groups(term.shape, step.shape)), step)
    for olds, news in groups:
        term, regrouped = _regrouped(term, olds, [step.shape[j] for j in news], step.element)
        for j, axis in zip(news, regrouped, strict=True):
            axes[j] = axis
    values = term.values.reshape([axis.size for axis in axes])
    return [Term(values, tuple(axes), step.shape, _reshaped_pattern(term, step.shape))]


def _with_lonely(term: Term, groups: list[Group], step: Step) -> tuple[Term, list[Group]]:
    """Find a place for windows on axes of size one, on which they come and go with the element.

    Such an axis stays one, or is joined to what is repeated behind it; else it is stored whole.
    """
    joined = list(groups)
    for i, size in enumerate(term.shape):
        if size != 1 or term.axes[i].kind != "window":
            continue
        before = [(a, b) for a, b in groups if a[0] < i]
        behind = [(a, b) for a, b in groups if a[0] > i]
        last = max(before[-1][1]) if before else -1
        following = min(behind[0][1]) if behind else len(step.shape)
        taken = {j for _, news in joined for j in news}
        free = [j for j in range(last + 1, following) if j not in taken]
        inside = bool(before) and max(before[-1][0]) > i
        olds, news = behind[0] if behind else ([], [])
        repeated = len(news) == 1 and all(term.axes[n].kind == "same" for n in olds)
        if not inside and free:
            joined.append(([i], [free[0]]))
        elif not inside and repeated and (olds, news) in joined:
            joined[joined.index((olds, news))] = ([i, *olds], news)
        else:
            term = spread(term, i, step.element)
    return term, joined


def _regrouped(
    term: Term, olds: Sequence[int], sizes: Sequence[int], element: Element
) -> tuple[Term, list[Axis]]:
    """Give the axes that a group becomes, and the term stored so that they fit."""
    axes = [term.axes[i] for i in olds]
    if len(olds) == len(sizes) == 1:
        return term, axes
    if all(axis.kind == "same" for axis in axes):
        return term, [SAME for _ in sizes]
    divided = _divided(axes[0], sizes, element) if _is_place(term, olds[0]) else None
    if len(olds) == 1 and divided is not None:
        return term, divided
    ahead = next((n for n, i in enumerate(olds) if not _is_place(term, i)), len(olds) - 1)
    if axes[ahead].kind != "window":
        ahead -= 1
    if len(sizes) > 1 or ahead < 0:
        for i in olds:
            term = spread(term, i, element)
        return term, [whole(size) for size in sizes]
    for i in olds[ahead + 1 :]:
        term = spread(term, i, element)
    if ahead:  # what lies beyond the ends of such a window are other places now
        term = cleaned(term, [olds[ahead]], element)
    return term, [_joined([term.axes[i] for i in olds], [term.shape[i] for i in olds], ahead)]


def _is_place(term: Term, i: int) -> bool:
    axis = term.axes[i]
    return axis.kind == "window" and axis.size == 1 and stays_inside(axis, term.shape[i])


def _joined(axes: Sequence[Axis], shape: Sequence[int], ahead: int) -> Axis:
    """Join ``ahead`` axes of one place, a window, and whole axes."""
    moving, stride = axes[ahead], math.prod(shape[ahead + 1 :])
    window = mapped(moving, stride, 0, stride * moving.size, clean=moving.clean)
    for n in reversed(range(ahead)):
        stride *= shape[n + 1]
        window = relative(window, mapped(axes[n], -stride, 0, 1, clean=True))
    return window._replace(clean=moving.clean)


def _divided(axis: Axis, sizes: Sequence[int], element: Element) -> list[Axis] | None:
    """Give the place along each axis of the one place on an axis that is divided."""
    d = single(axis)
    if d is None:
        return None
    table = begins(axis, d, element)
    places = np.unravel_index([place or 0 for place in table], sizes)
    return [
        tabled(
            1, [None if b is None else int(p) for b, p in zip(table, row, strict=True)], d, element
        )
        for row in places
    ]


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


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[Group]:
    """Pair the axes of two shapes, those of size one aside, in the smallest groups of one size."""
    left = [i for i, size in enumerate(old) if size != 1]
    right = [i for i, size in enumerate(new) if size != 1]
    while left:
        olds, news = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(old[i] for i in olds)) != (b := math.prod(new[j] for j in news)):
            (olds.append(left.pop(0)) if a < b else news.append(right.pop(0)))
        yield olds, news


def same_places(equation: Any) -> list[int | None]:
    """For each axis of a reshaped array, the axis that it was, if it was one."""
    old, new = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    origins: list[int | None] = [None] * len(new)
    if equation.params.get("dimensions") is None or equation.primitive.name != "reshape":
        for olds, news in _groups(old, new):
            if len(olds) == len(news) == 1:
                origins[news[0]] = olds[0]
    return origins
