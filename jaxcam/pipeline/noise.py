"""Noisy samples of one input; nothing else knows about noise.

Sample ``n`` depends on ``key`` and ``n`` alone, so it is the same whatever the chunk size, the
batch or the device that draws it. In every scheme each ``eps_n`` on its own is exactly
``N(0, I)``, so that every mean over samples has the same expectation; the schemes differ in how the
samples of one unit depend on each other. Units are independent, and ``unit`` samples long:

independent:
    a unit is one sample.
antithetic:
    ``eps_{2m+1} = -eps_{2m}``. What is odd in the noise cancels within a pair, the slope
    first of all; what is even counts twice. A last sample without a partner stands alone.
orthogonal:
    four antithetic pairs along orthogonal directions. ``g_1 ... g_4`` are independent
    ``N(0, I)`` and ``q_1 ... q_4`` what Gram and Schmidt make of them::

        eps_{2j} = |g_j| q_j        eps_{2j+1} = -eps_{2j}

    ``q_j`` is uniform on the sphere, since turning all ``g`` turns it along, and depends on the
    directions of the ``g`` alone, of which ``|g_j|`` is independent. So ``eps`` is ``N(0, I)``.
    Each sample draws the four directions anew: sample ``n`` needs no other.

Scrambled Sobol points are not offered: scipy's end at 21,201 dimensions, which a 150x150 picture
exceeds, and stratify the first few, where noise has no first dimensions. Independent directions are
almost orthogonal among so many: what ``orthogonal`` adds to ``antithetic`` is for small inputs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.keys import numbered, threefry
from jaxcam.errors import fail

WORDS_OF_A_KEY = (2, 4)  # threefry's and rbg's
DIRECTIONS = 4  # more are better and dearer, and leave fewer units to learn the error from


class Scheme(NamedTuple):
    """``draw(key, n, shape, dtype)`` gives ``eps_n``; samples with one ``n // unit`` are a unit."""

    unit: int
    draw: Callable[..., Array]


def deviation(x: Array, noise_level: Array) -> Array:
    """Give ``sigma = noise_level * (max x - min x)`` of one input, in the units of ``x``."""
    # Widened first: a picture in half precision may have a range past the largest half number.
    highest, lowest = (bound.astype(noise_level.dtype) for bound in (x.max(), x.min()))
    return noise_level * (highest - lowest)


def sample(
    key: Array, n: Array, x: Array, noise_level: Array, scheme: str = "independent"
) -> Array:
    """Draw ``x_n = x + sigma eps_n`` with ``eps_n ~ N(0, I)``, for one input ``x``."""
    eps = SCHEMES[scheme].draw(key, n, x.shape, noise_level.dtype)
    noisy = (x.astype(noise_level.dtype) + deviation(x, noise_level) * eps).astype(x.dtype)
    # What is past the largest number of the input's dtype is no sample: NaN, which no network hides
    # as it may infinity (tanh gives 1), so that the map is refused.
    return jnp.where(jnp.isfinite(noisy), noisy, jnp.nan)


def _independent(key: Array, n: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    return _normal(numbered(key, n), shape, dtype)


def _normal(key: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Draw ``N(0, I)`` by inversion: ``sqrt(2) erfinv(u)``, ``u`` uniform in ``(-1, 1)``.

    ``key`` is one of threefry. The same as `jax.random.normal` but for the random numbers under it.
    That one runs threefry once for every 32 bits and throws as many away; the keys of a split are
    both words of each block. So it takes less than half the time to draw and to compile
    (`benchmarks.smoothing_cost`): on a processor, drawing is what noise costs beside a pass.
    """
    bits = jnp.finfo(dtype).nmant + 1
    words = jnp.dtype(dtype).itemsize // 4
    size = math.prod(shape)
    blocks = jax.random.key_data(jax.random.split(key, -(-words * size // 2)))
    drawn = blocks.reshape(-1)[: words * size]
    if words == 2:
        high, low = drawn.reshape(2, size).astype(jnp.uint64)
        drawn = high << 32 | low
    # An odd number between -2^bits and 2^bits is exact, never zero, and as often negative.
    whole = (drawn >> (32 * words - bits)).astype(f"int{32 * words}")
    u = (2 * whole + 1 - 2**bits).astype(dtype) * 2.0**-bits
    return math.sqrt(2) * jax.lax.erf_inv(u).reshape(shape)


def _antithetic(key: Array, n: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    return _sign(n, dtype) * _independent(key, n // 2, shape, dtype)


def _orthogonal(key: Array, n: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    unit = 2 * DIRECTIONS
    drawn = _independent(key, n // unit, (DIRECTIONS, *shape), dtype)
    basis: list[Array] = []
    for g in drawn.reshape(DIRECTIONS, -1):
        if len(basis) == g.size:
            break  # an input of so few numbers has no more directions
        q = g
        for other in basis:
            q = q - jnp.dot(other, q, precision="highest") * other
        basis.append(q / jnp.linalg.norm(q))
    directions = jnp.stack([basis[j % len(basis)] for j in range(DIRECTIONS)])
    j = n % unit // 2
    length = jnp.linalg.norm(drawn[j])
    return _sign(n, dtype) * length * directions[j].reshape(shape)


def _sign(n: Array, dtype: np.dtype) -> Array:
    return 1 - 2 * jnp.asarray(n % 2, dtype)


SCHEMES = {
    "independent": Scheme(1, _independent),
    "antithetic": Scheme(2, _antithetic),
    "orthogonal": Scheme(2 * DIRECTIONS, _orthogonal),
}


def keys_of(key: Any, batch: int) -> Array:
    """Give each image its key: the same one for all, or those of ``key: [batch]``.

    One key draws the same noise for every image, so that an image's map does not depend on who
    else is in the batch. Keys of any generator, and old-style ``uint32`` keys, are made threefry's
    (`jaxcam.arrays.keys`).
    """
    remedy = "Pass key=jax.random.key(0), or jax.random.split(key, batch) for one each."
    kind: Any = getattr(key, "dtype", None)
    if kind is None or not jnp.issubdtype(kind, jax.dtypes.prng_key):
        _check_raw(key, remedy)
    keys = threefry(key)
    if keys.shape not in ((), (batch,)):
        needs = f"one JAX random key, or one for each of {batch} images"
        fail("key", needs=needs, got=f"keys of shape {keys.shape}", remedy=remedy)
    return jnp.broadcast_to(keys, (batch,))


def _check_raw(key: Any, remedy: str) -> None:
    """Refuse what is neither a key nor the words of one: ``uint32``, 2 of them or 4."""
    shape = getattr(key, "shape", ())
    if getattr(key, "dtype", None) == np.uint32 and shape and shape[-1] in WORDS_OF_A_KEY:
        return
    got = f"a {type(key).__name__} of shape {shape}" if hasattr(key, "shape") else repr(key)
    if isinstance(key, int):
        remedy = f"Pass key=jax.random.key({key})."
    fail("key", needs="a JAX random key", got=got, remedy=remedy)
