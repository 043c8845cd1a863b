"""Which images: files, and whatever images are in folders, each once, in one order everywhere."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxcam.errors import fail

# Fixed, where Pillow's own list depends on how it was built: folders hold the same images on every
# machine. A file that is named itself may be called anything.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Found(NamedTuple):
    """Images by the names they go by in the table, in its order; ``twice``: how many were left out.

    That is, files that are there under another name: a folder and a file in it, say. Links count as
    files of their own.
    """

    paths: tuple[Path, ...]
    twice: int


def find(places: Iterable[Path]) -> Found:
    """List files, and the images below folders, sorted by their names.

    Links to folders and names that begin with a dot are passed over below a folder.
    """
    places = list(places)
    named = sorted((path for place in places for path in _images(place)), key=lambda p: p.parts)
    once = {os.path.abspath(path): path for path in reversed(named)}
    paths = tuple(sorted(once.values(), key=lambda path: path.parts))
    if not paths:
        got = ", ".join(str(place) for place in places)
        remedy = f"Images in folders end in {' '.join(SUFFIXES)}; name others one by one."
        fail("sweep", needs="at least one image", got=f"none in {got}", remedy=remedy)
    return Found(paths, len(named) - len(paths))


def _images(place: Path) -> Iterator[Path]:
    place.stat()  # raises if it is not there
    if not place.is_dir():
        yield place
        return
    for folder, folders, files in os.walk(place, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _raise(error: OSError) -> None:
    raise error
