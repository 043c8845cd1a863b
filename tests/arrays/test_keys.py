"""Keys of every generator: the same numbers for everyone, whoever else draws."""

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.arrays.keys import threefry
from jaxcam.derivatives.stochastic import cube_roots
from jaxcam.pipeline import noise


def refuse(*_):
    raise AssertionError("a generator that is not threefry was asked for a number")


SHORT = jax.extend.random.define_prng_impl(
    key_shape=(1,), seed=lambda seed: seed.astype(jnp.uint32)[None],
    split=refuse, random_bits=refuse, fold_in=refuse, name="short", tag="short",
)  # fmt: skip
LONG = jax.extend.random.define_prng_impl(
    key_shape=(2, 3), seed=lambda seed: jnp.full((2, 3), seed, jnp.uint32),
    split=refuse, random_bits=refuse, fold_in=refuse, name="long", tag="long",
)  # fmt: skip


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", SHORT, LONG], ids=str)
def test_a_generator_is_never_asked_for_a_number(impl):
    keys = jnp.stack([jax.random.key(seed, impl=impl) for seed in (3, 4)])
    many = jax.random.key_data(jax.vmap(threefry)(keys))
    assert (many == jax.random.key_data(threefry(keys))).all()
    assert (many[1] == jax.random.key_data(threefry(keys[1]))).all()
    assert (many[0] != many[1]).any()


def test_draws_do_not_depend_on_who_else_draws():
    keys = jnp.stack([jax.random.key(seed, impl="unsafe_rbg") for seed in (3, 4)])

    def draw(key, n):
        noisy = noise.SCHEMES["antithetic"].draw(key, n, (5,), jnp.float32)
        return noisy, cube_roots(key, n, jnp.zeros(20))

    many, probes = jax.jit(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))(keys, jnp.arange(4))
    alone = jax.jit(draw)
    for k, n in np.ndindex(2, 4):
        for ours, others in zip(alone(keys[k], n), (many, probes), strict=True):
            np.testing.assert_array_equal(ours, others[k, n])
    np.testing.assert_array_equal(many[:, ::2], -many[:, 1::2])
    assert not np.isclose(many[0], many[1]).any()
    assert (probes[0] != probes[1]).any(axis=-1).all()


def test_every_word_of_a_key_counts():
    words = jnp.eye(5, 4, dtype=jnp.uint32)
    of_raw = threefry(words)
    assert len(np.unique(jax.random.key_data(of_raw), axis=0)) == 5
    assert (threefry(jax.random.wrap_key_data(words, impl="rbg")) == of_raw).all()


def test_keys_of_threefry_are_their_own():
    key = jax.random.key(1)
    assert threefry(key) is key
    assert threefry(jax.random.key_data(key)) == key
    with jax.default_prng_impl("rbg"):  # what raw words are does not depend on the default
        assert threefry(jax.random.key_data(key)) == key
