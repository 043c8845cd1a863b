"""Pictures: anything that Pillow reads as upright RGB, decided here for everybody, and parts of it.

A picture is turned as its EXIF orientation says, and left as it is stored where that says nothing
that has a meaning, whatever else is wrong with the EXIF data. Of several frames it is the first.
What is transparent lies on white, as most programs show it. 16 bits of grey become 8; 32 bits and
floats have no range that is known, and are refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from jaxcam.errors import fail

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of a picture, edges of pixels being whole numbers.

It may reach beyond the picture, where a network saw a margin.
"""

_Turn = Image.Transpose
_TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, 5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90,
}  # fmt: skip
"""What undoes an EXIF orientation; 1 is upright, and other numbers mean nothing."""
_SAYING = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Where a picture holds its orientation, which is not true any more of one that was turned."""


def read(path: Path) -> Image.Image:
    """Read a picture; a broken one fails in as many ways as there are formats.

    A file that is not there, or may not be read, is an `OSError`.
    """
    try:
        with Image.open(path) as file:
            return upright(file)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        words = " ".join(str(error).replace(f" {str(path)!r}", "").split()).rstrip(".")
        remedy = "Is it complete, and of a format that Pillow reads?"
        if isinstance(error, Image.DecompressionBombError):
            remedy = "Make it smaller first."
        fail(str(path), needs="a picture that can be read", got=words, remedy=remedy)


def upright(image: Image.Image) -> Image.Image:
    """Any picture as RGB, turned upright, on white.

    >>> from PIL import Image
    >>> from jaxcam.pictures import upright
    >>> upright(Image.new("LA", (3, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    # Some formats store 16 bits in a mode of 32, and turning forgets the format.
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    _decode(image)
    turn = _TURNS.get(_orientation(image))
    picture: Any = image if turn is None else image.transpose(turn)
    if deep:
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F", "LAB", "La"):  # no fixed range, or unknown to Pillow's conversion
        fail(
            "a picture",
            needs="a mode that Pillow can turn into 8 bits of red, green and blue",
            got=f"mode {picture.mode!r}",
            remedy="Scale it to 0..255 and convert it to mode 'L' or 'RGB' first.",
        )
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture.convert("RGBA"))
        picture = ground
    picture = picture.convert("RGB")  # a copy, whose other data stay: the profile of its colours
    for name in _SAYING:
        picture.info.pop(name, None)
    return picture


def _decode(image: Any) -> None:
    """Decode before turning: PNG may have its EXIF data behind the pixels, and TIFF is turned here.

    Of an uncompressed TIFF of grey that lies on its side, Pillow 11 to 13 exchange the sides first
    and then map the file's rows into memory by them, which scrambles the picture. What has no name
    is not mapped.
    """
    if image.format != "TIFF":
        image.load()
        return
    name, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = name


def _orientation(image: Image.Image) -> int:
    """Read this one entry of the EXIF data; `PIL.ImageOps.exif_transpose` writes all others anew.

    There it stumbles over numbers that were never right, which no reader of the picture needs.
    """
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # no TIFF header, offsets beyond the block, and what else there may be
        return 1
    return number if isinstance(number, int) else 1


def part(picture: Image.Image, box: Box, longest: int) -> NDArray[np.uint8]:
    """Cut out a box: uint8 ``[h, w, 3]``, of at most so many pixels a side, black beyond the edge.

    >>> from PIL import Image
    >>> from jaxcam.pictures import part
    >>> part(Image.new("RGB", (640, 480), "red"), (80, 0, 560, 480), 100).shape
    (100, 100, 3)
    """
    left, top, right, bottom = box
    scale = min(1.0, longest / max(right - left, bottom - top))
    inside = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    x0, x1 = (round((edge - left) * scale) for edge in inside[::2])
    y0, y1 = (round((edge - top) * scale) for edge in inside[1::2])
    canvas = Image.new("RGB", _size((right - left) * scale, (bottom - top) * scale))
    size = _size(x1 - x0, y1 - y0)
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS, box=inside), (x0, y0))
    return np.asarray(canvas)


def _size(width: float, height: float) -> tuple[int, int]:
    return max(1, round(width)), max(1, round(height))
