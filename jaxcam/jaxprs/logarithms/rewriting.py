"""The logarithm of a probability that the network itself computed, without its rounding.

A network that ends in a softmax, or a score that takes one, has rounded ``1 - p`` away before the
logarithm sees it. The jaxpr still says how ``p`` was made. So where a logarithm is taken of

- a softmax ``e^y / sum e^y``, by a library or by hand, or as ``y - log sum e^y``,
- a sigmoid, by name or by hand, or ``1 -`` one of these,
- products, powers, sums, bounds, selections and picks of them,

it is computed anew from ``y`` (probabilities.py). A probability that is the score itself becomes
``e`` to its logarithm. And elements that are picked from a logarithm, a root or a quotient are
picked before it: what is infinite elsewhere, such as the logarithm of another class's ``p = 0``,
then has no part in the score.

A form that is not recognised is left as it is. Hidden layers are left alone, except where they take
logarithms themselves.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.jaxprs.cost import needed
from jaxcam.jaxprs.interpret import body, through_program
from jaxcam.jaxprs.logarithms.logsums import difference, shifted
from jaxcam.jaxprs.logarithms.origins import MOVES, Value, entered, mentions, origin, plain, read
from jaxcam.jaxprs.logarithms.picks import SINGULAR, picked_before
from jaxcam.jaxprs.logarithms.readings import Reading, log_of, rest_of
from jaxcam.jaxprs.primitives import Fact, known_as

POINTWISE = known_as(Fact.POINTWISE)

LOGS = {"log", "log1p", "log2"}
PROBABILITIES = {"div", "logistic", "sub"}


def _log(value: Value) -> Array | None:
    log = log_of(value.operands[0])
    return shifted(value) if log is None else log


def _log2(value: Value) -> Array | None:
    log = log_of(value.operands[0])
    return None if log is None else log / math.log(2)


def _log1p(value: Value) -> Array | None:
    made = value.operands[0].made
    return rest_of(made.operands[0]) if made.name == "neg" else None


def _probability(value: Value) -> Array | None:
    """``e^log p`` of a single ``p``, such as a score: its own derivative is rounded as it is."""
    is_single = math.prod(value.shape) == 1 and origin(value)[0].name in PROBABILITIES
    log = log_of(value) if is_single else None
    return None if log is None else jnp.exp(log)


def _picked(value: Value) -> Array | None:
    probability = _probability(value)
    return picked_before(value) if probability is None else probability


REWRITES: dict[str, Reading] = {
    "log": _log,
    "log2": _log2,
    "log1p": _log1p,
    "sub": difference,
    "add": shifted,
    "gather": _picked,
    "slice": _picked,
    "dynamic_slice": _picked,
}
"""For each operation, what computes its one result anew; None leaves it as it is."""


def exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function with its logarithms rewritten."""
    return through_program(
        function, lambda closed, given: core.jaxpr_as_fun(exact_logarithms(closed))(*given)
    )


def exact_logarithms(closed: Any) -> Any:
    """Rewrite a program whose first result is the score; the very same one if nothing is found."""
    jaxpr = body(closed)
    singular = SINGULAR | PROBABILITIES
    if not (mentions(jaxpr, LOGS) or _near_the_end(jaxpr, 0) & singular):
        return closed
    changed: list[Value] = []

    def rule(equation: Any, operands: tuple[Value, ...]) -> list[Value]:
        call = entered(equation)
        if call is not None and mentions(body(call), LOGS):
            return read(body(call), getattr(call, "consts", ()), operands, rule)
        values = plain(equation, operands)
        rewrite = REWRITES.get(equation.primitive.name)
        array = None if rewrite is None else rewrite(values[0])
        if array is None:
            return values
        changed.append(values[0].anew(array))
        return changed[-1:]

    def program(*arguments: Any) -> list[Any]:
        score, *more = read(jaxpr, closed.consts, [Value(v) for v in arguments], rule)
        array = _probability(score)
        if array is not None:
            score = score.anew(array)
            changed.append(score)
        return [value.array for value in (score, *more)]

    rewritten = jax.make_jaxpr(program)(*closed.in_avals)
    if not changed:
        return closed
    return core.ClosedJaxpr(body(rewritten).replace(eqns=needed(body(rewritten))), rewritten.consts)


def _near_the_end(jaxpr: Any, result: int) -> set[str]:
    """Name what makes a result, back to the last operation that mixes elements."""
    makers = {out: equation for equation in jaxpr.eqns for out in equation.outvars}
    todo, seen, names = [jaxpr.outvars[result]], set[Any](), set[str]()
    while todo:
        atom = todo.pop()
        equation = None if isinstance(atom, core.Literal) else makers.get(atom)
        if equation is None or id(equation) in seen:
            continue
        seen.add(id(equation))
        call, name = entered(equation), equation.primitive.name
        if call is not None:
            names |= _near_the_end(body(call), equation.outvars.index(atom))
        if call is not None or name in MOVES | POINTWISE:
            names.add(name)
            todo.extend(equation.invars)
    return names
