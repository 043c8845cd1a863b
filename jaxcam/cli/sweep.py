"""The command ``sweep``: a folder of images, by a bundled network."""

import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
from jax import Array

from jaxcam import bundled, targets
from jaxcam.cam import cam
from jaxcam.cli import progress, report
from jaxcam.cli.question import method_of, read_picture
from jaxcam.errors import JaxcamWarning
from jaxcam.split import split
from jaxcam.sweep import Job, Launch, Summary, find, folder, make_plan, run
from jaxcam.types import CAM, Split

NOT_SETTINGS = (
    "command", "json", "images", "out", "resume", "batch", "coordinator", "processes", "process",
    "distributed", "wait", "class_index",
)  # fmt: skip
"""Options that change nothing of a result, and those that a plan has a place of its own for."""


def facts(asked: Namespace) -> dict[str, Any]:
    """Run a sweep, or go on with one, and say how it ended."""
    began = time.perf_counter()
    found = find(asked.images)
    asked.layer = asked.layer or bundled.DEFAULT_LAYER
    words = vars(asked) | {"class": asked.class_index}
    settings = {name: value for name, value in words.items() if name not in NOT_SETTINGS}
    planned = make_plan(found.paths, settings, batch=asked.batch)
    try:
        with progress.counted("sweep", "images") as show:
            ended = run(
                planned, asked.out, lambda: _job(asked),
                resume=asked.resume, launch=_launch(asked), progress=show,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was written stays, and --resume goes on with it") from None
    _warn(ended, found.twice, asked.out)
    return report.plain(
        _about(asked, settings)
        | _ended(ended, found.twice)
        | {"maps": asked.out / folder.MAPS, "table": asked.out / folder.TABLE}
        | {"seconds": time.perf_counter() - began, **report.environment()}
    )


def _job(asked: Namespace) -> Job:
    target = getattr(targets, asked.target)(asked.class_index)
    targets.check_class(target, len(bundled.CLASS_NAMES))
    method = method_of(asked)
    model, variables = bundled.load(asked.network)
    key = jax.random.key(asked.seed)

    def explain(network: Split, x: Array) -> CAM:
        return cam(
            network, x, method, target, key=key, engine=asked.engine, chunk_size=asked.chunk_size
        )

    network = split(model, asked.layer, variables=variables)
    shape = (bundled.SIZE, bundled.SIZE, 1)
    return Job(network, explain, read_picture, bundled.CLASS_NAMES, shape)


def _launch(asked: Namespace) -> Launch | None:
    if asked.coordinator is None and not asked.distributed:
        return None
    return Launch(asked.coordinator, asked.processes, asked.process, asked.wait)


def _about(asked: Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in settings.items() if name not in report.NOT_OPTIONS}
    return {
        "command": asked.command,
        "network": asked.network,
        "layer": asked.layer,
        "method": asked.method,
        "options": options | {"batch": asked.batch},
    }


def _ended(ended: Summary, twice: int) -> dict[str, Any]:
    """Say how it ended; of engines nothing, where nothing was left to explain."""
    decided = ended.report
    return {
        "images": ended.images,
        "failed": ended.failed,
        "found": ended.found,
        "named_twice": twice,
        "process": ended.process,
        "processes": ended.processes,
        "engine": decided and decided.engine,
        "exact": decided and decided.exact,
        "proof": decided and decided.proof,
        "notes": decided.notes if decided else (),
    }


def _warn(ended: Summary, twice: int, out: Path) -> None:
    """Say what a reader of the result must know; the first process says it for all."""
    if ended.process:
        return
    if twice:
        words = f"{twice} of the images were named more than once, and are explained once"
        warnings.warn(words, JaxcamWarning, stacklevel=2)
    if ended.failed:
        words = (
            f"{ended.failed} of {ended.images} images could not be explained: the column 'error' "
            f"of {out / folder.TABLE} says why"
        )
        warnings.warn(words, JaxcamWarning, stacklevel=2)
