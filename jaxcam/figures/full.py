"""The map over the picture at the picture's own size: no title, no axes, no scaling of pixels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.image import scale_and_translate
from numpy.typing import NDArray
from PIL import Image

from jaxcam.figures.panels import glow
from jaxcam.pictures import Box
from jaxcam.plot import checked_map, colormap_of, named_colormap, range_of

AT_ONCE = 1 << 20
"""Pixels that are blended at a time: a large picture must not be in memory as floats."""


def full_overlay(picture: Image.Image, map: Any, box: Box, *, signed: bool = False) -> Image.Image:
    """Lay a map over the part of a picture that the network saw, pixel by pixel.

    picture: in RGB. map: ``[h, w]``, stretched over ``box`` (left, top, right, bottom in the
    picture's pixels, in fractions) and from its least to its largest value over the colours. Pixels
    whose centre lies outside of the box are dimmed as those at the least value are. Of a signed map
    zero is in the middle of the colours, and dimmed.
    """
    values = checked_map(map)
    low, high = range_of(values, signed=signed)
    colours = named_colormap(colormap_of(signed=signed))(np.arange(256))[:, :3].astype(np.float32)
    rows = _weights(values.shape[0], picture.height, box[1], box[3])
    columns = _weights(values.shape[1], picture.width, box[0], box[2])
    zero = 0.5 if signed else 0.0  # outside of the box all
    across = ((values - low) / ((high - low) or 1) - zero) @ columns.T
    result = Image.new("RGB", picture.size)
    step = max(1, AT_ONCE // picture.width)
    for top in range(0, picture.height, step):
        band = (0, top, picture.width, min(top + step, picture.height))
        heat = (zero + rows[band[1] : band[3]] @ across).clip(0, 1)
        pixels = np.asarray(picture.crop(band), np.float32) / 255
        mixed = glow(pixels, colours[np.round(255 * heat).astype(np.uint8)])
        result.paste(Image.fromarray(np.round(255 * mixed).astype(np.uint8)), band)
    return result


def _weights(cells: int, pixels: int, start: float, end: float) -> NDArray[np.float32]:
    """How a row of cells that lies from ``start`` to ``end`` makes pixels: ``[pixels, cells]``.

    Cubic, and each sums to one; pixels whose centre is outside have zeros.
    """
    scale = jnp.asarray([(end - start) / cells], "float32")
    shift = jnp.asarray([start], "float32")
    return np.asarray(
        scale_and_translate(
            jnp.eye(cells), (pixels, cells), (0,), scale, shift, "cubic", antialias=False
        )
    )
