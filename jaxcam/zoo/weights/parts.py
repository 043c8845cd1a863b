"""Where in a checkpoint a network's tensors are, whatever wraps them.

Training scripts file weights under ``state_dict``, ``model`` or any other name, wrappers put
``module.``, ``_orig_mod.``, ``model.`` or ``backbone.`` before the tensors' own, and beside them
lie averages of the same weights, the tensors of a loss, an optimizer's. All of that is a path: what
stands in front of a network's names. It is found by those names and not by its own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxcam.errors import fail
from jaxcam.zoo.weights.contents import Entry, listed


class Part(NamedTuple):
    """path: what begins the names in the file, with its last dot. tensors: by the rest of them."""

    path: str
    tensors: Mapping[str, Entry]

    @property
    def name(self) -> str:
        """The path as a user writes it."""
        return self.path.removesuffix(".")


def shares(names: Iterable[str], wanted: Iterable[Collection[str]]) -> dict[str, float]:
    """By path, how many of a network's names follow it; of its collections of them, the most.

    >>> from jaxcam.zoo.weights.parts import shares
    >>> shares(["model.fc.bias", "model.fc.weight", "ema.fc.bias"], [{"fc.bias", "fc.weight"}])
    {'model.': 1.0, 'ema.': 0.5}
    """
    names, most = list(names), dict[str, float]()
    for own in map(frozenset, wanted):
        keys = 1 + max(name.count(".") for name in own)
        counts = dict[str, int]()
        for name in names:
            words = name.rsplit(".", keys)
            for first in range(len(words)):
                rest = ".".join(words[first:])
                if rest in own:
                    path = name[: len(name) - len(rest)]
                    counts[path] = counts.get(path, 0) + 1
        for path, count in counts.items():
            most[path] = max(most.get(path, 0.0), count / len(own))
    return most


def cut(tensors: Mapping[str, Entry], path: str, others: Iterable[str] = ()) -> Part:
    """The part behind a path, without those that other networks have within it."""
    inner = tuple(other for other in others if other.startswith(path) and other != path)
    own = {
        name[len(path) :]: entry
        for name, entry in tensors.items()
        if name.startswith(path) and not name.startswith(inner)
    }
    return Part(path, own)


def within(call: str, tensors: Mapping[str, Entry], asked: str | None) -> Mapping[str, Entry]:
    """The tensors, by their whole names, of the part that is asked for; all where none is."""
    inside = {name: entry for name, entry in tensors.items() if name.startswith(_path(asked))}
    if asked and not inside:
        there = dict.fromkeys(name.split(".")[0] for name in tensors)
        fail(
            call,
            needs="a part of the checkpoint by its name",
            got=f"{asked!r}, which no tensor's name begins with",
            remedy=f"They begin with {listed(tuple(there))}.",
        )
    return inside


def choose(call: str, whole: Sequence[Part], asked: str | None) -> Part | None:
    """The one part that holds a whole network, or the one of just the name that is asked for."""
    exact = [part for part in whole if asked is not None and part.path == _path(asked)]
    candidates = exact or whole
    if len(candidates) > 1:
        names = tuple(repr(part.name) for part in candidates)
        fail(
            call,
            needs="one set of the network's tensors",
            got=f"{len(candidates)} in the checkpoint: {listed(names)}",
            remedy=f"Choose by part={names[0]} or part={names[1]}; on the command line by --part.",
        )
    return candidates[0] if candidates else None


def _path(name: str | None) -> str:
    return f"{name.removesuffix('.')}." if name else ""
