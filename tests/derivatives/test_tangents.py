"""Every small form of a tangent against the dense array that it stands for.

The reference writes a term out number by number, from its definition alone: a window begins at
``step . coordinates + low``, what lies beyond the ends of an axis counts for nothing, and the
pattern is multiplied in.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcam.derivatives.tangents import (
    SAME,
    Axis,
    Element,
    Term,
    cleaned,
    collect,
    cut,
    dense,
    localize,
    multiplied,
    plus,
    product,
    spread,
    spread_all,
    stays_inside,
    summed,
    times,
    total,
    unit_vector,
    whole,
)

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


@each_element
def test_localize_multiplies_the_pattern_in(s, t, r, coordinates):
    found = localize(s, element_at(coordinates))
    assert found.pattern is None
    assert_same(found, coordinates, written_out(s, coordinates))


@each_element
def test_cleaned_puts_zeros_beyond_the_ends(s, t, r, coordinates):
    for i, axis in enumerate(s.axes):
        found = cleaned(s, [i], element_at(coordinates))
        tidy = found.axes[i].clean or stays_inside(axis, s.shape[i], element_at(coordinates))
        assert tidy
        assert_same(found, coordinates, written_out(s, coordinates))


@each_element
def test_summed_sums_over_axes_that_keep_the_size_one(s, t, r, coordinates):
    rank = len(s.shape)
    for over in itertools.chain.from_iterable(
        itertools.combinations(range(rank), n) for n in range(1, rank + 1)
    ):
        found = summed(s, over, element_at(coordinates))
        expected = written_out(s, coordinates).sum(over, keepdims=True)
        assert found.shape == expected.shape
        assert_same(found, coordinates, expected)


@each_element
def test_spread_stores_an_axis_whole(s, t, r, coordinates):
    for i in range(len(s.shape)):
        found = spread(s, i, element_at(coordinates))
        assert found.axes[i] == whole(s.shape[i])
        assert_same(found, coordinates, written_out(s, coordinates))


@each_element
def test_spread_all_is_the_array(s, t, r, coordinates):
    found = spread_all(s, element_at(coordinates))
    expected = written_out(s, coordinates)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)
    assert_same(dense(found.values), coordinates, expected)


@each_element
def test_times_multiplies_by_an_array(s, t, r, coordinates):
    array = np.asarray(spread_all(t, element_at(coordinates)).values)
    found = times(s, jnp.asarray(array), element_at(coordinates))
    assert_same(found, coordinates, written_out(s, coordinates) * array)
    assert times(s, None, element_at(coordinates)).pattern is s.pattern


def test_equal_products_are_one_array():
    """Two terms times the same pattern are known to have the same pattern."""
    element = element_at((0, 0))
    p, q = jnp.full((3, 2), 2.0), jnp.full((3, 2), 3.0)
    unit = unit_vector(element, jnp.dtype("float32"))
    one, two = (times(times(unit, x, element), y, element) for x, y in ((p, q), (q, p)))
    assert one.pattern is two.pattern


@each_element
def test_plus_adds_or_declines(s, t, r, coordinates):
    """Terms of one pattern, and of two."""
    for other in (t, t._replace(pattern=s.pattern), s):
        found = plus(s, other, element_at(coordinates))
        if found is not None:
            expected = written_out(s, coordinates) + written_out(other, coordinates)
            assert_same(found, coordinates, expected)


@each_element
def test_product_multiplies_place_by_place(s, t, r, coordinates):
    for other in (t, s):
        found = product(s, other, element_at(coordinates))
        expected = written_out(s, coordinates) * written_out(other, coordinates)
        if found is None:
            assert not expected.any()
        else:
            assert_same(found, coordinates, expected)


@each_element
def test_collect_keeps_the_sum(s, t, r, coordinates):
    expected = sum(written_out(term, coordinates) for term in (s, t, r, s))
    for most in (1, 6):
        found = collect([s, t, r, s], element_at(coordinates), most)
        assert len(found) <= max(most, 1)
        together = sum(written_out(term, coordinates) for term in found)
        np.testing.assert_allclose(together, expected, rtol=1e-12, atol=1e-12)


@each_element
def test_sums_are_multiplied_out(s, t, r, coordinates):
    element = element_at(coordinates)
    one, two = [s, t], [r, s]
    arrays = {id(x): sum(written_out(term, coordinates) for term in x) for x in (one, two)}
    for x, y in ((one, two), (one, one)):
        found = multiplied(x, y, element)
        together = sum((written_out(term, coordinates) for term in found), np.zeros(s.shape))
        expected = arrays[id(x)] * arrays[id(y)]
        np.testing.assert_allclose(together, expected, rtol=1e-12, atol=1e-12)


@each_element
def test_total_sums_a_product_over_all_places(s, t, r, coordinates):
    weight = np.asarray(spread_all(t, element_at(coordinates)).values)
    for terms in ([s], [s, t], [s, s, r], [s, t, r]):
        for times_weight in (None, weight):
            product = math.prod(written_out(term, coordinates) for term in terms)
            expected = (product if times_weight is None else product * times_weight).sum()
            pattern = None if times_weight is None else jnp.asarray(times_weight)
            found = total(terms, pattern, element_at(coordinates))
            if found is None:
                assert not product.any()
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@each_element
def test_what_never_runs_over_the_ends_does_not(s, t, r, coordinates):
    """And what says that it may, does for some element."""
    element = element_at(coordinates)
    for axis, full in zip(s.axes, s.shape, strict=True):
        if axis.kind != "window":
            assert stays_inside(axis, full, element)
            continue
        firsts = [
            sum(a * c for a, c in zip(axis.step, where, strict=True)) + axis.low
            for where in ELEMENTS
        ]
        inside = min(firsts) >= 0 and max(firsts) + axis.size <= full
        assert stays_inside(axis, full, element) == inside


@pytest.mark.parametrize("coordinates", ELEMENTS)
def test_a_unit_vector_is_one_at_one_place(coordinates):
    element = element_at(coordinates)
    found = unit_vector(element, jnp.dtype("float32"))
    expected = np.zeros(EXTENTS)
    expected[coordinates] = 1
    assert_same(found, coordinates, expected)
    assert found.values.size == 1


@pytest.mark.parametrize("coordinates", ELEMENTS)
def test_a_window_is_cut_with_zeros_beyond_the_ends(coordinates):
    array, axis = np.arange(1.0, 5.0), Axis("window", 3, (2, 1), -2)
    found = cut(jnp.asarray(array), [axis], (4,), element_at(coordinates))
    first = 2 * coordinates[0] + coordinates[1] - 2
    expected = [array[p] if 0 <= p < 4 else 0 for p in range(first, first + 3)]
    np.testing.assert_array_equal(found, expected)
