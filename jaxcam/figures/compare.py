"""Maps of one picture beside each other, on one scale, and how they differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcam.figures.panels import (
    BOX,
    INK,
    Boxes,
    Floats,
    annotate,
    bar,
    draw_cells,
    draw_over,
    draw_picture,
    outline,
    panels,
)
from jaxcam.plot import checked_image, checked_map, range_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REMOVALS = ("true removal", "third order, Taylor-CAM", "first order, HiResCAM")
DIVERGING = "RdBu_r"


class Removal(NamedTuple):
    """The second row of `compare_figure`: maps of the true removal and of two of Taylor's orders.

    caption: a line above the row. notes: one below each panel.
    """

    true: Any
    third: Any
    first: Any
    caption: str
    notes: Sequence[str] = ()


def compare_figure(
    image: Any,
    exact: Any,
    approximate: Any,
    *,
    title: str,
    caption: str,
    corner: str = "",
    names: tuple[str, str] = ("exact", "approximate"),
    notes: Sequence[str] = (),
    removal: Removal | None = None,
    boxes: Boxes = (),
) -> "Figure":
    """Draw two maps over their image on one colour scale, and their signed difference.

    With ``removal``, a row of its maps below them, on a scale of their own.

    image, exact, approximate: as for `jaxcam.plot.overlay`; the maps are of one shape. names: what
    the maps are called. The rest: as for `explain_figure`.
    """
    picture = checked_image(image)
    captions = (caption,) if removal is None else (caption, removal.caption)
    figure, rows = panels(title, captions, 4, picture.shape, corner)
    draw_picture(rows[0][0], picture)
    _draw_pair(figure, rows[0], picture, (exact, approximate), names)
    annotate(rows[0], notes)
    if removal is not None:
        maps = (removal.true, removal.third, removal.first)
        _draw_pair(figure, rows[1], picture, maps, REMOVALS)
        annotate(rows[1], removal.notes)
    for ax in (ax for row in rows for ax in row):
        outline(ax, boxes, BOX if ax not in (row[3] for row in rows) else INK)
    return figure


def _draw_pair(
    figure: "Figure",
    axes: Sequence["Axes"],
    picture: Floats,
    maps: Sequence[Any],
    names: Sequence[str],
) -> None:
    """Draw maps on one scale into the panels before the last, there the last two's difference."""
    checked = [checked_map(values) for values in maps]
    places = axes[-1 - len(checked) : -1]
    drawn = [
        draw_over(ax, picture, values, range_of(*checked), name)
        for ax, values, name in zip(places, checked, names, strict=True)
    ]
    bar(figure, drawn[0], places)
    difference = checked[-2] - checked[-1]
    reach = float(np.abs(difference).max()) or 1.0
    name = " \N{MINUS SIGN} ".join(name.split(",")[0] for name in names[-2:])
    cells = draw_cells(axes[-1], picture, difference, (-reach, reach), name, DIVERGING)
    bar(figure, cells, axes[-1:])
