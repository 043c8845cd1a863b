"""How two maps of one layer differ."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAN = float("nan")


def difference(exact: Any, approximate: Any) -> dict[str, float]:
    """Compare two maps of one layer, ``E`` and ``A``, as they are, not normalised.

    relative_l1: ``sum |E - A| / sum |E|``. relative_l2: the same with the root of summed squares.
    correlation: Pearson's, over positions; NaN if a map is constant.
    maximum_moved: how many positions lie between the two maxima, in a straight line.
    """
    e, a = np.asarray(exact, np.float64), np.asarray(approximate, np.float64)
    here, there = peak(e), peak(a)
    spread = np.sqrt(((e - e.mean()) ** 2).sum() * ((a - a.mean()) ** 2).sum())
    return {
        "relative_l1": ratio(np.abs(e - a).sum(), np.abs(e).sum()),
        "relative_l2": ratio(np.linalg.norm(e - a), np.linalg.norm(e)),
        "correlation": ratio(((e - e.mean()) * (a - a.mean())).sum(), spread),
        "maximum_moved": float(np.hypot(here[0] - there[0], here[1] - there[1])),
    }


def peak(values: NDArray) -> tuple[int, int]:
    """Give row and column of the largest value."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def ratio(top: Any, bottom: Any) -> float:
    """Divide, with NaN where the divisor is zero."""
    return float(top / bottom) if bottom else NAN
