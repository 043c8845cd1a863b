"""Noise: its size, its distribution, and what it may depend on."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam import noise

KEY = jax.random.key(1)


def draw(x, level, count=4000):
    sample = lambda n: noise.sample(KEY, n, x, jnp.asarray(level, jnp.float32))  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(sample))(jnp.arange(count)))


def test_deviation_is_the_level_times_the_range():
    x = jnp.array([[2.0], [6.0]])
    eps = draw(x, 0.25) - np.asarray(x)
    # sigma = 0.25 * (6 - 2) = 1; 8,000 draws know it to 0.8 %, so 4 % is five deviations.
    assert abs(eps.std() - 1) < 0.04
    assert abs(eps.mean()) < 5 / np.sqrt(eps.size)
    assert abs((eps**4).mean() / eps.var() ** 2 - 3) < 0.3  # normal, not uniform (1.8)


def test_samples_and_pixels_are_independent():
    eps = draw(jnp.array([[0.0], [1.0]]), 1.0)[..., 0] - np.array([0.0, 1.0])
    assert abs(np.corrcoef(eps.T)[0, 1]) < 0.08
    assert abs(np.corrcoef(eps[:-1, 0], eps[1:, 0])[0, 1]) < 0.08


def test_no_noise_leaves_the_input_as_it_is():
    x = jnp.array([[2.0], [6.0]])
    assert (noise.sample(KEY, jnp.int32(3), x, jnp.zeros(())) == x).all()


def test_half_precision_input_stays_half_precision():
    x = jnp.ones((2, 1), jnp.bfloat16)
    assert noise.sample(KEY, jnp.int32(0), x, jnp.ones(())).dtype == jnp.bfloat16


def test_one_key_for_all_or_one_each():
    assert noise.keys_of(KEY, 3).shape == (3,)
    assert (noise.keys_of(KEY, 3) == KEY).all()
    each = jax.random.split(KEY, 3)
    assert (noise.keys_of(each, 3) == each).all()
    assert (noise.keys_of(jax.random.PRNGKey(1), 3) == KEY).all()
