"""The streamed mean against the plain one, and its standard error as a statistic."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import rows
from scipy.linalg import hadamard
from scipy.special import ndtr, stdtrit

from jaxcam.methods.alphas import alphas
from jaxcam.pipeline import average, noise
from jaxcam.pipeline.average import Sample
from jaxcam.types import Derivatives


def stream(log_weights, values, chunk, unit=1):
    """Average ``values: [n, ...]`` in chunks, the last one padded."""
    n = len(log_weights)
    steps = -(-n // chunk)
    pad = [(0, steps * chunk - n)]
    log_weights = np.pad(log_weights, pad, constant_values=-np.inf)
    values = np.pad(values, pad + [(0, 0)] * (values.ndim - 1), constant_values=7e7)
    like = Derivatives(*(jnp.asarray(values[0]),) * 3)
    state = average.start(like, values.dtype, n, unit)
    for s in range(steps):
        ids = jnp.arange(s * chunk, (s + 1) * chunk)
        part = jnp.asarray(values)[ids]
        sample = Sample(jnp.asarray(log_weights)[ids], ids % 2 == 0, Derivatives(*(part,) * 3))
        more = average.of_chunk(sample, ids, average.groups_of(n, unit), unit)
        state = average.merged(state, more)
    return state


@pytest.mark.parametrize("chunk", [1, 4, 40])
@pytest.mark.parametrize("height", [0.0, 1000.0, -1000.0])
def test_mean_is_the_weighted_mean_however_high_the_scores(chunk, height):
    rng = np.random.default_rng(0)
    u = rng.normal(size=37) * 3
    values = rng.normal(size=(37, 2, 3))
    with jax.enable_x64(True):
        state = stream(u + height, values, chunk)
        w = np.exp(u - u.max())
        expected = (w[:, None, None] * values).sum(0) / w.sum()
        assert np.allclose(average.mean(state).d2, expected, rtol=1e-11)
        assert np.isclose(average.effective_samples(state), w.sum() ** 2 / (w**2).sum())
        assert state.kept.sum() == 19


def test_a_rising_score_rescales_what_came_before():
    """The running maximum comes last: every earlier sum must shrink by the same factor."""
    u = np.linspace(-2000.0, 0.0, 21).astype(np.float32)
    state = stream(u, np.arange(21, dtype=np.float32)[:, None], 2)
    assert np.isclose(average.mean(state).d1[0], 20.0)
    assert np.isclose(average.effective_samples(state), 1.0)


def plain_halves(log_weights, values, statistic, unit=1):
    """Half-samples written out, half by half and sample by sample, and Student's factor."""
    n = len(values)
    groups = min(math.ceil(n / unit), average.GROUPS)
    w = np.exp(log_weights - log_weights.max())

    def t(keep):
        return statistic((w[keep, None] * values[keep]).sum(0) / w[keep].sum())

    signs = hadamard(2 ** math.ceil(math.log2(groups)))[:, :groups]
    squares = []
    for half in [*(signs > 0), *(signs < 0)]:
        keep = half[np.arange(n) // unit % groups]
        if 0 < half.sum() < groups:
            m = keep.sum()
            squares.append(m / (n - m) * (t(keep) - t(np.ones(n, bool))) ** 2)
    variance = np.maximum(np.mean(squares, axis=0), np.max(squares, axis=0) / 4)
    return stdtrit(groups - 1, ndtr(2.0)) / 2 * np.sqrt(variance)


@pytest.mark.parametrize(
    ("n", "unit"), [(2, 1), (5, 1), (16, 1), (25, 1), (64, 1), (3, 2), (25, 2), (64, 2), (25, 8)]
)
def test_standard_error_is_that_of_half_samples_of_units(n, unit):
    rng = np.random.default_rng(n)
    u, values = rng.normal(size=n), rng.normal(size=(n, 3)) + 1
    with jax.enable_x64(True):
        state = stream(u, values, 4, unit)
        found = average.standard_error(state, lambda d: jnp.exp(d.d1))
        assert average.num_samples(state) == n
    assert np.allclose(found, plain_halves(u, values, np.exp, unit), rtol=1e-4)


def repeated(scheme, n, unit, repeats=4000):
    """Estimate ``log E e^{u} B`` of two numbers again and again, and its error by units."""

    def once(key):
        x, one = jnp.array([[0.0], [1.0]]), jnp.ones(())
        sample = lambda i: noise.sample(key, i, x, one, scheme)  # noqa: E731
        eps = (jax.vmap(sample)(jnp.arange(n)) - x[None])[..., 0]
        u, values = 0.5 * eps[:, 0], 5 + eps[:, 1] + 0.5 * eps[:, 0] * eps[:, 1]
        samples = Sample(u, u > 0, Derivatives(*(values,) * 3))
        state = average.of_chunk(samples, jnp.arange(n), average.groups_of(n, unit), unit)
        estimate = jnp.log(average.mean(state).d1)
        return estimate, average.standard_error(state, lambda d: jnp.log(d.d1))

    found = jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(0), repeats))
    return tuple(np.asarray(values, np.float64) for values in found)


def weighted_mean(first, second):
    return np.exp(0.5 * first) * (5 + second + 0.5 * first * second)


SPREADS = {
    f"{scheme}-{n}": (scheme, n)
    for scheme, n in [*itertools.product(noise.SCHEMES, (25, 64)), ("orthogonal", 256)]
}


@rows.table("spread", SPREADS, ("independent-25", "antithetic-64", "orthogonal-256"))
def test_standard_error_matches_the_spread_over_repetitions(spread):
    """Over many draws, the mean squared error is the variance, and two errors cover the truth."""
    scheme, n = spread
    unit = noise.SCHEMES[scheme].unit
    estimates, errors = repeated(scheme, n, unit)
    groups = min(math.ceil(n / unit), average.GROUPS)
    ratio = ((errors / average.WIDER[groups - 2]) ** 2).mean() / estimates.var()
    # The variance of 4,000 draws is itself known to 2.2 %; the estimate's bias is of order 1 / n,
    # and of one over the groups where they are few. Above: what two errors hold at the least.
    assert 0.88 < ratio < (1.3 if groups > 8 else 1.5)
    truth = oracles.normal_expectation(weighted_mean) / np.exp(0.125)
    covered = (np.abs(estimates - np.log(truth)) < 2 * errors).mean()
    assert 0.945 < covered < 0.985


def test_every_pair_of_groups_is_as_often_in_one_half_as_in_two():
    for groups in (2, 4, 8, 16):
        halves = average.halves(groups)
        together = halves.T @ halves + (1 - halves).T @ (1 - halves)
        apart = together[~np.eye(groups, dtype=bool)]
        assert (halves.sum(axis=1) == groups / 2).all()
        # Of the rows of a Hadamard matrix the one that splits nothing is left out.
        assert (apart == len(halves) / 2 - 1).all()


def test_the_error_of_what_jumps():
    """Bounded alpha jumps where D2 crosses zero: here D2 is one standard error from there.

    Every sixth estimate is on the wrong side. Leaving out one group at a time hardly moves D2 to
    the other: errors by that cover 85 %.
    """
    n, repeats = 64, 4000

    def once(eps):
        d2 = 1 / math.sqrt(n) + eps
        values = Derivatives(jnp.ones((n, 1, 1)), d2[:, None, None], jnp.ones((n, 1, 1)))
        samples = Sample(jnp.zeros(n), eps > 0, values)
        state = average.of_chunk(samples, jnp.arange(n), average.groups_of(n))

        def statistic(d):
            return alphas(d, jnp.ones((1, 1)) * 100, numerator="d2", poles="bounded").alpha[0, 0]

        return statistic(average.mean(state)), average.standard_error(state, statistic)

    eps = jax.random.normal(jax.random.key(0), (repeats, n))
    estimates, errors = map(np.asarray, jax.jit(jax.vmap(once))(eps))
    off = np.abs(estimates - 1 / math.sqrt(n) / (2 / math.sqrt(n) + 100))
    assert abs((off > 0.5).mean() - ndtr(-1)) < 0.02
    assert 0.9 < ((errors / average.WIDER[-1]) ** 2).mean() / (off**2).mean() < 2
    assert (off <= 2 * errors).mean() > 0.97


def test_the_formula_for_independent_samples_would_be_wrong_for_pairs():
    estimates, errors = repeated("antithetic", 64, unit=1)
    assert ((errors / average.WIDER[-1]) ** 2).mean() / estimates.var() > 1.2


def test_stated_errors_are_wider_as_students_distribution_is():
    expected = [stdtrit(freedom, ndtr(2.0)) / 2 for freedom in range(1, average.GROUPS)]
    assert np.allclose(average.WIDER, expected, atol=1e-4)
