"""The tensors in what a pickle holds: in dictionaries, lists and classes like them, nested."""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from jaxcam.zoo.weights.unpickler import Tensor, Unread

DEEP = 16
LETTERS = 1 << 25
"""In names, at most, and as many steps: a few bytes describe any number of things by holding each
other twice, and a dictionary may hold itself."""


def leaves(content: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, and what else there is with its name where it has one; by the keys to them.

    >>> from jaxcam.zoo.weights.tree import leaves
    >>> leaves({"epoch": 3, "best": [0.9, 0.8]})
    ({}, {'epoch': '', 'best': ''})
    """
    tensors, others, left = dict[str, Tensor](), dict[str, str](), LETTERS
    for keys, value in _leaves((), content):
        name = ".".join(keys)
        left -= 1 if name in others else 1 + len(name)
        if left < 0:
            raise pickle.UnpicklingError("things that hold each other without an end")
        if isinstance(value, Tensor):
            if name in tensors:
                raise pickle.UnpicklingError(f"two tensors called {name[:80]}")
            tensors[name] = value
        elif name:
            others.setdefault(name, getattr(value, "origin", ""))
    return tensors, others


def _leaves(keys: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = _inside(value) if len(keys) < DEEP else None
    if inside is None:
        yield keys, value
        return
    for key, inner in inside:
        if type(key) is int and type(inner) in (int, float, str):
            yield keys, inner  # the numbers of a list, which has one name
        elif isinstance(key, str | int):
            yield from _leaves((*keys, str(key)), inner)


def _inside(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """What it holds, or None of what holds nothing."""
    if isinstance(value, Unread):
        return value.entries.items() if value.entries else None
    if isinstance(value, dict):
        return dict.items(value)  # an OrderedDict of a pickle may have an attribute of that name
    if isinstance(value, list | tuple) and not isinstance(value, Tensor):
        return enumerate(value)
    return None
