"""Picking one array from what a layer or a model returns, and putting another in its place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax import Array

from jaxcam.arrays.outputs import describe, is_array
from jaxcam.arrays.running import worded
from jaxcam.errors import JaxcamError, fail, message

Choice = int | str | Callable[[Any], Any] | None
"""An index, a key or an attribute's name, or a function of the whole; ``None``: it is an array."""


def pick(tree: Any, choice: Choice, *, call: str, what: str, option: str) -> Array:
    """The array that ``choice`` means in ``tree``, or an error that names the ``option`` to give.

    An array is its own answer: an index into it would pick an example of the batch.
    """
    got = describe(tree) + ("" if choice is None else f" with {option}={choice!r}")
    if is_array(tree) and choice is not None and not callable(choice):
        fail(
            call,
            needs=f"no {option}= where {what} is one array",
            got=got,
            remedy=f"Leave {option}= away.",
        )
    if choice is None:
        picked, needs = tree, f"{what} that is one array"
        remedy = f"Say which one by {option}=, an index, a key or a function that returns it."
    else:
        needs = f"{option}= to pick one array from {what}"
        with _asking(call, needs, got):
            picked = choice(tree) if callable(choice) else _entry(tree, choice)
        remedy = "Give an index, a key or a function that finds an array in it."
    if not is_array(picked):
        fail(call, needs=needs, got=got, remedy=remedy)
    return picked


def replace(tree: Any, old: Array, new: Array) -> Any:
    """``tree`` with ``new`` wherever it holds the very object ``old``."""
    return jax.tree.map(lambda leaf: new if leaf is old else leaf, tree)


def holds(tree: Any, array: Array) -> bool:
    """Whether ``array`` is itself a leaf of ``tree``, and not computed from one."""
    return any(leaf is array for leaf in jax.tree.leaves(tree))


@contextmanager
def _asking(call: str, needs: str, got: str) -> Iterator[None]:
    """What the user's own function has against it."""
    try:
        yield
    except JaxcamError:
        raise
    except Exception as error:
        got = f"{got}, which raised {worded(error)}"
        remedy = "It is given what stands here, and returns one array of it."
        raise JaxcamError(message(call, needs=needs, got=got, remedy=remedy)) from error


def _entry(tree: Any, choice: int | str) -> Any:
    """``tree[choice]``, else the attribute of that name (a struct), else ``None``."""
    try:
        return tree[choice]
    except (KeyError, IndexError, TypeError):
        return getattr(tree, choice, None) if isinstance(choice, str) else None
