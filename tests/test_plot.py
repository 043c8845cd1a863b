"""Overlays against blends done by hand, and figures by the colours of their pixels."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from jaxcam import figures
from jaxcam.errors import JaxcamError
from jaxcam.plot import COLORMAP, overlay

COLD, HOT = (np.array(colormaps[COLORMAP](end)[:3]) for end in (0.0, 1.0))
BLACK = np.zeros((64, 64, 1), np.float32)


def one_hot(row: int, column: int, size: int = 8) -> np.ndarray:
    """A map that is 1 in one cell and 0 elsewhere."""
    map = np.zeros((size, size), np.float32)
    map[row, column] = 1
    return map


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# overlay


def test_overlay_is_the_blend_of_its_docstring():
    image = np.array([[[0.2, 0.4, 1.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [0.5, 0.0, 0.1]]])
    # Stretched to 0..1: 0, 1, 1, 0; and gray(v) = v.
    map = np.array([[3.0, 7.0], [7.0, 3.0]])
    by_hand = [
        [[0.75 * 0.2, 0.75 * 0.4, 0.75], [0.25, 0.25, 0.25]],
        [[1.0, 1.0, 1.0], [0.75 * 0.5, 0.0, 0.75 * 0.1]],
    ]
    got = overlay(image, map, alpha=0.25, colormap="gray")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.round(255 * np.array(by_hand)))


def test_default_blend_is_half_and_half_under_the_default_colours():
    got = overlay(np.ones((2, 2, 1)), np.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(got[0], np.round(255 * np.array([0.5 + COLD / 2, 0.5 + HOT / 2])))


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_of_zero_gives_the_image_back_to_the_bit(channels: int):
    image = rng().integers(0, 256, (5, 7, channels), dtype=np.uint8)
    got = overlay(image, rng().random((2, 3)), alpha=0.0)
    np.testing.assert_array_equal(got, np.broadcast_to(image, (5, 7, 3)))


def test_alpha_of_one_leaves_nothing_of_the_image():
    map = rng().random((4, 4))
    one, other = (overlay(np.full((4, 4, 1), grey), map, alpha=1.0) for grey in (0.0, 1.0))
    np.testing.assert_array_equal(one, other)


def test_a_constant_map_is_cold_everywhere():
    got = overlay(BLACK, np.full((8, 8), 5.0), alpha=1.0)
    np.testing.assert_array_equal(got, np.broadcast_to(np.round(255 * COLD), (64, 64, 3)))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (7, 0), (3, 5)])
def test_a_hot_cell_is_hot_where_it_lies_on_the_picture(row: int, column: int):
    got = overlay(BLACK, one_hot(row, column), alpha=1.0, colormap="gray")[..., 0]
    centre = np.s_[8 * row + 3 : 8 * row + 5, 8 * column + 3 : 8 * column + 5]
    assert got[centre].min() > 0.85 * 255
    near = np.zeros((64, 64), bool)
    near[max(0, 8 * row - 4) : 8 * row + 12, max(0, 8 * column - 4) : 8 * column + 12] = True
    assert (got[~near] == 0).all()
    assert (got[near] > 0).all()


def test_pixels_of_the_image_are_repeated_and_not_blurred():
    image = rng().integers(0, 256, (3, 2, 3), dtype=np.uint8)
    got = overlay(image, np.zeros((2, 2)), alpha=0.0, size=(9, 4))
    np.testing.assert_array_equal(got, image.repeat(3, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_and_libraries_agree(dtype: str):
    image = rng().integers(0, 256, (6, 6, 3), dtype=np.uint8)
    map = jnp.asarray(rng().random((3, 3)), dtype)
    float_image = jnp.asarray(image / 255, "float32").astype(dtype)
    got = overlay(float_image, map).astype(int)
    assert np.abs(got - overlay(image, np.asarray(map, np.float32))).max() <= 1


NAMES = {
    "batch of images": (np.zeros((1, 8, 8, 3)), np.zeros((4, 4)), {}, "x\\[0\\]"),
    "batch of maps": (BLACK, np.zeros((1, 4, 4)), {}, r"result\.map\[0\]"),
    "image without channels": (np.zeros((8, 8)), np.zeros((4, 4)), {}, r"\[H, W, 1\]"),
    "two channels": (np.zeros((8, 8, 2)), np.zeros((4, 4)), {}, r"\(8, 8, 2\)"),
    "channels first": (np.zeros((3, 8, 8)), np.zeros((4, 4)), {}, "channels last"),
    "empty image": (np.zeros((0, 8, 3)), np.zeros((4, 4)), {}, r"\(0, 8, 3\)"),
    "empty map": (BLACK, np.zeros((0, 4)), {}, r"\(0, 4\)"),
    "0..255 as floats": (255 * np.ones((8, 8, 3)), np.zeros((4, 4)), {}, "divide by 255"),
    "normalised image": (np.full((8, 8, 3), -2.1), np.zeros((4, 4)), {}, "-2.1"),
    "image with NaN": (np.full((8, 8, 3), np.nan), np.zeros((4, 4)), {}, "nan"),
    "image of integers": (np.zeros((8, 8, 3), int), np.zeros((4, 4)), {}, "int64"),
    "map with NaN": (BLACK, np.full((4, 4), np.nan), {}, "finite map"),
    "alpha above one": (BLACK, np.zeros((4, 4)), {"alpha": 1.5}, "1.5"),
    "colour map": (BLACK, np.zeros((4, 4)), {"colormap": "virdis"}, "viridis"),
    "size of three": (BLACK, np.zeros((4, 4)), {"size": (8, 8, 3)}, r"\(8, 8, 3\)"),
    "size of zero": (BLACK, np.zeros((4, 4)), {"size": (0, 8)}, r"\(0, 8\)"),
}


@pytest.mark.parametrize(("image", "map", "options", "words"), NAMES.values(), ids=NAMES)
def test_overlay_refuses(image: np.ndarray, map: np.ndarray, options: dict, words: str):
    with pytest.raises(JaxcamError, match=words) as caught:
        overlay(image, map, **options)
    assert str(caught.value).startswith("overlay: needs ")


def test_importing_does_not_import_matplotlib():
    code = "import sys, jaxcam.plot, jaxcam.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_signed_map_is_warm_above_zero_and_cold_below_and_zero_is_dark():
    map = np.array([[-2.0, 0.0], [1.0, 0.0]])
    got = overlay(np.ones((8, 8, 3)), map, signed=True, alpha=1.0, size=(80, 80)).astype(int)
    against, nothing, for_ = got[5, 5], got[5, 75], got[75, 5]
    assert against[2] > against[0] + 50
    assert for_[0] > for_[2] + 50
    assert nothing.max() < 10
    assert against.sum() > for_.sum()  # twice as far from zero
    mirrored = overlay(np.ones((8, 8, 3)), -map, signed=True, alpha=1.0, size=(80, 80))
    assert mirrored[5, 5, 0] > mirrored[5, 5, 2]
    assert (overlay(BLACK, np.zeros((2, 2)), signed=True) < 5).all()


# figures


def drawn(figure: object) -> list[np.ndarray]:
    """Render a figure and cut out its panels, as floats ``[h, w, 3]``."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    height, width = pixels.shape[:2]
    panels = []
    # A margin of two pixels: panels end between pixels.
    for ax in (ax for ax in figure.axes if ax.get_title(loc="left")):
        box = ax.get_position()
        rows = slice(round((1 - box.y1) * height) + 2, round((1 - box.y0) * height) - 2)
        panels.append(pixels[rows, round(box.x0 * width) + 2 : round(box.x1 * width) - 2])
    return panels


def at(panel: np.ndarray, row: float, column: float) -> np.ndarray:
    """The colour at a position of the 64x64 picture."""
    return panel[int(row / 64 * panel.shape[0]), int(column / 64 * panel.shape[1])]


def figure_of(map: np.ndarray, **options: object) -> list[np.ndarray]:
    return drawn(figures.explain_figure(BLACK, map, title="t", caption="c", **options))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 7), (6, 1)])
def test_the_hot_spot_is_drawn_where_it_is(row: int, column: int):
    picture, over, cells = figure_of(one_hot(row, column))
    # Off the centre, where the maximum is marked.
    y, x = 8 * row + 2, 8 * column + 2
    np.testing.assert_allclose(at(cells, y, x), HOT, atol=0.01)
    assert at(over, y, x).sum() > 5 * at(over, 63 - y, 63 - x).sum()
    assert (picture == 0).all()
    assert np.isclose(cells, COLD, atol=0.01).all(axis=-1).mean() > 0.97  # one cell of 64 is not


def test_the_maximum_is_marked_in_its_cell():
    over = figure_of(one_hot(2, 5))[1]
    np.testing.assert_allclose(at(over, 8 * 2.5, 8 * 5.5), [1, 1, 1], atol=0.02)
    assert len(figure_of(np.ones((8, 8)))) == 3  # nothing to mark, and still a figure


def test_boxes_are_outlined_and_their_ends_excluded():
    panels = figure_of(np.zeros((8, 8)), boxes=[(8, 16, 40, 48)])
    for panel in panels[:2]:
        for row, column in ((8, 30), (40, 30), (20, 16), (20, 48)):
            np.testing.assert_allclose(at(panel, row, column), to_rgb(figures.BOX), atol=0.25)
        assert at(panel, 20, 30).max() < 0.05


def test_the_standard_error_has_a_panel_of_its_own():
    panels = figure_of(one_hot(0, 0), standard_error=one_hot(7, 7) / 10)
    assert len(panels) == 4
    hot = colormaps[figures.ERRORS](1.0)[:3]
    np.testing.assert_allclose(at(panels[3], 60, 60), hot, atol=0.01)


def test_a_signed_map_has_zero_in_the_middle_of_its_colours():
    values = np.zeros((8, 8))
    values[1, 1], values[6, 6] = 1.0, -4.0
    _, over, cells = figure_of(values, signed=True)
    for panel in (over, cells):
        for_, against, nothing = at(panel, 10, 10), at(panel, 50, 50), at(panel, 10, 50)
        assert for_[0] > for_[2] + 0.1
        assert against[2] > against[0] + 0.2
        assert nothing.max() < 0.05
    dark = figure_of(values)[2]
    assert at(dark, 10, 50).max() > 0.5  # stretched from the least value, zero is bright


def compared(exact: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    return drawn(figures.compare_figure(BLACK, exact, other, title="t", caption="c"))


def test_two_maps_are_drawn_on_one_scale():
    _, one, same, nothing = compared(one_hot(1, 1), one_hot(1, 1))
    # Panels start at fractions of a pixel, so edges differ by one.
    assert np.isclose(one, same[: len(one)], atol=0.01).mean() > 0.95
    np.testing.assert_allclose(nothing, np.broadcast_to(nothing[0, 0], nothing.shape), atol=0.01)
    _, full, half, _ = compared(one_hot(1, 1), one_hot(1, 1) / 2)
    assert at(half, 10, 10).sum() < 0.8 * at(full, 10, 10).sum()


def test_the_difference_is_red_where_the_exact_map_is_larger():
    difference = compared(one_hot(1, 1), one_hot(6, 6))[3]
    larger, smaller = at(difference, 12, 12), at(difference, 52, 52)
    assert larger[0] > larger[2] + 0.2
    assert smaller[2] > smaller[0] + 0.2
    assert at(difference, 32, 32).min() > 0.9


def test_removal_has_a_row_of_its_own_on_a_scale_of_its_own():
    removal = figures.Removal(
        one_hot(1, 6) / 100, one_hot(3, 3) / 100, one_hot(6, 1) / 200, caption="r"
    )
    panels = drawn(
        figures.compare_figure(
            BLACK, one_hot(3, 3), one_hot(3, 3), title="t", caption="c", removal=removal,
            boxes=[(8, 16, 40, 48)],
        )
    )  # fmt: skip
    assert len(panels) == 8
    true, third, first, difference = panels[4:]
    # Off the centres, where the maxima are marked.
    bright = [at(panel, 8 * r + 2, 8 * c + 2).sum() for panel, r, c in
              ((true, 1, 6), (third, 3, 3), (first, 6, 1))]  # fmt: skip
    assert at(true, 50, 10).sum() < 0.3 * bright[0]
    assert bright[0] == pytest.approx(bright[1], rel=0.05)
    assert bright[2] < 0.8 * bright[1]
    assert bright[1] == pytest.approx(
        at(panels[1], 26, 26).sum(), rel=0.05
    )  # though 100 times less
    larger, smaller = at(difference, 26, 26), at(difference, 50, 10)
    assert larger[0] > larger[2] + 0.2
    assert smaller[2] > smaller[0] + 0.2
    for panel in panels[4:7]:
        np.testing.assert_allclose(at(panel, 20, 16), to_rgb(figures.BOX), atol=0.25)


def test_a_saved_figure_is_a_png_of_a_readable_size(tmp_path):
    image = rng().random((32, 48, 3))  # no square, and colours
    map = rng().random((4, 6))
    figure = figures.explain_figure(image, map, title="t", caption="c", standard_error=map)
    figures.save(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.format == "PNG"
        assert 1200 <= picture.width <= 1600
        assert np.asarray(picture.convert("L")).std() > 10
