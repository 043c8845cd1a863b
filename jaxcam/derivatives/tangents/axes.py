"""Where the small forms of a tangent are: whole numbers, known for every element beforehand.

A window moves with the element: convolutions leave it where it is, a stride halves its way, a flip
turns it round. So where it begins is written down as one table for each coordinate of the element,
and everything that is asked of it (does it run over the ends? do two of them ever meet?) is
answered exactly, while the program is traced.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Table = tuple[int | None, ...]


class Axis(NamedTuple):
    """How a term extends along one axis: ``size`` numbers, for ``all`` places, for a ``window`` or
    the ``same`` one for all.

    For the element at ``coordinates`` a window begins at ``low + sum_d moves[d][coordinates[d]]``;
    a table is empty where a coordinate does not matter, else it begins with 0. A None in it says
    that for such elements the term is zero (so are its values), wherever the window lies.

    A window may run over the ends of the axis; what it holds there does not count, and is known to
    be zero if it is ``clean``.
    """

    kind: Literal["all", "same", "window"]
    size: int
    moves: tuple[Table, ...] = ()
    low: int = 0
    clean: bool = True


class Element(NamedTuple):
    """The element of ``a: extents`` along which is differentiated.

    done: what was computed before, so that equal things are known to be equal.
    """

    coordinates: tuple[Array, ...]
    extents: tuple[int, ...]
    done: dict[Any, Any]


SAME = Axis("same", 1)


def whole(size: int) -> Axis:
    """Name all places of an axis."""
    return Axis("all", size) if size > 1 else SAME


def window(
    size: int, tables: Sequence[Sequence[int | None]], low: int = 0, *, clean: bool = True
) -> Axis:
    """Give the window that begins at ``low`` plus an entry of each table; equal ones are equal."""
    moves = []
    for table in tables:
        start = next((move for move in table if move is not None), 0)
        low += start
        moved = tuple(None if move is None else int(move) - start for move in table)
        moves.append(() if all(move == 0 for move in moved) else moved)
    return Axis("window", size, tuple(moves), int(low), clean)


def vanishes(axis: Axis) -> bool:
    """Say whether a term is zero for every element."""
    return any(table and all(move is None for move in table) for table in axis.moves)


def mapped(axis: Axis, factor: int, offset: int, size: int, *, clean: bool) -> Axis:
    """Begin at ``factor * begin + offset``."""
    tables = [[None if m is None else factor * m for m in table] for table in axis.moves]
    return window(size, tables, factor * axis.low + offset, clean=clean)


def as_window(axis: Axis, element: Element) -> Axis:
    """See an axis that is stored whole as a window that does not move."""
    return axis if axis.kind == "window" else window(axis.size, [()] * len(element.extents))


def relative(one: Axis, other: Axis) -> Axis:
    """Give the window ``one`` as counted from where ``other`` begins."""
    return window(one.size, _differences(one, other), one.low - other.low)


def _differences(one: Axis, other: Axis) -> list[Table]:
    tables: list[Table] = []
    for s, t in zip(one.moves, other.moves, strict=True):
        pairs = zip(s or (0,) * len(t), t or (0,) * len(s), strict=True)
        tables.append(tuple(None if a is None or b is None else a - b for a, b in pairs))
    return tables


def single(*axes: Axis) -> int | None:
    """Give the only coordinate of the element that windows depend on; the first if on none."""
    coordinates = {d for axis in axes for d, table in enumerate(axis.moves) if table}
    return None if len(coordinates) > 1 else next(iter(coordinates), 0)


def begins(axis: Axis, d: int, element: Element) -> list[int | None]:
    """List where a window begins that depends on coordinate ``d`` at the most."""
    table = axis.moves[d] or (0,) * element.extents[d]
    return [None if move is None else axis.low + move for move in table]


def tabled(size: int, table: Sequence[int | None], d: int, element: Element, **is_: bool) -> Axis:
    """Give the window of which coordinate ``d`` tells where it begins."""
    return window(size, [table if i == d else () for i in range(len(element.extents))], **is_)


def hull(s: Axis, t: Axis, element: Element) -> Axis | None:
    """Give the smallest window that holds two, or None where nobody knows one."""
    clean, apart = s.clean and t.clean, t.low - s.low
    if s.moves == t.moves:
        size = max(s.size, apart + t.size) - min(0, apart)
        return s._replace(low=min(s.low, t.low), size=size, clean=clean)
    d = single(s, t)
    if d is None:
        return None
    spans = [
        [(b, b + axis.size) for axis, b in ((s, p), (t, q)) if b is not None]
        for p, q in zip(begins(s, d, element), begins(t, d, element), strict=True)
    ]
    lows = [min((low for low, _ in span), default=None) for span in spans]
    highs = [max((high for _, high in span), default=None) for span in spans]
    size = max(h - b for b, h in zip(lows, highs, strict=True) if b is not None and h is not None)
    return tabled(size, lows, d, element, clean=clean)


def overlap(one: Axis, other: Axis, element: Element) -> tuple[int, int] | None:
    """Give the part of ``one``, from its begin, in which ``other`` ever meets it, or None."""
    d, apart = single(one, other), relative(other, one)
    span = ends(apart)
    if d is not None:
        there = begins(apart, d, element)
        meeting = [b for b in there if b is not None and b < one.size and b + other.size > 0]
        span = (min(meeting), max(meeting)) if meeting else None
    if span is None or span[0] >= one.size or span[1] + other.size <= 0:
        return None
    return max(0, span[0]), min(one.size, span[1] + other.size)


def ends(axis: Axis) -> tuple[int, int] | None:
    """Give the first and the last place at which a window begins; None where it is never there."""
    if vanishes(axis):
        return None
    moves = [[m for m in table if m is not None] for table in axis.moves if table]
    return axis.low + sum(map(min, moves)), axis.low + sum(map(max, moves))


def stays_inside(axis: Axis, size: int) -> bool:
    """Say whether a window never runs over the ends of its axis."""
    span = ends(axis) if axis.kind == "window" else None
    return span is None or (span[0] >= 0 and span[1] + axis.size <= size)


def filled(axis: Axis) -> Axis:
    """Put the window somewhere for the elements for which that does not matter."""
    return window(axis.size, [_filled(table) for table in axis.moves], axis.low, clean=axis.clean)


def _filled(table: Table) -> Table:
    """Fill the gaps so that a line stays a line, or else as the entry before."""
    if None not in table:
        return table
    there = [(c, move) for c, move in enumerate(table) if move is not None]
    if not there:
        return ()
    (c, move), (d, other) = there[0], there[-1]
    slope = (other - move) // (d - c) if d > c else 0
    line = tuple(move + slope * (n - c) for n in range(len(table)))
    if all(line[n] == m for n, m in there):
        return line
    last, repeated = move, list[int]()
    for entry in table:
        last = last if entry is None else entry
        repeated.append(last)
    return tuple(repeated)


def begin(axis: Axis, element: Element) -> Array:
    """Give the place at which a window begins."""
    key = (axis.low, axis.moves)
    if key not in element.done:
        somewhere = filled(axis)
        moves = zip(somewhere.moves, element.coordinates, strict=True)
        parts = [_looked_up(table, c) for table, c in moves if table]
        element.done[key] = sum(parts, start=jnp.asarray(somewhere.low, jnp.int32))
    return element.done[key]


def _looked_up(table: Table, c: Array) -> Array:
    slope = table[1]
    if slope is not None and table == tuple(slope * n for n in range(len(table))):
        return c if slope == 1 else slope * c
    return entry(np.asarray(table, np.int32), c)


def entry(table: np.ndarray, c: Array) -> Array:
    """Look up the row of a table that belongs to a coordinate."""
    return lax.dynamic_index_in_dim(jnp.asarray(table), c, keepdims=False)
