"""What every benchmark records of where it ran, and how it times a call."""

import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
SHORTEST_TURN = 0.1  # seconds: in less the clock and the operating system are heard


def environment() -> dict[str, Any]:
    """Describe versions, device and flags."""
    names = ("jax", "jaxlib", "flax", "numpy")
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": f"{device.platform}: {device.device_kind}, {os.cpu_count()} cores",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def paired_seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time compiled calls in turns, so that a slow moment of the machine meets all of them.

    Each call runs twice first, unmeasured; a fast one is repeated within its turn.
    """
    often = {}
    for name, call in calls.items():
        _seconds(call, 1)
        often[name] = max(1, math.ceil(SHORTEST_TURN / _seconds(call, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_seconds(call, often[name]))
    return seconds


def _seconds(call: Callable[[], Any], often: int) -> float:
    began = time.perf_counter()
    for _ in range(often):
        jax.block_until_ready(call())
    return (time.perf_counter() - began) / often


def median_ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    """Give the median over turns of one call's time over another's."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def write(name: str, result: dict[str, Any]) -> Path:
    """Write a result beside the others, with the environment and the command that made it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**result, **environment()}, indent=2) + "\n")
    return path
