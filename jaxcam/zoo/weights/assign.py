"""Tensors of a checkpoint into a network: each exactly once, in the right layout, or an error."""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcam.errors import fail
from jaxcam.zoo.architecture import Rules
from jaxcam.zoo.weights.contents import Entry

TYPES = ("float16", "bfloat16", "float32", "float64")
"""Of what weights are read; a number of 8 bits or of no float means something by a scale only."""

IGNORED = ("num_batches_tracked",)
"""Last parts of names of what a network in evaluation does not have: torch's count of batches."""

_TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class Slot(NamedTuple):
    """Where a tensor goes: the variable's path, the tensor's shape in torch, and its new axes.

    part: which share of the variable's torch rows it is, of those that other tensors bring.
    """

    path: tuple[Any, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    part: int = 0


class Fit(NamedTuple):
    """How the names in a file and those of a network go together; shapes as ``name: a, not b``."""

    naming: str
    missing: tuple[str, ...]
    left: tuple[str, ...]
    shapes: tuple[str, ...]

    @property
    def mismatches(self) -> int:
        """How many tensors stand in the way."""
        return len(self.missing) + len(self.left) + len(self.shapes)


def slots(model: nnx.Module, rules: Rules) -> dict[str, Slot]:
    """Every variable that a checkpoint holds, by its name there; the model may be abstract."""
    slots_ = {}
    for path, variable in nnx.to_flat_state(_weights(model)):
        *layer, last = map(str, path)
        shape, axes = _layout(last, tuple(variable.shape))
        name = ".".join([*layer, _TORCH.get(last, last)])
        theirs = _alternatives(rename(name, rules))
        rows = shape[:1] if len(theirs) == 1 else (shape[0] // len(theirs),)
        for part, own in enumerate(theirs):
            slots_[own] = Slot(path, rows + shape[1:], axes, part)
    return slots_


def rename(name: str, rules: Rules) -> str:
    """A name of torchvision's in another collection's words."""
    for pattern, theirs in rules:
        if match := re.match(rf"{pattern}(?=\.|$)", name):
            return theirs(*map(int, match.groups())) + name[match.end() :]
    return name


def _alternatives(name: str) -> list[str]:
    """``attention.{q,k,v}.weight``: the names of tensors that lie one behind the other here."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    return [f"{match[1]}{own}{match[3]}" for own in match[2].split(",")] if match else [name]


def compare(wanted: Mapping[str, Slot], tensors: Mapping[str, Entry], naming: str) -> Fit:
    """What is missing, what is left over and what has another shape."""
    left = [name for name in tensors if name not in wanted and not _ignored(name)]
    shapes = [
        f"{name}: {list(tensors[name].shape)}, not {list(slot.shape)}"
        for name, slot in wanted.items()
        if name in tensors and not _same_shape(tensors[name].shape, slot.shape)
    ]
    missing = [name for name in wanted if name not in tensors]
    return Fit(naming, tuple(missing), tuple(left), tuple(shapes))


def covers(wanted: Mapping[str, Slot], tensors: Mapping[str, Entry]) -> bool:
    """Whether nothing is missing or of another shape; there may be more."""
    return all(
        name in tensors and _same_shape(tensors[name].shape, slot.shape)
        for name, slot in wanted.items()
    )


def best_fit(wanted: Mapping[str, Mapping[str, Slot]], tensors: Mapping[str, Entry]) -> Fit:
    """The collection whose names go best with those in the file; ``wanted`` by collections."""
    fits = (compare(slots_, tensors, naming) for naming, slots_ in wanted.items())
    return min(fits, key=lambda fit: fit.mismatches)


def filled(
    call: str, model: nnx.Module, rules: Rules, tensors: Mapping[str, np.ndarray]
) -> nnx.Module:
    """The abstract model with the tensors in it, whose names and shapes are known to fit.

    The streams of random numbers of dropout, which no checkpoint holds, begin anew.
    """
    graph, state = nnx.split(model)
    flat = dict(nnx.to_flat_state(state))
    parts: dict[tuple[Any, ...], list[np.ndarray]] = {}
    axes: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for name, slot in slots(model, rules).items():  # parts of one variable come in their order
        _check_values(call, name, tensors[name])
        parts.setdefault(slot.path, []).append(tensors[name].reshape(slot.shape))
        axes[slot.path] = slot.axes
    for path, rows in parts.items():
        value = np.concatenate(rows) if len(rows) > 1 else rows[0]
        value = value.transpose(axes[path])
        flat[path] = flat[path].replace(jnp.asarray(value, flat[path].dtype))
    for index, (path, variable) in enumerate(flat.items()):
        if isinstance(variable, nnx.RngKey):
            flat[path] = variable.replace(jax.random.fold_in(jax.random.key(0), index))
        elif isinstance(variable, nnx.RngCount):
            flat[path] = variable.replace(jnp.zeros(variable.shape, variable.dtype))
    return nnx.merge(graph, nnx.from_flat_state(flat.items()))


def check_types(call: str, wanted: Iterable[str], tensors: Mapping[str, Entry]) -> None:
    """Refuse numbers that are no weights by themselves."""
    for name in wanted:
        dtype = tensors[name].dtype
        if dtype not in TYPES:
            remedy = "Quantised checkpoints are not read: take the one that was quantised."
            if dtype.startswith(("complex", *TYPES)):
                remedy = "Save it anew in torch, as a real tensor.resolve_neg()."
            needs, got = "floating weights of 16 bits or more", f"{name} of {dtype}"
            fail(call, needs=needs, got=got, remedy=remedy)


def _weights(model: nnx.Module) -> nnx.State:
    return nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))


def _layout(last: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in torch, and the axes to take of it: HWIO of OIHW, a dense kernel transposed."""
    if last != "kernel":
        return shape, tuple(range(len(shape)))
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}[len(shape)]
    theirs = [0] * len(shape)
    for ours, axis in enumerate(axes):
        theirs[axis] = shape[ours]
    return tuple(theirs), axes


def _same_shape(theirs: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    """Equal up to axes of length one: a scale of [96, 1, 1] or of [96], a 1x1 convolution.

    Or a convolution [k, c, h, w] over the whole of what a dense layer [k, c h w] gets flattened:
    torch flattens channels slowest, so the numbers lie in the same order.
    """
    if len(theirs) == 4 and len(ours) == 2:
        theirs = (theirs[0], prod(theirs[1:]))
    return [n for n in theirs if n != 1] == [n for n in ours if n != 1]


def _ignored(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in IGNORED


def _check_values(call: str, name: str, tensor: np.ndarray) -> None:
    finite = np.isfinite(tensor.astype(np.float32))
    if not finite.all():
        fail(
            call,
            needs="finite weights",
            got=f"NaN or infinity in {name}, {prod(tensor.shape) - finite.sum()} times",
            remedy="The training that wrote the file diverged, or the file is damaged.",
        )
    if name.endswith("running_var") and (tensor < 0).any():
        fail(
            call,
            needs="variances of 0 or more",
            got=f"a negative number in {name}",
            remedy="The file is damaged: download it again.",
        )
