"""``y - log sum e^y``: the logarithm of a softmax, taken without the softmax."""

import math
from typing import NamedTuple

from jax import Array

from jaxcam.arrays.precision import widen
from jaxcam.jaxprs.logarithms.origins import (
    CONVERSIONS,
    MOVES,
    Value,
    matched,
    moved,
    origin,
    same_shift,
    steps_from,
)
from jaxcam.jaxprs.logarithms.probabilities import Axes, log_probabilities


class LogSum(NamedTuple):
    """``log sum e^y`` over axes: the sum, the moves from it, and what ``y`` is."""

    total: Value
    sums: list[Value]
    y: Value

    @property
    def axes(self) -> Axes:
        """Over which was summed."""
        return self.total.equation.params["axes"]


def difference(value: Value) -> Array | None:
    """``y - log sum e^y`` or its negative, of picked elements too."""
    one, other = value.operands
    log_share = _log_share(one, other)
    if log_share is None and (log_share := _log_share(other, one)) is not None:
        return -log_share
    return log_share


def shifted(value: Value) -> Array | None:
    """``log sum e^(x - x_c)``, which is ``-log p_c``."""
    log_sum = log_sum_of(value)
    if log_sum is None or log_sum.y.name != "sub" or math.prod(log_sum.total.shape) != 1:
        return None
    x, shift = log_sum.y.operands
    elements = steps_from(x, shift)
    if elements is None:
        return None
    single = next((i for i, step in enumerate(elements) if math.prod(step.shape) == 1), None)
    if single is None:
        return None
    return -moved(elements[: single + 1], log_probabilities(widen(x.array), log_sum.axes))


def _log_share(y: Value, log_sum: Value) -> Array | None:
    summed = log_sum_of(log_sum)
    elements = None if summed is None else steps_from(summed.y, y)
    if summed is None or elements is None or not matched(summed.total, elements, summed.sums):
        return None
    return moved(elements, log_probabilities(widen(summed.y.array), summed.axes))


def log_sum_of(value: Value) -> LogSum | None:
    """Recognise ``log sum e^y``, also as ``m + log sum e^(y - m)``."""
    if _first_mover(value) == "log":
        total, sums = origin(value, MOVES | {"log", "abs"})
        logs = [step.name for step in sums].count("log")
        if total.name != "reduce_sum" or logs != 1:
            return None
        power, _ = origin(total.operands[0], CONVERSIONS)
        return LogSum(total, sums, power.operands[0].made) if power.name == "exp" else None
    if _first_mover(value) != "add":
        return None
    last, steps = origin(value)
    for one, other in (last.operands, last.operands[::-1]):
        inner = log_sum_of(one)
        if inner is not None and inner.y.name == "sub":
            y, shift = inner.y.operands
            if same_shift(inner.total, inner.sums, shift, other):
                return LogSum(inner.total, inner.sums + steps, y.made)
    return None


def _first_mover(value: Value) -> str:
    """Name what made a value before it was moved, without a look inside calls."""
    while value.name in MOVES:
        value = value.operands[0]
    return value.name
