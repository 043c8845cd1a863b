"""Nested forward differentiation along one element at a time: exact for every score, and slow.

With ``e_i`` the i-th unit vector, ``u_k`` is the k-th derivative of ``t -> u(a + t e_i)`` at zero,
from three nested `jax.jvp`. Elements are taken by index in chunks under `vmap`; the point ``a``
itself stays outside the batch, so that what does not depend on ``i`` is computed once a chunk, and
the compiler merges the equal tangents of the nest: as many operations as Taylor mode.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.structure import body, operations
from jaxcam.types import Engine, LogDerivatives, LogScore, Proof, ScoreAndMore

CHUNK_ELEMENTS = 1 << 20  # activations in flight at once when no chunk size is given


def prove(log_score: LogScore, a: Any, name: str = "") -> Proof:
    """Apply to anything that JAX can differentiate three times."""
    del log_score, name
    return Proof(True, f"differentiated three times along each of {math.prod(a.shape)} elements")


def derive(
    score: ScoreAndMore, a: Array, *, chunk_size: int | None = None
) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element, ``chunk_size`` of them at a time."""
    chunk = chunk_size or max(1, min(a.size, CHUNK_ELEMENTS // a.size))
    columns = in_chunks(_along(lambda a: score(a)[0], a), a.size, chunk)
    return LogDerivatives(*(column.reshape(a.shape) for column in columns)), score(a)[1]


def in_chunks(function: Callable[[Array], Any], count: int, chunk: int) -> Any:
    """Map a function over the indices below ``count``, ``chunk`` of them under one `vmap`.

    The last chunk is filled up with repetitions: a remainder of its own would be traced twice.
    """
    chunk = min(chunk, count)
    steps = -(-count // chunk)
    indices = jnp.minimum(jnp.arange(steps * chunk), count - 1).reshape(steps, chunk)
    stacked = jax.lax.map(jax.vmap(function), indices)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[:count], stacked)


def _along(log_score: LogScore, a: Array) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Return ``i -> (u1, u2, u3)`` along element ``i``."""
    if "custom_vjp_call" in operations(body(jax.make_jaxpr(log_score)(a))):
        return _along_in_reverse(log_score, a)

    def derivatives(index: Array) -> tuple[Array, Array, Array]:
        direction = jnp.zeros(a.size, a.dtype).at[index].set(1).reshape(a.shape)

        def slope(point: Array) -> Array:
            return jax.jvp(log_score, (point,), (direction,))[1]

        def curvature(point: Array) -> tuple[Array, Array]:
            return jax.jvp(slope, (point,), (direction,))

        (u1, u2), (_, u3) = jax.jvp(curvature, (a,), (direction,))
        return u1, u2, u3

    return derivatives


def _along_in_reverse(
    log_score: LogScore, a: Array
) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Do the same by nested gradients: a ``custom_vjp`` has no forward rule."""

    def derivatives(index: Array) -> tuple[Array, Array, Array]:
        def moved(t: Array) -> Array:
            return log_score(a.reshape(-1).at[index].add(t).reshape(a.shape))

        first = jax.grad(moved)
        second = jax.grad(first)
        zero = jnp.zeros((), a.dtype)
        return first(zero), second(zero), jax.grad(second)(zero)

    return derivatives


ENGINE = Engine("directional", exact=True, prove=prove, derive=derive)
