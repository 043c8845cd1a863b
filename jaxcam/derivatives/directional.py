"""Nested differentiation along one element at a time: exact for every score, and slow.

With ``e_i`` the i-th unit vector, ``u_k`` is the k-th derivative of ``t -> u(a + t e_i)`` at zero.
Three nested `jax.jvp` give it, or two of them around a gradient, of which the i-th element is
taken: then a wide last layer, such as a thousand classes of which one is explained, is not passed
by any tangent, but everything else is passed backwards too. Whichever has fewer operations is
taken, the repeated ones merged (merge.py).

Elements are taken by index in chunks under `vmap`; the point ``a`` itself stays outside the batch,
so that the compiler computes what does not depend on ``i`` once, before the loop over the chunks.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.derivatives.chunks import fitting, in_chunks
from jaxcam.derivatives.merge import merged
from jaxcam.derivatives.needs import needs
from jaxcam.derivatives.structure import operations
from jaxcam.types import Engine, LogDerivatives, LogScore, Proof, Traced

Along = Callable[[Array], tuple[Array, Array, Array]]
"""``i -> (u1, u2, u3)`` along element ``i``."""


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything that JAX can differentiate three times."""
    del name
    count = math.prod(traced.a.shape)
    return Proof(True, f"differentiated three times along each of {count} elements")


def derive(traced: Traced, a: Array, *context: Array) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element, ``chunk_size`` of them at a time."""
    along = program(lambda a: traced(a, *context)[0], a)
    chunk = traced.chunk_size or fitting(along, a.size)
    columns = in_chunks(core.jaxpr_as_fun(along), a.size, chunk, traced.axis)
    return LogDerivatives(*(column.reshape(a.shape) for column in columns)), traced(a, *context)[1]


def program(log_score: LogScore, a: Array) -> core.ClosedJaxpr:
    """Give ``i -> (u1, u2, u3)`` as the cheapest program that computes it."""
    index = jax.ShapeDtypeStruct((), jnp.int32)
    used = operations(jax.make_jaxpr(log_score)(a))
    if "custom_vjp_call" in used:
        return merged(_reverse(log_score, a), index)
    ways = [_forward] if "while" in used else [_forward, _forward_over_reverse]
    return min((merged(way(log_score, a), index) for way in ways), key=_operations)


def _operations(along: core.ClosedJaxpr) -> int:
    return needs(along).operations


def _forward(log_score: LogScore, a: Array) -> Along:
    def derivatives(index: Array) -> tuple[Array, Array, Array]:
        direction = _unit_vector(index, a)

        def slope(point: Array) -> Array:
            return jax.jvp(log_score, (point,), (direction,))[1]

        def curvature(point: Array) -> tuple[Array, Array]:
            return jax.jvp(slope, (point,), (direction,))

        (u1, u2), (_, u3) = jax.jvp(curvature, (a,), (direction,))
        return u1, u2, u3

    return derivatives


def _forward_over_reverse(log_score: LogScore, a: Array) -> Along:
    def derivatives(index: Array) -> tuple[Array, Array, Array]:
        direction = _unit_vector(index, a)

        def gradients(point: Array) -> tuple[Array, Array]:
            return jax.jvp(jax.grad(log_score), (point,), (direction,))

        (u1, u2), (_, u3) = jax.jvp(gradients, (a,), (direction,))
        # By index and not by the direction: a masked sum would meet NaN elsewhere, and compilers
        # have got it wrong.
        return u1.reshape(-1)[index], u2.reshape(-1)[index], u3.reshape(-1)[index]

    return derivatives


def _reverse(log_score: LogScore, a: Array) -> Along:
    """Nest gradients alone: a ``custom_vjp`` has no forward rule."""

    def derivatives(index: Array) -> tuple[Array, Array, Array]:
        def moved(t: Array) -> Array:
            return log_score(a.reshape(-1).at[index].add(t).reshape(a.shape))

        first = jax.grad(moved)
        second = jax.grad(first)
        zero = jnp.zeros((), a.dtype)
        return first(zero), second(zero), jax.grad(second)(zero)

    return derivatives


def _unit_vector(index: Array, a: Array) -> Array:
    return jnp.zeros(a.size, a.dtype).at[index].set(1).reshape(a.shape)


ENGINE = Engine("directional", exact=True, prove=prove, derive=derive)
