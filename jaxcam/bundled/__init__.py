"""Two small trained networks and ten pictures, so that the first command has something to explain.

A picture is a scene of one to three handwritten digits of one class among pieces of other digits,
with the box of every instance: what a map should find is known. No digit image of these scenes
was in training. ``benchmarks/train_bundled.py`` made all of it and says how good the networks are.
Nothing here is loaded by ``import jaxcam``.

    >>> from jaxcam import bundled
    >>> model, variables = bundled.load("gelu")
    >>> scene = bundled.scene(0)
    >>> scores = model.apply(variables, scene.image[None])
    >>> bundled.CLASS_NAMES[int(scores[0].argmax())] == bundled.CLASS_NAMES[scene.label]
    True
"""

from importlib.resources import files
from io import BytesIO
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from PIL import Image

from jaxcam.bundled.network import DigitNet, Kind, check_kind
from jaxcam.errors import fail
from jaxcam.pictures import upright

SIZE = 64
CLASS_NAMES = tuple("0123456789")
DEFAULT_LAYER = "block3"
"""One block before the last: exact and approximate maps differ there in space, not only in size.

Behind ``block4`` comes the mean over positions, so that alpha is the same at all of them.
"""


class Bundled(NamedTuple):
    """A trained network: ``model.apply(variables, x)`` gives logits ``[batch, 10]``."""

    model: DigitNet
    variables: dict[str, Any]


class Scene(NamedTuple):
    """A picture and what is in it.

    image: float32 ``[64, 64, 1]`` in 0..1. boxes: ``[count, 4]``, each (row0, col0, row1, col1) in
    pixels with the ends excluded, one per instance of the class ``label``.
    """

    image: np.ndarray
    label: int
    boxes: np.ndarray


def load(kind: Kind = "gelu") -> Bundled:
    """The trained network of a kind, ``"gelu"`` or ``"relu"``, with float32 variables."""
    check_kind("bundled.load", kind)
    arrays = _arrays(f"{kind}.npz")
    variables = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    return Bundled(DigitNet(kind), unflatten_dict(variables, sep="/"))


def scenes() -> tuple[Scene, ...]:
    """All bundled pictures, most instances first."""
    arrays = _arrays("scenes.npz")
    images = arrays["images"].astype(np.float32)[..., None] / 255
    each = zip(images, arrays["labels"], arrays["boxes"], arrays["counts"], strict=True)
    return tuple(Scene(image, int(label), boxes[:n]) for image, label, boxes, n in each)


def scene(index: int = 0) -> Scene:
    """One bundled picture; the first has three clear instances."""
    every = scenes()
    if index not in range(len(every)):
        fail(
            "bundled.scene",
            needs=f"an index from 0 to {len(every) - 1}",
            got=repr(index),
            remedy=f"There are {len(every)} bundled pictures.",
        )
    return every[index]


def prepare(image: Image.Image | np.ndarray) -> np.ndarray:
    """Any picture as the networks' input: float32 ``[64, 64, 1]`` in 0..1.

    ``image`` is a Pillow image of any size, or uint8 ``[h, w]``, ``[h, w, 1]``,
    ``[h, w, 3]`` or ``[h, w, 4]``. It is turned upright as its EXIF data say, transparent parts lie
    on white, it becomes grey, and the whole of it is squeezed into 64x64, so that a map covers the
    whole picture. The networks know bright digits of 16 to 20 pixels on a dark ground.
    """
    picture = upright(image if isinstance(image, Image.Image) else _picture(image))
    grey = picture.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(grey, np.float32)[..., None] / 255


def _picture(array: np.ndarray) -> Image.Image:
    shape, dtype = np.shape(array), getattr(array, "dtype", type(array).__name__)
    channels = shape[2] if len(shape) == 3 else 1
    if dtype != np.uint8 or len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        fail(
            "bundled.prepare",
            needs="a Pillow image, or uint8 [h, w] or [h, w, 1, 3 or 4]",
            got=f"{dtype} {list(shape)}",
            remedy="Scale to 0..255, convert to uint8, and put the channels last.",
        )
    return Image.fromarray(array[..., 0] if channels == 1 and len(shape) == 3 else array)


def _arrays(name: str) -> dict[str, np.ndarray]:
    content = files("jaxcam.bundled").joinpath("data", name).read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)
