"""A map over its image, as pixels. matplotlib is imported when something is drawn, and not before.

`jaxcam.figures` makes whole figures, with titles and colour bars, from these pixels.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcam import maps
from jaxcam.arrays.door import as_numpy
from jaxcam.errors import fail

COLORMAP, SIGNED = "inferno", "signed"
DIVERGING = ("#b8ecff", "#3f9be8", "#123a73", "#000004", "#741a10", "#e8632f", "#ffdf9e")
"""Of ``signed``: against, in cold colours, through black at zero to warm ones, for."""
SLACK = 1e-4
"""How far an image may leave 0..1, as rounding in low precision may bring it; it is clipped."""


def overlay(
    image: Any,
    map: Any,
    *,
    alpha: float = 0.5,
    colormap: str | None = None,
    signed: bool = False,
    size: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Blend a map over its image: uint8 ``[H, W, 3]``, to be saved or shown by anything.

    The map is brought to the image's size (`jaxcam.upsample`), stretched to the range 0 to 1
    (`jaxcam.normalize`) and coloured; then, for values of 0 to 1::

        result = (1 - alpha) image + alpha colormap(map)

    Under the default colour maps, black at 0, what the map leaves out is dimmed. A constant map
    becomes 0 everywhere. A signed map is stretched to both sides alike instead, so that zero stays
    in the middle of the colours: ``(1 + map / max |map|) / 2``.

    Args:
        image: one image ``[H, W, 1]`` or ``[H, W, 3]``, uint8 or floating in 0..1.
        map: one map ``[h, w]`` of any resolution.
        alpha: 0 shows the image alone, 1 the map alone.
        colormap: a name that matplotlib knows; by default ``inferno``, and for a signed map one
            with cold colours for what is negative, black at zero and warm ones above.
        signed: the map's sign says for or against (``signed=True`` of `jaxcam.cam`).
        size: ``(H, W)`` of the result; the image's own by default. The image's pixels are
            repeated, not blurred.

    >>> import jax.numpy as jnp
    >>> from jaxcam.plot import overlay
    >>> image, map = jnp.zeros((4, 4, 1)), jnp.array([[0.0, 1.0], [0.0, 0.0]])
    >>> picture = overlay(image, map)
    >>> picture.shape, picture[3, 0].tolist(), picture[0, 3].tolist()
    ((4, 4, 3), [0, 0, 2], [126, 127, 82])
    """
    picture, values = checked_image(image), checked_map(map)
    if not 0 <= alpha <= 1:
        fail("overlay", needs="alpha from 0 to 1", got=alpha, remedy="Default: 0.5.")
    size = _size(size, picture)
    large = maps.upsample(jnp.asarray(values)[None], size)
    if signed:
        low, high = range_of(np.asarray(large), signed=True)
        heat = (large[0] - low) / (high - low)
    else:
        heat = maps.normalize(large)[0]
    colours = named_colormap(colormap or colormap_of(signed=signed))(np.asarray(heat))[..., :3]
    mixed = (1 - alpha) * repeat(picture, size) + alpha * colours
    return np.round(255 * mixed).astype(np.uint8)


def repeat(picture: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring ``[H, W, 3]`` to another size by the nearest pixel of each: ``[*size, 3]``."""
    (height, width), (rows, columns) = picture.shape[:2], size
    down = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    across = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    return picture[down][:, across]


def checked_image(image: Any) -> NDArray[np.float32]:
    """Give one image as float32 ``[H, W, 3]`` in 0..1, or refuse it."""
    pixels = as_numpy(image, "overlay")
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or pixels.size == 0:
        fail(
            "overlay",
            needs="one image of shape [H, W, 1] or [H, W, 3]",
            got=f"shape {pixels.shape}",
            remedy="Take one image of a batch, x[0], and put its channels last.",
        )
    if pixels.dtype == np.uint8:
        values = pixels.astype(np.float32) / 255
    elif jnp.issubdtype(pixels.dtype, jnp.floating):
        values = pixels.astype(np.float32)
    else:
        remedy = "Convert it: image.astype('uint8')."
        fail("overlay", needs="an image of uint8 or floats", got=pixels.dtype, remedy=remedy)
    if not (values.min() >= -SLACK and values.max() <= 1 + SLACK):
        fail(
            "overlay",
            needs="a floating image in 0..1",
            got=f"values from {values.min():.4g} to {values.max():.4g}",
            remedy="Undo the network's normalisation of its input, or divide by 255.",
        )
    return np.broadcast_to(values.clip(0, 1), (*values.shape[:2], 3))


def checked_map(map: Any) -> NDArray[np.float32]:
    """Give one map as float32 ``[h, w]``, or refuse it."""
    values = as_numpy(map, "overlay").astype(np.float32)
    if values.ndim != 2 or values.size == 0:
        fail(
            "overlay",
            needs="one map of shape [h, w]",
            got=f"shape {values.shape}",
            remedy="Take one map of a batch: result.map[0].",
        )
    if not np.isfinite(values).all():
        fail("overlay", needs="a finite map", got="NaN or infinity", remedy="Mask them first.")
    return values


def colormap_of(*, signed: bool) -> str:
    """Name the colours that maps are drawn in."""
    return SIGNED if signed else COLORMAP


def range_of(*values: NDArray[np.float32], signed: bool = False) -> tuple[float, float]:
    """Give the least and the largest value of all maps; of signed ones as far to either side."""
    low = float(min(v.min() for v in values))
    high = float(max(v.max() for v in values))
    reach = max(-low, high) or 1.0
    return (-reach, reach) if signed else (low, high)


def named_colormap(name: str) -> Any:
    """Look up matplotlib's colour map, or our own, or refuse with the nearest names."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if name == SIGNED:
        return LinearSegmentedColormap.from_list(SIGNED, DIVERGING)
    if name not in colormaps:
        near = difflib.get_close_matches(str(name), list(colormaps), n=3)
        remedy = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Try 'inferno'."
        fail("overlay", needs="a colormap that matplotlib knows", got=repr(name), remedy=remedy)
    return colormaps[name]


def _size(size: Sequence[int] | None, picture: NDArray[np.float32]) -> tuple[int, int]:
    height, width = picture.shape[:2] if size is None else tuple(size)[:2]
    if size is not None and (len(size) != 2 or height < 1 or width < 1):
        fail("overlay", needs="a size (H, W)", got=tuple(size), remedy="None: the image's own.")
    return int(height), int(width)
