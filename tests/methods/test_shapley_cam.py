"""Shapley values of Taylor series: exact of polynomials, and what is proved where nothing bends."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import affine, images, relu, smooth

import jaxcam
from jaxcam import methods
from jaxcam.errors import JaxcamError


def polynomial(order, seed=0, n=4):
    """A random polynomial of ``n`` activations, of degree ``order``, and where to look at it."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(n,) * degree) for degree in range(1, order + 1)]

    def u(a):
        a = a.ravel()
        letters = "ijk"
        return sum(
            jnp.einsum(f"{letters[:d]},{','.join(letters[:d])}->", jnp.asarray(t), *[a] * d)
            for d, t in enumerate(tables, start=1)
        )

    return u, rng.normal(size=(n, 1))


@pytest.mark.parametrize("order", [2, 3])
def test_it_is_exact_of_a_polynomial_of_its_order(order):
    u, a = polynomial(order)
    expected = oracles.shapley(oracles.coalition_worth(u, a, 0 * a), (4,))
    with jax.enable_x64(True):
        split = jaxcam.Split(lambda x: x, lambda a, x: jax.vmap(u)(a)[:, None])
        method = methods.shapley_cam(order=order, elementwise=True)
        result = jax.jit(lambda x: jaxcam.cam(split, x, method, 0, signed=True))(a[None])
    np.testing.assert_allclose(result.map[0], expected, rtol=1e-10)


def test_third_order_by_any_engine_behind_a_smooth_tail():
    """Each further order sums nearer to what the score gains from zero activations."""
    x, split = images(size=(2, 2)), smooth()
    near = jaxcam.Split(split.features, lambda a, x: split.scores(a * 0.2, x))
    made = [methods.hires_cam(), *(
        methods.shapley_cam(order=order, elementwise=True) for order in (2, 3)
    )]  # fmt: skip
    results = [jaxcam.cam(near, x, method, 1, signed=True) for method in made]
    a = near.features(x)
    whole = float((near.scores(a, x) - near.scores(0 * a, x))[0, 1])
    off = [abs(float(result.map.sum()) - whole) for result in results]
    assert off[2] < off[1] < off[0]
    assert off[2] < 0.01 * abs(whole)
    assert results[2].diagnostics.report.engine.startswith("along:")


@pytest.mark.parametrize("split", [relu(), affine()], ids=["relu", "affine"])
def test_where_nothing_bends_it_is_grad_cam_and_says_so(split):
    x = images()
    result = jaxcam.cam(split, x, methods.shapley_cam(), 1)
    plain = jaxcam.cam(split, x, methods.grad_cam(), 1)
    np.testing.assert_allclose(result.map, plain.map, rtol=1e-5, atol=1e-6)
    report = result.diagnostics.report
    assert report.engine == "affine"
    assert any("second order" in note and "proved" in note for note in report.notes)
    bent = jaxcam.cam(smooth(), x, methods.shapley_cam(), 1).diagnostics.report
    assert bent.engine == "along"
    assert not bent.notes


def test_another_order_is_refused():
    with pytest.raises(JaxcamError, match="shapley_cam: needs order 2 or 3; got 1"):
        methods.shapley_cam(order=1)
