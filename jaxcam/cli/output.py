"""Files that are there in full or not at all."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcam.errors import fail

if TYPE_CHECKING:
    from PIL import Image

FIGURES = (".png",)
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def check(
    path: Path,
    sources: Sequence[Path],
    option: str = "--out",
    suffixes: Sequence[str] = FIGURES,
) -> list[Path]:
    """Refuse a place that a picture cannot be written to, before anybody computes for it.

    ``sources`` are the pictures that are read, which must not be overwritten. Gives the place.
    """
    path = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    if path.suffix.lower() not in suffixes:
        remedy = f"Only {', '.join(suffix[1:].upper() for suffix in suffixes)} is written."
        needs = f"a name that ends in {' or '.join(suffixes)}"
        fail(option, needs=needs, got=path.name, remedy=remedy)
    if not path.parent.is_dir():
        remedy = "Create the folder first."
        fail(option, needs="a folder that exists", got=path.parent, remedy=remedy)
    if path.is_dir():
        fail(option, needs="a file", got=f"the folder {path}", remedy="Name a file in it.")
    if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
        fail(option, needs="another file than the picture", got=path, remedy="Choose a name.")
    draft = _draft(path)
    draft.touch(exist_ok=False)
    draft.unlink()
    return [path]


def write(saves: Mapping[Path, Callable[[Path], None]]) -> None:
    """Let each write a draft in the same folder, and put all in place when all are complete."""
    with ExitStack() as stack:
        drafts = {path: _draft(path) for path in saves}
        for path, draft in drafts.items():
            stack.callback(draft.unlink, missing_ok=True)
            saves[path](draft)
        for path, draft in drafts.items():
            os.replace(draft, path)


def save_picture(picture: "Image.Image", path: Path) -> None:
    """Write a picture in the format that its name ends in, or say why that format cannot hold it.

    A format has a largest size: 16,383 pixels a side for WebP, 65,500 for JPEG.
    """
    try:
        if path.suffix == ".png":
            picture.save(path)
        else:
            picture.save(path, quality=92, subsampling=0)
    except (ValueError, SystemError) as error:
        got = f"{picture.width} x {picture.height} pixels, and {error}"
        fail("--overlay", needs="a picture that the format can hold", got=got,
             remedy="Write PNG.")  # fmt: skip


def _draft(path: Path) -> Path:
    return path.with_name(f".jaxcam-{os.getpid()}-{secrets.token_hex(4)}{path.suffix.lower()}")
