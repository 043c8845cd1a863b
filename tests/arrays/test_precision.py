"""A network in half precision against one that rounds every value by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import convolve, images, smooth, weights

import jaxcam
from jaxcam import bundled
from jaxcam.errors import JaxcamError

HALVES = ["bfloat16", "float16"]
KEY = jax.random.key(0)


def by_hand(x, dtype):
    """GELU behind a convolution, each value rounded where it is stored."""
    stored = lambda v: jnp.asarray(v).astype(dtype)  # noqa: E731
    wide = lambda v: v.astype(jnp.float32)  # noqa: E731
    dims = ("NHWC", "HWIO", "NHWC")
    v = jax.lax.conv_general_dilated(
        stored(x), stored(weights().first), (1, 1), "SAME", dimension_numbers=dims
    )
    return stored(wide(stored(wide(v) * 0.5)) + wide(stored(jnp.tanh(wide(v)))))


def network():
    def features(x):
        v = convolve(x, weights().first)
        return v * 0.5 + jnp.tanh(v)

    return jaxcam.Split(features, smooth().scores)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_value_up_to_the_layer_is_rounded(dtype):
    x = images()
    found = jaxcam.half_precision(network(), dtype).features(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, by_hand(x, dtype).astype(np.float32))
    assert (found != network().features(x)).mean() > 0.5


@pytest.mark.parametrize("dtype", HALVES)
def test_nothing_behind_the_layer_is_rounded(dtype):
    """But what comes past it from the input, which is the same value as before the layer."""
    x = images()
    a = network().features(x)
    halved = jaxcam.half_precision(network(), dtype)
    rounded = np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float32)
    exact = network().scores(a, jnp.asarray(rounded))
    np.testing.assert_allclose(halved.scores(a, x), exact, rtol=2e-3)
    bypass = jaxcam.Split(network().features, lambda a, x: a.mean((1, 2)))
    np.testing.assert_array_equal(
        jaxcam.half_precision(bypass, dtype).scores(a, x), bypass.scores(a, x)
    )


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_calls_are_entered(wrap):
    split = network()
    called = jaxcam.Split(wrap(split.features), split.scores)
    x = images()
    np.testing.assert_array_equal(
        jaxcam.half_precision(called).features(x), jaxcam.half_precision(split).features(x)
    )


def test_loops_and_functions_with_derivatives_of_their_own_are_run_as_they_are():
    kernel = weights().first[..., :2]

    def features(x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(convolve(x, kernel)), None), x, None, 2)
        return jax.nn.relu(x)

    x = images()
    rounded = x.astype(jnp.bfloat16).astype(np.float32)
    expected = features(jnp.asarray(rounded)).astype(jnp.bfloat16).astype(np.float32)
    split = jaxcam.half_precision(jaxcam.Split(features, lambda a, x: a.mean((1, 2))))
    np.testing.assert_array_equal(split.features(x), expected)
    assert jnp.isfinite(jax.grad(lambda x: split.features(x).sum())(jnp.asarray(x))).all()


@pytest.mark.slow
def test_the_map_differs_by_rounding_and_its_derivatives_are_exact():
    relu = bundled.load("relu")
    split = jaxcam.split(relu.model, "block3", variables=relu.variables)
    halved = jaxcam.half_precision(split)
    x = bundled.scene(0).image[None]
    found = jaxcam.smooth_grad_cam_pp(halved, x, key=KEY, num_samples=4)
    truth = jaxcam.smooth_grad_cam_pp(split, x, key=KEY, num_samples=4)
    assert found.map.dtype == np.float32
    assert 1e-4 < float(abs(found.map - truth.map).max() / truth.map.max()) < 0.1
    assert found.diagnostics.report == truth.diagnostics.report
    a = halved.features(x)
    same = jaxcam.Split(lambda x: a, split.scores)
    plain = jaxcam.cam(same, x, jaxcam.methods.grad_cam_pp())
    np.testing.assert_allclose(
        jaxcam.cam(halved, x, jaxcam.methods.grad_cam_pp()).map, plain.map, rtol=1e-4, atol=1e-6
    )


def test_new_weights_compile_nothing():
    count = 0

    def features(kernel, x):
        nonlocal count
        count += 1
        return jnp.tanh(convolve(x, kernel))

    def explain(kernel):
        split = jaxcam.Split(
            jax.tree_util.Partial(features, kernel), lambda a, x: a.mean((1, 2)) @ weights().head
        )
        held = jaxcam.Split(split.features, jax.tree_util.Partial(scores))
        return jaxcam.cam(jaxcam.half_precision(held), images(), jaxcam.methods.grad_cam())

    def scores(a, x):
        return a.mean((1, 2)) @ weights().head

    first = explain(weights().first)
    traced = count
    second = explain(2 * weights().first)
    assert count == traced
    assert (first.map != second.map).any()


def test_other_precisions_are_refused():
    with pytest.raises(JaxcamError, match="half_precision: needs bfloat16 or float16; got int8"):
        jaxcam.half_precision(network(), "int8")
