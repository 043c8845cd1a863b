"""Noise: its size, its distribution, and what it may depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.stats

from jaxcam.pipeline import noise

KEY = jax.random.key(1)
SCHEMES = tuple(noise.SCHEMES)
UNIT = noise.SCHEMES["orthogonal"].unit


def draw(x, level, count=4000, scheme="independent", key=KEY):
    level = jnp.asarray(level, jnp.float32)
    sample = lambda n: noise.sample(key, n, x, level, scheme)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(sample))(jnp.arange(count)))


@functools.cache
def eps_of(scheme, size, count, key=KEY):
    """Draw ``eps: [count, size]`` of an input whose deviation is one."""
    x = jnp.zeros((size, 1)).at[0].set(1.0)
    return draw(x, 1.0, count, scheme, key)[..., 0] - np.asarray(x[:, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("partitionable", [True, False])
def test_all_of_the_normal_distribution_is_drawn(partitionable, dtype):
    """At every height, far out too; no number twice but by chance, and no pair that is alike."""
    count = 301 * 997  # odd
    with jax.enable_x64(dtype == "float64"), jax.threefry_partitionable(partitionable):
        drawn = np.asarray(noise._normal(jax.random.key(7), (301, 997), jnp.dtype(dtype)))
    assert drawn.shape == (301, 997)
    assert drawn.dtype == dtype
    ranks = scipy.stats.norm.cdf(np.sort(drawn.ravel().astype(np.float64)))
    # Kolmogorov: above 1.95 / sqrt(n) once in a thousand.
    assert np.abs(ranks - (np.arange(count) + 0.5) / count).max() < 1.95 / np.sqrt(count)
    assert 4 < np.abs(drawn).max() < 6.5
    far = (np.abs(drawn) > 3).sum()
    assert abs(far - 0.0026998 * count) < 5 * np.sqrt(0.0026998 * count)
    assert len(np.unique(drawn)) > 0.97 * count
    for apart in (1, 2, 997, count // 2):
        ahead, behind = drawn.ravel()[apart:], drawn.ravel()[:-apart]
        assert abs(np.corrcoef(ahead, behind)[0, 1]) < 5 / np.sqrt(count)


def test_noise_in_double_precision_is_that_of_single_with_more_digits():
    with jax.enable_x64(True):
        double = np.asarray(noise._normal(KEY, (7, 3), jnp.dtype("float64")))
        single = np.asarray(noise._normal(KEY, (7, 3), jnp.dtype("float32")))
    np.testing.assert_allclose(single, double, rtol=1e-4)
    assert (single != double).all()


def test_deviation_is_the_level_times_the_range():
    x = jnp.array([[2.0], [6.0]])
    eps = draw(x, 0.25) - np.asarray(x)
    # sigma = 0.25 * (6 - 2) = 1; 8,000 draws know it to 0.8 %, so 4 % is five deviations.
    assert abs(eps.std() - 1) < 0.04
    assert abs(eps.mean()) < 5 / np.sqrt(eps.size)
    assert abs((eps**4).mean() / eps.var() ** 2 - 3) < 0.3  # normal, not uniform (1.8)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_deviation_of_a_range_that_its_dtype_cannot_hold(dtype):
    largest = 255 if dtype == "uint8" else float(jnp.finfo(dtype).max)
    x = jnp.array([0 if dtype == "uint8" else -largest, largest], dtype)
    level = jnp.float32(0.15)
    expected = 0.15 * (float(x[1]) - float(x[0]))
    if dtype == "bfloat16":  # as large as float32's numbers: nothing wider is at hand
        x, expected = x / 4, expected / 4
    assert np.isclose(noise.deviation(x, level), expected, rtol=1e-6)


def test_a_sample_that_its_dtype_cannot_hold_is_nan_and_not_infinite():
    x = jnp.array([[-6.5e4], [6.5e4]], jnp.float16)
    drawn = draw(x, 0.15, 100)
    assert np.isnan(drawn).any()
    assert not np.isinf(drawn).any()


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


# Schemes.


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("place", range(UNIT))
def test_every_sample_alone_is_normal(scheme, place):
    """The sample at each place of a unit, over units: mean 0, deviation 1, no correlation."""
    eps = eps_of(scheme, 6, 3000 * UNIT)[place::UNIT]
    assert np.abs(eps.mean(axis=0)).max() < 5 / np.sqrt(len(eps))
    apart = np.cov(eps.T) - np.eye(6)
    assert np.abs(apart).max() < 5 * np.sqrt(2 / len(eps))
    assert np.abs((eps**4).mean(axis=0) - 3).max() < 5 * np.sqrt(96 / len(eps))
    # |eps|^2 is chi^2: its variance is 2 * 6, and on a sphere of fixed radius 0.
    assert abs((eps**2).sum(axis=1).var() / 12 - 1) < 5 * np.sqrt(4 / len(eps))


def test_antithetic_samples_come_in_pairs_of_opposite_sign():
    eps = eps_of("antithetic", 5, 2000)
    assert np.allclose(eps[::2], -eps[1::2], atol=1e-6)  # to the rounding of x + eps
    assert abs(np.corrcoef(eps[:-2:2, 0], eps[2::2, 0])[0, 1]) < 5 / np.sqrt(999)
    assert (eps[0] == eps_of("antithetic", 5, 1)[0]).all()  # a last one without its partner


@pytest.mark.parametrize("size", [2, 3, 4, 50])
def test_orthogonal_samples_are_pairs_at_right_angles(size):
    eps = eps_of("orthogonal", size, 400 * UNIT).reshape(400, UNIT, size)
    assert np.allclose(eps[:, ::2], -eps[:, 1::2], atol=1e-6)
    lengths = np.linalg.norm(eps[:, ::2], axis=-1)
    # |eps|^2 is chi^2 with as many degrees of freedom as there are numbers.
    assert abs((lengths**2).mean() / size - 1) < 5 * np.sqrt(2 / size / lengths.size)
    if size >= 4:
        products = eps[:, ::2] @ eps[:, ::2].transpose(0, 2, 1)
        scaled = products / lengths[:, :, None] / lengths[:, None]
        assert np.abs(scaled - np.eye(4)).max() < 2e-4
    assert abs(np.corrcoef(eps[:-1, 0, 0], eps[1:, 0, 0])[0, 1]) < 5 / np.sqrt(399)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sample_depends_on_key_and_number_alone(scheme):
    x, level = jnp.linspace(0.0, 1.0, 12).reshape(3, 4), jnp.float32(0.5)
    together = draw(x, 0.5, 40, scheme)
    alone = jax.jit(lambda n: noise.sample(KEY, n, x, level, scheme))
    assert all(np.allclose(alone(jnp.int32(n)), together[n], atol=1e-6) for n in (0, 1, 17, 39))
    other = jax.vmap(lambda n: noise.sample(jax.random.key(2), n, x, level, scheme))
    assert (np.abs(other(jnp.arange(40)) - together).max(axis=(1, 2)) > 1e-3).all()


def bent(first, second):
    """Neither odd nor even, with a kink."""
    return np.exp(0.7 * first) * (1 + second) ** 2 + np.maximum(first - second, 0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_means_are_unbiased_under_every_scheme(scheme):
    truth = oracles.normal_expectation(bent, points=100)
    eps = eps_of(scheme, 4, 20_000 * UNIT)
    means = bent(eps[:, 0], eps[:, 1]).reshape(-1, UNIT).mean(axis=1)
    assert abs(means.mean() - truth) < 4 * means.std() / np.sqrt(len(means))


def test_pairs_cancel_what_is_odd_and_right_angles_some_of_what_is_even():
    """Variances of unit means: pairs leave nothing of a slope; directions some of ``e^T H e``."""

    def spread(scheme, f, size):
        values = f(eps_of(scheme, size, 4000 * UNIT).astype(np.float64))
        return values.reshape(-1, UNIT).mean(axis=1).var()

    slope = lambda eps: eps @ np.arange(1.0, 5)  # noqa: E731
    assert spread("antithetic", slope, 4) < 1e-10 * spread("independent", slope, 4)
    # In four dimensions four directions hold the trace of a quadratic form; what is left comes
    # from their lengths.
    bowl = lambda eps: (eps**2) @ np.array([1.0, -1, 1, -1])  # noqa: E731
    assert spread("orthogonal", bowl, 4) < 0.75 * spread("antithetic", bowl, 4)
