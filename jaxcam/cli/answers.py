"""From a question to answers on the host: a map for each row, at each layer, and of removals."""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcam.cam import cam
from jaxcam.cli import progress
from jaxcam.cli.models import Cut
from jaxcam.cli.question import Picture, Question
from jaxcam.maps import fuse
from jaxcam.metrics.removal import check_removal, signed_map
from jaxcam.types import CAM, Report


class Answer(NamedTuple):
    """The result of one row, ``cam`` without its batch axis and in the host's memory.

    seconds: of all rows, ``first``, up to the end of the first step and so with compilation, and
    ``rest``. boxes: those of the picture if they are of the class that was explained. notes: what
    else there is to say. parts: of a fused map, the answer at each layer.
    """

    picture: Picture
    cam: CAM
    layer: str
    seconds: dict[str, float]
    boxes: list[list[int]]
    notes: tuple[str, ...]
    parts: "tuple[Answer, ...]" = ()


class Removed(NamedTuple):
    """What removing activations does: a map on the host, and what it took."""

    map: NDArray
    passes: int
    seconds: float


def answer(question: Question, engine: str, name: str) -> list[Answer]:
    """Compute a map for each row, with a display called ``name`` for a person who waits."""
    each = [_at(question, cut, engine, name) for cut in question.cuts]
    if len(each) == 1:
        return each[0]
    maps = [jnp.stack([row.cam.map for row in rows]) for rows in each]
    fused = fuse(maps, how=question.how)
    parts = zip(*each, strict=True)
    return [_fused(map, row) for map, row in zip(np.asarray(fused), parts, strict=True)]


def _at(question: Question, cut: Cut, engine: str, name: str) -> list[Answer]:
    """Compute the maps at one layer."""
    began = first = time.perf_counter()
    name = name if len(question.cuts) == 1 else f"{name} {cut.layer}"
    with progress.shown(name) as show:

        def step(done: int, total: int) -> None:
            nonlocal first
            first = time.perf_counter() if done == 1 else first
            show(done, total)

        result = cam(
            cut.split, question.x, question.method, question.target,
            key=jax.random.key(question.seed), engine=engine, signed=question.signed,
            chunk_size=question.chunk_size, progress=step,
        )  # fmt: skip
        result = jax.device_get(result)
    ended = time.perf_counter()
    first = first if first > began else ended
    seconds = {"first": first - began, "rest": ended - first}
    rows = (jax.tree.map(lambda v, i=i: v[i], result) for i in range(len(question.x)))
    return [
        Answer(
            picture, row, cut.layer, seconds,
            picture.boxes if int(row.target) == picture.truth else [],
            (*cut.notes, *row.diagnostics.report.notes),
        )
        for picture, row in zip(question.pictures, rows, strict=True)
    ]  # fmt: skip


def _fused(map: NDArray, parts: tuple[Answer, ...]) -> Answer:
    """Join the answers of several layers; what is measured of one map is not known of the mean."""
    last, reports = parts[-1], [part.cam.diagnostics.report for part in parts]
    engines = dict.fromkeys(report.engine for report in reports)
    said = [f"{part.layer}: {report.proof}" for part, report in zip(parts, reports, strict=True)]
    diagnostics = last.cam.diagnostics._replace(
        report=Report(
            " and ".join(engines), all(report.exact for report in reports), "; ".join(said),
            rule=reports[-1].rule,
        ),
        poles=None, effective_samples=None, top_class_kept=None, standard_error=None,
        relative_error=None, blank=(map == 0).all(), seen=None, doubtful=None, total=None,
        completeness=None, gap=None,
    )  # fmt: skip
    seconds = {name: sum(part.seconds[name] for part in parts) for name in last.seconds}
    notes = dict.fromkeys(f"{part.layer}: {note}" for part in parts for note in part.notes)
    return last._replace(
        cam=last.cam._replace(map=map, diagnostics=diagnostics), parts=parts,
        layer=" and ".join(part.layer for part in parts), seconds=seconds, notes=tuple(notes),
    )  # fmt: skip


def remove(question: Question) -> Removed:
    """Remove each activation of the layer in a forward pass of its own."""
    began = time.perf_counter()
    shape = activations(question)
    with progress.shown("true removal"):
        # Of Taylor's orders the first is the cheapest, and only the removals are used.
        check = check_removal(
            question.cuts[0].split, question.x, question.target,
            order=1, samples=math.prod(shape), chunk_size=question.chunk_size,
        )  # fmt: skip
    signed = signed_map(check.elements[0], check.removal[0], shape)
    seconds = time.perf_counter() - began
    return Removed(np.maximum(signed, 0), check.removal.size, seconds)


def activations(question: Question) -> tuple[int, ...]:
    """Give the shape of the layer's output for one picture."""
    return jax.eval_shape(question.cuts[0].split.features, question.x).shape[1:]
