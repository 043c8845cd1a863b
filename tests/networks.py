"""Small networks as pairs of pure functions, for tests of what comes after the split.

Weights are leaves of the split (`jax.tree_util.Partial`); arrays take the dtype of the input, so
that one network runs in every precision.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxcam import Split

CLASSES = 5


class Weights(NamedTuple):
    first: np.ndarray
    second: np.ndarray
    head: np.ndarray


def weights(seed: int = 0, channels: int = 2, k: int = 4) -> Weights:
    """Draw weights, float32, by seed."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Weights(draw(3, 3, channels, k) * 0.4, draw(3, 3, k, k) * 0.4, draw(k, CLASSES) * 3)


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Draw ``N(0, 1)`` by numpy: JAX compiles a draw for every shape, of several axes a second."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolve(x, kernel):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, jnp.asarray(kernel, x.dtype), (1, 1), "SAME", dimension_numbers=dims
    )


def features(w: Weights, x, act):
    return act(convolve(x, w.first))


def pooled_head(w: Weights, a):
    return a.mean(axis=(1, 2)) @ jnp.asarray(w.head, a.dtype)


def smooth_scores(w: Weights, a, x):
    """A GELU convolution, and a gate from the input beside the layer: smooth, and uses ``x``."""
    gate = x.mean(axis=(1, 2, 3), keepdims=True)
    return pooled_head(w, jax.nn.gelu(convolve(a, w.second)) + a * gate)


def relu_scores(w: Weights, a, x):
    return pooled_head(w, jax.nn.relu(convolve(a, w.second)) + a)


def affine_scores(w: Weights, a, x):
    return pooled_head(w, a)


# Module-level, so that the same network compiles once however often a test builds it.
_gelu_features = functools.partial(features, act=jax.nn.gelu)
_relu_features = functools.partial(features, act=jax.nn.relu)


def smooth(seed: int = 0) -> Split:
    w = weights(seed)
    return Split(Partial(_gelu_features, w), Partial(smooth_scores, w))


def relu(seed: int = 0) -> Split:
    w = weights(seed)
    return Split(Partial(_relu_features, w), Partial(relu_scores, w))


def affine(seed: int = 0) -> Split:
    w = weights(seed)
    return Split(Partial(_relu_features, w), Partial(affine_scores, w))


def pointwise_weights() -> list[np.ndarray]:
    """Two layers and a head, whose signs differ, so that every rule for ReLUs gives another map."""
    rng = np.random.default_rng(8)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((2, 6), (6, 6), (6, CLASSES))]


def _pointwise_features(w, x):
    return jax.nn.relu(x @ jnp.asarray(w[0], x.dtype))


def _pointwise_scores(w, a, x):
    return jax.nn.relu(a @ jnp.asarray(w[1], a.dtype)).mean(axis=(1, 2)) @ jnp.asarray(
        w[2], a.dtype
    )


def pointwise() -> Split:
    """Give a network of ReLUs at each position alone, which passes back by hand."""
    w = tuple(pointwise_weights())
    return Split(Partial(_pointwise_features, w), Partial(_pointwise_scores, w))


def images(batch: int = 1, seed: int = 0, size: tuple[int, ...] = (5, 4), dtype=np.float32):
    """Draw a batch of inputs ``[batch, *size, 2]``."""
    return np.random.default_rng(seed).normal(size=(batch, *size, 2)).astype(dtype)


def same_third_derivatives(scores, tail, a):
    """Compare two tails by their third derivatives along random directions, jitted and mapped."""

    def along(f, v, a):
        return jax.jvp(f, (a,), (v,))[1]

    def third(f, v):
        for _ in range(3):
            f = functools.partial(along, f, v)
        return f(a)

    v = normal((2, *a.shape), seed=3)
    exact, expected = (jax.jit(jax.vmap(lambda v, f=f: third(f, v)))(v) for f in (scores, tail))
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-6)
    assert jnp.abs(exact).max() > 1e-2
