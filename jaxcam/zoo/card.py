"""What belongs to a checkpoint besides its tensors: how pictures are prepared, what classes mean.

`prepare` is the evaluation of torchvision, timm and transformers: resize, crop the centre, scale to
0..1, subtract a mean and divide by a spread. Where a folder says how (``config.json`` of timm,
``preprocessor_config.json`` of transformers), `preprocessing_of` reads it.
"""

from collections.abc import Mapping
from math import floor
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from jaxcam.errors import JaxcamError, fail
from jaxcam.pictures import Box, upright

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Preprocessing(NamedTuple):
    """resize: the shorter side in pixels, or (height, width). crop: (height, width), or none."""

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Card(NamedTuple):
    """What a loaded network is.

    architecture: its name in the zoo. weights: the file or repository they came from. naming: the
    collection in whose names they were written. preprocessing_from: the file that says it, or how
    else it is known. classes: how many. class_names: none where the checkpoint brings none. digest:
    the file's SHA-256 in hexadecimal. tokens: how many stand before those of the picture in layers
    that give tokens, for `jaxcam.tokens`; None where no layer does. layer: the one to explain where
    none is named; ``auto`` is `jaxcam.last_layer`'s. part: where in the file the weights were, and
    what stood before their names: ``state_dict_ema.module``, say; empty where nothing did. beside:
    what else there is, and was not used.
    """

    architecture: str
    weights: str
    naming: str
    preprocessing: Preprocessing
    preprocessing_from: str
    classes: int
    class_names: tuple[str, ...] | None
    digest: str
    tokens: int | None
    layer: str = "auto"
    part: str = ""
    beside: tuple[str, ...] = ()


IMAGENET = Preprocessing(256, (224, 224), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The usual one: torchvision's first recipe, with ImageNet's mean and spread of colours."""


LONG = 12
"""Pictures longer than so many times their width are cut before they are resized, not behind."""


def prepare(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """Turn any picture into a network's input: float32 ``[height, width, 3]``.

    It is turned upright as its EXIF data say; transparent parts lie on white.

    >>> from PIL import Image
    >>> from jaxcam.zoo.card import IMAGENET, prepare
    >>> prepare(Image.new("RGB", (640, 480)), IMAGENET).shape
    (224, 224, 3)
    """
    picture = upright(image)
    resample = Image.Resampling[how.interpolation.upper()]
    left, top, right, bottom = box = seen(picture.size, how)
    longer, shorter = max(picture.size), min(picture.size)
    cut = left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height
    if how.crop is not None and cut and longer > LONG * shorter:
        # Resized as a whole, 1 x 20,000 pixels would be 256 x 5,000,000.
        picture = picture.resize((how.crop[1], how.crop[0]), resample, box=box)
    else:
        picture = picture.resize(_size(picture.size, how.resize), resample)
        if how.crop is not None:
            picture = picture.crop(_centre(picture.size, how.crop))
    return ((np.asarray(picture, np.float32) / 255 - how.mean) / how.std).astype(np.float32)


def seen(size: tuple[int, int], how: Preprocessing) -> Box:
    """The part of an upright picture that `prepare` keeps, ``(left, top, right, bottom)``.

    ``size`` is the picture's (width, height), as Pillow gives it, and so are the edges' units: its
    pixels, in fractions. They lie beyond the picture where it is resized to less than the crop,
    and `prepare` adds a margin.

    >>> from jaxcam.zoo.card import IMAGENET, seen
    >>> seen((640, 512), IMAGENET)  # resized to 320 x 256, of which 224 x 224 are kept
    (96.0, 32.0, 544.0, 480.0)
    """
    resized = _size(size, how.resize)
    box = (0, 0, *resized) if how.crop is None else _centre(resized, how.crop)
    left, top, right, bottom = (  # multiplied first: the whole is the whole to the last bit
        edge * size[i % 2] / resized[i % 2] for i, edge in enumerate(box)
    )
    return left, top, right, bottom


def input_size(how: Preprocessing) -> tuple[int, int]:
    """(height, width) of what `prepare` gives; of a square picture where it depends on that."""
    if how.crop is not None:
        return how.crop
    return how.resize if isinstance(how.resize, tuple) else (how.resize, how.resize)


def preprocessing_of(
    call: str, config: Mapping[str, Any], processor: Mapping[str, Any]
) -> tuple[Preprocessing, str] | None:
    """Read it from what stands beside a checkpoint, with the name of the file; or none."""
    try:
        if processor:
            return _of_transformers(call, processor), "preprocessor_config.json"
        if "pretrained_cfg" in config:
            return _of_timm(call, config["pretrained_cfg"]), "config.json"
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, JaxcamError):
            raise
        fail(
            call,
            needs="a size, mean and std in the file that says how pictures are prepared",
            got=f"{type(error).__name__}: {error}",
            remedy="Correct the file beside the checkpoint, or move it away.",
        )
    return None


def class_names_of(call: str, config: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """Read the classes' names from ``config.json``; or none, also where they are placeholders."""
    labels = config.get("id2label") or config.get("label_names")
    if not labels:
        return None
    if isinstance(labels, Mapping):
        labels = [labels.get(str(index)) for index in range(len(labels))]
    names = tuple(label for label in labels if isinstance(label, str))
    if len(names) != classes or len(labels) != classes:
        fail(
            call,
            needs=f"a name for each of the {classes} classes in config.json",
            got=f"{len(labels)} entries, or some that are no text",
            remedy="Correct config.json, or move it away.",
        )
    placeholders = tuple(f"LABEL_{index}" for index in range(classes))
    return None if names == placeholders else names


def _size(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) after resizing, rounded as torchvision does."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    longer = int(resize * max(size) / min(size))
    return (resize, longer) if width <= height else (longer, resize)


def _centre(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle, rounded as torchvision does; beyond the edges where the picture is smaller."""
    (width, height), (rows, columns) = size, crop
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    return left, top, left + columns, top + rows


def _of_timm(call: str, how: Mapping[str, Any]) -> Preprocessing:
    height, width = (int(side) for side in how["input_size"][1:])
    share, mode = float(how.get("crop_pct") or 0.875), how.get("crop_mode") or "center"
    scaled = (floor(height / share), floor(width / share))
    if mode not in ("center", "squash"):
        fail(
            call,
            needs="crop_mode center or squash in config.json",
            got=repr(mode),
            remedy="Prepare pictures yourself.",
        )
    resize = scaled[0] if mode == "center" and height == width else scaled
    interpolation = how.get("interpolation") or "bilinear"
    return _checked(call, resize, (height, width), interpolation, how["mean"], how["std"])


def _of_transformers(call: str, how: Mapping[str, Any]) -> Preprocessing:
    kind = str(how.get("image_processor_type") or how.get("feature_extractor_type") or "")
    size = how["size"]
    share = how.get("crop_pct")
    if isinstance(size, int):  # before 4.25 a number, which meant what its processor made of it
        size = {"shortest_edge": size} if "ConvNext" in kind else {"height": size, "width": size}
    if "shortest_edge" not in size:
        resize, crop = (int(size["height"]), int(size["width"])), None
    elif "ConvNext" in kind or share is not None:
        edge = int(size["shortest_edge"])
        # Large pictures are squeezed, as the authors of ConvNeXt did.
        small = edge < 384
        resize = int(edge / (share or 224 / 256)) if small else (edge, edge)
        crop = (edge, edge) if small else None
    else:
        resize, crop = int(size["shortest_edge"]), None
        if how.get("do_center_crop"):
            crop = how["crop_size"]
            crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
    interpolation = names[how.get("resample", 2)]
    return _checked(call, resize, crop, interpolation, how["image_mean"], how["image_std"])


def _checked(
    call: str, resize: Any, crop: Any, interpolation: Any, mean: Any, std: Any
) -> Preprocessing:
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    known = interpolation in ("nearest", "bilinear", "bicubic", "lanczos")
    if not known or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        fail(
            call,
            needs="a known interpolation, and mean and std of three colours",
            got=f"{interpolation!r}, {mean} and {std}",
            remedy="Correct the file beside the checkpoint, or move it away.",
        )
    return Preprocessing(resize, crop, interpolation, mean, std)
