"""Poolings that start from an array, as JAX knows them from a number.

``lax.reduce_window(x, init, lax.max, ...)`` with a number is a maximum over windows, which can be
differentiated. With an array, as ``jnp.zeros((), x.dtype)`` is under `jit`, JAX does not look what
the array holds, and has no derivative for the general form. The same windows, from the same jaxpr:

- a maximum or minimum from any start is that of the windows, then of the start and it;
- a sum that starts from a known zero is a sum.
"""

from typing import Any

import jax
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxcam.jaxprs.interpret import body, inner, operations, run, run_all

GENERAL = "reduce_window"
IDEMPOTENT = {"max": (-np.inf, lax.max), "min": (np.inf, lax.min)}


def with_known_starts(closed: Any) -> Any:
    """Return the same program with poolings in the form that has a derivative, if it has any."""
    if GENERAL not in operations(closed):
        return closed

    def program(*values: Any) -> list[Any]:
        return run_all(closed, values, _rule)

    avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in closed.in_avals]
    return jax.make_jaxpr(program)(*avals)


def _rule(equation: Any, operands: list[Any]) -> Any:
    call = inner(equation)
    if call is not None and not call.constvars:
        return run_all(call, operands, _rule)
    if equation.primitive.name == GENERAL:
        return _pooled(equation, operands)
    numbers = all(out.aval.shape == () for out in equation.outvars)
    if numbers and not equation.effects and not any(isinstance(v, Tracer) for v in operands):
        with jax.ensure_compile_time_eval():  # a number stays known
            return run(equation, operands)
    return run(equation, operands)


def _pooled(equation: Any, operands: list[Any]) -> Any:
    params, combining = equation.params, body(equation.params["jaxpr"]).eqns
    windows = (
        params["window_dimensions"], params["window_strides"], params["padding"],
        params["base_dilation"], params["window_dilation"],
    )  # fmt: skip
    name = combining[0].primitive.name if len(combining) == 1 and len(operands) == 2 else ""
    x, start = operands[0], operands[-1]
    if name in IDEMPOTENT:
        identity, both = IDEMPOTENT[name]
        return [both(lax.reduce_window(x, np.asarray(identity, x.dtype), both, *windows), start)]
    if name == "add" and not isinstance(start, Tracer) and not np.asarray(start).any():
        return [lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *windows)]
    return run(equation, operands)
