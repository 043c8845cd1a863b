"""Compiled programs, kept for the next time: most of what a first command waits for is XLA.

In the user's cache folder, at most `LARGEST` bytes, the longest unused thrown away first. Of the
command line alone: in a library, where programs are kept is the user's own decision.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

LARGEST = 256 << 20
WORTH_KEEPING = 0.2
"""Seconds that a program takes to compile, at least: smaller ones are as soon made as read."""


def folder() -> Path:
    """Give where this system keeps what can be made again."""
    if sys.platform == "win32":
        usual = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        usual = Path.home() / "Library" / "Caches"
    else:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return usual / "jaxcam"


@contextmanager
def kept(wanted: bool) -> Iterator[None]:
    """Keep programs that are compiled inside, and take those there are; never a reason to fail.

    A cache that the user has set up for JAX, or switched off, is left as it is.
    """
    config: Any = jax.config
    theirs = config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache
    # JAX bounds the folder's size by a lock of that library, and complains where it is missing.
    bounded = importlib.util.find_spec("filelock") is not None
    if not (wanted and bounded and not theirs and _writable()):
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(folder()),
        "jax_compilation_cache_max_size": LARGEST,
        "jax_persistent_cache_min_compile_time_secs": WORTH_KEEPING,
        "jax_raise_persistent_cache_errors": False,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)


def _writable() -> bool:
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or none to write in
        return False
    return os.access(folder(), os.W_OK)
