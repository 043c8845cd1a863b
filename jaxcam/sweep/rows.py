"""What the table says of each image: in words that are the same wherever they were computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcam.types import CAM

COLUMNS = (
    "image", "class", "label", "score", "probability", "engine", "exact", "smallest_r",
    "share_large", "share_guarded", "share_concave", "effective_samples", "top_class_kept",
    "relative_standard_error", "blank", "error",
)  # fmt: skip
"""``jaxcam.Diagnostics`` and ``jaxcam.types.Poles`` have the definitions.

relative_standard_error: the largest one, as a share of the map's largest value. A cell is empty
where there is nothing to say.
"""
NOT_FINITE = "the map is not finite: are the network's scores? at poles='raw', use 'bounded'"


def row(name: str, result: CAM, names: Sequence[str]) -> list[str]:
    """Word the result of one image, which has no batch axis and is on the host."""
    diagnostics, index = result.diagnostics, int(result.target)
    if not diagnostics.finite:
        return unread(name, NOT_FINITE)
    scores = result.scores.astype(np.float64)
    shares = np.exp(scores - scores.max())
    poles = diagnostics.poles._asdict() if diagnostics.poles is not None else {}
    error, top = diagnostics.standard_error, result.map.max()
    cells: dict[str, Any] = {
        "image": name,
        "class": index,
        "label": names[index],
        "score": result.scores[index],
        "probability": np.float32(shares[index] / shares.sum()),
        "engine": diagnostics.report.engine,
        "exact": bool(diagnostics.report.exact),
        **poles,
        "effective_samples": diagnostics.effective_samples,
        "top_class_kept": diagnostics.top_class_kept,
        "relative_standard_error": None if error is None or top <= 0 else error.max() / top,
        "blank": bool(diagnostics.blank),
    }
    return [_cell(cells.get(column)) for column in COLUMNS]


def unread(name: str, error: str) -> list[str]:
    """Word that there is no result, and why."""
    return [name, *[""] * (len(COLUMNS) - 2), error]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, np.floating | np.ndarray):
        # The shortest digits that give the number back, and nothing for what is no number.
        return str(value) if np.isfinite(value) else ""
    return str(value)
