"""Poolings that start from an array, as JAX knows them from a number.

``lax.reduce_window(x, init, lax.max, ...)`` with a number is a maximum over windows, which can be
differentiated. With an array, as ``jnp.zeros((), x.dtype)`` is under `jit`, JAX does not look what
the array holds, and has no derivative for the general form. The same windows, from the same jaxpr:

- a maximum or minimum from any start is that of the windows, then of the start and it;
- a sum that starts from a known zero is a sum;
- anything else (a product, a sum from elsewhere) is folded over the places of the window, of which
  each is a slice of the padded operand. Padding is passed over, as XLA does whatever the start is.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxcam.jaxprs.interpret import body, inner, operations, run, run_all

GENERAL = "reduce_window"
MOST_PLACES = 256  # of a window; a program of more slices would take long to compile
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
    if math.prod(params["window_dimensions"]) > MOST_PLACES:
        return run(equation, operands)
    return _folded(equation, operands)


def _folded(equation: Any, operands: list[Any]) -> list[Any]:
    """Combine the places of the windows one after the other, from the start on."""
    params, count = equation.params, len(operands) // 2
    starts = operands[count:]
    inside = [step - 1 for step in params["base_dilation"]]
    edges = [(*sides, gap) for sides, gap in zip(params["padding"], inside, strict=True)]
    wide = [lax.pad(x, s, edges) for x, s in zip(operands[:count], starts, strict=True)]
    with jax.ensure_compile_time_eval():
        there = np.asarray(lax.pad(np.ones(operands[0].shape, np.int8), np.int8(0), edges), bool)
    shape = equation.outvars[0].aval.shape
    strides, steps = params["window_strides"], params["window_dilation"]
    ends = [stride * (size - 1) + 1 for stride, size in zip(strides, shape, strict=True)]

    def both(*numbers: Any) -> list[Any]:
        return run_all(params["jaxpr"], numbers)

    for _ in shape:
        both = jax.vmap(both)

    def combined(so_far: list[Any], place: Sequence[int]) -> list[Any]:
        low = [i * step for i, step in zip(place, steps, strict=True)]
        high = [i + end for i, end in zip(low, ends, strict=True)]
        taken = [lax.slice(x, low, high, strides) for x in wide]
        mask = there[tuple(map(slice, low, high, strides))]
        after = both(*so_far, *taken)
        if mask.all():
            return after
        return [jnp.where(mask, new, old) for new, old in zip(after, so_far, strict=True)]

    first = [jnp.broadcast_to(s, shape) for s in starts]
    return functools.reduce(
        combined, itertools.product(*map(range, params["window_dimensions"])), first
    )
