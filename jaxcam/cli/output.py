"""Files that are there in full or not at all."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from jaxcam.errors import fail


def check(path: Path, source: Path | None) -> Path:
    """Refuse a place that a PNG cannot be written to, before anybody computes for it.

    ``source`` is the picture that is read, which must not be overwritten.
    """
    path = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    if path.suffix.lower() != ".png":
        got = path.name
        fail("--out", needs="a name that ends in .png", got=got, remedy="Only PNG is written.")
    if not path.parent.is_dir():
        remedy = "Create the folder first."
        fail("--out", needs="a folder that exists", got=path.parent, remedy=remedy)
    if path.is_dir():
        fail("--out", needs="a file", got=f"the folder {path}", remedy="Name a file in it.")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        fail("--out", needs="another file than the picture", got=path, remedy="Choose a name.")
    draft = _draft(path)
    draft.touch(exist_ok=False)
    draft.unlink()
    return path


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Let ``save`` write a draft in the same folder, and put it in place when it is complete."""
    draft = _draft(path)
    try:
        save(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    return path.with_name(f".jaxcam-{os.getpid()}-{secrets.token_hex(4)}.png")
