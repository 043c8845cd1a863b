"""From the words of the command line to a question, and from that to an answer on the host."""

import math
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from jaxcam import bundled, methods, targets
from jaxcam.cam import cam
from jaxcam.cli import progress
from jaxcam.errors import fail
from jaxcam.removal import check_removal, signed_map
from jaxcam.smoothing import smooth
from jaxcam.split import split
from jaxcam.targets import Target
from jaxcam.types import CAM, ChunkSize, Method, Split


class Question(NamedTuple):
    """What is asked of one picture; all but the engine.

    source: what to call the picture. boxes: of the instances of class ``truth``, where known.
    """

    source: str
    image: NDArray[np.float32]
    boxes: list[list[int]]
    truth: int | None
    layer: str
    split: Split
    method: Method
    target: Target
    seed: int
    chunk_size: ChunkSize


class Answer(NamedTuple):
    """The result of one picture, ``cam`` without its batch axis and in the host's memory.

    seconds: ``first``, up to the end of the first step and so with compilation, and ``rest``.
    boxes: those of the question if they are of the class that was explained.
    """

    cam: CAM
    seconds: dict[str, float]
    boxes: list[list[int]]


class Removed(NamedTuple):
    """What removing activations does: a map on the host, and what it took."""

    map: NDArray
    passes: int
    seconds: float


def ask(asked: Namespace) -> Question:
    """Load what is explained, and refuse what can be refused before anything is computed."""
    target = getattr(targets, asked.target)(asked.class_index)
    targets.check_class(target, len(bundled.CLASS_NAMES))
    method = method_of(asked)
    source, image, boxes, truth = _picture(asked)
    model, variables = bundled.load(asked.network)
    layer = asked.layer or bundled.DEFAULT_LAYER
    return Question(
        source, image, boxes, truth, layer, split(model, layer, variables=variables), method,
        target, asked.seed, asked.chunk_size,
    )  # fmt: skip


def answer(question: Question, engine: str, name: str) -> Answer:
    """Compute a map, with a display called ``name`` for a person who waits."""
    began = first = time.perf_counter()
    with progress.shown(name) as show:

        def step(done: int, total: int) -> None:
            nonlocal first
            first = time.perf_counter() if done == 1 else first
            show(done, total)

        found = cam(
            question.split, question.image[None], question.method, question.target,
            key=jax.random.key(question.seed), engine=engine, chunk_size=question.chunk_size,
            progress=step,
        )  # fmt: skip
        found = jax.tree.map(lambda values: values[0], jax.device_get(found))
    ended = time.perf_counter()
    first = first if first > began else ended
    boxes = question.boxes if int(found.target) == question.truth else []
    return Answer(found, {"first": first - began, "rest": ended - first}, boxes)


def remove(question: Question) -> Removed:
    """Remove each activation of the layer in a forward pass of its own."""
    began = time.perf_counter()
    shape = jax.eval_shape(question.split.features, question.image[None]).shape[1:]
    with progress.shown("true removal"):
        # Of Taylor's orders the first is the cheapest, and only the removals are used.
        found = check_removal(
            question.split, question.image[None], question.target,
            order=1, samples=math.prod(shape), chunk_size=question.chunk_size,
        )  # fmt: skip
    signed = signed_map(found.elements[0], found.removal[0], shape)
    seconds = time.perf_counter() - began
    return Removed(np.maximum(signed, 0), found.removal.size, seconds)


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


def _picture(asked: Namespace) -> tuple[str, NDArray[np.float32], list[list[int]], int | None]:
    if asked.image is not None:
        return asked.image.name, read_picture(asked.image), [], None
    index = asked.scene or 0
    scene = bundled.scene(index)
    return f"scene {index}", scene.image, np.asarray(scene.boxes).tolist(), int(scene.label)


def read_picture(path: Path) -> NDArray[np.float32]:
    """Read any picture that Pillow can, upright; a broken one fails in as many ways as formats."""
    try:
        with Image.open(path) as file:
            picture: Any = ImageOps.exif_transpose(file)
            picture.load()
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:
        words = str(error).replace(f" {str(path)!r}", "")
        remedy = "Is it complete, and of a format that Pillow reads?"
        fail(str(path), needs="a picture that can be read", got=words, remedy=remedy)
    return bundled.prepare(picture)
