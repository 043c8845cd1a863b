"""Random numbers that depend on a key and a number alone, whatever generator the key is of.

JAX promises no such thing of all its generators: ``rbg`` and ``unsafe_rbg`` draw other numbers
under `jax.vmap` than without, so that what a sample is would depend on who else is in its chunk.
Threefry is a function of its key, element by element, and so everything here is drawn by it: a key
of another generator is hashed to one of threefry, and never asked for a number of its own.
"""

import jax
import jax.numpy as jnp
from jax import Array

THREEFRY = "threefry2x32"
WORDS = 2  # of 32 bits, in a key of threefry


def threefry(key: Array) -> Array:
    """Give a key of threefry for a key of any generator, or for raw ``uint32`` words ``[..., n]``.

    A key of threefry is its own. Of another the first two words are the key, into which each of the
    others is folded (`jax.random.fold_in`): a hash of all of them.
    """
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) == THREEFRY:
            return key
        words = jax.random.key_data(key).reshape(*key.shape, -1)
    else:
        words = key
    missing = [(0, 0)] * (words.ndim - 1) + [(0, max(0, WORDS - words.shape[-1]))]
    words = jnp.pad(words, missing)
    wrapped = jax.random.wrap_key_data(words[..., :WORDS], impl=THREEFRY)
    for i in range(WORDS, words.shape[-1]):
        wrapped = _folded(wrapped, words[..., i])
    return wrapped


def numbered(key: Array, n: Array) -> Array:
    """Give the key of sample ``n``."""
    return jax.random.fold_in(threefry(key), n)


def _folded(keys: Array, words: Array) -> Array:
    fold = jax.random.fold_in
    for _ in range(keys.ndim):
        fold = jax.vmap(fold)
    return fold(keys, words)
