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
# Of the singular ones, those that are finite where their derivative is not. What is infinite itself
# is not brought back by anything.
STEEP = {"sqrt", "cbrt", "pow", "atan2", "acos", "asin", "acosh", "custom_jvp_call"}


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


def is_steep(operation: Operation, program: Program) -> bool:
    """Say whether an operation may have an infinite derivative where it is finite itself."""
    return operation.name in STEEP and is_singular(operation, program)


def has_singular(operation: Operation) -> bool:
    """Say whether there may be such an operation inside another: a loop, a hand-written rule."""
    return any(
        not SINGULAR.isdisjoint(operations(closed))
        for closed in core.jaxprs_in_params(operation.equation.params)
    )


def is_switching(operation: Operation, program: Program) -> bool:
    """Say whether the slope of an operation may be zero on a whole range, or through a mask."""
    return operation.name in SWITCHING or is_masking(operation, program)


def is_masking(operation: Operation, program: Program) -> bool:
    """Say whether an operation multiplies by what may be zero at some places."""
    if operation.name != "mul":
        return False
    fixed = [
        atom
        for i, atom in zip(operation.operands, operation.equation.invars, strict=True)
        if i not in program.varying
    ]
    return bool(fixed) and not isinstance(fixed[0], core.Literal)
