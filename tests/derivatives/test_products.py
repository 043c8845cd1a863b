"""Sums and products of tangents against those of the dense arrays that they stand for."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from terms import assert_same, each_element, element_at, written_out

from jaxcam.derivatives.tangents.products import (
    MOST,
    collect,
    multiplied,
    plus,
    product,
    summed,
    total,
)
from jaxcam.derivatives.tangents.terms import spread_all


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
    for terms in ([s, t, r, s], [s, t, r] * 4):
        found = collect(terms, element_at(coordinates))
        expected = sum(written_out(term, coordinates) for term in terms)
        assert len(found) <= MOST
        together = sum(written_out(term, coordinates) for term in found)
        np.testing.assert_allclose(together, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
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
