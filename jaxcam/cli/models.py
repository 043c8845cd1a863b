"""The networks of the command line, bundled or published: one form for all that asks about them."""

import difflib
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
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
from jaxcam.split import last_layer, split, tokens
from jaxcam.split.census import Place
from jaxcam.types import Split

AUTO = "auto"
TOKENS = 3  # axes: [batch, token, k]
SIDE = 224  # of the picture for which layers are listed, where the network takes any
WEIGHTS = "a .safetensors or .pth file, a folder with one, or hf://owner/name"


class Model(NamedTuple):
    """A network that is known, though not in memory yet.

    layer: what is explained where nothing else is asked for. shape: of an input, ``[h, w, c]``, or
    None where it depends on the picture. class_names: one for each class. prepare: an upright RGB
    picture as an input, without the batch axis. seen: the part of a picture of (width, height) that
    the network sees. scene: a bundled picture, for a network that knows what is in it. load: gives
    the Flax module, and its variables if it has them apart. tokens: how many stand before those of
    the picture, where layers give tokens. identity: what decides its results besides its name, in
    plain values. origin: where that comes from, in words.
    """

    name: str
    layer: str
    shape: tuple[int, ...] | None
    class_names: tuple[str, ...]
    prepare: Callable[[Image.Image], NDArray]
    seen: Callable[[tuple[int, int]], Box]
    load: Callable[[], tuple[Any, Any]]
    scene: Callable[[int], bundled.Scene] | None = None
    tokens: int | None = None
    identity: Mapping[str, Any] = {}
    origin: Mapping[str, Any] = {}


class Cut(NamedTuple):
    """A network cut at a layer, which is called ``layer`` whatever it was asked for by."""

    layer: str
    split: Split
    notes: tuple[str, ...]


def cuts(model: Model, layers: Sequence[str], shape: Sequence[int]) -> list[Cut]:
    """Load a network and cut it at layers, for inputs of that shape, without the batch axis."""
    module, variables = model.load()
    x = jax.ShapeDtypeStruct((1, *shape), "float32")
    return [_cut(model, module, variables, layer, x) for layer in layers]


def _cut(model: Model, module: Any, variables: Any, layer: str, x: jax.ShapeDtypeStruct) -> Cut:
    notes: tuple[str, ...] = ()
    if layer == AUTO:
        layer = last_layer(module, x, variables=variables)
        if model.tokens is not None:
            notes = (
                f"layer auto is {layer}, the last one that is a picture; behind it are tokens, "
                "which 'jaxcam layers' lists (and --costs says what each takes)",
            )
    name, call = Place.read(layer)
    network = split(module, name, call=call, variables=variables)
    if model.tokens is None or jax.eval_shape(network.features, x).ndim != TOKENS:
        return Cut(layer, network, notes)
    to_map = tokens(before=model.tokens)
    network = split(module, name, call=call, variables=variables, to_map=to_map)
    rows, columns, _ = jax.eval_shape(network.features, x).shape[1:]
    said = (
        f"{layer} gives tokens: the map is the {rows} x {columns} of the picture, and the first "
        f"{model.tokens} (the class token) stays as it is"
    )
    return Cut(layer, network, (*notes, said))


def find(asked: Namespace) -> Model:
    """Find the network that is asked for, and refuse weights that it cannot have."""
    model = _of(asked.model, asked.weights, asked.part)
    if asked.class_names is None:
        return model
    names = classes.read_names(asked.class_names, len(model.class_names))
    return model._replace(class_names=names)


def tokens_before(name: str) -> int | None:
    """Say how many tokens stand before those of the picture, in layers that give tokens."""
    if name in KINDS:
        return None
    from jaxcam.zoo.catalogue import find

    return find("--model", name).tokens


def inspect(asked: Namespace, ask: Callable[..., Any]) -> Any:
    """Ask ``ask(module, x, variables=...)`` about shapes: of an input ``x``, and of the network.

    Of a published network by its definition alone if no weights are given.
    """
    name = asked.model
    if name not in KINDS and asked.weights is None and asked.part is None:
        return _zoo(name).inspect(name, ask)
    model = _of(name, asked.weights, asked.part)
    module, variables = model.load()
    x = jax.ShapeDtypeStruct((1, *(model.shape or (SIDE, SIDE, 3))), "float32")
    return ask(module, x, variables=variables)


def _of(name: str, weights: str | None, part: str | None) -> Model:
    if weights is None and part is not None:
        remedy = "Name them by --weights, or leave --part out."
        fail("--part", needs="the weights that it is a part of", got="none", remedy=remedy)
    if name in KINDS:
        if weights is not None:
            needs = f"nothing for {name}, which is bundled"
            remedy = "Leave --weights out, or say by --model which network they are of."
            fail("--weights", needs=needs, got=weights, remedy=remedy)
        return _bundled(name)
    zoo = _zoo(name)
    if weights is None:
        remedy = f"--weights {WEIGHTS}; 'jaxcam layers' needs none."
        fail("--model", needs=f"the weights of {name}", got="none", remedy=remedy)
    return _published(zoo, name, weights, part)


def _bundled(name: Any) -> Model:
    return Model(
        name=name,
        layer=bundled.DEFAULT_LAYER,
        shape=(bundled.SIZE, bundled.SIZE, 1),
        class_names=bundled.CLASS_NAMES,
        prepare=bundled.prepare,
        seen=lambda size: (0.0, 0.0, float(size[0]), float(size[1])),
        load=lambda: bundled.load(name),
        scene=bundled.scene,
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


def _published(zoo: Any, name: str, weights: str, part: str | None) -> Model:
    card, load = zoo.describe(name, weights, part=part)
    how = card.preprocessing
    fixed = how.crop is not None or isinstance(how.resize, tuple)
    return Model(
        name=name,
        layer=card.layer,
        shape=(*zoo.input_size(how), 3) if fixed else None,
        class_names=card.class_names or tuple(f"class {i}" for i in range(card.classes)),
        prepare=partial(zoo.prepare, how=how),
        seen=partial(zoo.seen, how=how),
        load=lambda: (load(), None),
        tokens=card.tokens,
        identity={
            "sha256": card.digest,
            "part": card.part,
            "naming": card.naming,
            "preprocessing": how._asdict(),
        },
        origin={
            "place": card.weights,
            "beside": card.beside,
            "preprocessing_from": card.preprocessing_from,
        },
    )
