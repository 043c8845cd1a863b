"""Alpha, its poles and its guards, on values written out and against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxcam.methods.alphas import alphas, pole_shares
from jaxcam.types import Derivatives


def three(*rows):
    """Derivatives of a layer with one feature map and one row of positions."""
    return Derivatives(*(jnp.asarray(row, jnp.float32)[None, :, None] for row in rows))


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    d = Derivatives(*(rng.normal(size=(3, 4, 5)) for _ in range(3)))
    return d, np.abs(rng.normal(size=(3, 4, 5)))


def test_classic_values():
    # sum A = 4 and g = 0.5, 1, 0: alpha = 1 / (2 + g sum A), and 0 for 0/0.
    g = np.array([0.5, 1.0, 0.0])
    found = alphas(three(g, g**2, g**3), jnp.full((1, 3, 1), 4 / 3), numerator="d2", poles="raw")
    assert np.allclose(found.alpha[0, :, 0], [1 / 4, 1 / 6, 0])


@pytest.mark.parametrize("numerator", ["d2", "d1"])
def test_raw_alpha_is_the_oracles(numerator):
    d, a = random_case()
    d.d2[::2] = 0
    d.d3[:, ::3] = 0
    with jax.enable_x64(True):
        found = alphas(Derivatives(*map(jnp.asarray, d)), a, numerator=numerator, poles="raw")
    truth = oracles.alpha(*d, a, numerator)
    positive = d.d1 > 0
    assert np.allclose(found.alpha[positive], truth[positive], rtol=1e-9)


@pytest.mark.parametrize("numerator", ["d2", "d1"])
def test_bounded_alpha_is_the_oracles(numerator):
    d, a = random_case()
    with jax.enable_x64(True):
        found = alphas(Derivatives(*map(jnp.asarray, d)), a, numerator=numerator, poles="bounded")
    truth = oracles.bounded_alpha(*d, a, numerator)
    positive = d.d1 > 0
    assert np.allclose(found.alpha[positive], truth[positive], rtol=1e-9)
    truth = truth * np.maximum(d.d1, 0) if numerator == "d1" else truth
    assert (np.isclose(truth, 1)).any()
    assert ((truth > 0) & (truth < 1)).any()


def test_bounded_d1_bounds_both_factors():
    d, a = random_case()
    found = alphas(Derivatives(*map(jnp.asarray, d)), a, numerator="d1", poles="bounded")
    share = np.asarray(found.alpha) * np.maximum(d.d1, 0)
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-6
    # The closed form of one sample has D1^2 = D2: what is left is Grad-CAM++'s 1 / r.
    g = np.abs(d.d1)
    closed = Derivatives(*(jnp.asarray(g**k) for k in (1, 2, 3)))
    both = [alphas(closed, a, numerator=n, poles="bounded").alpha for n in ("d1", "d2")]
    assert np.allclose(both[0] * g, both[1], rtol=1e-5)


def test_a_pole_is_infinite_raw_and_one_bounded():
    # r = 2 + 4 * (-1) / 2 = 0.
    d, a = three([1.0, 1.0], [2.0, 1.0], [-1.0, 0.0]), jnp.full((1, 2, 1), 2.0)
    raw = alphas(d, a, numerator="d2", poles="raw")
    assert np.isinf(raw.alpha[0, 0, 0])
    bounded = alphas(d, a, numerator="d2", poles="bounded")
    assert bounded.alpha[0, :, 0].tolist() == [1.0, 0.5]
    assert bounded.guarded[0, :, 0].tolist() == [True, False]


def test_shares_of_the_weight():
    # r = 2, 0.5 and -1 by D3 / D2 = 0, -1.5 and -3 with sum A = 1; the last element has D1 < 0.
    d1, d2 = [1.0, 2.0, 3.0, -9.0], [1.0, 1.0, -1.0, 1.0]
    d3 = [0.0, -1.5, 3.0, -2.5]
    d, a = three(d1, d2, d3), jnp.full((1, 4, 1), 0.25)
    raw = pole_shares(alphas(d, a, numerator="d2", poles="raw"), d)
    # Weights |alpha| D1: 0.5, 4 and 3.
    assert np.isclose(raw.smallest_r, -1)
    assert np.isclose(raw.share_large, 4 / 7.5)
    assert np.isclose(raw.share_guarded, 0)
    assert np.isclose(raw.share_concave, 3 / 7.5)
    bounded = pole_shares(alphas(d, a, numerator="d2", poles="bounded"), d)
    # Weights: 0.5, 2 and 3; the last two are guarded.
    assert np.isclose(bounded.share_large, 4 / 7.5)
    assert np.isclose(bounded.share_guarded, 5 / 5.5)
    assert np.isclose(bounded.share_concave, 3 / 5.5)


@pytest.mark.parametrize("numerator", ["d2", "d1"])
@pytest.mark.parametrize("poles", ["raw", "bounded"])
def test_no_nan_in_values_or_gradients_where_everything_is_zero(numerator, poles):
    def total(d, a):
        found = alphas(d, a, numerator=numerator, poles=poles)
        return (found.alpha * jnp.maximum(d.d1, 0)).sum()

    d, a = three([0.0, 1.0], [0.0, 1.0], [0.0, 1.0]), jnp.zeros((1, 2, 1))
    value, gradient = jax.value_and_grad(total, argnums=(0, 1))(d, a)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
