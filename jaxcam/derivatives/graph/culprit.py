"""Which operation is not finite, or has a derivative that is not, and at which value.

Words for a reader whose result is not finite; nothing is computed unless somebody asks.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.contracts import Traced
from jaxcam.derivatives.graph.flatten import Operation, Program, evaluate, flatten
from jaxcam.derivatives.graph.kinds import Pointwise, as_function, is_pointwise, slope_at
from jaxcam.derivatives.reasons import Refused, where

ORDERS = ("first", "second", "third")
MOST = 3  # operations that are named


def culprits(traced: Traced, order: int, *arguments: Array) -> str | None:
    """Name the operations of a score that are not finite at a point, up to an order of derivatives.

    None: there is none that shows by itself.
    """
    try:
        program = flatten(traced.closed)
    except Refused:
        return None
    values = evaluate(program, arguments)
    not_finite = _values(program, values)
    named = next(not_finite, None)
    if named is not None:  # what follows it is not finite either
        return named
    slopes = dict.fromkeys(_slopes(program, values, order))
    return "; ".join(itertools.islice(slopes, MOST)) or None


def _values(program: Program, values: dict[int, Any]) -> Iterator[str]:
    for operation in program.operations:
        for number in operation.results:
            bad = _not_finite(values[number])
            before = [i for i in operation.operands if _not_finite(values[i]) is not None]
            if bad is not None and not before:
                word = where(operation.equation, operation.call)
                yield f"{word} gives {_word(values[number], bad)}"


def _slopes(program: Program, values: dict[int, Any], order: int) -> Iterator[str]:
    for operation in program.operations:
        moved = tuple(dict.fromkeys(i for i in operation.operands if i in program.varying))
        if not (moved and is_pointwise(operation, program)):
            continue
        words = _slope(operation, moved, values, order)
        if words is not None:
            yield words


def _slope(
    operation: Operation, moved: tuple[int, ...], values: dict[int, Any], order: int
) -> str | None:
    """Word the lowest derivative of an operation that is not finite."""
    whole = as_function(Pointwise(moved, operation.results, (operation,)))
    at = [values[i] for i in whole.numbers]
    for place, number in enumerate(moved):
        function = whole.function
        for name in ORDERS[:order]:
            function = slope_at(function, place)
            (slope,) = function(*at)
            bad = _not_finite(slope)
            if bad is not None:
                here = np.broadcast_to(np.asarray(values[number]), slope.shape).reshape(-1)[bad]
                return (
                    f"the {name} derivative of {where(operation.equation, operation.call)} is "
                    f"{_word(slope, bad)} at {here:.3g}"
                )
    return None


def _not_finite(value: Any) -> int | None:
    """Give the first flat index at which an array is not finite."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.inexact) or not math.prod(np.shape(value)):
        return None
    bad = ~np.isfinite(np.asarray(jax.device_get(value), np.float64)).reshape(-1)
    return int(bad.argmax()) if bad.any() else None


def _word(value: Any, index: int) -> str:
    return str(np.asarray(jax.device_get(value), np.float64).reshape(-1)[index])
