"""Merging does the same computation, once."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tails
from jax.extend import core

from jaxcam.derivatives.engines import directional
from jaxcam.jaxprs.merge import merged


def count(closed, names=("dot_general", "conv_general_dilated")):
    found = collections.Counter(equation.primitive.name for equation in closed.jaxpr.eqns)
    return sum(found[name] for name in names)


TANGENTS = {
    # Dense layers or convolutions of the value itself; then of its tangents: one where the
    # operation comes before everything that bends, since there the second and third are zero.
    "fc_gelu": 2 + 1 + 3,
    "convs_silu": 3 + 1 + 3 + 3,
    "remat_gelu": 2 + 1 + 3,
}


@pytest.mark.parametrize("name", TANGENTS)
def test_three_tangents_of_seven_are_left(name):
    tail = next(tail for tail in tails.TAILS if tail.name == name)
    a = jnp.asarray(tails.point(tail), jnp.float32)
    along = directional._forward(lambda a: tail.scores(a)[1], a)
    assert count(merged(along, jnp.int32(0))) == TANGENTS[name]


def run(function, *arguments):
    closed = merged(function, *arguments)
    return closed, core.jaxpr_as_fun(closed)(*arguments)


def test_equal_calls_are_one():
    @jax.jit
    def called(x):
        return jnp.tanh(x) * 2

    x = jnp.arange(3.0)
    closed, (found,) = run(lambda x: called(x) + jnp.tanh(x) * 2, x)
    assert count(closed, ["tanh"]) == 1
    np.testing.assert_allclose(found, 4 * np.tanh(x), rtol=1e-6)


@pytest.mark.parametrize(
    "pair",
    [
        lambda x: (x**3, x**5),  # parameters
        lambda x: (jax.lax.reduce_sum_p.bind(x, axes=(0,), out_sharding=None), x[0]),
        lambda x: (x - x.T, x.T - x),  # order of the operands
        lambda x: (1 / (x * 0.0), 1 / (x * -0.0)),  # literals that are equal and not the same
        lambda x: (x.astype("bfloat16") * 3, x * 3),  # dtypes
        lambda x: (jnp.cumsum(x, 0), jnp.cumsum(x, 0, dtype=x.dtype)[::-1]),
        lambda x: (jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
                   jax.lax.cond(x[0, 0] > 0, jnp.cos, jnp.sin, x)),
    ],
)  # fmt: skip
def test_what_differs_is_not_merged(pair):
    x = jnp.asarray(tails.normal("merge", 2, 2), jnp.float32)
    for ours, theirs in zip(run(pair, x)[1], pair(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_effects_stay():
    def printing(x):
        jax.debug.print("x {}", x)
        jax.debug.print("x {}", x)
        return x * 2

    closed, _ = run(printing, jnp.ones(()))
    assert len([e for e in closed.jaxpr.eqns if e.effects]) == 2
