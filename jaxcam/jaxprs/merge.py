"""Nested derivatives without the work that they repeat.

Three nested `jax.jvp` along one direction carry seven tangents of every value, of which only three
differ: by symmetry the first derivatives are equal, and so are the second. The compiler merges some
of the copies and not all (measured: seven products of matrices where three do, ten convolutions
where six do). So equal operations are merged here, before they are batched.

Soundness: two operations are merged only if they are the same primitive with equal parameters, of
the very same operands, and without effects. That is the same computation, done once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxcam.jaxprs.interpret import inner, run, run_all

COMMUTATIVE = {"add", "add_any", "mul"}


def merged(function: Callable[..., Any], *examples: Any) -> core.ClosedJaxpr:
    """Trace a function with equal operations done once; `jax.extend.core.jaxpr_as_fun` runs it.

    Calls that are nothing but their body (``jit``, ``remat``) are entered. Loops and branches are
    left as they are, with whatever is repeated inside.
    """

    def program(*arguments: Any) -> list[Any]:
        closed = jax.make_jaxpr(function)(*arguments)
        return run_all(closed, jax.tree.leaves(arguments), _once())

    return jax.make_jaxpr(program)(*examples)


def _once() -> Callable[[Any, list[Any]], list[Any]]:
    """Return a rule that runs an operation, unless an equal one was run before."""
    done: dict[Any, Any] = {}

    def once(equation: Any, operands: list[Any]) -> list[Any]:
        called = inner(equation)
        if called is not None and not called.constvars:
            return run_all(called, operands, once)
        key = key_of(equation, operands)
        # The operands are kept with the results: their identities are part of the key.
        done[key] = done.get(key) or (run(equation, operands), operands)
        return done[key][0]

    return once


def key_of(equation: Any, operands: Sequence[Any]) -> Any:
    """Say what an operation computes: equal keys, equal results, as long as the operands live."""
    told_apart = [
        (str(atom.aval), np.asarray(atom.val).tobytes())
        if isinstance(atom, core.Literal)
        else id(operand)
        for atom, operand in zip(equation.invars, operands, strict=True)
    ]
    if equation.primitive.name in COMMUTATIVE:
        told_apart.sort(key=repr)
    key = (equation.primitive, tuple(sorted(equation.params.items())), tuple(told_apart))
    try:
        hash(key)
    except TypeError:
        return object()  # cannot be compared, so it equals nothing
    return object() if equation.effects else key
