"""What every benchmark records of where it ran, and how it times a call."""

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"


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

    Each call runs once first, unmeasured, and is waited for.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - began)
    return seconds


def median_ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    """Give the median over turns of one call's time over another's."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def write(name: str, result: dict[str, Any]) -> Path:
    """Write a result beside the others, with the environment and the command that made it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**result, **environment()}, indent=2) + "\n")
    return path
