"""Every small form of a tangent against the dense array that it stands for."""

import jax.numpy as jnp
import numpy as np
import pytest
from terms import (
    ELEMENTS,
    EXTENTS,
    assert_same,
    each_element,
    element_at,
    first_place,
    written_out,
)

from jaxcam.derivatives.tangents.axes import stays_inside, whole, window
from jaxcam.derivatives.tangents.terms import (
    cleaned,
    cut,
    dense,
    localize,
    spread,
    spread_all,
    times,
    unit_vector,
)


@each_element
def test_localize_multiplies_the_pattern_in(s, t, r, coordinates):
    found = localize(s, element_at(coordinates))
    assert found.pattern is None
    assert_same(found, coordinates, written_out(s, coordinates))


@each_element
def test_cleaned_puts_zeros_beyond_the_ends(s, t, r, coordinates):
    for i, axis in enumerate(s.axes):
        found = cleaned(s, [i], element_at(coordinates))
        tidy = found.axes[i].clean or stays_inside(axis, s.shape[i])
        assert tidy
        assert_same(found, coordinates, written_out(s, coordinates))


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
def test_what_never_runs_over_the_ends_does_not(s, t, r, coordinates):
    """And what says that it may, does for some element."""
    for axis, full in zip(s.axes, s.shape, strict=True):
        if axis.kind != "window":
            assert stays_inside(axis, full)
            continue
        firsts = [first_place(axis, where) for where in ELEMENTS]
        there = [first for first in firsts if first is not None]
        inside = all(first >= 0 and first + axis.size <= full for first in there)
        assert stays_inside(axis, full) == inside


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
    array, axis = np.arange(1.0, 5.0), window(3, [(0, 2, 4), (0, 1)], -2)
    found = cut(jnp.asarray(array), [axis], (4,), element_at(coordinates))
    first = 2 * coordinates[0] + coordinates[1] - 2
    expected = [array[p] if 0 <= p < 4 else 0 for p in range(first, first + 3)]
    np.testing.assert_array_equal(found, expected)
