"""The map over the picture at its own size: where it lies, and what it looks like outside."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from jaxcam import zoo
from jaxcam.figures import full, full_overlay, panels
from jaxcam.plot import COLORMAP
from jaxcam.zoo.card import IMAGENET

COLD, HOT = (np.array(colormaps[COLORMAP](end)[:3]) for end in (0.0, 1.0))
SMALL = IMAGENET._replace(resize=160)


def blended(grey: float, light: np.ndarray) -> np.ndarray:
    """The blend of its docstring, in 0..255."""
    return 255 * (1 - (1 - panels.DIM * grey) * (1 - panels.GLOW * light))


def light_of(picture: Image.Image, map: np.ndarray, box) -> np.ndarray:
    return np.asarray(full_overlay(picture, map, box), float).sum(axis=-1)


@pytest.mark.parametrize("how", [IMAGENET, SMALL], ids=["crop", "margin"])
@pytest.mark.parametrize("size", [(900, 600), (600, 900), (301, 203)], ids=str)
@pytest.mark.parametrize("cell", [(1, 5), (5, 2), (3, 3), (2, 4)])
def test_the_cell_of_a_bright_square_is_bright_on_the_square(how, size, cell):
    """A square of a photo as large as a cell: the network's input has it in that cell."""
    left, top, right, bottom = zoo.seen(size, how)
    across, down = (right - left) / 7, (bottom - top) / 7
    row, column = cell
    x0, y0 = left + column * across, top + row * down
    box = round(x0), round(y0), round(x0 + across), round(y0 + down)
    picture = Image.new("RGB", size, "black")
    picture.paste("white", box)
    seen = zoo.prepare(picture, how)[..., 0]
    cells = seen.reshape(7, 32, 7, 32).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), cells.shape) == cell
    # Over a black picture nothing but the map is light.
    light = light_of(Image.new("RGB", size), np.eye(49)[7 * row + column].reshape(7, 7), (
        left, top, right, bottom))  # fmt: skip
    rows, columns = np.nonzero(light >= light.max() - 1e-9)
    centre = (columns.mean() + 0.5, rows.mean() + 0.5)
    assert abs(centre[0] - (x0 + across / 2)) <= 1
    assert abs(centre[1] - (y0 + down / 2)) <= 1
    # Half of the light is within a square's width of the centre: it is as large as the cell, too.
    bright = light > light.min() + 0.5 * (light.max() - light.min())
    rows, columns = np.nonzero(bright)
    assert columns.max() - columns.min() + 1 == pytest.approx(across, rel=0.35)
    assert rows.max() - rows.min() + 1 == pytest.approx(down, rel=0.35)


def test_a_signed_map_is_dark_where_it_is_zero_and_outside():
    values = np.zeros((7, 7))
    values[1, 1], values[5, 5] = 1.0, -2.0
    picture, box = Image.new("RGB", (90, 60)), (15, 0, 75, 60)
    light = np.asarray(full_overlay(picture, values, box, signed=True), int)
    for_, against, nothing, outside = light[13, 28], light[47, 62], light[13, 62], light[30, 5]
    assert for_[0] > for_[2] + 30
    assert against[2] > against[0] + 60
    assert max(nothing.max(), outside.max()) < 10


@pytest.mark.parametrize("size", [(90, 60), (60, 90)], ids=str)
def test_the_picture_keeps_its_size_and_pixels_outside_are_dimmed(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    box = zoo.seen(size, IMAGENET)
    made = full_overlay(Image.fromarray(noise), np.ones((7, 7)) + np.eye(7), box)
    assert made.size == size
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    outside = (x < box[0]) | (x > box[2]) | (y < box[1]) | (y > box[3])
    assert 0.2 < outside.mean() < 0.6
    expected = np.round(blended(noise / 255, COLD))
    found = np.asarray(made)
    np.testing.assert_array_equal(found[outside], expected[outside])
    assert (found[~outside] != expected[~outside]).any(axis=-1).mean() > 0.2


def test_the_ends_of_the_scale_are_those_of_the_map():
    map = np.full((4, 4), 3.0)
    map[0, 0] = 7.0
    found = np.asarray(full_overlay(Image.new("RGB", (400, 400)), map, (0, 0, 400, 400)))
    np.testing.assert_allclose(found[10, 10], blended(0.0, HOT), atol=1)
    np.testing.assert_allclose(found[350, 350], blended(0.0, COLD), atol=1)


def test_a_constant_map_is_cold_everywhere():
    found = np.asarray(full_overlay(Image.new("RGB", (9, 7)), np.full((2, 2), 5.0), (1, 1, 8, 6)))
    np.testing.assert_array_equal(found, np.broadcast_to(np.round(blended(0.0, COLD)), (7, 9, 3)))


def test_bands_are_seamless(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    picture, map = Image.fromarray(noise), np.random.default_rng(1).random((7, 7))
    box = (-3.5, 4.25, 48.0, 66.0)
    whole = np.asarray(full_overlay(picture, map, box))
    monkeypatch.setattr(full, "AT_ONCE", 170)  # three rows of it at a time
    np.testing.assert_array_equal(np.asarray(full_overlay(picture, map, box)), whole)


def test_one_pixel():
    assert full_overlay(Image.new("RGB", (1, 1)), np.eye(7), (0.0, 0.0, 1.0, 1.0)).size == (1, 1)
