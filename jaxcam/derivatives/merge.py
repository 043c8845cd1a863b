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

from jaxcam.derivatives.structure import body, inner, run


def merged(function: Callable[..., Any], *examples: Any) -> core.ClosedJaxpr:
    """Trace a function with equal operations done once; `jax.extend.core.jaxpr_as_fun` runs it.

    Calls that are nothing but their body (``jit``, ``remat``) are entered. Loops and branches are
    left as they are, with whatever is repeated inside.
    """

    def once(*arguments: Any) -> list[Any]:
        closed = jax.make_jaxpr(function)(*arguments)
        return _evaluate(body(closed), closed.consts, jax.tree.leaves(arguments), {})

    return jax.make_jaxpr(once)(*examples)


def _evaluate(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], done: dict) -> list[Any]:
    """Evaluate, looking every operation up in ``done`` first."""
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        called, operands = inner(equation), [value(atom) for atom in equation.invars]
        if called is not None and not called.constvars:
            results = _evaluate(called, (), operands, done)
        else:
            key = _key(equation, operands)
            # The operands are kept with the results: their identities are part of the key.
            done[key] = done.get(key) or (run(equation, operands), operands)
            results = done[key][0]
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _key(equation: Any, operands: Sequence[Any]) -> Any:
    """Say what an operation computes: equal keys, equal results."""
    told_apart = [
        (str(atom.aval), np.asarray(atom.val).tobytes())
        if isinstance(atom, core.Literal)
        else id(operand)
        for atom, operand in zip(equation.invars, operands, strict=True)
    ]
    key = (equation.primitive, tuple(sorted(equation.params.items())), tuple(told_apart))
    try:
        hash(key)
    except TypeError:
        return object()  # cannot be compared, so it equals nothing
    return object() if equation.effects else key
