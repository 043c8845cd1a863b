"""Operations whose derivatives can be infinite at a finite value, and such that can end a way.

``sqrt`` is singular, at zero; a ReLU before it ends the way there, since what it switches off moves
nothing. See still.py for what follows.
"""

from jax.extend import core

from jaxcam.derivatives.graph import handwritten
from jaxcam.derivatives.graph.flatten import Operation, Program
from jaxcam.jaxprs.choices import SINGULAR
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.primitives import Fact, known_as

SWITCHING = known_as(Fact.SWITCHING)


def is_singular(operation: Operation, program: Program) -> bool:
    """Say whether an operation may have an infinite derivative along what varies."""
    moved = [i in program.varying for i in operation.operands]
    if operation.name == "div":
        return moved[1]
    if operation.name == "integer_pow":
        return operation.equation.params["y"] < 0
    if operation.name == "custom_jvp_call":
        traced = handwritten.third(operation.equation, moved)
        return traced is None or not SINGULAR.isdisjoint(operations(traced))
    return operation.name in SINGULAR


def has_singular(operation: Operation) -> bool:
    """Say whether there may be such an operation inside another: a loop, a hand-written rule."""
    return any(
        not SINGULAR.isdisjoint(operations(closed))
        for closed in core.jaxprs_in_params(operation.equation.params)
    )


def is_switching(operation: Operation, program: Program) -> bool:
    """Say whether the slope of an operation may be zero on a whole range, or through a mask."""
    if operation.name != "mul":
        return operation.name in SWITCHING
    fixed = [
        atom
        for i, atom in zip(operation.operands, operation.equation.invars, strict=True)
        if i not in program.varying
    ]
    return bool(fixed) and not isinstance(fixed[0], core.Literal)
