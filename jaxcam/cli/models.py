"""The networks of the command line, bundled or published: one form for all that asks about them."""

import difflib
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from numpy.typing import NDArray
from PIL import Image

from jaxcam import bundled
from jaxcam.bundled.network import KINDS
from jaxcam.cli import classes
from jaxcam.errors import fail
from jaxcam.pictures import Box
from jaxcam.split import layers as every_layer
from jaxcam.split import split
from jaxcam.types import Split

WEIGHTS = "a .safetensors or .pth file, a folder with one, or hf://owner/name"


class Model(NamedTuple):
    """A network that is known, though not in memory yet.

    layer: what is explained where nothing else is asked for. shape: of an input, ``[h, w, c]``, or
    None where it depends on the picture. class_names: one for each class. prepare: an upright RGB
    picture as an input, without the batch axis. seen: the part of a picture of (width, height) that
    the network sees. scene: a bundled picture, for a network that knows what is in it. load: gives
    the Flax module, and its variables if it has them apart. identity: what decides its results
    besides its name, in plain values. origin: where that comes from, in words.
    """

    name: str
    layer: str
    shape: tuple[int, ...] | None
    class_names: tuple[str, ...]
    prepare: Callable[[Image.Image], NDArray]
    seen: Callable[[tuple[int, int]], Box]
    scene: Callable[[int], bundled.Scene] | None
    load: Callable[[], tuple[Any, Any]]
    identity: dict[str, Any]
    origin: dict[str, str]

    def split(self, layer: str) -> Split:
        """Load the network and cut it at a layer."""
        module, variables = self.load()
        return split(module, layer, variables=variables)


def find(asked: Namespace) -> Model:
    """Find the network that is asked for, and refuse weights that it cannot have."""
    name, weights = asked.model, asked.weights
    if name in KINDS:
        _no_weights(name, weights)
        model = _bundled(name)
    else:
        zoo = _zoo(name)
        if weights is None:
            remedy = f"--weights {WEIGHTS}; 'jaxcam layers' needs none."
            fail("--model", needs=f"the weights of {name}", got="none", remedy=remedy)
        model = _published(zoo, name, weights)
    if asked.class_names is None:
        return model
    names = classes.read_names(asked.class_names, len(model.class_names))
    return model._replace(class_names=names)


def layers(name: str, weights: str | None) -> dict[str, Any]:
    """List a network's layers; a published one's by its definition alone if no weights are given.

    A value is what `jaxcam.layers` gives: shapes with the batch axis, and nothing is computed.
    """
    if name in KINDS:
        _no_weights(name, weights)
        model = _bundled(name)
    else:
        zoo = _zoo(name)
        if weights is None:
            return zoo.layers(name)
        model = _published(zoo, name, weights)
    module, variables = model.load()
    shape = model.shape or (224, 224, 3)
    x = jax.ShapeDtypeStruct((1, *shape), "float32")
    return every_layer(module, x, variables=variables)


def _no_weights(name: str, weights: str | None) -> None:
    if weights is not None:
        remedy = "Leave --weights out, or say by --model which network they are of."
        fail("--weights", needs=f"nothing for {name}, which is bundled", got=weights, remedy=remedy)


def _bundled(name: Any) -> Model:
    return Model(
        name=name,
        layer=bundled.DEFAULT_LAYER,
        shape=(bundled.SIZE, bundled.SIZE, 1),
        class_names=bundled.CLASS_NAMES,
        prepare=bundled.prepare,
        seen=lambda size: (0.0, 0.0, *map(float, size)),
        scene=bundled.scene,
        load=lambda: bundled.load(name),
        identity={},
        origin={},
    )


def _zoo(name: str) -> Any:
    """The zoo, if it has that network: importing it takes a while."""
    from jaxcam import zoo

    known = (*KINDS, *zoo.names())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        remedy = f"{guess}There are {', '.join(known)}."
        fail("--model", needs="the name of a network", got=name, remedy=remedy)
    return zoo


def _published(zoo: Any, name: str, weights: str) -> Model:
    card, load = zoo.describe(name, weights)
    how = card.preprocessing
    fixed = how.crop is not None or isinstance(how.resize, tuple)
    return Model(
        name=name,
        layer="auto",
        shape=(*zoo.input_size(how), 3) if fixed else None,
        class_names=card.class_names or tuple(f"class {i}" for i in range(card.classes)),
        prepare=partial(zoo.prepare, how=how),
        seen=partial(zoo.seen, how=how),
        scene=None,
        load=lambda: (load(), None),
        identity={
            "sha256": card.digest,
            "naming": card.naming,
            "preprocessing": how._asdict(),
        },
        origin={"place": card.weights, "preprocessing_from": card.preprocessing_from},
    )
