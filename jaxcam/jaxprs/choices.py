"""A maximum of two values as a choice between them: nothing reaches what was not taken.

JAX's own rule multiplies by zero what is not taken, and zero times the infinite slope of a root, as
in ``sqrt(maximum(x, 0))``, is NaN; `jax.nn.relu` chooses. The numbers are the same, and so are the
derivatives wherever they are finite: half of each where the two are equal.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxcam.jaxprs.interpret import called, operations, run, run_all
from jaxcam.jaxprs.primitives import Fact, known_as

EXTREMES = {"max", "min"}
SINGULAR = known_as(Fact.SINGULAR)


def choosing(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Give the program with its maxima and minima of two values as choices.

    Left as it is where nothing in it can have an infinite derivative. Loops and what has a
    derivative written by hand are not looked into.
    """
    names = operations(closed)
    if SINGULAR.isdisjoint(names) or EXTREMES.isdisjoint(names):
        return closed
    return jax.make_jaxpr(lambda *given: run_all(closed, given, _rule))(*closed.in_avals)


def _rule(equation: Any, operands: list[Any]) -> Sequence[Any]:
    name, inside = equation.primitive.name, called(equation)
    if inside is not None:
        return run_all(inside, operands, _rule)
    if name not in EXTREMES or not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
        return run(equation, operands)
    x, y = (jnp.broadcast_to(v, equation.outvars[0].aval.shape) for v in operands)
    taken, other = (x > y, x < y) if name == "max" else (x < y, x > y)
    return [jnp.where(taken, x, jnp.where(other, y, x / 2 + y / 2))]  # NaN stays NaN
