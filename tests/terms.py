"""Tangents for tests: drawn at random, and the dense array that each stands for.

The reference writes a term out number by number, from its definition alone: a window begins where
its tables say, what lies beyond the ends of an axis counts for nothing, and the pattern is
multiplied in.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcam.derivatives.tangents.axes import SAME, Element, whole, window
from jaxcam.derivatives.tangents.terms import Term, cleaned

EXTENTS = (3, 2)  # of the layer; one of its elements is differentiated along
ELEMENTS = list(itertools.product(*map(range, EXTENTS)))


def element_at(coordinates):
    return Element(tuple(jnp.asarray(c, jnp.int32) for c in coordinates), EXTENTS, {})


def first_place(axis, coordinates):
    """Give where a window begins; None where the term is zero."""
    moves = [table[c] for table, c in zip(axis.moves, coordinates, strict=True) if table]
    return None if None in moves else axis.low + sum(moves)


def written_out(term, coordinates):
    """Write a term out as an array of its whole shape."""
    out = np.zeros(term.shape)
    values = np.asarray(term.values)
    pattern = np.ones((1,) * len(term.shape)) if term.pattern is None else np.asarray(term.pattern)
    pattern = np.broadcast_to(pattern, term.shape)
    for place in np.ndindex(term.shape):
        index = []
        for p, axis in zip(place, term.axes, strict=True):
            first = first_place(axis, coordinates) if axis.kind == "window" else 0
            beyond = -1 if first is None else p - first
            index.append({"all": p, "same": 0, "window": beyond}[axis.kind])
        if all(0 <= i < n for i, n in zip(index, values.shape, strict=True)):
            out[place] = values[tuple(index)] * pattern[place]
    return out


def line(step):
    """Give the tables of a window that moves by so many places with each coordinate."""
    pairs = zip(step, EXTENTS, strict=True)
    return [range(0, s * n, s) if s else () for s, n in pairs]


def table(size):
    """Draw a table of any numbers, with gaps, or none."""
    entries = st.one_of(st.none(), st.integers(-3, 4))
    return st.one_of(st.just(()), st.lists(entries, min_size=size, max_size=size))


TABLES = st.one_of(
    st.sampled_from([(1, 0), (0, 1), (2, 1), (-1, 0), (0, 0)]).map(line),
    st.tuples(*map(table, EXTENTS)),
)
KINDS = st.one_of(
    st.just("all"),
    st.just("same"),
    st.builds(
        lambda size, tables, low: window(size, tables, low, clean=False),
        st.integers(1, 4), TABLES, st.integers(-3, 4),
    ),
)  # fmt: skip
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@st.composite
def terms(draw, shape):
    """Draw a term of a shape, with numbers of its own and sometimes a pattern."""
    axes = []
    for full in shape:
        kind = draw(KINDS) if full > 1 else "all"
        axes.append({"all": whole(full), "same": SAME}.get(kind, kind))
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    pattern = None
    if draw(st.booleans()):
        pattern = numbers.normal(size=[draw(st.sampled_from([1, full])) for full in shape])
    values = numbers.normal(size=[axis.size for axis in axes])
    return Term(values, tuple(axes), shape, pattern)


def on_device(term, coordinates):
    """Turn numbers into arrays; zeros where an axis says that there is nothing."""
    pattern = None if term.pattern is None else jnp.asarray(term.pattern)
    windows = [axis for axis in term.axes if axis.kind == "window"]
    there = all(first_place(axis, coordinates) is not None for axis in windows)
    return term._replace(values=jnp.asarray(term.values * there), pattern=pattern)


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(terms(shape), terms(shape), terms(shape)))


def each_element(test):
    """Run a test on drawn terms, for every element of the layer; the first clean for half."""

    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(PAIRS)
    def every(drawn):
        with jax.enable_x64(True):
            for number, coordinates in enumerate(ELEMENTS):
                s, t, r = (on_device(term, coordinates) for term in drawn)
                where = element_at(coordinates)
                first = cleaned(s, range(len(s.shape)), where) if number % 2 else s
                test(first, t, r, coordinates)

    every.__name__ = test.__name__
    every.__doc__ = test.__doc__
    return every


def assert_same(term, coordinates, expected):
    """Compare a term with an array; and what its flag says of the numbers beyond the ends."""
    np.testing.assert_allclose(written_out(term, coordinates), expected, rtol=1e-12, atol=1e-12)
    assert term.values.shape == tuple(axis.size for axis in term.axes)
    for i, (axis, full) in enumerate(zip(term.axes, term.shape, strict=True)):
        if axis.kind != "window" or not axis.clean:
            continue
        first = first_place(axis, coordinates)
        beyond = [k for k in range(axis.size) if first is None or not 0 <= first + k < full]
        assert not np.take(np.asarray(term.values), beyond, i).any()
