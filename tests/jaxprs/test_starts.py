"""Poolings that start from an array, under `jit`: the same as those that start from a number."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import rows
import tails
from engines import derive, relative_error
from jax import lax

import jaxcam


def windows(x, start, combine, padding="VALID"):
    return lax.reduce_window(x, start, combine, (2, 2, 1), (1, 2, 1), padding)


STARTS = {
    "max": (lambda x: windows(x, jnp.asarray(-jnp.inf, x.dtype), lax.max), lax.max, -np.inf),
    "min": (lambda x: windows(x, jnp.asarray(jnp.inf, x.dtype), lax.min), lax.min, np.inf),
    "sum": (lambda x: windows(x, jnp.zeros((), x.dtype), lax.add), lax.add, 0.0),
    "numpy": (lambda x: windows(x, np.zeros((), x.dtype), lax.add), lax.add, 0.0),
    "least": (lambda x: windows(x, jnp.finfo(x.dtype).min, lax.max), lax.max, -np.inf),
    "in_jit": (
        jax.jit(lambda x: windows(x, jnp.zeros((), x.dtype) * 1, lax.add)), lax.add, 0.0,
    ),
    "unknown": (lambda x: windows(x, x.sum() * 0 - 9, lax.max), lax.max, -np.inf),
}  # fmt: skip


def score(pool):
    def u(a):
        x = pool(jnp.tanh(a))
        return jnp.tanh(x * jnp.asarray(tails.normal("pooled", *x.shape), a.dtype)).sum()

    return u


@pytest.mark.parametrize("engine", ["adjoint", pytest.param("directional", marks=pytest.mark.slow)])
@rows.table("row", STARTS, ("unknown", "max", "sum", "in_jit"))
def test_any_known_start_is_differentiated(row, engine):
    pool, combine, number = row
    a = tails.normal("pooled point", 3, 4, 2)
    truth = oracles.brute_force(score(lambda x: windows(x, number, combine)), a)
    found = derive(score(pool), a, engine=engine)
    for ours, theirs in zip(found, truth, strict=True):
        assert relative_error(ours, theirs) < 1e-10


def test_a_product_over_windows_and_a_sum_from_anywhere_are_differentiated():
    """Padding is passed over, and not what they start from."""

    def pooled(x):
        start = x.sum() * 0 + 0.5
        more = lax.reduce_window(x, 2.0, lax.mul, (2, 2, 1), (1, 2, 1), "SAME")
        return windows(more, start, lax.add)

    def by_hand(x):
        wide = jnp.pad(x, ((0, 1), (0, 0), (0, 0)), constant_values=1.0)
        rows = wide[:-1] * wide[1:]
        more = 2 * rows[:, ::2] * rows[:, 1::2]
        return 0.5 + more[:-1, ::2] + more[1:, ::2] + more[:-1, 1::2] + more[1:, 1::2]

    a = tails.normal("product", 3, 4, 2)
    np.testing.assert_allclose(pooled(jnp.asarray(a)), by_hand(jnp.asarray(a)), rtol=1e-6)
    found = derive(score(pooled), a)
    for ours, theirs in zip(found, oracles.brute_force(score(by_hand), a), strict=True):
        assert relative_error(ours, theirs) < 1e-10


def test_a_product_over_a_large_window_is_refused_by_its_name():
    def u(a):
        return lax.reduce_window(a, 1.0, lax.mul, (300, 1), (1, 1), "VALID").sum()

    with pytest.raises(jaxcam.NotProved, match=r"reduce_window.*more than 256 places"):
        jaxcam.log_derivatives(u, jnp.ones((301, 1)))
