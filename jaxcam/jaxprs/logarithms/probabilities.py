"""Logarithms of probabilities in which nothing cancels, nor in their derivatives.

The plain ``y_j - log sum_i e^(y_i)`` of a sure prediction is a difference of two nearly equal
numbers: in float32 its derivatives have lost every digit once ``1 - p < 1e-7``. With ``m`` the
largest of ``y``, which is a selection (the function is the same whichever is selected)::

    log p_m = -log1p(sum_{j != m} e^(y_j - y_m))        log p_j = y_j - y_m + log p_m

Only the largest can have ``p > 1/2``. Its logarithm is a sum of terms of one sign, each as small as
``1 - p`` is; for the others ``1 - p >= 1/2``. Derivatives inherit it: those of ``log p_m`` are sums
over ``p_j`` of the others, to the first, second and third order.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.precision import widen

Axes = tuple[int, ...]


def log_probabilities(y: Array, axes: Axes) -> Array:
    """``log softmax(y)`` over some axes, shaped like ``y``. A ``y`` of -inf has ``p = 0``."""
    top, apart, log_top = _against_the_largest(y, axes)
    return jnp.where(top & jnp.isfinite(apart), jnp.zeros_like(apart), apart) + log_top


def log_complements(y: Array, axes: Axes) -> Array:
    """``log(1 - softmax(y))``: the sum of the others where ``p`` may be above a half."""
    top, apart, log_top = _against_the_largest(y, axes)
    others = jnp.where(top, jnp.full_like(apart, -jnp.inf), apart)
    p = jnp.where(top, jnp.zeros_like(apart), jnp.exp(others + log_top))
    return jnp.where(top, log_sum(others, axes) + log_top, jnp.log1p(-p))


def log_sum(y: Array, axes: Axes) -> Array:
    """``log sum_j e^(y_j)``, with axes of size one where was summed."""
    _, _, log_top = _against_the_largest(y, axes)
    return _largest(widen(y), _top(y, axes), axes) - log_top


def softplus(y: Array) -> Array:
    """``log(1 + e^y)``."""
    positive = y > 0
    # By selections, not as abs(y): so the derivatives at zero are right too.
    return jnp.where(positive, y, jnp.zeros_like(y)) + jnp.log1p(
        jnp.exp(jnp.where(positive, -y, y))
    )


def log_sigmoid(y: Array) -> Array:
    """``log(1 / (1 + e^-y))``."""
    return -softplus(-y)


def _against_the_largest(y: Array, axes: Axes) -> tuple[Array, Array, Array]:
    """Where the largest is, the distances ``y - y_m``, and ``log p_m``; half precision widened."""
    y, top = widen(y), _top(y, axes)
    apart = y - _largest(y, top, axes)
    counts = ~top & (y > -jnp.inf)
    powers = jnp.exp(jnp.where(counts, apart, jnp.zeros_like(apart)))
    others = jnp.where(counts, powers, jnp.zeros_like(powers)).sum(axis=axes, keepdims=True)
    return top, apart, -jnp.log1p(others)


def _top(y: Array, axes: Axes) -> Array:
    """Mark the largest over some axes; the first of equal ones."""
    last = tuple(range(y.ndim - len(axes), y.ndim))
    moved = jnp.moveaxis(jax.lax.stop_gradient(y), axes, last)
    flat = moved.reshape(*moved.shape[: last[0]], -1)
    place = jax.lax.argmax(flat, flat.ndim - 1, jnp.int32)[..., None]
    marked = jax.lax.broadcasted_iota(jnp.int32, flat.shape, flat.ndim - 1) == place
    return jnp.moveaxis(marked.reshape(moved.shape), last, axes)


def _largest(y: Array, top: Array, axes: Axes) -> Array:
    # Not jnp.max: of equal ones it would give the mean of their derivatives. A sum of one term
    # keeps tangents in their windows, where a gather would not.
    return jnp.where(top, y, jnp.zeros_like(y)).sum(axis=axes, keepdims=True)
