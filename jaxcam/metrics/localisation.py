"""How well a map finds what it should."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcam import maps
from jaxcam.metrics.difference import peak, ratio


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
    hit = sum(bool(hit) for hit in reached) if top > 0 else 0
    return {
        "boxes": len(boxes),
        "found": hit,
        "recall": ratio(hit, len(boxes)),
        "energy_in_boxes": ratio(large[inside].sum(), large.sum()),
        "maximum_in_box": bool(inside[peak(large)] and top > 0),
    }
