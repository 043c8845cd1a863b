"""Noisy samples of one input; nothing else knows about noise.

Sample ``n`` depends on ``key`` and ``n`` alone, so it is the same whatever the chunk size, the
batch or the device that draws it.
"""

import jax
import jax.numpy as jnp
from jax import Array


def deviation(x: Array, noise_level: Array) -> Array:
    """Give ``sigma = noise_level * (max x - min x)`` of one input, in the units of ``x``."""
    return noise_level * (x.max() - x.min()).astype(noise_level.dtype)


def sample(key: Array, n: Array, x: Array, noise_level: Array) -> Array:
    """Draw ``x_n = x + sigma eps_n`` with ``eps_n ~ N(0, 1)``, for one input ``x``."""
    eps = jax.random.normal(jax.random.fold_in(key, n), x.shape, noise_level.dtype)
    noisy = x.astype(noise_level.dtype) + deviation(x, noise_level) * eps
    return noisy.astype(x.dtype)


def keys_of(key: Array, batch: int) -> Array:
    """Give each image its key: the same one for all, or those of ``key: [batch]``.

    One key draws the same noise for every image, so that an image's map does not depend on who
    else is in the batch. Old-style ``uint32`` keys are accepted.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return jnp.broadcast_to(key, (batch,))
