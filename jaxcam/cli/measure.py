"""Numbers that say how two maps differ, and how well one finds what it should."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcam import maps

NAN = float("nan")


def difference(exact: Any, approximate: Any) -> dict[str, float]:
    """Compare two maps of one layer, ``E`` and ``A``, as they are, not normalised.

    relative_l1: ``sum |E - A| / sum |E|``. relative_l2: the same with the root of summed squares.
    correlation: Pearson's, over positions; NaN if a map is constant.
    maximum_moved: how many positions lie between the two maxima, in a straight line.
    """
    e, a = np.asarray(exact, np.float64), np.asarray(approximate, np.float64)
    here, there = _peak(e), _peak(a)
    spread = np.sqrt(((e - e.mean()) ** 2).sum() * ((a - a.mean()) ** 2).sum())
    return {
        "relative_l1": _over(np.abs(e - a).sum(), np.abs(e).sum()),
        "relative_l2": _over(np.linalg.norm(e - a), np.linalg.norm(e)),
        "correlation": _over(((e - e.mean()) * (a - a.mean())).sum(), spread),
        "maximum_moved": float(np.hypot(here[0] - there[0], here[1] - there[1])),
    }


def localisation(
    map: Any, boxes: Sequence[Sequence[int]], size: tuple[int, int]
) -> dict[str, float | bool | int]:
    """Judge a map by boxes (row0, col0, row1, col1) of a picture of ``size``, ends excluded.

    The map is first brought to the picture's size (`jaxcam.upsample`).

    energy_in_boxes: the share of the map's sum that lies in any box.
    maximum_in_box: whether its maximum does (the pointing game).
    recall: the share of boxes in which the map reaches half of its maximum somewhere: the instances
    found. None is by a blank map.
    """
    large = np.asarray(maps.upsample(jnp.asarray(map)[None], size)[0], np.float64)
    inside, top = np.zeros(size, bool), large.max()
    for row0, col0, row1, col1 in boxes:
        inside[row0:row1, col0:col1] = True
    reached = (large[r0:r1, c0:c1].max() >= top / 2 for r0, c0, r1, c1 in boxes)
    found = sum(bool(found) for found in reached) if top > 0 else 0
    return {
        "boxes": len(boxes),
        "found": found,
        "recall": _over(found, len(boxes)),
        "energy_in_boxes": _over(large[inside].sum(), large.sum()),
        "maximum_in_box": bool(inside[_peak(large)] and top > 0),
    }


def _peak(values: NDArray) -> tuple[int, int]:
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def _over(top: Any, bottom: Any) -> float:
    return float(top / bottom) if bottom else NAN
