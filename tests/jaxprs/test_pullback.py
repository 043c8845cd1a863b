"""Gradients of float16 networks do not fall out of its range."""

import jax
import jax.numpy as jnp
import numpy as np
import rows
from networks import convolve

import jaxcam
from jaxcam import methods

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 2, 2)).astype(np.float32) * 0.3
HEAD = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32) * 1e-3
X = np.random.default_rng(2).normal(size=(1, 64, 64, 2)).astype(np.float16).astype(np.float32)


def normalised(y):
    return (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-3)


ACTS = {
    "gelu": jax.nn.gelu,
    "in a checkpoint": jax.checkpoint(jax.nn.silu),
    "pooled": lambda y: jax.lax.reduce_window(
        jnp.tanh(y), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    ),
    "normalised in single": lambda y: normalised(y.astype(jnp.float32)).astype(y.dtype) * y,
}


def network(dtype, act, gain=1.0):
    """A mean over 4,096 positions times 1e-3: gradients of 2e-7: two bits of float16."""

    def scores(a, x):
        pooled = act(convolve(a, KERNEL)).mean((1, 2))
        return (pooled @ jnp.asarray(HEAD * gain, a.dtype)).astype(jnp.float32)

    return jaxcam.Split(lambda x: x.astype(dtype), scores)


@rows.table("act", list(ACTS), list(ACTS)[:2])
def test_small_gradients_keep_their_digits(act):
    run = lambda dtype: jaxcam.cam(network(dtype, ACTS[act]), X, methods.grad_cam(), 1).weights  # noqa: E731
    half, single = run(jnp.float16), run(jnp.float32)
    np.testing.assert_allclose(half, single, rtol=1e-2)


def test_those_of_the_engines_with_adjoints_too():
    def run(dtype):
        split = network(dtype, jax.nn.gelu)
        return jaxcam.cam(split, X[:, :16, :16], methods.taylor_cam(), 1)

    half, single = run(jnp.float16), run(jnp.float32)
    assert half.diagnostics.report.engine == single.diagnostics.report.engine != "gradient"
    difference = jnp.abs(half.map - single.map).max()
    assert difference < 1e-2 * single.map.max()


def test_large_gradients_do_not_overflow():
    """A sum: what is passed backwards is above 65504 on its way, and the gradient is not."""

    def scores(a, x):
        scaled = (a * jnp.asarray(1e-2, a.dtype)).sum((1, 2)) * jnp.asarray(1e-4, a.dtype)
        return scaled.astype(jnp.float32) * 1e9

    split = jaxcam.Split(lambda x: x.astype(jnp.float16), scores)
    found = jaxcam.cam(split, X[:, :4, :4] ** 2, methods.grad_cam(), 1)
    np.testing.assert_allclose(found.weights, [[0, 1e3]], rtol=1e-2)
