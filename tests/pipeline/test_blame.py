"""Maps of networks with something infinite in them: right where it does not count, else named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rows
import tails

import jaxcam

X = tails.normal("blamed", 1, 4, 3, 3).astype(np.float32)
W = np.abs(tails.normal("blamed weights", 3, 2)).astype(np.float32)
ALIVE = [0, 2]
METHODS = [jaxcam.methods.grad_cam_pp(), jaxcam.methods.taylor_cam(), jaxcam.methods.grad_cam()]


def network(head, channels, eps=0.0):
    """Explain the layer behind a ReLU that switches the second channel off everywhere."""
    off = jnp.asarray([-100.0 * (k == 1) for k in channels], jnp.float32)

    def features(x):
        return jax.nn.relu(x[..., np.asarray(channels)] + off[None, None, None])

    def scores(a, x):
        return jnp.tanh(head(a + eps) @ W[np.asarray(channels)])

    return jaxcam.Split(features, scores)


HEADS = {
    "l2": lambda a: jnp.sqrt((a**2).mean((1, 2))),
    "gem": lambda a: (a**3).mean((1, 2)) ** (1 / 3),
    "deviation": lambda a: a.std((1, 2)) + a.mean((1, 2)),
}


# Each method on one head, each head by one method; all pairs among the slow tests.
PAIRS = {f"{head}-{method.name}": (HEADS[head], method) for head in HEADS for method in METHODS}


@rows.table("pair", PAIRS, ("l2-grad_cam_pp", "gem-grad_cam", "deviation-taylor_cam"))
def test_a_feature_map_that_is_zero_everywhere_weighs_nothing(pair):
    head, method = pair
    dead, alive = (
        jaxcam.cam(network(head, channels), X, method, 0) for channels in ([0, 1, 2], ALIVE)
    )
    assert alive.map.max() > 0
    np.testing.assert_allclose(dead.map, alive.map, rtol=1e-4, atol=1e-6 * alive.map.max())
    if head is not HEADS["deviation"]:  # of which the mean still has a slope
        assert not dead.weights[..., 1].any()


def roots(a):
    return jnp.sqrt(a).mean((1, 2))


@pytest.mark.parametrize("method", METHODS[::2], ids=lambda method: method.name)
def test_what_is_infinite_is_named_and_the_remedy_works(method):
    words = r"image \[0\]: the first derivative of sqrt is inf at 0\. Keep the operation off"
    with pytest.raises(jaxcam.JaxcamError, match=words):
        jaxcam.cam(network(roots, [0, 1, 2]), X, method, 0)
    assert jnp.isfinite(jaxcam.cam(network(roots, [0, 1, 2], 1e-3), X, method, 0).map).all()


def test_a_value_that_is_not_finite_is_named():
    with pytest.raises(jaxcam.JaxcamError, match=r"image \[0\]: log gives nan"):
        jaxcam.cam(network(lambda a: jnp.log(a.mean((1, 2)) - 9), [0, 1, 2]), X, METHODS[0], 0)


def test_weights_that_are_not_finite_have_the_words_of_before():
    split = jaxcam.Split(lambda x: x, lambda a, x: a.mean((1, 2)) @ (W * np.nan))
    with pytest.raises(jaxcam.JaxcamError, match="Are the weights and scores finite"):
        jaxcam.cam(split, X, METHODS[2], 0)
