"""What a checkpoint holds, said before a number of it is read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_LISTED = 6


class Entry(NamedTuple):
    """A tensor that can be read; dtype: as numpy calls it, or else as the file does."""

    shape: tuple[int, ...]
    dtype: str


class Contents(NamedTuple):
    """What is in a file.

    tensors: by the keys that lead to them, joined by dots, so that ``fc.bias`` in a dictionary
    ``model`` is ``model.fc.bias``. others: what is no tensor, by the same, and what it is where
    that has a name. code: names of what the file asks to be run, which is not done. read: arrays
    of some of the tensors, by the same names.
    """

    tensors: Mapping[str, Entry]
    others: Mapping[str, str]
    code: tuple[str, ...]
    read: Callable[[Iterable[str]], dict[str, np.ndarray]]


def together(several: Sequence[Contents]) -> Contents:
    """Several files as one, of which no two hold a tensor of the same name."""

    def read(names: Iterable[str]) -> dict[str, np.ndarray]:
        names = list(names)
        parts = [file.read([n for n in names if n in file.tensors]) for file in several]
        return {name: array for arrays in parts for name, array in arrays.items()}

    return Contents(
        {name: entry for file in several for name, entry in file.tensors.items()},
        {name: what for file in several for name, what in file.others.items()},
        tuple(sorted({name for file in several for name in file.code})),
        read,
    )


def beside(contents: Contents, used: Iterable[str], path: str) -> tuple[str, ...]:
    """Name what is not among the tensors that were used, in groups.

    A group is what begins alike up to the first key that is not in ``path``, where they lie.
    """
    used, counts = set(used), dict[str, int]()
    for name in contents.tensors:
        if name not in used:
            label = _label(name, path)
            counts[label] = counts.get(label, 0) + 1
    for name in contents.others:
        counts.setdefault(_label(name, path), 0)
    return tuple(_said(contents, counts))


def _said(contents: Contents, counts: Mapping[str, int]) -> Iterator[str]:
    for label, count in counts.items():
        what = contents.others.get(label, "")
        if count:
            what = "a tensor" if count == 1 else f"{count} tensors"
        yield f"{label} ({what})" if what else label
    if contents.code:
        yield f"code that was not run ({', '.join(contents.code)})"


def _label(name: str, path: str) -> str:
    keys, own = name.split("."), path.split(".")
    alike = 0
    while alike < min(len(own), len(keys) - 1) and keys[alike] == own[alike]:
        alike += 1
    return ".".join(keys[: alike + 1])


def listed(names: tuple[str, ...]) -> str:
    """The first of them and how many there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
