"""From the derivatives of ``u`` to those of ``Y``."""

from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.types import Derivatives, LogDerivatives


def bell(log_derivatives: LogDerivatives, *, scale: Array | float = 1.0) -> Derivatives:
    """Compose with the exponential: the complete Bell polynomials of ``u1, u2, u3``.

    With ``Y = e^u`` and ``Y`` divided out::

        d1 = u1        d2 = u2 + u1^2        d3 = u3 + 3 u1 u2 + u1^3

    ``scale`` measures ``a`` in units of ``1 / scale``, which divides ``d_k`` by ``scale^k``:
    gradients of 1e-15 have cubes that float32 cannot hold, and alpha does not depend on the unit.
    """
    u1, u2, u3 = measured_in(log_derivatives, scale)
    if u2 is None or u3 is None:
        return Derivatives(u1, u2, u3)
    return Derivatives(u1, u2 + u1**2, u3 + 3 * u1 * u2 + u1**3)


def raw(log_derivatives: LogDerivatives, *, scale: Array | float = 1.0) -> Derivatives:
    """Take ``Y = u`` itself (a raw logit): the derivatives are those of ``u``."""
    return Derivatives(*measured_in(log_derivatives, scale))


def powers(log_derivatives: LogDerivatives, *, scale: Array | float = 1.0) -> Derivatives:
    """Take the first two powers of the gradient, ``u1`` and ``u1^2``, and no derivative of it."""
    u1 = log_derivatives.u1 / scale
    return Derivatives(u1, u1**2, cast(Array, None))


def measured_in(log_derivatives: LogDerivatives, scale: Array | float) -> LogDerivatives:
    """Divide the k-th by ``scale^k``, one factor at a time, since the power may underflow.

    By products with the reciprocal: the compiler joins ``x / s / s`` into ``x / (s s)``.
    """
    u1, u2, u3 = log_derivatives
    per = 1 / scale
    if u2 is None or u3 is None:
        return LogDerivatives(u1 * per, u2, u3)
    return LogDerivatives(u1 * per, u2 * per * per, u3 * per * per * per)


def unit(log_derivatives: LogDerivatives) -> Array:
    """Give the scale at which no derivative is above one: ``max(|u1|, |u2|^(1/2), |u3|^(1/3))``.

    Treated as a constant by differentiation, since what it scales does not depend on it.
    """
    roots = (jnp.abs, lambda v: jnp.sqrt(jnp.abs(v)), lambda v: jnp.cbrt(jnp.abs(v)))
    largest = [
        root(derivative).max()
        for root, derivative in zip(roots, log_derivatives, strict=True)
        if derivative is not None
    ]
    scale = jax.lax.stop_gradient(jnp.stack(largest).max())
    return jnp.where(scale > 0, scale, jnp.ones_like(scale))
