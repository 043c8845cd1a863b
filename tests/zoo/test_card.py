"""How pictures are prepared, and which part of them a network then sees."""

import numpy as np
import pytest
from PIL import Image

from jaxcam import zoo
from jaxcam.zoo import card
from jaxcam.zoo.card import IMAGENET

CROPPED = IMAGENET
SQUEEZED = IMAGENET._replace(resize=(224, 224), crop=None)
SQUEEZED_AND_CROPPED = IMAGENET._replace(resize=(256, 288))
SMALL = IMAGENET._replace(resize=160)  # less than the crop: a margin on all sides
WHOLE = IMAGENET._replace(resize=96, crop=None)
WAYS = {
    "cropped": CROPPED, "squeezed": SQUEEZED, "both": SQUEEZED_AND_CROPPED, "margin": SMALL,
    "whole": WHOLE,
}  # fmt: skip
SIZES = [(900, 600), (600, 900), (500, 500), (301, 1003), (97, 64), (64, 97)]


def raw(picture: Image.Image, how: zoo.Preprocessing) -> np.ndarray:
    """What `prepare` gives, back in 0..255."""
    return (zoo.prepare(picture, how) * how.std + how.mean) * 255


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_an_edge_lies_where_the_part_that_is_seen_says(how, size):
    """One edge down and one across, found again in the network's input to a pixel of it."""
    width, height = size
    left, top, right, bottom = zoo.seen(size, how)
    for x, y in ((width // 2, height // 2), (width * 2 // 5, height * 11 // 20)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y:, :, 0] = 255
        pixels[:, x:, 1] = 255
        found = raw(Image.fromarray(pixels), how)
        rows, columns = found.shape[:2]
        # The centre of an input's pixel, in the picture's pixels.
        across = left + (np.arange(columns) + 0.5) * (right - left) / columns
        down = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
        within_x, within_y = (across > 0) & (across < width), (down > 0) & (down < height)
        wide, tall = (right - left) / columns, (bottom - top) / rows
        middle_row, middle_column = found[rows // 2, :, 1], found[:, columns // 2, 0]
        far_x, far_y = abs(across - x) > 1.5 * max(wide, 1), abs(down - y) > 1.5 * max(tall, 1)
        bright = middle_row[within_x & far_x] > 128
        np.testing.assert_array_equal(bright, across[within_x & far_x] > x)
        bright = middle_column[within_y & far_y] > 128
        np.testing.assert_array_equal(bright, down[within_y & far_y] > y)
        assert (~within_x).any() == (how is SMALL and width < 1.4 * height)


def test_what_is_seen_by_hand():
    assert zoo.seen((640, 512), CROPPED) == (96, 32, 544, 480)  # twice (48, 16, 272, 240)
    assert zoo.seen((512, 640), CROPPED) == (32, 96, 480, 544)
    assert zoo.seen((900, 600), SQUEEZED) == (0, 0, 900, 600)
    assert zoo.seen((160, 320), SMALL) == (-32, 48, 192, 272)
    assert zoo.seen((960, 640), WHOLE) == (0, 0, 960, 640)


def test_the_size_of_an_input():
    sizes = {name: zoo.input_size(how) for name, how in WAYS.items()}
    assert sizes["squeezed"] == sizes["both"] == sizes["margin"] == (224, 224)
    assert sizes["whole"] == (96, 96)


@pytest.mark.parametrize("size", [(901, 70), (70, 901)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_of_a_long_picture_only_what_is_seen_is_resized(size, interpolation, monkeypatch):
    """To nearly the same pixels: what lies between the two passes is rounded, and clipped."""
    how = IMAGENET._replace(interpolation=interpolation)
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    cut = raw(Image.fromarray(noise), how)
    monkeypatch.setattr(card, "LONG", 1000)
    whole = raw(Image.fromarray(noise), how)
    assert abs(cut - whole).mean() < 0.5
    assert np.std(whole) > 30


def test_a_picture_a_thousand_times_as_long_as_it_is_wide():
    """Resized as a whole it would be 256 x 7,680,000 pixels."""
    assert zoo.prepare(Image.new("RGB", (1, 30_000), "red"), IMAGENET).shape == (224, 224, 3)


def test_pictures_are_prepared_upright_and_on_white():
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 32, 64))
    half = raw(picture, IMAGENET)
    assert half[112, [0, 223], 0].round().tolist() == [0, 255]
    picture.getexif()[0x0112] = 6
    turned = raw(picture, IMAGENET)
    assert turned[[0, 223], 112, 0].round().tolist() == [0, 255]
