"""The streamed mean against the plain one, and its standard error as a statistic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import average
from jaxcam.average import Sample
from jaxcam.types import Derivatives


def stream(log_weights, values, chunk):
    """Average ``values: [n, ...]`` in chunks, the last one padded."""
    n = len(log_weights)
    steps = -(-n // chunk)
    pad = [(0, steps * chunk - n)]
    log_weights = np.pad(log_weights, pad, constant_values=-np.inf)
    values = np.pad(values, pad + [(0, 0)] * (values.ndim - 1), constant_values=7e7)
    like = Derivatives(*(jnp.asarray(values[0]),) * 3)
    state = average.start(like, values.dtype, n)
    for s in range(steps):
        ids = jnp.arange(s * chunk, (s + 1) * chunk)
        part = jnp.asarray(values)[ids]
        sample = Sample(jnp.asarray(log_weights)[ids], ids % 2 == 0, Derivatives(*(part,) * 3))
        state = average.add(state, sample, ids)
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


def plain_jackknife(log_weights, values, statistic):
    """Delete-a-group jackknife written out, group by group."""
    n = len(values)
    groups = min(n, average.GROUPS)
    w = np.exp(log_weights - log_weights.max())

    def t(keep):
        return statistic((w[keep, None] * values[keep]).sum(0) / w[keep].sum())

    whole = t(np.ones(n, bool))
    centre, pseudo, h = groups * whole, [], []
    for j in range(groups):
        members = np.arange(n) % groups == j
        h_j, t_j = n / members.sum(), t(~members)
        centre = centre - (1 - members.sum() / n) * t_j
        pseudo.append(h_j * whole - (h_j - 1) * t_j)
        h.append(h_j)
    return np.sqrt(
        sum((p - centre) ** 2 / (k - 1) for p, k in zip(pseudo, h, strict=True)) / groups
    )


@pytest.mark.parametrize("n", [2, 5, 16, 25, 64])
def test_standard_error_is_the_jackknifes(n):
    rng = np.random.default_rng(n)
    u, values = rng.normal(size=n), rng.normal(size=(n, 3)) + 1
    with jax.enable_x64(True):
        state = stream(u, values, 4)
        found = average.standard_error(state, lambda d: jnp.exp(d.d1), n)
    assert np.allclose(found, plain_jackknife(u, values, np.exp), rtol=1e-9)


@pytest.mark.parametrize("n", [25, 64])
def test_standard_error_matches_the_spread_over_repetitions(n):
    """Over many draws, the mean squared stated error is the variance of the estimate."""

    def once(key):
        u, values = jax.random.normal(key, (2, n)) * jnp.array([[0.5], [1.0]])
        d = Derivatives(*(values + 2,) * 3)
        like = Derivatives(*(jnp.zeros(()),) * 3)
        state = average.start(like, jnp.dtype("float32"), n)
        state = average.add(state, Sample(u, u > 0, d), jnp.arange(n))
        estimate = jnp.log(average.mean(state).d1)
        return estimate, average.standard_error(state, lambda d: jnp.log(d.d1), n)

    repeats = 4000
    estimates, errors = jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(0), repeats))
    ratio = (errors**2).mean() / estimates.var()
    # The variance of 4,000 draws is itself known to 2.2 %; the jackknife's bias is of order 1 / n.
    assert 0.9 < ratio < 1.15
    covered = (jnp.abs(estimates - jnp.log(2.0)) < 2 * errors).mean()
    assert 0.90 < covered < 0.97
