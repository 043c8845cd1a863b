"""How many directions are differentiated at once: as many as fit a memory budget."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam import devices, memory
from jaxcam.derivatives.needs import needs
from jaxcam.errors import fail

# On a processor, what fits its cache: larger chunks run slower (two convolutions with GELU of
# 14x14x64, time for each direction: 0.5 ms in chunks of 2 to 8, 0.9 at 64, 1.5 at 512). An
# accelerator wants to be filled.
BYTES_AT_ONCE = {"cpu": 8 << 20}
BYTES_AT_ONCE_ELSEWHERE = 1 << 30


def checked(chunk_size: Any) -> int | None:
    """Give the size that is asked for, None for ``auto``; refuse a chunk that holds nothing."""
    if isinstance(chunk_size, str) and chunk_size == "auto":
        return None
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        fail("chunk_size", needs="a positive integer or 'auto'", got=repr(chunk_size),
             remedy="Use 'auto'.")  # fmt: skip
    return chunk_size


def fitting(program: core.ClosedJaxpr, count: int) -> int:
    """Choose how many of ``count`` runs of a program to make at once."""
    best = BYTES_AT_ONCE.get(jax.default_backend(), BYTES_AT_ONCE_ELSEWHERE)
    return max(1, min(count, min(best, memory.budget()) // max(1, needs(program).bytes)))


def pieces(program: core.ClosedJaxpr, chunk: int) -> int:
    """Say into how many equal pieces a chunk must be cut for its program to fit the memory."""
    least = -(-needs(program).bytes // memory.budget())
    return next((n for n in range(least, chunk) if chunk % n == 0), chunk)


def dealt(count: int, chunk: int, hands: int = 1) -> Array:
    """Deal the numbers below ``count`` into equal chunks, ``[steps, at most chunk]``.

    There are as many for each of the ``hands``. The last is filled up by numbers from ``count`` on,
    as a remainder of its own would be traced twice.
    """
    steps = -(-count // (chunk * hands)) * hands
    return jnp.arange(steps * -(-count // steps), dtype=jnp.int32).reshape(steps, -1)


def repeating(count: int, chunk: int, hands: int = 1) -> Array:
    """Deal the numbers below ``count`` likewise, the last chunk filled up by repetitions."""
    return jnp.minimum(dealt(count, chunk, hands), count - 1)


def in_chunks(
    function: Callable[[Array], Any], count: int, chunk: int, axis: str | None = None
) -> Any:
    """Map a function over the numbers below ``count``, ``chunk`` of them under one `vmap`.

    axis: of a mesh, whose devices have their chunks each.
    """
    chunks = devices.mine(repeating(count, min(chunk, count), devices.count(axis)), axis)
    stacked = devices.together(jax.lax.map(jax.vmap(function), chunks), axis)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[:count], stacked)
