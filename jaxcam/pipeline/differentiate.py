"""One example behind the layer: its derivatives, by the engine that was chosen, in units that fit.

Written for one and mapped over images and samples (`each`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Gradient
from jaxcam.derivatives.auto import engine_named
from jaxcam.derivatives.bell import bell, powers, raw, unit
from jaxcam.derivatives.traced import trace
from jaxcam.pipeline.job import Settings
from jaxcam.pipeline.network import Network
from jaxcam.targets import Aim, Target
from jaxcam.types import Derivatives, LogDerivatives, Report


def differentiate(
    network: Network, settings: Settings, report: Report, a: Array, x: Inputs, aim: Aim
) -> tuple[LogDerivatives, tuple[Array, Array]]:
    """Differentiate the score of one example, and give the scores and ``u`` on the way."""

    def score(wide: Array, x: Inputs, aim: Aim) -> tuple[Array, tuple[Array, Array]]:
        scores = network.scores(wide.astype(a.dtype), x)
        u = widen(network.target.log_score(scores, aim))
        return u, (scores, u)

    arguments = (widen(a), x, aim)
    axis = settings.spread and settings.spread.elements
    traced = trace(score, *arguments, chunk_size=settings.chunk_size, axis=axis)
    derivatives, more = engine_named(report.engine).derive(traced, *jax.tree.leaves(arguments))
    return without_dead(derivatives, a), more


def without_dead(derivatives: LogDerivatives, a: Array) -> LogDerivatives:
    """Let a feature map that is zero everywhere weigh nothing.

    A norm over such a map (GRN, L2 pooling) has no second derivative there: infinite ones become
    zero, as what they are worth is, ``w_k A^k = 0``. Finite ones stay.
    """
    dead = (a == 0).all(axis=tuple(range(a.ndim - 1)), keepdims=True)

    def settled(derivative: Array | None) -> Any:
        if derivative is None:
            return None
        return jnp.where(dead & ~jnp.isfinite(derivative), 0, derivative)

    return LogDerivatives(*map(settled, derivatives))


def unit_of_derivatives(method: Gradient, derivatives: LogDerivatives) -> Array:
    """Give the unit in which a method's derivatives are carried."""
    # Those of Y hold powers of u1, and need a unit; for those of u it could be the wrong one, since
    # they all grow with u alike.
    return unit(derivatives) if method.scalar == "Y" else jnp.ones((), derivatives.u1.dtype)


def compose(target: Target, method: Gradient) -> Callable[..., Derivatives]:
    """Choose how derivatives of ``u`` become those that the method weighs."""
    if method.scalar == "u1^k":
        return powers
    return bell if target.form.exponentiated and method.scalar == "Y" else raw


def each(report: Report) -> Callable:
    """Map over samples and images: at once, or one by one where the engine fills a chunk itself."""
    if one_pass(report):
        return jax.vmap
    return lambda function: lambda *args: jax.lax.map(lambda packed: function(*packed), args)


def one_pass(report: Report) -> bool:
    """Say whether one gradient is enough, so that many inputs can share a chunk."""
    return engine_named(report.engine).single
