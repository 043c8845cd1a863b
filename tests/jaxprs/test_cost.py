"""What a program needs, as counted from its jaxpr, and the chunks that follow from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.derivatives.engines import directional
from jaxcam.derivatives.traced import trace
from jaxcam.jaxprs import loops as chunks
from jaxcam.jaxprs.cost import needs

W = np.ones((10, 20), np.float32)
KERNEL = np.ones((3, 3, 4, 8), np.float32)


def convolve(x, groups=1):
    kernel = KERNEL[:, :, : 4 // groups]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip


def scan(x):
    return jax.lax.scan(lambda x, _: (x @ (W @ W.T), None), x, None, length=7)[0]


def rows(count, size):
    return jax.ShapeDtypeStruct((count, size), jnp.float32)


@pytest.mark.parametrize(
    ("function", "argument", "operations"),
    [
        (lambda x: x @ W, rows(5, 10), 5 * 20 * 2 * 10),
        (lambda x: jnp.tanh(x @ W), rows(5, 10), 5 * 20 * (2 * 10 + 1)),
        (convolve, jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32), 6 * 6 * 8 * 2 * 9 * 4),
        (lambda x: convolve(x, 4), jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32),
         6 * 6 * 8 * 2 * 9),
        (scan, rows(5, 10), 7 * 5 * 10 * 2 * 10),
        (jax.jit(lambda x: x @ W), rows(5, 10), 5 * 20 * 2 * 10),
    ],
)  # fmt: skip
def test_operations(function, argument, operations):
    counted = needs(jax.make_jaxpr(function)(argument)).operations
    # A loop or a call counts what it multiplies, and a little for its counters.
    assert operations <= counted <= operations * 1.01


def test_what_nobody_uses_is_not_counted():
    def function(x):
        unused = jnp.tanh(x @ W)
        return jnp.sin(x), unused @ W.T

    closed = jax.make_jaxpr(lambda x: function(x)[0])(rows(5, 10))
    assert needs(closed).operations == 50


def test_bytes_are_of_the_fullest_moment_and_only_what_depends_on_the_arguments():
    big, x = jnp.ones((1000, 1000)), jax.ShapeDtypeStruct((10,), jnp.float32)

    def function(x):
        wide = jnp.outer(x, x)  # 10 and 100 values; then 100 and 100; then 10
        shared = big @ big
        return jnp.sin(wide).sum(0) + shared.sum()

    found = needs(jax.make_jaxpr(function)(x))
    assert 4 * 200 <= found.bytes <= 4 * 220
    assert found.operations < 1000


@pytest.mark.parametrize("width", [16, 1024])
def test_memory_of_a_chunk_stays_near_the_budget(width):
    """By the compiler's own plan, for a tail whose inner values are small or large."""
    up = jnp.ones((16, width))

    def u(a):
        return jnp.tanh(jnp.tanh(a @ up) @ up.T).sum()

    def run(a):
        return directional.derive(trace(u, a), a)[0]

    a = jnp.ones((8, 8, 16))
    plan = jax.jit(run).lower(a).compile().memory_analysis()
    budget = chunks.BYTES_AT_ONCE["cpu"]
    if jax.default_backend() == "cpu":
        assert budget / 8 < plan.temp_size_in_bytes < 3 * budget


@pytest.mark.parametrize(("count", "chunk"), [(1, 1), (7, 3), (7, 7), (7, 100), (8, 4)])
def test_chunks_map_every_index_once_and_in_order(count, chunk):
    found = chunks.in_chunks(lambda i: (i * 2, i.astype(jnp.float32)), count, chunk)
    np.testing.assert_array_equal(found[0], 2 * np.arange(count))
    np.testing.assert_array_equal(found[1], np.arange(count, dtype=np.float32))
