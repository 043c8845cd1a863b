"""Operations that only move places about: slices, paddings, flips, repetitions, picks by index.

Along each axis such an operation is told by its *sources*: for each place of the result the place
of the operand that comes there, or -1 where a constant does. A window stays a window as long as the
sources run up or down, by whatever steps; where they turn round or jump it falls into a few.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import (
    Element,
    as_window,
    begins,
    ends,
    entry,
    mapped,
    single,
    tabled,
    whole,
    window,
)
from jaxcam.derivatives.tangents.products import collect
from jaxcam.derivatives.tangents.terms import (
    Tangent,
    Term,
    along,
    kept,
    on,
    resized,
    spread,
    times,
    varies,
)

Sources = dict[int, np.ndarray]
"""For each axis along which places are moved, where each comes from."""

NOTHING = -1
MOST_RUNS = 4


def rearrange(term: Term, sources: Sources, element: Element) -> Tangent:
    """Move the places of several axes about."""
    terms = [term]
    for i, source in sources.items():
        terms = collect((new for t in terms for new in _along(t, i, source, element)), element)
    return terms


def _along(term: Term, i: int, source: np.ndarray, element: Element) -> Tangent:
    full, axis = term.shape[i], term.axes[i]
    if np.array_equal(source, np.arange(full)):
        return [term]
    if varies(term, [i]):
        term = term._replace(pattern=_pattern(term, i, source, element))
    if axis.kind == "same" and source.min() >= 0:
        return [resized(term, i, len(source))]
    if axis.kind == "same":
        few = 2 * (source >= 0).sum() <= len(source)
        if not few:
            arranged = resized(term, i, len(source))
            return [times(arranged, _there(term, i, source, element), element)]
        term = spread(term, i, element)
    pieces = [source]
    runs = list(_runs(source))
    if len(runs) <= MOST_RUNS:
        places = np.arange(len(source))
        pieces = [np.where((places >= a) & (places < b), source, NOTHING) for a, b in runs]
    return [new for piece in pieces for new in _moved(term, i, piece, element)]


def _runs(source: np.ndarray) -> Iterator[tuple[int, int]]:
    """Divide sources where they turn round, or jump further than they mostly step."""
    places = np.flatnonzero(source >= 0)
    steps = np.diff(source[places])
    usual = int(np.median(abs(steps[steps != 0]))) if steps.any() else 0
    start, way = 0, 0
    for n, step in enumerate(steps, 1):
        sign = int(np.sign(step))
        if abs(step) > usual or sign * way < 0:
            yield int(places[start]), int(places[n - 1]) + 1
            start, way = n, 0
        elif sign:
            way = sign
    if len(places):
        yield int(places[start]), int(places[-1]) + 1


def _pattern(term: Term, i: int, source: np.ndarray, element: Element) -> Array:
    pattern = term.pattern
    key = ("moved", id(pattern), i, source.tobytes())
    if key not in element.done and pattern is not None:
        element.done[key] = (taken(pattern, source, i), pattern)
    return element.done[key][0]


def _there(term: Term, i: int, source: np.ndarray, element: Element) -> Array:
    """Mark the places at which something arrives."""
    key = ("there", i, len(term.shape), source.tobytes())
    if key not in element.done:
        there = jnp.asarray(source >= 0).astype(term.values.dtype)
        element.done[key] = along(i, there, len(term.shape))
    return element.done[key]


def taken(array: Array, source: np.ndarray, i: int) -> Array:
    """Take places of an axis by known numbers, zeros where there are none."""
    size = array.shape[i]
    if source.min() < 0 or source.max() >= size:
        source = np.where((source < 0) | (source >= size), size, source)
        array = _with_zero(array, i)
    return jnp.take(array, jnp.asarray(source, jnp.int32), axis=i, mode="clip")


def _with_zero(array: Array, i: int) -> Array:
    """Put a zero behind the last place of an axis, for what comes from nowhere."""
    widths = [(0, int(i == j), 0) for j in range(array.ndim)]
    return lax.pad(array, jnp.zeros((), array.dtype), widths)


def _moved(term: Term, i: int, source: np.ndarray, element: Element) -> Tangent:
    """Move the places of a window, by sources of one run."""
    places = np.flatnonzero(source >= 0)
    if not len(places):
        return []
    first, last = int(places[0]), int(places[-1]) + 1
    steps = np.diff(source[first:last])
    way = 1 if (steps == 1).all() else -1 if (steps == -1).all() else 0
    if term.axes[i].kind == "window" and way and len(source) > 1:
        return _shifted(term, i, way, (first, last), int(source[first]), element, len(source))
    return _picked(term, i, source, element)


def _shifted(
    term: Term, i: int, way: int, span: tuple[int, int], start: int, element: Element, size: int
) -> Tangent:
    """Move a window as it is, or turned round."""
    axis, (first, last) = term.axes[i], span
    clean = axis.clean and last - first == term.shape[i]  # what is cut off lies beyond the ends
    if way == 1:
        new = mapped(axis, 1, first - start, axis.size, clean=clean)
    else:
        term = on(term, i, axis, lax.rev(term.values, (i,)))
        new = mapped(axis, -1, first + start - axis.size + 1, axis.size, clean=clean)
    term = resized(on(term, i, new), i, size)
    reach = ends(new)
    if reach is None or reach[1] + new.size <= 0 or reach[0] >= size:
        return []
    return [term] if span == (0, size) else kept(term, i, first, last, element)


def _picked(term: Term, i: int, source: np.ndarray, element: Element) -> Tangent:
    """Pick for each place of the result what comes there, element by element."""
    axis, size = term.axes[i], len(source)
    d = single(axis)
    if d is None:
        term = spread(term, i, element)
        axis, d = term.axes[i], 0
    old = as_window(axis, element)
    table = begins(old, d, element)
    if not any(old.moves):
        table = table[:1]
    starts = np.array([term.shape[i] if b is None else b for b in table])[:, None]
    inside = (source >= np.maximum(starts, 0)) & (
        source < np.minimum(starts + old.size, term.shape[i])
    )
    there = np.asarray(inside.any(1))
    if not there.any():
        return []
    lows, highs = inside.argmax(1), size - inside[:, ::-1].argmax(1)
    width = int((highs - lows)[there].max())
    fixed = len(table) == 1
    if width >= max(size, 2) or (fixed and 2 * width > size):
        values = taken(spread(term, i, element).values, source, i)
        return [resized(on(term, i, whole(size), values), i, size)]
    places = np.minimum(lows[:, None] + np.arange(width), size - 1)
    rows = np.where(np.take_along_axis(inside, places, 1), source[places] - starts, old.size)
    rows[lows[:, None] + np.arange(width) >= size] = old.size
    if (rows == rows[0]).all():
        values = taken(term.values, rows[0], i)
    else:
        row = entry(rows.astype(np.int32), element.coordinates[d])
        values = jnp.take(_with_zero(term.values, i), row, axis=i, mode="clip")
    if fixed:
        new = window(width, [()] * len(element.extents), int(lows[0]))
    else:
        begun = [int(low) if t else None for low, t in zip(lows, there, strict=True)]
        new = tabled(width, begun, d, element)
    return [resized(on(term, i, new, values), i, size)]
