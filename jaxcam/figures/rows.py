"""A row for each picture, or for each class of one: picture, map over it, error, and words."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcam.figures.panels import (
    ERRORS,
    GAP,
    INK,
    LARGE,
    MARGIN,
    MEDIUM,
    QUIET,
    SMALL,
    TALLEST,
    WIDTH,
    Boxes,
    add_axes,
    draw_cells,
    draw_over,
    draw_picture,
    fit,
    outline,
    sheet,
)
from jaxcam.plot import checked_image, checked_map, range_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD, PANEL_HEAD, BETWEEN = 0.84, 0.3, 0.24
SIDES = {2: 3.1, 3: 2.25}  # by the number of panels; words take what is left
NAME, LINE = 23, 34  # characters that fit beside the panels


class Row(NamedTuple):
    """image, map, standard_error, boxes, signed: as for `explain_figure`.

    name: large, beside the panels; lines: below it, the first one larger than the rest.
    """

    image: Any
    map: Any
    standard_error: Any
    name: str
    lines: Sequence[str]
    boxes: Boxes = ()
    signed: bool = False


def rows_figure(rows: Sequence[Row], *, title: str, caption: str, corner: str = "") -> "Figure":
    """Draw each picture, its map over it, its standard error if any has one, and what it is.

    Each map is drawn from its own least to its own largest value. title, caption, corner: as for
    `explain_figure`.
    """
    pictures = [checked_image(row.image) for row in rows]
    count = 3 if any(row.standard_error is not None for row in rows) else 2
    side = SIDES[count]
    tall = [side * min(p.shape[0] / p.shape[1], TALLEST) for p in pictures]
    height = HEAD + PANEL_HEAD + sum(tall) + BETWEEN * len(rows)
    figure, height = sheet(title, corner, height)
    at = height - 0.52
    fit(figure.text(MARGIN / WIDTH, at / height, caption, size=MEDIUM, color=QUIET, va="top"))
    columns = [MARGIN + index * (side + GAP) for index in range(count + 1)]
    floor = height - HEAD - PANEL_HEAD
    for index, (row, picture, up) in enumerate(zip(rows, pictures, tall, strict=True)):
        floor -= up
        panels = [add_axes(figure, (x, floor, side, up)) for x in columns[:-1]]
        values = checked_map(row.map)
        draw_picture(panels[0], picture)
        scale = range_of(values, signed=row.signed)
        draw_over(panels[1], picture, values, scale, "map over picture", signed=row.signed)
        if row.standard_error is not None:
            errors = checked_map(row.standard_error)
            scale = 0.0, float(errors.max())
            draw_cells(panels[2], picture, errors, scale, "standard error", ERRORS)
        for ax in panels[:2]:
            outline(ax, row.boxes)
        if index:
            for ax in panels:
                ax.set_title("", loc="left")
        _write(figure, row, columns[-1] / WIDTH, floor + up)
        floor -= BETWEEN
    return figure


def _write(figure: "Figure", row: Row, left: float, top: float) -> None:
    """Write what a row is beside its panels."""
    first, *rest = row.lines
    blocks = (
        (row.name, NAME, 2, {"size": 0.85 * LARGE, "weight": "bold", "color": INK}),
        (first, LINE, 1, {"size": MEDIUM, "color": INK}),
        *((line, LINE, 3, {"size": SMALL, "color": QUIET}) for line in rest),
    )
    for words, room, most, style in blocks:
        lines = [part for line in words.split("\n") for part in textwrap.wrap(line, room)]
        height = figure.get_size_inches()[1]
        said = figure.text(
            left, top / height, "\n".join(lines[:most]), va="top", linespacing=1.3, **style
        )
        fit(said, but=left * WIDTH - MARGIN)
        top = said.get_window_extent().y0 / figure.dpi - 0.07
