"""What a network is called on: one array, or several of one batch.

``x`` is ``[batch, *spatial, channel]``; of a network with several inputs a tuple of arrays, or a
dict of them by keyword, each with the batch axis first. One of them gets the noise.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.errors import fail

Inputs = Any
Key = int | str | None
"""Which input: a place in a tuple, a name in a dict; None where there is one."""


def is_several(x: Any) -> bool:
    """Whether ``x`` is several inputs, and not one."""
    return type(x) in (tuple, dict)


def call_with(x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a model is called on ``x``: ``model(*positional, **named)``."""
    if type(x) is tuple:
        return x, {}
    return ((), x) if type(x) is dict else ((x,), {})


def batch_of(x: Inputs) -> int | None:
    """The length of the batch axis, which all inputs share; None where they do not."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(x)}
    return sizes.pop()[0] if len(sizes) == 1 and () not in sizes else None


def first(x: Inputs) -> Inputs:
    """The first example's, without the batch axis."""
    return jax.tree.map(lambda leaf: leaf[0], x)


def dtype_of(x: Inputs) -> np.dtype:
    """The dtype of the floating inputs; of the widest, if they differ."""
    return jnp.result_type(*filter(_floating, jax.tree.leaves(x)))


def picked(x: Inputs, key: Key) -> Array:
    """The input of that key."""
    return x if key is None else x[key]


def replaced(x: Inputs, key: Key, new: Array) -> Inputs:
    """``x`` with another array for the input of that key."""
    if key is None:
        return new
    if isinstance(x, dict):
        return {**x, key: new}
    return tuple(new if place == key else leaf for place, leaf in enumerate(x))


def noisy_key(call: str, x: Inputs, noisy: Key) -> Key:
    """Which input gets the noise: the one that is named, or the only floating one."""
    if not is_several(x):
        if noisy is not None:
            remedy = "It belongs to a network of several inputs."
            fail(call, needs="no noisy= where x is one array", got=repr(noisy), remedy=remedy)
        return None
    named = dict(enumerate(x)) if isinstance(x, tuple) else x
    floating = [key for key, value in named.items() if _floating(value)]
    if noisy is None and len(floating) == 1:
        return floating[0]
    if noisy not in floating:
        fail(
            call,
            needs=f"noisy= of {', '.join(map(repr, floating))}, the input that gets the noise",
            got=repr(noisy),
            remedy="Name one floating input; the others stay as they are.",
        )
    return noisy


def _floating(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)
