"""A row for each picture: whose panels show what, and words that do not leave the figure."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from jaxcam import figures
from jaxcam.figures import panels
from jaxcam.figures.rows import Row

LONG = "a class of a name that is far too long for the place that there is, and goes on"


def row(shade: float, hot: tuple[int, int], shape=(32, 32), **more) -> Row:
    map = np.zeros((8, 8))
    map[hot] = 1.0
    found = {"standard_error": map[::-1] / 10, "name": "name", "lines": ("one", "two")} | more
    return Row(np.full((*shape, 3), shade), map, **found)


def panels_of(figure) -> list[np.ndarray]:
    """Cut out the panels, row by row, as floats ``[h, w, 3]``."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    height, width = pixels.shape[:2]
    found = []
    for ax in figure.axes:
        box = ax.get_position()
        rows = slice(round((1 - box.y1) * height) + 2, round((1 - box.y0) * height) - 2)
        found.append(pixels[rows, round(box.x0 * width) + 2 : round(box.x1 * width) - 2])
    return found


def at(panel: np.ndarray, row: float, column: float) -> np.ndarray:
    """The colour at a share of the height and of the width."""
    return panel[int(row * panel.shape[0]), int(column * panel.shape[1])]


def test_each_row_shows_its_own_picture_and_map():
    rows = [row(0.2, (1, 1)), row(0.6, (6, 2), boxes=[(4, 4, 28, 28)])]
    found = panels_of(figures.rows_figure(rows, title="t", caption="c"))
    assert len(found) == 6
    for own, (shade, (y, x)) in zip((found[:3], found[3:]), ((0.2, (1, 1)), (0.6, (6, 2))),
                                    strict=True):  # fmt: skip
        picture, over, error = own
        np.testing.assert_allclose(at(picture, 0.05, 0.5), shade, atol=0.01)
        hot, cold = (y + 0.25) / 8, (7 - y + 0.25) / 8
        assert at(over, hot, (x + 0.25) / 8).sum() > at(over, cold, (x + 0.25) / 8).sum() + 0.3
        expected = colormaps[figures.ERRORS](1.0)[:3]
        np.testing.assert_allclose(at(error, cold, (x + 0.25) / 8), expected, atol=0.02)
    for panel in found[3:5]:
        np.testing.assert_allclose(at(panel, 4 / 32, 0.5), to_rgb(figures.BOX), atol=0.3)


def test_without_standard_errors_there_are_two_panels_and_they_are_larger():
    three, two = (
        panels_of(figures.rows_figure([row(0.5, (1, 1), **more)], title="t", caption="c"))
        for more in ({}, {"standard_error": None})
    )
    assert (len(three), len(two)) == (3, 2)
    assert two[0].shape[0] > 1.2 * three[0].shape[0]


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (32, 32)])
def test_pictures_keep_their_shape(shape):
    """Whether they are wide or tall: in the panel that is as wide as it is, or as tall."""
    (picture, *_) = panels_of(
        figures.rows_figure([row(0.5, (1, 1), shape)], title="t", caption="c")
    )
    assert picture.shape[0] / picture.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.06)


@pytest.mark.parametrize("error", [None, np.ones((8, 8))])
def test_words_stay_within_the_figure_and_their_row(error):
    words = {"name": LONG, "lines": (LONG, LONG, LONG), "standard_error": error}
    rows = [row(0.5, (1, 1), **words) for _ in range(2)]
    figure = figures.rows_figure(rows, title=LONG * 2, caption=LONG * 3, corner="corner")
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert len(boxes) == 3 + 2 * 4
    for one in boxes:
        assert one.x0 > 0
        assert one.x1 <= width - 0.9 * panels.MARGIN * panels.DPI
        assert one.y0 > 0
        assert one.y1 <= height
    corner, title = boxes[:2]
    assert title.x1 < corner.x0
    overlapping = [
        (i, j) for i, one in enumerate(boxes) for j, other in enumerate(boxes)
        if i < j and one.overlaps(other)
    ]  # fmt: skip
    assert overlapping == []


def test_a_title_that_is_too_long_is_made_smaller():
    map = np.eye(4)
    for words in ("short", LONG * 2):
        figure = figures.explain_figure(np.zeros((9, 9, 1)), map, title=words, caption=words * 2)
        figure.canvas.draw()
        widths = [text.get_window_extent().width / panels.DPI for text in figure.texts]
        assert max(widths) <= panels.WIDTH - 2 * panels.MARGIN + 0.05
