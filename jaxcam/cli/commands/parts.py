"""What several commands do alike: a picture as its network sees it, and what was written."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jaxcam import pictures
from jaxcam.cli.question import Picture

Facts = dict[str, Any]

LONGEST = 512
"""Pixels of a picture in a figure, along its longer side."""


def shown(picture: Picture) -> NDArray:
    """Give what the network sees of a picture, in the picture's own shape, for a figure."""
    return pictures.part(picture.image, picture.box, LONGEST)


def written(places: list[Path]) -> Facts:
    return {"output": places[0], "overlay": places[1] if len(places) > 1 else None}
