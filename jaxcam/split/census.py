"""Which layers a model calls, in which order, and which of them can be cut out.

Every layer's output is marked by the identity primitive ``name`` while the model is traced, and
the marks are then looked up in the jaxpr. A mark inside the body of a ``scan``, ``while`` or
``cond`` is reached any number of times, and a mark whose shape is not the one the layer returned
went through ``vmap``: there is no one output to explain. Nothing is computed.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxcam.arrays.outputs import is_array
from jaxcam.split.site import Arguments, Network, join

_MARK = "jaxcam layer"
MAPPED = "mapped"
RUNS_ITS_BODY_ONCE = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
"""Anything else, known or not, is not proved to."""


class Sighting(NamedTuple):
    """One call of a layer: its name, its output's shapes, and what forbids to cut it (``None``).

    ended: a number that grows in the order in which the calls returned.
    """

    name: str
    output: Any
    inside: str | None
    ended: int


@dataclass(frozen=True, eq=False)
class Tape:
    """What one survey saw while tracing: names and output shapes, no arrays.

    kept: the layers whose variables are mapped on the way to them, and with them what an adapter
    would put there.

    Compared by identity: a cached trace of an earlier survey (``nn.jit``, ``nnx.jit``) must not
    stand in for this one.
    """

    calls: list[tuple[str, Any]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)


def mark(tape: Tape, name: str, call: Callable[[], Any]) -> Any:
    """Call a layer, note it in the order of starting, and mark the arrays that it returns."""
    index = len(tape.calls)
    tape.calls.append((name, None))
    output = call()
    tape.calls[index] = (name, abstract(output))
    place = count()

    def marked(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        return checkpoint_name(leaf, f"{_MARK}/{index}/{next(place)}")

    return jax.tree.map(marked, output)


def census(
    network: Network, arguments: Arguments, arrays: tuple[Any, ...], x: Any
) -> list[Sighting]:
    """Every call of every layer but the model itself; a layer comes before those inside it."""
    tape = Tape()

    def survey(weights: Any, arrays: tuple[Any, ...], x: Any) -> None:
        network.adapter.survey(tape, network.model, weights, join(arguments, arrays), x)

    jaxpr = jax.make_jaxpr(survey)(*abstract((network.weights, arrays, x)))
    marks = [(*mark, ended) for ended, mark in enumerate(_marks(jaxpr, None))]
    return [_sighting(tape, *mark) for mark in sorted(marks, key=lambda mark: mark[0])]


class Place(NamedTuple):
    """A layer, and which call of it: written as ``name``, or ``name call=1``.

    >>> from jaxcam.split.census import Place
    >>> str(Place("norm", 0)), Place.read("norm"), str(Place("norm", 1)), Place.read("norm call=1")
    ('norm', Place(name='norm', call=0), 'norm call=1', Place(name='norm', call=1))
    """

    name: str
    call: int

    def __str__(self) -> str:
        """As `jaxcam.layers` writes it."""
        return f"{self.name} call={self.call}" if self.call else self.name

    @classmethod
    def read(cls, words: str) -> "Place":
        """The place that is written so; what has no call is a name."""
        parts = re.fullmatch(r"(.*) call=(\d+)", words)
        return cls(parts[1], int(parts[2])) if parts else cls(words, 0)


def free(sightings: list[Sighting]) -> Iterator[tuple[Place, Sighting]]:
    """Each call that can be cut, and which call of its layer it is."""
    calls = Counter[str]()
    for sighting in sightings:
        if sighting.inside is None:
            yield Place(sighting.name, calls[sighting.name]), sighting
            calls[sighting.name] += 1


def abstract(tree: Any) -> Any:
    """Arrays, tracers included, as shapes and dtypes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array(leaf) else leaf, tree
    )


def _sighting(
    tape: Tape, index: int, shape: tuple[int, ...], inside: str | None, ended: int
) -> Sighting:
    name, output = tape.calls[index]
    first = next(filter(is_array, jax.tree.leaves(output)))
    batched = first.shape != shape
    kept = MAPPED if name in tape.kept else None
    return Sighting(name, output, inside or ("vmap" if batched else kept), ended)


def _marks(jaxpr: Any, inside: str | None) -> Iterator[tuple[int, tuple[int, ...], str | None]]:
    """Index, shape and enclosing loop of each call's mark: that of its output's first array."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        primitive = equation.primitive.name
        label = equation.params.get("name") if primitive == "name" else None
        if isinstance(label, str) and label.startswith(_MARK) and label.endswith("/0"):
            yield int(label.split("/")[1]), equation.outvars[0].aval.shape, inside
        here = inside or (None if primitive in RUNS_ITS_BODY_ONCE else primitive)
        for body in filter(is_jaxpr, jax.tree.leaves(equation.params, is_leaf=is_jaxpr)):
            yield from _marks(body, here)


def is_jaxpr(value: Any) -> bool:
    """Whether it is a jaxpr, closed or not."""
    return hasattr(getattr(value, "jaxpr", value), "eqns")
