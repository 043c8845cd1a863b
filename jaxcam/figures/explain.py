"""One picture and one class: the picture, the map over it, the map itself, its standard error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxcam.figures.panels import (
    ERRORS,
    Boxes,
    annotate,
    bar,
    draw_cells,
    draw_over,
    draw_picture,
    outline,
    panels,
)
from jaxcam.plot import checked_image, checked_map, colormap_of, range_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explain_figure(
    image: Any,
    map: Any,
    *,
    title: str,
    caption: str,
    corner: str = "",
    standard_error: Any = None,
    notes: Sequence[str] = (),
    boxes: Boxes = (),
    signed: bool = False,
) -> "Figure":
    """Draw an image, a map over it, the map itself and, where there is one, its standard error.

    image, map: as for `jaxcam.plot.overlay`. title, caption: two lines above the panels; corner:
    words at the right of the first. notes: one below each panel. standard_error: ``[h, w]``. boxes:
    what the map should have found, each (row0, col0, row1, col1) in pixels of the image, ends
    excluded. signed: the map's sign counts, and zero is in the middle of its colours.
    """
    picture, values = checked_image(image), checked_map(map)
    errors = None if standard_error is None else checked_map(standard_error)
    count = 3 if errors is None else 4
    figure, (axes,) = panels(title, (caption,), count, picture.shape, corner)
    draw_picture(axes[0], picture)
    scale, colours = range_of(values, signed=signed), colormap_of(signed=signed)
    drawn = draw_over(axes[1], picture, values, scale, "map over picture", signed=signed)
    bar(figure, drawn, axes[1:3])
    draw_cells(axes[2], picture, values, scale, "map, cell by cell", colours)
    if errors is not None:
        scale = (0.0, float(errors.max()))
        drawn = draw_cells(axes[3], picture, errors, scale, "standard error", ERRORS)
        bar(figure, drawn, axes[3:])
    annotate(axes, notes)
    for ax in axes[:2]:
        outline(ax, boxes)
    return figure
