"""What a call does to the model's own state, and whether its answer hangs on that.

In evaluation, images do not depend on each other, nor on chance. BatchNorm in training mode,
dropout and their like go on in silence where the model holds its state, but it shows: the call
leaves other arrays in place of the old ones. Where they are the old ones after all (``nnx.jit``
hands every array back as a new one) the jaxpr tells. A change is harmless if

- what was there still is, handed on as it is, also with something appended (``sow``);
- or what is new does not come from the input: a counter of calls, or weights that are normalised in
  place. Of the state of a generator it takes besides that its numbers do not reach the output.

What is neither is not proved to be harmless.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax

from jaxcam.errors import fail
from jaxcam.split.census import RUNS_ITS_BODY_ONCE, abstract, is_jaxpr

Held = dict[str, list[Any]]
"""The arrays of each variable, by its name."""

Trial = Callable[[Any, Any], tuple[Any, Held, Held]]
"""``trial(rest, x) -> (output, before, after)``: one call, and the state around it."""

_SHOWN = 3


def changed(before: Held, after: Held) -> list[str]:
    """The names of the variables that no longer hold the very same arrays."""
    return [
        name
        for name, arrays in before.items()
        if list(map(id, arrays)) != list(map(id, after.get(name, [])))
    ]


def training(trial: Trial, rest: Any, x: Any, *, is_generator: Callable[[str], bool]) -> list[str]:
    """The names of the variables whose change is not proved harmless. Nothing is computed.

    is_generator: whether random numbers are drawn from the variable of that name.
    """
    output, before, after, inputs = _traced(trial, rest, x)
    heard = _sources(output)

    def harmless(name: str, old: list[_Flow]) -> bool:
        new = after.get(name, [])
        silent = not is_generator(name) or heard.isdisjoint(_sources(old))
        return _is_handed_on(old, new) or (silent and inputs.isdisjoint(_sources(new)))

    return [name for name, old in before.items() if not harmless(name, old)]


def not_handed_on(trial: Trial, rest: Any, x: Any) -> list[str]:
    """The names of what is not proved to be the same before and after. Nothing is computed."""
    _, before, after, _ = _traced(trial, rest, x)
    return [name for name, old in before.items() if not _is_handed_on(old, after.get(name, []))]


def not_there_before(trial: Trial, rest: Any, x: Any) -> list[str]:
    """The names of what is after a call not proved to be one of the arrays before it, as it was."""
    _, before, after, _ = _traced(trial, rest, x)
    there = {flow.origin for flows in before.values() for flow in flows} - {None}
    return [name for name, new in after.items() if not {flow.origin for flow in new} <= there]


def _traced(
    trial: Trial, rest: Any, x: Any
) -> tuple[list["_Flow"], dict[str, list["_Flow"]], dict[str, list["_Flow"]], set[int]]:
    """What a trial returns, as flows, and which of its inputs are ``x``."""
    trace = jax.make_jaxpr(trial, return_shape=True)
    closed, shapes = trace(*abstract((rest, x)))
    count = len(closed.jaxpr.invars)
    flows = _flows(closed.jaxpr, [_Flow(place, {place}) for place in range(count)])
    output, before, after = jax.tree.unflatten(jax.tree.structure(shapes), flows)
    inputs = set(range(count - len(jax.tree.leaves(x)), count))
    return jax.tree.leaves(output, is_leaf=_is_flow), before, after, inputs


def _is_handed_on(old: list["_Flow"], new: list["_Flow"]) -> bool:
    there = [flow.origin for flow in old]
    return None not in there and there == [flow.origin for flow in new[: len(old)]]


def refuse(call: str, names: Sequence[str], *, random: bool, remedy: str) -> NoReturn:
    """Say that a model is in training mode, as every adapter does."""
    does = "asks for random numbers (dropout" if random else "updates its variables (BatchNorm"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    fail(
        call,
        needs="a model in evaluation mode",
        got=f"one that {does} in training mode): {', '.join(names[:_SHOWN])}{more}",
        remedy=remedy,
    )


class _Flow(NamedTuple):
    """Which input a value is, as it is (None: it is computed), and which ones it comes from."""

    origin: int | None
    sources: set[int]


_CONSTANT = _Flow(None, set())


def _flows(jaxpr: Any, inputs: Sequence[_Flow]) -> list[_Flow]:
    """Follow the inputs of a jaxpr to its outputs."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> _Flow:
        return _CONSTANT if hasattr(atom, "val") else known.get(atom, _CONSTANT)

    for equation in jaxpr.eqns:
        given, body = [read(atom) for atom in equation.invars], _body(equation)
        computed = [_Flow(None, _sources(given))] * len(equation.outvars)
        outputs = computed if body is None else _flows(body, given)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _body(equation: Any) -> Any:
    """The jaxpr that an equation runs once, on its own operands; None if it is none of these."""
    if equation.primitive.name not in RUNS_ITS_BODY_ONCE:
        return None
    bodies = [getattr(v, "jaxpr", v) for v in equation.params.values() if is_jaxpr(v)]
    fits = len(bodies) == 1 and len(bodies[0].invars) == len(equation.invars)
    return bodies[0] if fits else None


def _sources(flows: Sequence[_Flow]) -> set[int]:
    return set().union(*(flow.sources for flow in flows))


def _is_flow(value: Any) -> bool:
    return isinstance(value, _Flow)
