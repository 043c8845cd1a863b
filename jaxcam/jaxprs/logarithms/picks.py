"""Elements are picked before a logarithm, a root or a quotient is taken, not from its result.

Picking afterwards is the same number, but its derivative has a zero for what was not picked times
the slope there, which is infinite for the logarithm of another class's ``p = 0``: not a number.
"""

import math
from typing import Any

from jax import Array

from jaxcam.jaxprs.interpret import run
from jaxcam.jaxprs.logarithms.origins import MOVES, Value, moved
from jaxcam.jaxprs.primitives import Fact, known_as

POINTWISE = known_as(Fact.POINTWISE)

SINGULAR = {"log", "log1p", "log2", "div", "sqrt", "rsqrt", "cbrt", "pow", "integer_pow", "atanh"}


def picked_before(value: Value) -> Array | None:
    """Pick some elements of what operations made one by one from the operands of these."""
    fewer = math.prod(value.shape) < math.prod(value.operands[0].shape)
    if not fewer or not _is_singular(value.operands[0], set()):
        return None
    return _picked(value.operands[0], (value,), {})


def _one_by_one(made: Value) -> bool:
    shapes = {operand.shape for operand in made.operands}
    return made.name in POINTWISE and not made.exact and shapes <= {made.shape, ()}


def _is_singular(value: Value, seen: set[int]) -> bool:
    made = value.made
    if id(made) in seen:
        return False
    seen.add(id(made))
    if made.name in MOVES and not made.exact:
        return _is_singular(made.operands[0], seen)
    if not _one_by_one(made):
        return False
    return made.name in SINGULAR or any(_is_singular(v, seen) for v in made.operands)


def _picked(value: Value, steps: tuple[Value, ...], known: dict[Any, Array]) -> Array:
    made = value.made
    if made.name in MOVES and not made.exact:
        return _picked(made.operands[0], (made, *steps), known)
    if not _one_by_one(made):
        return moved(steps, made.array)
    key = (id(made), *map(id, steps))
    if key not in known:
        operands = [
            _picked(v, steps, known) if v.shape == made.shape and v.shape else v.array
            for v in made.operands
        ]
        known[key] = run(made.equation, operands)[0]
    return known[key]
