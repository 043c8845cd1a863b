"""The figures of the command line: one explanation, and several beside each other.

Made without pyplot: no global state is touched and no window opens. Maps, smooth, lie over their
picture, whose pixels stay pixels; a panel of a map itself shows each position of the layer as the
one cell that it is. matplotlib is imported when something is drawn, and not before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcam.plot import COLORMAP, checked_image, checked_map, repeat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]
Boxes = Sequence[Sequence[int]]
Range = tuple[float, float]

DPI = 150
WIDTH, MARGIN, GAP = 10.0, 0.25, 0.22  # inches, as all below
HEAD, ROW_HEAD, FOOT = 1.12, 0.72, 0.92
DETAIL = 512  # pixels of a blended picture: finer than the panel that shows it
DIM, GLOW = (
    0.75,
    0.85,
)  # the picture's share of its light, and the map's, where one covers the other
REMOVALS = ("true removal", "third order, Taylor-CAM", "first order, HiResCAM")
ERRORS, DIVERGING = "cividis", "RdBu_r"
INK, QUIET, BOX = "#1a1a24", "#62626e", "#58e6ff"
SMALL, MEDIUM, LARGE = 8.5, 10.5, 15.0


class Removal(NamedTuple):
    """The second row of `compare_figure`: maps of the true removal and of two of Taylor's orders.

    caption: a line above the row. notes: one below each panel.
    """

    true: Any
    third: Any
    first: Any
    caption: str
    notes: Sequence[str] = ()


def explain_figure(
    image: Any,
    map: Any,
    *,
    title: str,
    caption: str,
    standard_error: Any = None,
    notes: Sequence[str] = (),
    boxes: Boxes = (),
) -> "Figure":
    """Draw an image, a map over it, the map itself and, where there is one, its standard error.

    image, map: as for `jaxcam.plot.overlay`. title, caption: two lines above the panels. notes: one
    below each panel. standard_error: ``[h, w]``. boxes: what the map should have found, each (row0,
    col0, row1, col1) in pixels of the image, ends excluded.
    """
    picture, values = checked_image(image), checked_map(map)
    errors = None if standard_error is None else checked_map(standard_error)
    figure, (axes,) = _panels(title, (caption,), 3 if errors is None else 4)
    _draw_picture(axes[0], picture)
    _bar(
        figure, _draw_over(axes[1], picture, values, _range(values), "map over picture"), axes[1:3]
    )
    _draw_cells(axes[2], picture, values, _range(values), "map, cell by cell")
    if errors is not None:
        scale = (0.0, float(errors.max()))
        _bar(
            figure, _draw_cells(axes[3], picture, errors, scale, "standard error", ERRORS), axes[3:]
        )
    _annotate(axes, notes)
    for ax in axes[:2]:
        _outline(ax, boxes)
    return figure


def compare_figure(
    image: Any,
    exact: Any,
    approximate: Any,
    *,
    title: str,
    caption: str,
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
    figure, rows = _panels(title, captions, 4)
    _draw_picture(rows[0][0], picture)
    _draw_pair(figure, rows[0], picture, (exact, approximate), names)
    _annotate(rows[0], notes)
    if removal is not None:
        maps = (removal.true, removal.third, removal.first)
        _draw_pair(figure, rows[1], picture, maps, REMOVALS)
        _annotate(rows[1], removal.notes)
    for ax in (ax for row in rows for ax in row):
        _outline(ax, boxes, BOX if ax not in (row[3] for row in rows) else INK)
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
    panels = axes[-1 - len(checked) : -1]
    drawn = [
        _draw_over(ax, picture, values, _range(*checked), name)
        for ax, values, name in zip(panels, checked, names, strict=True)
    ]
    _bar(figure, drawn[0], panels)
    difference = checked[-2] - checked[-1]
    reach = float(np.abs(difference).max()) or 1.0
    name = " \N{MINUS SIGN} ".join(name.split(",")[0] for name in names[-2:])
    cells = _draw_cells(axes[-1], picture, difference, (-reach, reach), name, DIVERGING)
    _bar(figure, cells, axes[-1:])


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, format="png", dpi=DPI)


def _panels(title: str, captions: Sequence[str], count: int) -> tuple["Figure", list[list["Axes"]]]:
    """Lay out rows of square panels, each below a caption and above a strip for bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = (WIDTH - 2 * MARGIN - (count - 1) * GAP) / count
    heads = [HEAD, *(ROW_HEAD for _ in captions[1:])]
    height = sum(heads) + len(heads) * (side + FOOT)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.16 / height, title, size=LARGE, weight="bold", color=INK, va="top")
    rows, floor = [], height
    for head, caption in zip(heads, captions, strict=True):
        above = (floor - head + 0.6) / height  # of the panels, with their own titles
        figure.text(left, above, caption, size=MEDIUM, color=QUIET, va="top")
        floor -= head + side
        starts = (MARGIN + index * (side + GAP) for index in range(count))
        boxes = [(x / WIDTH, floor / height, side / WIDTH, side / height) for x in starts]
        rows.append([figure.add_axes(box, xticks=[], yticks=[]) for box in boxes])
        floor -= FOOT
    for spine in (spine for row in rows for ax in row for spine in ax.spines.values()):
        spine.set_visible(False)
    return figure, rows


def _draw_picture(ax: "Axes", picture: Floats) -> None:
    _place(ax, picture, picture, "picture")


def _draw_over(ax: "Axes", picture: Floats, values: Floats, scale: Range, name: str) -> Any:
    """Let a map, smooth, glow over its dimmed picture; give what a colour bar needs.

    Both are light, so their darknesses multiply (a screen blend): the picture stays readable where
    the map is large, where a mean of the two would be mud.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*scale), COLORMAP)
    light = colours.to_rgba(_smooth(values, _detail(picture)))[..., :3]
    pixels = 1 - (1 - DIM * repeat(picture, light.shape[:2])) * (1 - GLOW * light)
    _place(ax, picture, pixels, name)
    _mark_peak(ax, picture, values)
    return colours


def _draw_cells(
    ax: "Axes", picture: Floats, values: Floats, scale: Range, name: str, colormap: str = COLORMAP
) -> Any:
    low, high = scale
    return _place(ax, picture, values, name, vmin=low, vmax=high, cmap=colormap)


def _place(ax: "Axes", picture: Floats, pixels: Any, name: str, **options: Any) -> Any:
    """Show pixels of any resolution over the picture's extent, so that boxes fit all panels."""
    height, width = picture.shape[:2]
    ax.set_title(name, fontsize=MEDIUM, color=INK, loc="left", pad=5)
    extent = (0, width, height, 0)
    return ax.imshow(pixels, extent=extent, interpolation="nearest", aspect="equal", **options)


def _smooth(values: Floats, size: tuple[int, int]) -> Floats:
    """Enlarge a map for the eye: cubic, without exceeding its own range."""
    large = jax.image.resize(jnp.asarray(values), size, method="cubic")
    return np.asarray(large).clip(values.min(), values.max())


def _detail(picture: Floats) -> tuple[int, int]:
    height, width = picture.shape[:2]
    times = max(1, round(DETAIL / max(height, width)))
    return height * times, width * times


def _range(*values: Floats) -> Range:
    return float(min(v.min() for v in values)), float(max(v.max() for v in values))


def _annotate(axes: Sequence["Axes"], notes: Sequence[str]) -> None:
    for ax, note in zip(axes, notes, strict=False):
        ax.annotate(
            note, (0, 0), (0, -5), "axes fraction", "offset points",
            size=SMALL, color=INK, va="top", linespacing=1.4,
        )  # fmt: skip


def _mark_peak(ax: "Axes", picture: Floats, values: Floats) -> None:
    """Mark the cell of the maximum, if there is one."""
    if values.min() == values.max():
        return
    (rows, columns), (height, width) = values.shape, picture.shape[:2]
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
    for color, thick in ((INK, 3.4), ("white", 1.6)):
        ax.plot(x, y, "+", color=color, markersize=9 + thick / 2, markeredgewidth=thick)


def _outline(ax: "Axes", boxes: Boxes, color: str = BOX) -> None:
    from matplotlib.patches import Rectangle

    for top, left, bottom, right in boxes:
        corner, width, height = (left, top), right - left, bottom - top
        ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=1.6))


def _bar(figure: "Figure", drawn: Any, axes: Sequence["Axes"]) -> None:
    """Put a horizontal colour bar into the strip below the panels that it belongs to."""
    height = figure.get_size_inches()[1]
    left, right = axes[0].get_position().x0, axes[-1].get_position().x1
    below = axes[0].get_position().y0 - (FOOT - 0.34) / height
    bar = figure.add_axes((left, below, right - left, 0.085 / height))
    figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=SMALL, colors=QUIET, length=2.5, pad=2)
    bar.locator_params(nbins=5 if len(axes) > 1 else 3)
    bar.spines["outline"].set_visible(False)
