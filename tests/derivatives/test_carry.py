"""Tangents of deep scores: made in a loop, each once, and in time that grows with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.derivatives.engines import adjoint
from jaxcam.derivatives.graph.partials import differentiated
from jaxcam.derivatives.reasons import first_nonlinear
from jaxcam.derivatives.traced import trace
from jaxcam.jaxprs.interpret import body

W = np.asarray([[0.6, 0.8], [-0.8, 0.6]], np.float32)
A = jnp.ones((3, 2))


def linear(count):
    def u(a):
        for _ in range(count):
            a = a @ W
        return jnp.tanh(a).sum()

    return u


def scaled(count):
    """A chain of pointwise operations with other operands each."""

    def u(a):
        for n in range(count):
            a = a * np.full((1, 2), 1 + n / 1e5, np.float32) + W[:1]
        return jnp.tanh(a).sum()

    return u


def residual(count):
    """Two ways to every sum: 2^count of them to the last."""

    def u(a):
        for _ in range(count):
            a = a + a @ W / count
        return jnp.tanh(a.sum(0)).sum()

    return u


@pytest.mark.parametrize(
    "u", [linear(300), scaled(300), residual(40)], ids=("linear", "scaled", "residual")
)
def test_long_ways_are_no_obstacle(u):
    found = adjoint.prove(trace(u, A))
    assert found.applies, found.words


def seen(count):
    """A chain of which every value is seen outside of it."""

    def u(a):
        total = jnp.zeros(())
        for _ in range(count):
            a = jnp.tanh(a + 0.1)
            total = total + (a @ W).sum()
        return total

    return u


def test_the_values_of_a_chain_are_differentiated_together():
    def operations(count):
        programs = differentiated(trace(seen(count), A)).programs
        return sum(len(body(program.closed).eqns) for program in programs)

    assert operations(16) < 2.2 * operations(8)


def test_nested_calls_are_searched_once():
    """A word for what bends, inside calls in calls: each was entered twice."""
    function = jnp.tanh
    for _ in range(14):
        function = jax.jit(lambda x, inner=function: inner(x) * 1.5)
    closed = trace(lambda a: function(a).sum(), A).closed
    assert first_nonlinear(closed) == "tanh"
