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

from jaxcam.jaxprs.interpret import body, inner

COMMUTATIVE = {"add", "add_any", "mul"}


def merged(function: Callable[..., Any], *examples: Any) -> core.ClosedJaxpr:
    """Trace a function with equal operations done once; `jax.extend.core.jaxpr_as_fun` runs it.

    Calls that are nothing but their body (``jit``, ``remat``) are entered. Loops and branches are
    left as they are, with whatever is repeated inside.
    """
    closed = jax.make_jaxpr(function)(*examples)
    once = _Once()
    results = once.enter(body(closed), {})
    jaxpr = body(closed).replace(eqns=once.equations, outvars=results)
    return core.ClosedJaxpr(jaxpr, closed.consts)


class _Once:
    """The equations of a program so far, each different from every other.

    They are written anew and not traced again: binding an operation takes JAX ten times as long.
    """

    def __init__(self) -> None:
        self.equations: list[Any] = []
        self._done: dict[Any, list[Any]] = {}

    def enter(self, jaxpr: Any, names: dict[Any, Any]) -> list[Any]:
        """Write the equations of a jaxpr; give its results.

        names: what its variables are called in the whole program, if not by their own name.
        """

        def named(atom: Any) -> Any:
            return atom if isinstance(atom, core.Literal) else names.get(atom, atom)

        for equation in jaxpr.eqns:
            operands = list(map(named, equation.invars))
            names.update(zip(equation.outvars, self._write(equation, operands), strict=True))
        return list(map(named, jaxpr.outvars))

    def _write(self, equation: Any, operands: list[Any]) -> list[Any]:
        """Write an equation, or find the one that is equal; give its results."""
        called = inner(equation)
        if called is not None and not called.constvars:
            return self.enter(called, dict(zip(called.invars, operands, strict=True)))
        equation = equation.replace(invars=operands)
        key = key_of(equation, operands)
        if key not in self._done:
            # New names: a body that is called twice has its own twice, and one that is not used
            # here may be in an equal equation.
            results = [core.Var(variable.aval) for variable in equation.outvars]
            self.equations.append(equation.replace(outvars=results))
            self._done[key] = results
        return self._done[key]


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
