"""A network with the weights of a published checkpoint."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxcam.errors import fail
from jaxcam.zoo.architecture import Architecture
from jaxcam.zoo.card import Card, Preprocessing, class_names_of, input_size, preprocessing_of
from jaxcam.zoo.catalogue import ARCHITECTURES, find, make
from jaxcam.zoo.weights.assign import (
    Fit,
    Slot,
    best_fit,
    check_types,
    covers,
    filled,
    rename,
    slots,
)
from jaxcam.zoo.weights.contents import Contents, Entry, beside, listed
from jaxcam.zoo.weights.files import Checkpoint, read
from jaxcam.zoo.weights.parts import Part, choose, cut, shares, within

NEAR = 0.5
"""Of a network's names, so many must stand behind a path for what is missing there to be said."""


class Loaded(NamedTuple):
    """model: a `flax.nnx` module in evaluation mode. card: what belongs to its checkpoint."""

    model: Any
    card: Card


class Described(NamedTuple):
    """card: as that of `Loaded`. load: makes the model, and checks the tensors' values."""

    card: Card
    load: Callable[[], Any]


def load(name: str, weights: str | Path, *, part: str | None = None) -> Loaded:
    """Make a network and give it a checkpoint's weights, every tensor exactly once.

    Args:
        name: a network of `names`.
        weights: a ``.safetensors`` or ``.pth`` file, a folder with ``model.safetensors`` or
            ``pytorch_model.bin`` (or an index of several), or ``"hf://owner/name"``, a repository
            of the Hugging Face hub (``@revision`` may follow), in the names of torchvision, timm or
            transformers.
        part: where in the file the weights are, where there are several sets of them, such as
            ``"state_dict_ema"``, ``"teacher"`` or ``"model.ema"``: what their names begin with. It
            is found where there is one, whatever training scripts (``state_dict``, ``model``) and
            wrappers (``module.``, ``_orig_mod.``) put before the network's names.

    The number of classes is the checkpoint's. ``config.json`` and ``preprocessor_config.json`` are
    read where they stand beside it. Half precision becomes float32. The card says which part it
    was, and what else the file holds, such as an optimizer's state.

    Raises:
        JaxcamError: if the file is damaged or no checkpoint; if it holds several sets of the
            network's tensors, with their names; if tensors of one are missing, left over, not
            finite, quantised or of another shape, with the network that they would fit; if
            ``config.json`` tells of another network. Nothing that a file asks for is run.
    """
    described = describe(name, weights, part=part)
    return Loaded(described.load(), described.card)


def describe(name: str, weights: str | Path, *, part: str | None = None) -> Described:
    """Read a checkpoint as `load` does, and say what it is before a device has to hold it."""
    which = "" if part is None else f", part={part!r}"
    call = f"zoo.load({name!r}, {str(weights)!r}{which})"
    architecture = find(call, name)
    checkpoint = read(call, weights)
    _check_settings(call, architecture, checkpoint)
    contents = checkpoint.contents
    whole, nearest = _parts(name, within(call, contents.tensors, part))
    chosen = choose(call, whole, part) or nearest
    classes = _classes(architecture, chosen.tensors)
    wanted = _wanted(name, classes)
    fit = best_fit(wanted, chosen.tensors)
    others = beside(contents, {chosen.path + own for own in chosen.tensors}, chosen.path)
    if fit.mismatches:
        _refuse(call, name, fit, checkpoint, chosen, others)
    check_types(call, wanted[fit.naming], chosen.tensors)
    arrays = contents.read([chosen.path + own for own in wanted[fit.naming]])
    tensors = {own.removeprefix(chosen.path): array for own, array in arrays.items()}
    naming = fit.naming if fit.naming in architecture.constants else ""
    rules = architecture.namings[fit.naming]

    def model() -> Any:
        return filled(call, _abstract(name, classes, naming), rules, tensors)

    preprocessing, source = _preprocessing(call, architecture, checkpoint)
    names = class_names_of(call, checkpoint.config, classes)
    files = tuple(f"{passed} (a file)" for passed in checkpoint.passed)
    card = Card(
        name, checkpoint.origin, fit.naming, preprocessing, source, classes, names,
        checkpoint.digest, architecture.tokens, architecture.layer, chosen.name, others + files,
    )  # fmt: skip
    return Described(card, model)


def inspect(name: str, ask: Callable[[Any, jax.ShapeDtypeStruct], Any]) -> Any:
    """Call ``ask(model, x)`` of a network by its definition alone: no array is made, nor read.

    For what needs shapes only: `jaxcam.layers`, `jaxcam.last_layer`, `jaxcam.explain_layers`. ``x``
    is one picture as the network's usual preparation makes it, of 1000 classes.

    >>> import jaxcam
    >>> from jaxcam import zoo
    >>> zoo.inspect("resnet18", jaxcam.layers)["layer4"].shape
    (1, 7, 7, 512)
    """
    how = find(f"zoo.inspect({name!r})", name).preprocessing
    x = jax.ShapeDtypeStruct((1, *input_size(how), 3), np.float32)
    graph, state = nnx.split(_abstract(name, 1000, ""))
    outputs = []

    def run(state: Any) -> None:
        outputs.append(ask(nnx.merge(graph, state), x))

    jax.eval_shape(run, state)
    return outputs[0]


def _parts(name: str, tensors: Mapping[str, Entry]) -> tuple[list[Part], Part]:
    """The parts that hold the whole network, maybe with more, and the one that comes nearest."""
    architecture = ARCHITECTURES[name]
    wanted = _wanted(name, _classes(architecture, tensors))
    share_of = shares(tensors, [own.keys() for own in wanted.values()])
    named = [path for path, share in share_of.items() if share == 1]
    whole = [part for path in named if _is_whole(name, part := cut(tensors, path, named))]
    near = max(share_of, key=lambda path: (share_of[path], -len(path)), default="")
    return whole, cut(tensors, near if share_of.get(near, 0) >= NEAR else "", named)


def _is_whole(name: str, part: Part) -> bool:
    wanted = _wanted(name, _classes(ARCHITECTURES[name], part.tensors))
    return any(covers(own, part.tensors) for own in wanted.values())


def _classes(architecture: Architecture, tensors: Mapping[str, Entry]) -> int:
    """As many as the head has, or any head behind a path; without, the comparison says so."""
    heads = tuple(rename(f"{architecture.head}.weight", r) for r in architecture.namings.values())
    ends = tuple(f".{head}" for head in heads)
    names = [head for head in heads if head in tensors]
    names += [name for name in tensors if name.endswith(ends)]
    shapes = (tensors[name].shape for name in names)
    return next((shape[0] for shape in shapes if shape and shape[0]), 1000)


class _Still(nnx.RngStream):
    """A stream that gives one key for ever: shapes need no other.

    Under `nnx.eval_shape` each count of a stream makes JAX search all that was traced before.
    """

    def __call__(self) -> jax.Array:
        return self.key[...]

    def fork(self, *, split: Any = None) -> nnx.RngStream:
        """Give dropout a stream that counts."""
        return nnx.RngStream(self(), tag=self.tag)


@cache
def _abstract(name: str, classes: int, naming: str) -> Any:
    """The network's shapes, without its arrays."""
    architecture = ARCHITECTURES[name]

    def shapes() -> Any:
        rngs = nnx.Rngs(0)
        rngs.default = _Still(0, tag="default")  # pyright: ignore[reportAttributeAccessIssue]
        return make(architecture, naming, classes=classes, rngs=rngs)

    return nnx.eval_shape(shapes)


@cache
def _wanted(name: str, classes: int) -> dict[str, dict[str, Slot]]:
    """Where each collection's tensors go."""
    model = _abstract(name, classes, "")
    return {naming: slots(model, rules) for naming, rules in ARCHITECTURES[name].namings.items()}


def _refuse(
    call: str, name: str, fit: Fit, checkpoint: Checkpoint, part: Part, beside: tuple[str, ...]
) -> None:
    """Say which tensors stand in the way, and what they are tensors of."""
    missing = tuple(_missing(own, checkpoint.contents, part) for own in fit.missing)
    groups = {"missing": missing, "left over": fit.left, "of another shape": fit.shapes}
    got = "; ".join(f"{len(g)} {what} ({listed(g)})" for what, g in groups.items() if g)
    if part.path:
        got = f"{got}; all of them behind {part.name!r}, beside {listed(beside) or 'nothing'}"
    others = list(_fitting(checkpoint.contents.tensors))
    remedy = f"They are those of {' or '.join(others)}: load it by that name."
    if not others:
        remedy = f"They fit none of {', '.join(ARCHITECTURES)}."
    if re.search(r"-\d{5}-of-\d{5}\.", checkpoint.origin):
        remedy = "The file is one of several: pass their folder, or the index."
    fail(
        call, needs=f"each tensor of {name} once, as {fit.naming} name them", got=got, remedy=remedy
    )


def _missing(name: str, contents: Contents, part: Part) -> str:
    """Its name, and what stands in its place."""
    what = contents.others.get(part.path + name)
    return f"{name}, which {what} would make" if what else name


def _fitting(tensors: Mapping[str, Entry]) -> Iterator[str]:
    for name, architecture in ARCHITECTURES.items():
        for part in _parts(name, tensors)[0]:
            wanted = _wanted(name, _classes(architecture, part.tensors))
            if not best_fit(wanted, part.tensors).mismatches:
                yield name
                break


def _check_settings(call: str, architecture: Architecture, checkpoint: Checkpoint) -> None:
    """Refuse a network of the same tensors that computes something else, where a file tells."""
    if Path(checkpoint.origin).name.startswith("tf_"):
        fail(
            call,
            needs="weights of a network that pads alike on both sides, as PyTorch does",
            got=f"{Path(checkpoint.origin).name}: timm begins names with tf_ where it pads as "
            "TensorFlow does",
            remedy="Take weights of the same network without tf_ in their name.",
        )
    config = checkpoint.config
    for key, value in {**config, **_arguments(config)}.items():
        accepted = architecture.settings.get(key)
        if accepted is None and not key.startswith("model_args."):
            continue
        if value not in (accepted or ()):
            others = [n for n, a in ARCHITECTURES.items() if value in a.settings.get(key, ())]
            fail(
                call,
                needs=f"{key} {' or '.join(map(repr, accepted)) if accepted else 'left out'} in "
                "config.json",
                got=repr(value),
                remedy=f"In the zoo it is that of {', '.join(others)}."
                if others
                else "The zoo does not have that network.",
            )


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's constructor was given, but for what the tensors tell or training alone uses."""
    known = ("num_classes", "drop_rate", "drop_path_rate", "pretrained")
    given = config.get("model_args") or {}
    return {f"model_args.{key}": value for key, value in given.items() if key not in known}


def _preprocessing(
    call: str, architecture: Architecture, checkpoint: Checkpoint
) -> tuple[Preprocessing, str]:
    """What the folder says, what torchvision says of this very file, or the network's usual."""
    if said := preprocessing_of(call, checkpoint.config, checkpoint.processor):
        return said
    recipe = architecture.recipes.get(checkpoint.digest[:8])
    if recipe is not None:
        return recipe, "torchvision's recipe for this file, known by its SHA-256"
    return architecture.preprocessing, "a default: nothing beside the checkpoint says it"
