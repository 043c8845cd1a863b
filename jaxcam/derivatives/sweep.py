"""One function of an element, mapped over all elements of ``a``, each part of it only as often as
it must be.

A function of the position and the channel has parts that depend on neither, on one of them, or on
both. Each is run once, for each position, for each channel, or for each element; a result that does
not depend on the position (behind a global pool) is computed for each channel alone.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core

from jaxcam import devices
from jaxcam.derivatives.chunks import fitting, repeating
from jaxcam.derivatives.layout import run_plain
from jaxcam.derivatives.merge import merged
from jaxcam.derivatives.structure import body, evaluate, results

POSITION, CHANNEL = 0, 1  # the arguments of what is swept

Along = Callable[[tuple[Array, ...]], tuple[Array, ...]]


class Parts(NamedTuple):
    """The equations of a jaxpr by what they depend on, and what each variable depends on."""

    closed: core.ClosedJaxpr
    equations: dict[frozenset[int], list[Any]]
    depends: dict[Any, frozenset[int]]

    @property
    def jaxpr(self) -> Any:
        """The jaxpr without its constants."""
        return body(self.closed)

    @property
    def moved(self) -> frozenset[int]:
        """What the results depend on: the position (0), the channel (1), or both."""
        return frozenset().union(*(_level(self, atom) for atom in self.jaxpr.outvars))


def sweep(
    parts: Parts, shape: Sequence[int], chunk_size: int | None, axis: str | None = None
) -> list[Array]:
    """Map what was divided over all elements of an array of a shape.

    axis: of a mesh, over whose devices the channels are spread.
    """
    *spatial, channels = shape
    positions = math.prod(spatial)
    constants = dict(zip(parts.jaxpr.constvars, parts.closed.consts, strict=True))
    known = evaluate(parts.equations[frozenset()], constants, run_plain)
    counts = (
        positions if POSITION in parts.moved else 1,
        channels if CHANNEL in parts.moved else 1,
    )
    at_once = chunk_size or fitting(parts.closed, math.prod(counts))
    found = _mapped(parts, known, counts, at_once, axis)
    return [jnp.broadcast_to(v, (positions, channels)).reshape(shape) for v in found]


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

    number = jax.ShapeDtypeStruct((), jnp.int32)
    closed = merged(at, number, number)
    jaxpr = body(closed)
    depends = {var: frozenset([i]) for i, var in enumerate(jaxpr.invars)}
    equations = {frozenset(key): [] for key in ((), (0,), (1,), (0, 1))}
    for equation in jaxpr.eqns:
        free = [a for a in equation.invars if not isinstance(a, core.Literal)]
        level = frozenset().union(*(depends.get(a, frozenset()) for a in free))
        equations[level].append(equation)
        depends.update((var, level) for var in equation.outvars)
    return Parts(closed, equations, depends)


def _level(parts: Parts, atom: Any) -> frozenset[int]:
    literal = isinstance(atom, core.Literal)
    return frozenset() if literal else parts.depends.get(atom, frozenset())


def _mapped(
    parts: Parts,
    known: dict[Any, Any],
    counts: tuple[int, int],
    at_once: int,
    axis: str | None,
) -> list[Array]:
    """Run the parts: positions at once where there is room, channels in chunks."""
    positions, channels = counts
    chunk = min(max(1, at_once // positions), channels)
    places = min(at_once, positions)
    of_position, of_channel = frozenset([POSITION]), frozenset([CHANNEL])

    passed = {level: _passed_on(parts, level) for level in (of_position, of_channel)}
    both = parts.equations[of_position | of_channel]

    def run(level: frozenset[int], numbers: Array) -> list[Array]:
        (argument,) = level

        def one(number: Array) -> list[Array]:
            start = {**known, parts.jaxpr.invars[argument]: number}
            found = evaluate(parts.equations[level], start, run_plain)
            return [found[var] for var in passed[level]]

        return jax.vmap(one)(numbers)

    def elements(of_positions: list[Array], of_channels: list[Array]) -> list[Array]:
        def one(p: list[Array], c: list[Array]) -> list[Array]:
            given = zip((*passed[of_position], *passed[of_channel]), (*p, *c), strict=True)
            return results(parts.jaxpr, evaluate(both, known | dict(given), run_plain))

        return jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(
            of_positions, of_channels
        )

    held = run(of_position, jnp.arange(positions, dtype=jnp.int32)) if places == positions else None

    def turn(numbers: Array) -> list[Array]:
        of_channels = run(of_channel, numbers)
        if held is not None:
            return elements(held, of_channels)
        found = lax.map(
            lambda some: elements(run(of_position, some), of_channels), repeating(positions, places)
        )
        return [v.reshape(-1, *v.shape[2:])[:positions] for v in found]

    chunks = devices.mine(repeating(channels, chunk, devices.count(axis)), axis)
    found = devices.together(lax.map(turn, chunks), axis)  # [steps, positions, chunk]
    return [jnp.moveaxis(v, 0, 1).reshape(positions, -1)[:, :channels] for v in found]


def _passed_on(parts: Parts, level: frozenset[int]) -> list[Any]:
    """List the variables of one part that others use, its argument first."""
    others = [e for key, es in parts.equations.items() if key != level for e in es]
    used = {a for e in others for a in e.invars if not isinstance(a, core.Literal)}
    used |= {a for a in parts.jaxpr.outvars if not isinstance(a, core.Literal)}
    (argument,) = level
    var = parts.jaxpr.invars[argument]
    return [var, *(v for v in parts.depends if parts.depends[v] == level and v in used - {var})]
