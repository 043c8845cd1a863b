"""From the words of the command line to a question."""

from argparse import Namespace
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray
from PIL import Image

from jaxcam import pictures, targets
from jaxcam.cli import models
from jaxcam.cli.classes import index_of
from jaxcam.cli.models import Cut, Model
from jaxcam.cli.options import OPTIONS
from jaxcam.contracts import Method
from jaxcam.errors import fail
from jaxcam.methods import catalogue
from jaxcam.pictures import Box
from jaxcam.pipeline.checks import check_sign
from jaxcam.targets import Target
from jaxcam.types import ChunkSize, Shared, shared


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
    signed: bool


def ask(asked: Namespace) -> Question:
    """Load what is explained, and refuse what can be refused before anything is computed."""
    method = method_of(asked)
    check_sign(method, signed=asked.signed)
    images = [pictures.read(path) for path in asked.images]  # before weights are downloaded
    model = models.find(asked)
    target = target_of(asked, model)
    shown, x = _inputs(asked, model, images)
    cuts = models.cuts(model, asked.layers or [layer_of(asked, model)], x.shape[1:])
    seed = getattr(asked, "seed", 0)  # of what is drawn, where there is any
    question = Question(
        model, shown, x, cuts, asked.fuse, method, target, seed, asked.chunk_size, asked.signed
    )
    return question if asked.top is None else _of_top_classes(question, asked.top)


def method_of(asked: Namespace) -> Method:
    """Give the method that was asked for, with its options."""
    row = catalogue.rows()[asked.method]
    own = {name: getattr(asked, word) for word, name in OPTIONS.items()
           if name in row.options}  # fmt: skip
    return row.make(**own)


def layer_of(asked: Namespace, model: Model) -> str:
    """Give the layer that is explained where none is named."""
    at_input = catalogue.rows()[asked.method].at == "input"
    return "input" if at_input else model.layer


def target_of(asked: Namespace, model: Model) -> Target:
    """Give the target that was asked for, its class found by index or by name."""
    names = model.class_names
    index = None if asked.class_name is None else index_of(asked.class_name, names)
    others = [index_of(name, names, "--other") for name in asked.other or ()]
    if asked.target == "any_of":
        target = targets.any_of([index, *others])
    elif asked.target == "contrast":
        gamma = {} if asked.gamma is None else {"gamma": asked.gamma}
        target = targets.contrast(index, others or None, **gamma)
    else:
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
