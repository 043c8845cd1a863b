"""How much memory there is for what runs at once."""

import os
import sys

import jax

SHARE = 0.5  # of a device's memory; the rest is for weights, images, results and other programs


def budget() -> int:
    """Give the bytes that may be in use at once on a device of the default kind.

    An accelerator says how much it has. A processor uses the machine's memory.
    """
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", _of_machine())
    return int(SHARE * limit)


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return sys.maxsize
