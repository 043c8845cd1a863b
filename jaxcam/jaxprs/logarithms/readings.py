"""What a value of a program says about itself: its logarithm, and that of what is left to one.

Two tables, a line for each operation: how the logarithm of its result follows from those of its
operands without a difference of nearly equal numbers. A value without a line has no reading.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.arrays.precision import widen
from jaxcam.jaxprs.interpret import run
from jaxcam.jaxprs.logarithms.origins import (
    CONVERSIONS,
    MOVES,
    Value,
    matched,
    moved,
    number,
    origin,
    steps_from,
)
from jaxcam.jaxprs.logarithms.probabilities import (
    Axes,
    log_complements,
    log_probabilities,
    log_sigmoid,
    log_sum,
    softplus,
)

Reading = Callable[[Value], Array | None]


def log_of(value: Value) -> Array | None:
    """``log v``, if it is known how ``v >= 0`` was made; half precision widened."""
    return _read(value, "log", LOG)


def rest_of(value: Value) -> Array | None:
    """``log(1 - v)``, if it is known how ``v <= 1`` was made; half precision widened."""
    return _read(value, "rest", REST)


def _read(value: Value, name: str, table: dict[str, Reading]) -> Array | None:
    def find(made: Value) -> Array | None:
        log = table[made.name](made) if made.name in table else None
        return None if log is None else widen(log)

    made = value.made
    return made.once(name, find)


def _moved(reading: Reading) -> Reading:
    """Read the operand, and move what was read as it was moved."""

    def read(value: Value) -> Array | None:
        log = reading(value.operands[0])
        fill = value.equation.params.get("fill_value") if value.name == "gather" else None
        if log is None or not (fill is None or math.isnan(fill)):
            return None
        return moved([value], log)

    return read


def _all(combine: Callable[..., Array], reading: Reading) -> Reading:
    """Read all operands, and combine what was read."""

    def read(value: Value) -> Array | None:
        logs = [log for v in value.operands if (log := reading(v)) is not None]
        return combine(*logs) if len(logs) == len(value.operands) else None

    return read


def _selected(reading: Reading) -> Reading:
    def read(value: Value) -> Array | None:
        which, *cases = value.operands
        logs = [log for case in cases if (log := reading(case)) is not None]
        return lax.select_n(which.array, *logs) if len(logs) == len(cases) else None

    return read


def _power(exponent: Callable[[Value], float | None]) -> Reading:
    def read(value: Value) -> Array | None:
        log, power = log_of(value.operands[0]), exponent(value)
        return None if log is None or power is None else power * log

    return read


def _together(reading: Reading) -> Reading:
    def read(value: Value) -> Array | None:
        return _all(lambda *logs: run(value.equation, logs)[0], reading)(value)

    return read


def _extreme(value: Value) -> Array | None:
    log = log_of(value.operands[0])  # rises with its argument
    return None if log is None else run(value.equation, [log])[0]


def _sum(value: Value) -> Array | None:
    summed, axes = value.operands[0], value.equation.params["axes"]
    if origin(summed, CONVERSIONS)[0].name == "exp":
        return None  # nothing gained: see logsums.py
    log = log_of(summed)
    return None if log is None else lax.squeeze(log_sum(log, axes), axes)


def _number(it: float | None, value: Value) -> Array | None:
    if it is None or it < 0:
        return None
    dtype = jnp.result_type(value.array)
    floating = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return jnp.asarray(math.log(it) if it else -math.inf, floating)


def _one_minus(reading: Reading) -> Reading:
    """Read ``p``, of ``1 - p``."""
    return lambda value: reading(value.operands[1]) if number(value.operands[0]) == 1 else None


def _ratio(value: Value) -> Array | None:
    top, bottom = value.operands
    if (share := share_of(top, bottom)) is not None:
        return moved(share.elements, _log_share(share))
    if (odds := _log_odds(top, bottom)) is not None:
        return log_sigmoid(odds)
    one, other = log_of(top), log_of(bottom)
    return None if one is None or other is None else one - other


def _rest_of_ratio(value: Value) -> Array | None:
    top, bottom = value.operands
    share = share_of(top, bottom)
    if share is not None and share.counted is None and not share.spare:
        return moved(share.elements, log_complements(share.y, share.axes))
    odds = _log_odds(top, bottom)
    return None if odds is None else log_sigmoid(-odds)


class Share(NamedTuple):
    """``e^y`` over its own sum over some axes, and how its elements were moved.

    counted: which elements the sum has, where not all of them; power: ``e^y`` with the others.
    spare: a small number that is added to the sum, for fear of zero.
    """

    y: Array
    axes: Axes
    elements: list[Value]
    counted: Array | None
    power: Value
    spare: float


def _log_share(share: Share) -> Array:
    log, whole = log_probabilities(share.y, share.axes), log_sum(share.y, share.axes)
    every = log_of(share.power)
    if share.counted is not None and every is not None:
        log = jnp.where(share.counted, log, every - whole)
    return log + log_sigmoid(whole - math.log(share.spare)) if share.spare else log


def share_of(top: Value, bottom: Value) -> Share | None:
    """Recognise a softmax: positive numbers, divided by the sum of all or of some of them."""
    total, sums, spare = _sum_of(bottom)
    if total.name != "reduce_sum":
        return None
    summed, axes = total.operands[0], total.equation.params["axes"]
    power, counted = origin(summed, CONVERSIONS)[0], None
    if power.name == "select_n" and steps_from(power, top) is None:
        which, *cases = power.operands
        shares = [(i, v) for i, v in enumerate(cases) if steps_from(v, top) is not None]
        if len(shares) != 1 or which.shape != power.shape or log_of(shares[0][1]) is None:
            return None
        counted = which.array.astype(jnp.int32) == shares[0][0]
        power = shares[0][1].made
    elements, y = steps_from(power, top), log_of(summed)
    if elements is None or y is None or not matched(total, elements, sums):
        return None
    return Share(y, axes, elements, counted, power, spare)


def _sum_of(bottom: Value) -> tuple[Value, list[Value], float]:
    """The sum that is divided by, the moves from it, and what was added to it."""
    total, sums = origin(bottom)
    if total.name == "add":
        for one, other in (total.operands, total.operands[::-1]):
            inner, before = origin(one)
            spare = number(other)
            if inner.name == "reduce_sum" and spare is not None and spare > 0:
                return inner, before + sums, spare
    return total, sums, 0.0


def _log_odds(top: Value, bottom: Value) -> Array | None:
    """``log(p / q)`` of ``p / (p + q)``, such as a sigmoid written by hand."""
    if bottom.made.name != "add":
        return None
    for p, q in (bottom.made.operands, bottom.made.operands[::-1]):
        same = p.made is top.made or (number(p) is not None and number(p) == number(top))
        one, other = log_of(p), log_of(q)
        if same and one is not None and other is not None:
            return one - other
    return None


def _add(one: Array, other: Array) -> Array:
    """``log(e^one + e^other)``; either may be -inf."""
    above = one > other
    larger, smaller = jnp.where(above, one, other), jnp.where(above, other, one)
    there = smaller > -jnp.inf
    apart = jnp.where(there, smaller - larger, jnp.zeros_like(larger))
    return larger + jnp.where(there, softplus(apart), jnp.zeros_like(larger))


def _clamp(low: Array, x: Array, high: Array) -> Array:
    return jnp.minimum(jnp.maximum(low, x), high)


LOG: dict[str, Reading] = {
    "": lambda v: _number(number(v), v),
    "exp": lambda v: v.operands[0].array,
    "logistic": lambda v: log_sigmoid(widen(v.operands[0].array)),
    "div": _ratio,
    "mul": _all(jnp.add, log_of),
    "add": _all(_add, log_of),
    "sub": _one_minus(rest_of),
    "max": _all(jnp.maximum, log_of),
    "min": _all(jnp.minimum, log_of),
    "clamp": _all(_clamp, log_of),
    "abs": lambda v: log_of(v.operands[0]),
    "square": _power(lambda v: 2.0),
    "sqrt": _power(lambda v: 0.5),
    "rsqrt": _power(lambda v: -0.5),
    "integer_pow": _power(lambda v: float(v.equation.params["y"])),
    "pow": _power(lambda v: number(v.operands[1])),
    "select_n": _selected(log_of),
    "concatenate": _together(log_of),
    "stack": _together(log_of),
    "reduce_sum": _sum,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    **dict.fromkeys(MOVES, _moved(log_of)),
}

REST: dict[str, Reading] = {
    "": lambda v: _number(None if (it := number(v)) is None else 1 - it, v),
    "logistic": lambda v: log_sigmoid(-widen(v.operands[0].array)),
    "div": _rest_of_ratio,
    "sub": _one_minus(log_of),
    "max": _all(jnp.minimum, rest_of),
    "min": _all(jnp.maximum, rest_of),
    "clamp": _all(lambda low, x, high: _clamp(high, x, low), rest_of),
    "select_n": _selected(rest_of),
    "concatenate": _together(rest_of),
    "stack": _together(rest_of),
    **dict.fromkeys(MOVES, _moved(rest_of)),
}
