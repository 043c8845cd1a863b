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
from jax import Array
from jax.extend import core

from jaxcam.derivatives.chunks import fitting
from jaxcam.derivatives.layout import evaluate, results
from jaxcam.derivatives.structure import body

POSITION, CHANNEL = 0, 1  # the arguments of what is swept

Along = Callable[[tuple[Array, ...]], tuple[Array, ...]]


class Parts(NamedTuple):
    """The equations of a jaxpr by what they depend on, and the variables that each passes on."""

    jaxpr: Any
    equations: dict[frozenset[int], list[Any]]
    depends: dict[Any, frozenset[int]]


def sweep(along: Along, shape: Sequence[int], chunk_size: int | None) -> list[Array]:
    """Map ``along(coordinates) -> scalars`` over all elements of an array of a shape."""
    *spatial, channels = shape
    positions = math.prod(spatial)
    closed = _traced(along, shape)
    parts = _divide(body(closed))
    known = dict(zip(parts.jaxpr.constvars, closed.consts, strict=True))
    known = evaluate(parts.equations[frozenset()], known)
    moved = _moved(parts)
    counts = (positions if POSITION in moved else 1, channels if CHANNEL in moved else 1)
    found = _mapped(parts, known, counts, chunk_size or fitting(closed, math.prod(counts)))
    full = [jnp.broadcast_to(v, (positions, channels)) for v in found]
    return [v.reshape(shape) for v in full]


def arguments_used(along: Along, shape: Sequence[int]) -> frozenset[int]:
    """Say whether the results depend on the position (0), the channel (1), or both."""
    return _moved(_divide(body(_traced(along, shape))))


def _traced(along: Along, shape: Sequence[int]) -> Any:
    """Trace ``along`` as a function of the numbers of a position and of a channel."""

    def at(position: Array, channel: Array) -> tuple[Array, ...]:
        where = []
        for size in reversed(shape[:-1]):
            where.append(position % size)
            position = position // size
        return along((*reversed(where), channel))

    number = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.make_jaxpr(at)(number, number)


def _moved(parts: Parts) -> frozenset[int]:
    return frozenset().union(*(_level(parts, atom) for atom in parts.jaxpr.outvars))


def _divide(jaxpr: Any) -> Parts:
    """Sort equations by the arguments (0: position, 1: channel) that they depend on."""
    depends = {var: frozenset([i]) for i, var in enumerate(jaxpr.invars)}
    equations = {frozenset(key): [] for key in ((), (0,), (1,), (0, 1))}
    for equation in jaxpr.eqns:
        free = [a for a in equation.invars if not isinstance(a, core.Literal)]
        level = frozenset().union(*(depends.get(a, frozenset()) for a in free))
        equations[level].append(equation)
        depends.update((var, level) for var in equation.outvars)
    return Parts(jaxpr, equations, depends)


def _level(parts: Parts, atom: Any) -> frozenset[int]:
    literal = isinstance(atom, core.Literal)
    return frozenset() if literal else parts.depends.get(atom, frozenset())


def _mapped(
    parts: Parts, known: dict[Any, Any], counts: tuple[int, int], at_once: int
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
            found = evaluate(parts.equations[level], start)
            return [found[var] for var in passed[level]]

        return jax.vmap(one)(numbers)

    def elements(of_positions: list[Array], of_channels: list[Array]) -> list[Array]:
        def one(p: list[Array], c: list[Array]) -> list[Array]:
            given = zip((*passed[of_position], *passed[of_channel]), (*p, *c), strict=True)
            return results(parts.jaxpr, evaluate(both, {**known, **dict(given)}))

        return jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(
            of_positions, of_channels
        )

    held = run(of_position, jnp.arange(positions, dtype=jnp.int32)) if places == positions else None

    def turn(numbers: Array) -> list[Array]:
        of_channels = run(of_channel, numbers)
        if held is not None:
            return elements(held, of_channels)
        found = jax.lax.map(
            lambda some: elements(run(of_position, some), of_channels), _dealt(positions, places)
        )
        return [v.reshape(-1, chunk)[:positions] for v in found]

    dealt = _dealt(channels, chunk)
    found = jax.lax.map(turn, dealt)  # [steps, positions, chunk]
    return [jnp.moveaxis(v, 0, 1).reshape(positions, -1)[:, :channels] for v in found]


def _dealt(count: int, chunk: int) -> Array:
    """Deal numbers into chunks; the last is filled up with repetitions."""
    steps = -(-count // chunk)
    return jnp.minimum(jnp.arange(steps * chunk, dtype=jnp.int32), count - 1).reshape(steps, chunk)


def _passed_on(parts: Parts, level: frozenset[int]) -> list[Any]:
    """List the variables of one part that others use, its argument first."""
    others = [e for key, es in parts.equations.items() if key != level for e in es]
    used = {a for e in others for a in e.invars if not isinstance(a, core.Literal)}
    used |= {a for a in parts.jaxpr.outvars if not isinstance(a, core.Literal)}
    (argument,) = level
    var = parts.jaxpr.invars[argument]
    return [var, *(v for v in parts.depends if parts.depends[v] == level and v in used - {var})]
