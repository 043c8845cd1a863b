"""What all figures are made of: a layout, a picture, a map over it, cells, notes, colour bars."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcam.plot import COLORMAP, colormap_of, named_colormap, repeat

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Floats = NDArray[np.float32]
Boxes = Sequence[Sequence[int]]
Range = tuple[float, float]

DPI = 150
WIDTH, MARGIN, GAP = 10.0, 0.25, 0.22  # inches, as all below
HEAD, ROW_HEAD, FOOT = 1.12, 0.72, 0.92
DETAIL = 512  # pixels of a blended picture: finer than the panel that shows it
DIM, GLOW = 0.75, 0.85  # the picture's share of its light, and the map's, in a blend of both
TALLEST = 1.6  # of a panel, in its widths
ERRORS = "cividis"
INK, QUIET, BOX = "#1a1a24", "#62626e", "#58e6ff"
SMALL, MEDIUM, LARGE = 8.5, 10.5, 15.0


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG."""
    figure.savefig(path, format="png", dpi=DPI)


def panels(
    title: str, captions: Sequence[str], count: int, shape: Sequence[int], corner: str = ""
) -> tuple["Figure", list[list["Axes"]]]:
    """Lay out rows of panels, each below a caption and above a strip for bars.

    shape: of the picture that they show, (height, width) first. corner: words at the top right.
    """
    side = (WIDTH - 2 * MARGIN - (count - 1) * GAP) / count
    tall = side * min(shape[0] / shape[1], TALLEST)
    heads = [HEAD, *(ROW_HEAD for _ in captions[1:])]
    figure, height = sheet(title, corner, sum(heads) + len(heads) * (tall + FOOT))
    rows, floor = [], height
    for head, caption in zip(heads, captions, strict=True):
        above = (floor - head + 0.6) / height  # of the panels, with their own titles
        fit(figure.text(MARGIN / WIDTH, above, caption, size=MEDIUM, color=QUIET, va="top"))
        floor -= head + tall
        starts = (MARGIN + index * (side + GAP) for index in range(count))
        rows.append([add_axes(figure, (x, floor, side, tall)) for x in starts])
        floor -= FOOT
    return figure, rows


def sheet(title: str, corner: str, height: float) -> tuple["Figure", float]:
    """Make an empty figure with a title, so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left, top = MARGIN / WIDTH, 1 - 0.16 / height
    said = figure.text(
        1 - left, top - 0.035 / height, corner, size=MEDIUM, color=QUIET, va="top", ha="right"
    )
    words = figure.text(left, top, title, size=LARGE, weight="bold", color=INK, va="top")
    fit(words, but=said.get_window_extent().width / DPI + GAP)
    return figure, height


def fit(text: "Text", but: float = 0.0) -> None:
    """Make a line that would leave the figure smaller; ``but`` so many inches are not its own."""
    room = WIDTH - 2 * MARGIN - but
    wide = text.get_window_extent().width / DPI
    while wide > room:  # not in proportion: letters have whole pixels
        text.set_fontsize(float(text.get_fontsize()) * min(room / wide, 0.98))
        wide = text.get_window_extent().width / DPI


def add_axes(figure: "Figure", inches: tuple[float, float, float, float]) -> "Axes":
    """Add a panel without a frame, at (left, bottom, width, height) in inches."""
    width, height = figure.get_size_inches()
    x, y, across, up = inches
    ax = figure.add_axes((x / width, y / height, across / width, up / height), xticks=[], yticks=[])
    ax.set_anchor("NW")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def draw_picture(ax: "Axes", picture: Floats) -> None:
    """Show a picture as it is."""
    _place(ax, picture, picture, "picture")


def draw_over(
    ax: "Axes", picture: Floats, values: Floats, scale: Range, name: str, *, signed: bool = False
) -> Any:
    """Let a map, smooth, glow over its dimmed picture; give what a colour bar needs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*scale), named_colormap(colormap_of(signed=signed)))
    light = colours.to_rgba(_smooth(values, _detail(picture)))[..., :3]
    _place(ax, picture, glow(repeat(picture, light.shape[:2]), light), name)
    _mark_peak(ax, picture, values)
    return colours


def glow(picture: Any, light: Any) -> Any:
    """Blend a dimmed picture with the light of a map, both in 0..1.

    Both are light, so their darknesses multiply (a screen blend): the picture stays readable where
    the map is large, where a mean of the two would be mud.
    """
    return 1 - (1 - DIM * picture) * (1 - GLOW * light)


def draw_cells(
    ax: "Axes", picture: Floats, values: Floats, scale: Range, name: str, colormap: str = COLORMAP
) -> Any:
    """Show each position of a map as one cell; give what a colour bar needs."""
    low, high = scale
    colours = named_colormap(colormap)
    return _place(ax, picture, values, name, vmin=low, vmax=high, cmap=colours)


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


def annotate(axes: Sequence["Axes"], notes: Sequence[str]) -> None:
    """Put a note below each panel, of those that there are."""
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


def outline(ax: "Axes", boxes: Boxes, color: str = BOX) -> None:
    """Draw boxes (row0, col0, row1, col1) in pixels of the picture."""
    from matplotlib.patches import Rectangle

    for top, left, bottom, right in boxes:
        corner, width, height = (left, top), right - left, bottom - top
        ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=color, linewidth=1.6))


def bar(figure: "Figure", drawn: Any, axes: Sequence["Axes"]) -> None:
    """Put a horizontal colour bar into the strip below the panels that it belongs to."""
    height = figure.get_size_inches()[1]
    left, right = axes[0].get_position().x0, axes[-1].get_position().x1
    below = axes[0].get_position().y0 - (FOOT - 0.34) / height
    bar = figure.add_axes((left, below, right - left, 0.085 / height))
    figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=SMALL, colors=QUIET, length=2.5, pad=2)
    bar.locator_params(nbins=5 if len(axes) > 1 else 3)
    bar.spines["outline"].set_visible(False)
