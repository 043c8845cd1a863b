"""Loops over chunks: how many go together, as many as fit a memory budget, and the loop itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam import devices
from jaxcam.arrays import memory
from jaxcam.errors import fail
from jaxcam.jaxprs.convolutions import run_plain
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.interpret import body, evaluate, results, run

# On a processor, what fits its cache: larger chunks run slower (two convolutions with GELU of
# 14x14x64, time for each direction: 0.5 ms in chunks of 2 to 8, 0.9 at 64, 1.5 at 512). An
# accelerator wants to be filled.
BYTES_AT_ONCE = {"cpu": 8 << 20}
BYTES_AT_ONCE_ELSEWHERE = 1 << 30


NUMBER = jax.ShapeDtypeStruct((), jnp.int32)
"""What a function over numbers is traced with."""


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


def fold_in_order(
    part_of: Callable[[Array], Any], combine: Callable[[Any, Any], Any], start: Any, rows: Array,
    *, fit: bool = False,
) -> Any:  # fmt: skip
    """Combine ``part_of(row)`` for all rows in a loop; see `_prepared`.

    fit: cut the rows into equal pieces, as small as it takes for a part to fit the memory.
    """
    part, rows = _prepared(part_of, rows, fit=fit)

    def turn(so_far: Any, row: Array) -> tuple[Any, None]:
        return combine(so_far, part(row)), None

    return jax.lax.scan(turn, start, rows)[0]


def map_in_order(part_of: Callable[[Array], Any], rows: Array) -> Any:
    """Stack ``part_of(row)`` for all rows, likewise in a loop."""
    return jax.lax.map(*_prepared(part_of, rows, fit=False))


PREPARATIONS = {"transpose", "rev", "convert_element_type"}


def _prepared(
    part_of: Callable[[Array], Any], rows: Array, *, fit: bool
) -> tuple[Callable[[Array], Any], Array]:
    """Give a function for the turns of a loop, with prepared weights kept outside of it, and rows.

    XLA leaves a transposition, a reversal or a rounding inside a loop even where its operand never
    changes, and would prepare all kernels again at every turn.

    In reverse mode each part is computed again from its row, so that what it kept on the way does
    not add up over the turns.
    """
    closed, shape = jax.make_jaxpr(part_of, return_shape=True)(rows[0])
    cuts = pieces(closed, rows.shape[1]) if fit else 1
    if cuts > 1:
        rows = rows.reshape(cuts * len(rows), -1)
        closed, shape = jax.make_jaxpr(part_of, return_shape=True)(rows[0])
    jaxpr = body(closed)
    fixed = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    rest = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in PREPARATIONS and equation.invars[0] in fixed:
            (fixed[equation.outvars[0]],) = run(equation, [fixed[equation.invars[0]]])
        else:
            rest.append(equation)

    @partial(jax.checkpoint, prevent_cse=False)  # a loop's body is compiled by itself
    def part(row: Array) -> Any:
        leaves = results(jaxpr, evaluate(rest, fixed | {jaxpr.invars[0]: row}, run_plain))
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return part, rows
