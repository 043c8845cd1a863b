"""Where a network is cut, as a static value: what both adapters share, and nothing of Flax.

A `Site` is everything about a cut that is not an array. It lives in the treedef of the two
`jax.tree_util.Partial` of a split, so it compares by value: the same site with new weights of the
same shape reuses the compiled program.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxcam.arrays.door import through
from jaxcam.arrays.outputs import is_array
from jaxcam.errors import fail
from jaxcam.split.arrange import ToMap
from jaxcam.split.pick import Choice

AUTO = "auto"


class Adapter(NamedTuple):
    """One kind of model, as module-level functions, so that adapters compare by value.

    ``run(site, weights, kwargs, a, x) -> (output, seen)`` runs the model, with ``a`` (unless
    ``None``) in place of the layer's output; ``seen`` holds one `Seen` per call of the layer.
    ``survey(tape, model, weights, kwargs, x)`` runs it with every layer's output marked.
    """

    run: Callable[..., tuple[Any, tuple[Any, ...]]]
    survey: Callable[..., None]


class Network(NamedTuple):
    """A model taken apart: how to run it, the model without its weights, and its weights."""

    adapter: Adapter
    model: Any
    weights: Any


class Arguments(NamedTuple):
    """The static part of the model's keyword arguments, with ``None`` where an array was.

    The type stands beside each value because ``1 == 1.0 == True``, and those trace differently.
    """

    structure: Any
    values: tuple[tuple[type, Any] | None, ...]


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Site:
    """The model without its weights, the layer, which call of it, and how the model is called."""

    adapter: Adapter
    model: Any
    path: tuple[str, ...]
    call: int
    select: Choice
    to_map: ToMap | None
    logits: Choice
    arguments: Arguments

    @property
    def is_auto(self) -> bool:
        """Whether the layer is still to be found: `jaxcam.last_layer`."""
        return not self.path

    @property
    def layer(self) -> str:
        """The layer's name as `jaxcam.layers` writes it."""
        return "/".join(self.path) or AUTO

    def __eq__(self, other: object) -> bool:
        """By value, and at once where it is the same object, as in most dispatches."""
        if self is other:
            return True
        return isinstance(other, Site) and all(map(_same, _parts(self), _parts(other)))

    def __hash__(self) -> int:
        """Leaves the model out: one with a list or an array among its fields has no hash."""
        return hash((self.adapter, self.path, self.call))

    def __str__(self) -> str:
        """The call that made the site, for error messages."""
        return f"jaxcam.split(model, {self.layer!r})"


def _parts(site: Site) -> tuple[Any, ...]:
    where = (site.adapter, site.path, site.call, site.select, site.to_map, site.logits)
    return where, site.arguments, site.model


def _same(one: Any, other: Any) -> bool:
    """Equal, as far as can be told: where an array is compared, only the same object is."""
    try:
        return one is other or bool(one == other)
    except (TypeError, ValueError):
        return False


def divide(call: str, kwargs: Mapping[str, Any]) -> tuple[Arguments, tuple[Any, ...]]:
    """Keyword arguments into a static part and their arrays, leaf by leaf.

    Raises `jaxcam.errors.JaxcamError` for a static value without a hash: it could change in place
    and leave a compiled program that was traced with the old one.
    """
    leaves, structure = jax.tree.flatten(through(dict(kwargs), call))
    for leaf in leaves:
        if not is_array(leaf) and not _hashable(leaf):
            fail(
                call,
                needs="keyword arguments of the model that are arrays or hashable",
                got=f"a {type(leaf).__name__}, {leaf!r}",
                remedy="Pass a tuple, a frozenset or a frozen dataclass instead.",
            )
    values = tuple(None if is_array(leaf) else (type(leaf), leaf) for leaf in leaves)
    return Arguments(structure, values), tuple(filter(is_array, leaves))


def join(arguments: Arguments, arrays: tuple[Any, ...]) -> dict[str, Any]:
    """Undo `divide`. Containers are built anew, so a run cannot change the caller's (``Rngs``)."""
    rest = iter(arrays)
    leaves = [next(rest) if value is None else value[1] for value in arguments.values]
    return jax.tree.unflatten(arguments.structure, leaves)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
