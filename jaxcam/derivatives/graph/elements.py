"""One function of an element, mapped over all elements of ``a``, each part of it only as often as
it must be.

A function of the position and the channel has parts that depend on neither, on one of them, or on
both. Each is run once, for each position, for each channel, or for each element; a result that does
not depend on the position (behind a global pool) is computed for each channel alone.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core

from jaxcam import devices
from jaxcam.jaxprs.convolutions import run_plain
from jaxcam.jaxprs.interpret import body, evaluate, results, variables
from jaxcam.jaxprs.loops import NUMBER, fitting, repeating
from jaxcam.jaxprs.merge import merged

POSITION, CHANNEL = 0, 1  # the arguments of the function that is mapped

Along = Callable[[tuple[Array, ...]], tuple[Array, ...]]


class Parts(NamedTuple):
    """The equations of a jaxpr by what they depend on, and what each variable depends on.

    passed: of the parts that depend on one argument alone, by that argument: the variables that
    other parts use, the argument itself first.
    """

    closed: core.ClosedJaxpr
    equations: dict[frozenset[int], list[Any]]
    depends: dict[Any, frozenset[int]]
    passed: dict[int, list[Any]]

    @property
    def jaxpr(self) -> Any:
        """The jaxpr without its constants."""
        return body(self.closed)

    @property
    def moved(self) -> frozenset[int]:
        """What the results depend on: the position (0), the channel (1), or both."""
        nothing = frozenset[int]()
        levels = [self.depends.get(var, nothing) for var in variables(self.jaxpr.outvars)]
        return nothing.union(*levels)


def divide(along: Along, shape: Sequence[int]) -> Parts:
    """Trace ``along(coordinates) -> scalars`` as a function of the numbers of a position and of a
    channel, and sort its equations by which of the two they depend on.
    """

    def at(position: Array, channel: Array) -> tuple[Array, ...]:
        where = []
        for size in reversed(shape[:-1]):
            extent = jnp.int32(size)
            where.append(lax.rem(position, extent))
            position = lax.div(position, extent)
        return along((*reversed(where), channel))

    closed = merged(at, NUMBER, NUMBER)
    jaxpr = body(closed)
    depends = {var: frozenset([i]) for i, var in enumerate(jaxpr.invars)}
    equations = {frozenset(key): [] for key in ((), (0,), (1,), (0, 1))}
    for equation in jaxpr.eqns:
        free = variables(equation.invars)
        level = frozenset().union(*(depends.get(var, frozenset()) for var in free))
        equations[level].append(equation)
        depends.update((var, level) for var in equation.outvars)
    passed = {
        argument: _passed_on(jaxpr, equations, depends, argument)
        for argument in (POSITION, CHANNEL)
    }
    return Parts(closed, equations, depends, passed)


def _passed_on(
    jaxpr: Any,
    equations: dict[frozenset[int], list[Any]],
    depends: dict[Any, frozenset[int]],
    argument: int,
) -> list[Any]:
    """List the variables of one part that others use, its argument first."""
    level, first = frozenset([argument]), jaxpr.invars[argument]
    others = [equation for key, those in equations.items() if key != level for equation in those]
    used = set(variables(jaxpr.outvars)).union(*(variables(e.invars) for e in others))
    return [first, *(var for var in depends if depends[var] == level and var in used - {first})]


def for_all(
    parts: Parts, shape: Sequence[int], chunk_size: int | None, axis: str | None = None
) -> list[Array]:
    """Map what was divided over all elements of an array of a shape.

    axis: of a mesh, over whose devices the channels are spread.
    """
    *spatial, channels = shape
    positions = math.prod(spatial)
    constants = dict(zip(parts.jaxpr.constvars, parts.closed.consts, strict=True))
    ready = _Ready(parts, evaluate(parts.equations[frozenset()], constants, run_plain))
    counts = (
        positions if POSITION in parts.moved else 1,
        channels if CHANNEL in parts.moved else 1,
    )
    at_once = chunk_size or fitting(parts.closed, math.prod(counts))
    values = _mapped(ready, counts, at_once, axis)
    return [jnp.broadcast_to(v, (positions, channels)).reshape(shape) for v in values]


class _Ready(NamedTuple):
    """The parts, and the values of all that depends on neither position nor channel."""

    parts: Parts
    known: dict[Any, Any]


def _mapped(ready: _Ready, counts: tuple[int, int], at_once: int, axis: str | None) -> list[Array]:
    """Run the parts for so many positions and channels: ``[positions, channels]`` each.

    All positions go together where there is room, and channels in chunks.
    """
    positions, channels = counts
    if at_once >= positions:
        chunk = min(at_once // positions, channels)
        numbers = jnp.arange(positions, dtype=jnp.int32)
        of_channels = partial(_at_all_positions, ready, _of_each(ready, POSITION, numbers))
    else:
        chunk = 1
        of_channels = partial(_at_chunks_of_positions, ready, positions, at_once)
    chunks = devices.mine(repeating(channels, chunk, devices.count(axis)), axis)
    stacked = devices.together(lax.map(of_channels, chunks), axis)  # [steps, positions, chunk]
    return [jnp.moveaxis(v, 0, 1).reshape(positions, -1)[:, :channels] for v in stacked]


def _at_all_positions(ready: _Ready, of_positions: list[Array], channels: Array) -> list[Array]:
    return _of_elements(ready, of_positions, _of_each(ready, CHANNEL, channels))


def _at_chunks_of_positions(
    ready: _Ready, positions: int, at_once: int, channels: Array
) -> list[Array]:
    of_some = partial(_at_some_positions, ready, _of_each(ready, CHANNEL, channels))
    stacked = lax.map(of_some, repeating(positions, at_once))
    return [v.reshape(-1, *v.shape[2:])[:positions] for v in stacked]


def _at_some_positions(ready: _Ready, of_channels: list[Array], positions: Array) -> list[Array]:
    return _of_elements(ready, _of_each(ready, POSITION, positions), of_channels)


def _of_each(ready: _Ready, argument: int, numbers: Array) -> list[Array]:
    """Run what depends on one argument alone, for each of its numbers."""
    return jax.vmap(partial(_of_one, ready, argument))(numbers)


def _of_one(ready: _Ready, argument: int, number: Array) -> list[Array]:
    parts, known = ready
    start = {**known, parts.jaxpr.invars[argument]: number}
    values = evaluate(parts.equations[frozenset([argument])], start, run_plain)
    return [values[var] for var in parts.passed[argument]]


def _of_elements(
    ready: _Ready, of_positions: list[Array], of_channels: list[Array]
) -> list[Array]:  # fmt: skip
    """Run what depends on both, for each position with each channel."""
    of_channels_at_one = jax.vmap(partial(_of_element, ready), in_axes=(None, 0))
    return jax.vmap(of_channels_at_one, in_axes=(0, None))(of_positions, of_channels)


def _of_element(ready: _Ready, of_position: list[Array], of_channel: list[Array]) -> list[Array]:
    parts, known = ready
    passed = (*parts.passed[POSITION], *parts.passed[CHANNEL])
    given = zip(passed, (*of_position, *of_channel), strict=True)
    both = parts.equations[frozenset([POSITION, CHANNEL])]
    return results(parts.jaxpr, evaluate(both, known | dict(given), run_plain))
