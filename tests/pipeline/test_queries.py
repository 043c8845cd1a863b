"""Queries: what `jaxcam.contracts.Queries` promises to whoever writes one."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import images, smooth

import jaxcam
from jaxcam.arrays.keys import numbered
from jaxcam.contracts import Example, Queries
from jaxcam.errors import JaxcamError

KEY = jax.random.key(5)


def drawn(key, n):
    return jax.random.uniform(numbered(key, n), (), jnp.float64)


def _prepare(example: Example):
    return example.a.mean(), example.u1, example.key


def _shifted(x, n, given):
    return x + given[0] + drawn(given[2], n)


def _weigh(outcomes, clean, a, given):
    return (outcomes - clean) * given[1].sum(axis=(0, 1)), a[..., 0]


EVERYTHING = Queries(
    "everything", "input", lambda shape: shape[-1], _shifted, lambda u, scores, index: u, _weigh,
    _prepare, gradient=True, random=True,
)  # fmt: skip


def test_changes_of_the_input_may_know_the_layer_its_gradient_and_a_key():
    """One change for each feature map: the layer's mean and a number drawn are added to the input.

    Its weight is what that adds to the score, times the sum of the gradient.
    """
    split, keys = smooth(), jax.random.split(KEY, 2)
    with jax.enable_x64(True):
        x = jnp.asarray(images(2, dtype=np.float64))
        result = jaxcam.cam(split, x, EVERYTHING, 1, key=keys, chunk_size=3)
        a = np.asarray(split.features(x)[1])

        @jax.jit
        def u(x):
            return split.scores(split.features(x), x)[0, 1]

        g = oracles.gradient(lambda a: split.scores(a[None], x[1:])[0, 1], a)
        gains = [u(x[1:] + a.mean() + drawn(keys[1], n)) - u(x[1:]) for n in range(a.shape[-1])]
    weights = np.asarray(gains) * g.sum(axis=(0, 1))
    np.testing.assert_allclose(result.weights[1], weights, rtol=1e-10)
    np.testing.assert_allclose(result.signed[1], (weights * a).sum(-1), rtol=1e-9, atol=1e-12)
    assert "one gradient" in result.diagnostics.report.proof


def test_what_it_cannot_change_is_refused():
    with pytest.raises(JaxcamError, match="everything: needs a key"):
        jaxcam.cam(smooth(), images(), EVERYTHING, 1)
    names = jaxcam.Split(lambda x: x[..., None].astype(jnp.float32), lambda a, x: a.sum(1))
    with pytest.raises(JaxcamError, match=r"everything: needs a floating input.*got int32"):
        jaxcam.cam(names, jnp.ones((1, 4), jnp.int32), EVERYTHING, 0, key=KEY)
