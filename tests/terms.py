"""Tangents for tests: drawn at random, and the dense array that each stands for.

The reference writes a term out number by number, from its definition alone: a window begins at
``step . coordinates + low``, what lies beyond the ends of an axis counts for nothing, and the
pattern is multiplied in.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcam.derivatives.tangents import SAME, Axis, Element, Term, cleaned, whole

EXTENTS = (3, 2)  # of the layer; one of its elements is differentiated along
ELEMENTS = list(itertools.product(*map(range, EXTENTS)))


def element_at(coordinates):
    return Element(tuple(jnp.asarray(c, jnp.int32) for c in coordinates), EXTENTS, {})


def written_out(term, coordinates):
    """Write a term out as an array of its whole shape."""
    out = np.zeros(term.shape)
    values = np.asarray(term.values)
    pattern = np.ones((1,) * len(term.shape)) if term.pattern is None else np.asarray(term.pattern)
    pattern = np.broadcast_to(pattern, term.shape)
    for place in np.ndindex(term.shape):
        index = []
        for p, axis in zip(place, term.axes, strict=True):
            first = sum(s * c for s, c in zip(axis.step, coordinates, strict=False)) + axis.low
            index.append({"all": p, "same": 0, "window": p - first}[axis.kind])
        if all(0 <= i < n for i, n in zip(index, values.shape, strict=True)):
            out[place] = values[tuple(index)] * pattern[place]
    return out


KINDS = st.one_of(
    st.just("all"),
    st.just("same"),
    st.builds(
        Axis,
        st.just("window"),
        st.integers(1, 4),
        st.sampled_from([(1, 0), (0, 1), (2, 1), (-1, 0), (0, 0)]),
        st.integers(-3, 4),
        st.just(False),
    ),
)
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


def on_device(term):
    """Turn numbers into arrays."""
    pattern = None if term.pattern is None else jnp.asarray(term.pattern)
    return term._replace(values=jnp.asarray(term.values), pattern=pattern)


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(terms(shape), terms(shape), terms(shape)))


def each_element(test):
    """Run a test on drawn terms, for every element of the layer; the first clean for half."""

    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(PAIRS)
    def every(drawn):
        with jax.enable_x64(True):
            s, t, r = map(on_device, drawn)
            for number, coordinates in enumerate(ELEMENTS):
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
        first = sum(s * c for s, c in zip(axis.step, coordinates, strict=True)) + axis.low
        beyond = [k for k in range(axis.size) if not 0 <= first + k < full]
        assert not np.take(np.asarray(term.values), beyond, i).any()
