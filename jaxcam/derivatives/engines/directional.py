"""Nested differentiation along one element at a time: exact for every score, and slow.

With ``e_i`` the i-th unit vector, ``u_k`` is the k-th derivative of ``t -> u(a + t e_i)`` at zero.
Three nested `jax.jvp` give it, or two of them around a gradient, of which the i-th element is
taken: then a wide last layer, such as a thousand classes of which one is explained, is not passed
by any tangent, but everything else is passed backwards too. Whichever has fewer operations is
taken, the repeated ones merged (merge.py). Some functions JAX differentiates forward alone (loops
of unknown length, a dilated maximum over windows), and some backward alone (`jax.custom_vjp`):
a way that fails is left out, and where both fail, three nested gradients are tried.

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

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.reasons import Refused, first_line
from jaxcam.jaxprs.choices import SINGULAR, choosing
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.loops import NUMBER, fitting, in_chunks
from jaxcam.jaxprs.merge import merged
from jaxcam.types import LogDerivatives, LogScore

NO_FORWARD = "a hand-written reverse rule (custom_vjp) has no forward derivative"

UNFINISHED = "custom_lin"
"""What JAX leaves in a program for the tangent of a ``custom_vjp``, which nothing can run: where
it differentiates a part of the program by itself (a sort), it does not say so while tracing."""

Along = Callable[[Array], tuple[Array, Array, Array]]
"""``i -> (u1, u2, u3)`` along element ``i``."""


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything that JAX can differentiate three times."""
    del name
    count = math.prod(traced.a.shape)
    return Proof(True, f"differentiated three times along each of {count} elements")


def derive(traced: Traced, a: Array, *context: Array) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element, ``chunk_size`` of them at a time.

    What is not finite by the cheapest way is done again by nested gradients.
    """

    def score(a: Array) -> Array:
        return traced(a, *context)[0]

    columns = _columns(program(score, a), traced, a)
    nested = None
    if not SINGULAR.isdisjoint(operations(traced.closed)):
        chosen = core.jaxpr_as_fun(choosing(traced.closed))
        nested = _nested(lambda a: chosen(a, *context)[0], a)
    if nested is not None:
        finite = jnp.stack([jnp.isfinite(column).all() for column in columns]).all()
        columns = jax.lax.cond(finite, lambda: columns, lambda: _columns(nested, traced, a))
    return LogDerivatives(*(column.reshape(a.shape) for column in columns)), traced(a, *context)[1]


def _columns(along: core.ClosedJaxpr, traced: Traced, a: Array) -> list[Array]:
    chunk = traced.chunk_size or fitting(along, a.size)
    return in_chunks(core.jaxpr_as_fun(along), a.size, chunk, traced.axis)


def _nested(score: LogScore, a: Array) -> core.ClosedJaxpr | None:
    """Give the way that keeps what is infinite to the elements that it is of.

    Forward, the tangent of an element is zero at all other places, and zero times an infinite slope
    there is NaN, which one sum makes that of every element. Backward only what the element itself
    reaches is multiplied. And where a maximum takes another value, nothing reaches: it chooses.
    """
    return _traced(_reverse(score, a), [])


def program(log_score: LogScore, a: Array) -> core.ClosedJaxpr:
    """Give ``i -> (u1, u2, u3)`` as the cheapest program that computes it.

    Raises:
        Refused: JAX differentiates the score in none of the ways.
    """
    obstacles: list[str] = []
    for ways in ((_forward, _forward_over_reverse), (_reverse,)):
        programs = [_traced(way(log_score, a), obstacles) for way in ways]
        working = [one for one in programs if one is not None]
        if working:
            return min(working, key=_operations)
    raise Refused("; ".join(dict.fromkeys(obstacles)))


def obstacle(traced: Traced) -> str | None:
    """Say what JAX has against differentiating a score forward, or backward and then forward."""
    obstacles: list[str] = []

    def ways(a: Array, *context: Array) -> None:
        for way in (_forward, _forward_over_reverse):
            along = way(lambda a: traced(a, *context)[0], a)
            _traced(along, obstacles)

    jax.eval_shape(ways, *traced.arguments)
    return obstacles[0] if obstacles else None


def _traced(along: Along, obstacles: list[str]) -> core.ClosedJaxpr | None:
    """Trace one way; if JAX has something against it, say so among the obstacles."""
    try:
        closed = merged(along, NUMBER)
    except Exception as error:  # whatever JAX, or a hand-written derivative, has against it
        obstacles.append(f"{first_line(error)} (while tracing the derivatives)")
        return None
    if UNFINISHED in operations(closed):
        obstacles.append(NO_FORWARD)
        return None
    return closed


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
        zero = jnp.zeros_like(a, shape=())
        return first(zero), second(zero), jax.grad(second)(zero)

    return derivatives


def _unit_vector(index: Array, a: Array) -> Array:
    return jnp.zeros_like(a).reshape(-1).at[index].set(1).reshape(a.shape)


ENGINE = Engine("directional", exact=True, prove=prove, derive=derive)
