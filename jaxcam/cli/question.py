"""From the words of the command line to a question, and from that to an answer on the host."""

import math
import time
from argparse import Namespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from PIL import Image

from jaxcam import methods, pictures, targets
from jaxcam.cam import cam
from jaxcam.cli import models, progress
from jaxcam.cli.classes import index_of
from jaxcam.cli.models import Cut, Model
from jaxcam.errors import fail
from jaxcam.maps import fuse
from jaxcam.pictures import Box
from jaxcam.removal import check_removal, signed_map
from jaxcam.smoothing import smooth
from jaxcam.targets import Target
from jaxcam.types import CAM, ChunkSize, Method, Report, Shared, shared


class Picture(NamedTuple):
    """What is explained.

    source: what to call it. image: upright, in red, green and blue. box: the part of it that the
    network sees. boxes: of the instances of class ``truth``, where known.
    """

    source: str
    image: Image.Image
    box: Box
    boxes: list[list[int]]
    truth: int | None


class Question(NamedTuple):
    """What is asked; all but the engine.

    ``x`` has a row for each of the pictures. cuts: the network at each of the layers, whose maps
    are fused by ``how``.
    """

    model: Model
    pictures: tuple[Picture, ...]
    x: NDArray[np.float32]
    cuts: list[Cut]
    how: str
    method: Method
    target: Target
    seed: int
    chunk_size: ChunkSize


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


def ask(asked: Namespace) -> Question:
    """Load what is explained, and refuse what can be refused before anything is computed."""
    method = method_of(asked)
    images = [pictures.read(path) for path in asked.images]  # before weights are downloaded
    model = models.find(asked)
    target = target_of(asked, model)
    shown, x = _inputs(asked, model, images)
    cuts = models.cuts(model, asked.layers or [model.layer], x.shape[1:])
    question = Question(
        model, shown, x, cuts, asked.fuse, method, target, asked.seed, asked.chunk_size
    )
    return question if asked.top is None else _of_top_classes(question, asked.top)


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

        found = cam(
            cut.split, question.x, question.method, question.target,
            key=jax.random.key(question.seed), engine=engine, chunk_size=question.chunk_size,
            progress=step,
        )  # fmt: skip
        found = jax.device_get(found)
    ended = time.perf_counter()
    first = first if first > began else ended
    seconds = {"first": first - began, "rest": ended - first}
    rows = (jax.tree.map(lambda v, i=i: v[i], found) for i in range(len(question.x)))
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
            " and ".join(engines), all(report.exact for report in reports), "; ".join(said)
        ),
        poles=None, effective_samples=None, top_class_kept=None, standard_error=None,
        relative_error=None, blank=(map == 0).all(),
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
        found = check_removal(
            question.cuts[0].split, question.x, question.target,
            order=1, samples=math.prod(shape), chunk_size=question.chunk_size,
        )  # fmt: skip
    signed = signed_map(found.elements[0], found.removal[0], shape)
    seconds = time.perf_counter() - began
    return Removed(np.maximum(signed, 0), found.removal.size, seconds)


def activations(question: Question) -> tuple[int, ...]:
    """Give the shape of the layer's output for one picture."""
    return jax.eval_shape(question.cuts[0].split.features, question.x).shape[1:]


def method_of(asked: Namespace) -> Method:
    """Give the method that was asked for, smoothed or not."""
    if asked.method == "grad_cam":
        return methods.grad_cam()
    if asked.method == "taylor_cam":
        return methods.taylor_cam(order=asked.order)
    method = methods.grad_cam_pp(numerator=asked.numerator, poles=asked.poles)
    if asked.method == "grad_cam_pp":
        return method
    return smooth(
        method,
        num_samples=asked.samples,
        noise_level=asked.noise,
        sample_weights=asked.sample_weights,
        scheme=asked.scheme,
        tolerance=asked.tolerance,
        max_samples=asked.max_samples,
    )


def target_of(asked: Namespace, model: Model) -> Target:
    """Give the target that was asked for, its class found by index or by name."""
    names = model.class_names
    index = None if asked.class_name is None else index_of(asked.class_name, names)
    target = getattr(targets, asked.target)(index)
    targets.check_class(target, len(names))
    return target


def _inputs(
    asked: Namespace, model: Model, images: list[Image.Image]
) -> tuple[tuple[Picture, ...], NDArray[np.float32]]:
    """Prepare the pictures, or the bundled scene where none is given."""
    named = zip(asked.images, images, strict=True)
    shown = [Picture(path.name, image, model.seen(image.size), [], None) for path, image in named]
    shown = shown or [_scene(asked, model)]
    inputs = [model.prepare(picture.image) for picture in shown]
    shapes = sorted({x.shape for x in inputs})
    if len(shapes) > 1:
        got = " and ".join(str(list(shape)) for shape in shapes)
        remedy = "This checkpoint's preparation keeps the pictures' shape: explain one at a time."
        fail("explain", needs="pictures that the network sees in one size", got=got, remedy=remedy)
    return tuple(shown), np.stack(inputs)


def _scene(asked: Namespace, model: Model) -> Picture:
    if model.scene is None:
        fail(asked.command, needs=f"a picture for {model.name} to see", got="none",
             remedy="Name a file; the bundled scenes are for the bundled networks.")  # fmt: skip
    index = asked.scene or 0
    scene = model.scene(index)
    pixels = np.round(255 * scene.image[..., 0]).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    boxes = np.asarray(scene.boxes).tolist()
    return Picture(f"scene {index}", image, model.seen(image.size), boxes, int(scene.label))


def _of_top_classes(question: Question, count: int) -> Question:
    """Ask of the most probable classes of the one picture, a row for each."""
    classes = len(question.model.class_names)
    if count > classes:
        remedy = f"The network scores {classes} classes."
        fail("--top", needs=f"at most {classes}", got=count, remedy=remedy)
    scores = np.asarray(_scores(shared(question.cuts[0].split), question.x))[0]
    top = np.argsort(-scores, kind="stable")[:count]
    return question._replace(
        pictures=question.pictures * count,
        x=np.repeat(question.x, count, axis=0),
        target=question.target._replace(class_index=top.astype(np.int32)),
    )


@jax.jit
def _scores(network: Shared, x: Array) -> Array:
    split = network.split()
    return split.scores(split.features(x), x)
