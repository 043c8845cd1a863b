"""Images read ahead of the device, in threads: Pillow lets others run while it decodes."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from jaxcam.errors import fail

THREADS = 4
Read = Callable[[Path], NDArray[Any]]


class Loaded(NamedTuple):
    """An image as the network's input, or None and the reason."""

    image: NDArray[Any] | None
    error: str


def check() -> None:
    """Refuse to begin without the loader."""
    if importlib.util.find_spec("grain") is None:
        remedy = "pip install 'jaxcam-xai[sweep]'"
        fail("sweep", needs="grain, which loads images ahead", got="none installed", remedy=remedy)


def ahead(paths: Sequence[Path], read: Read, *, images: int) -> Iterator[Loaded]:
    """Read files in their order, up to so many ``images`` before they are asked for."""
    if not paths:
        return
    import grain

    def load(path: Path) -> Loaded:
        try:
            return Loaded(read(path), "")
        except Exception as error:  # one image out of many, and whatever can be wrong with it
            return Loaded(None, worded(error))

    held = max(images, THREADS)  # or threads would have nowhere to put what they read
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=held)
    yield from grain.MapDataset.source(list(paths)).map(load).to_iter_dataset(options)


def worded(error: Exception) -> str:
    """Word an error in one line that is the same in every process."""
    known = isinstance(error, ValueError | OSError)
    words = " ".join(str(error).split()) if known else f"{type(error).__name__}: {error}"
    return re.sub(r" at 0x[0-9a-f]+", "", words)
