"""The command ``sweep``: a folder of images."""

import time
import warnings
from argparse import Namespace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
from jax import Array
from numpy.typing import NDArray

from jaxcam import pictures
from jaxcam import sweep as sweeping
from jaxcam.cam import cam
from jaxcam.cli import models, progress, report
from jaxcam.cli.models import Cut, Model
from jaxcam.cli.options import every_option
from jaxcam.cli.question import layer_of, method_of, target_of
from jaxcam.errors import JaxcamWarning, fail
from jaxcam.pipeline.checks import check_sign
from jaxcam.sweep import Job, Launch, Summary, find, folder, make_plan
from jaxcam.targets import Target
from jaxcam.types import CAM, Split

NOT_SETTINGS = (
    "command", "json", "images", "out", "resume", "batch", "coordinator", "processes", "process",
    "distributed", "wait", "verbose", "cache", "class_name", "class_names", "weights", "part",
)  # fmt: skip
"""Options that change nothing of a result, and those that a plan has a place of its own for."""


def run(asked: Namespace) -> dict[str, Any]:
    """Run a sweep, or go on with one, and say how it ended."""
    began = time.perf_counter()
    pictures = find(asked.images)
    check_sign(method_of(asked), signed=asked.signed)
    model = models.find(asked)
    asked.layer = asked.layer or layer_of(asked, model)
    target = target_of(asked, model)
    settings = report.plain(_settings(asked, model, target))
    cut: list[Cut] = []
    planned = make_plan(pictures.paths, settings, batch=asked.batch)
    try:
        with progress.counted("sweep", "images") as show:
            ended = sweeping.run(
                planned, asked.out, lambda: _job(asked, model, target, cut),
                resume=asked.resume, launch=_launch(asked), progress=show,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was written stays, and --resume goes on with it") from None
    _warn(ended, pictures.twice, asked.out)
    return report.plain(
        _about(asked, model, settings, cut)
        | _ended(ended, pictures.twice, cut)
        | {"maps": asked.out / folder.MAPS, "table": asked.out / folder.TABLE}
        | {"seconds": time.perf_counter() - began, **report.environment()}
    )


def _settings(asked: Namespace, model: Model, target: Target) -> dict[str, Any]:
    """Say what decides a result: of the weights their content, and not where they are."""
    names = "\n".join(model.class_names).encode()
    given = {name: value for name, value in vars(asked).items() if name not in NOT_SETTINGS}
    others = {name: value for name, value in every_option().items() if name not in given}
    return {
        **given,
        **others,  # options of other methods: what differs from an earlier run is then named
        **{f"weights_{name}": value for name, value in model.identity.items()},
        "class": target.class_index,
        "class_names": sha256(names).hexdigest(),
    }


def _job(asked: Namespace, model: Model, target: Target, cut: list[Cut]) -> Job:
    """Load the network, once the processes have met; ``cut`` gets where it was cut."""
    method = method_of(asked)
    key = jax.random.key(getattr(asked, "seed", 0))
    if model.shape is None:
        fail(
            "sweep",
            needs="pictures that the network sees in one size",
            got="a checkpoint whose preparation keeps the pictures' shape",
            remedy="Explain them one at a time, or add a crop to preprocessor_config.json.",
        )

    def explain(network: Split, x: Array) -> CAM:
        return cam(
            network, x, method, target, key=key, engine=asked.engine, signed=asked.signed,
            chunk_size=asked.chunk_size,
        )  # fmt: skip

    def read(path: Path) -> NDArray:
        return model.prepare(pictures.read(path))

    cut += models.cuts(model, [asked.layer], model.shape)
    return Job(cut[0].split, explain, read, model.class_names, model.shape)


def _launch(asked: Namespace) -> Launch | None:
    if asked.coordinator is None and not asked.distributed:
        return None
    return Launch(asked.coordinator, asked.processes, asked.process, asked.wait)


def _about(
    asked: Namespace, model: Model, settings: dict[str, Any], cut: list[Cut]
) -> dict[str, Any]:
    options = {name: value for name, value in settings.items() if name not in report.NOT_OPTIONS}
    return {
        "command": asked.command,
        "model": asked.model,
        "weights": report.weights(model),
        "layer": cut[0].layer if cut else asked.layer,
        "method": asked.method,
        "options": options | {"batch": asked.batch},
    }


def _ended(ended: Summary, twice: int, cut: list[Cut]) -> dict[str, Any]:
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
        "notes": (*(cut[0].notes if cut else ()), *(decided.notes if decided else ())),
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
