"""What a network is called on: one array, or several of one batch.

``x`` is ``[batch, *spatial, channel]``; of a network with several inputs a tuple of arrays, or a
dict of them by keyword, each with the batch axis first. One of them gets the noise. A list of
arrays is a tuple of them, as in Keras, and a list of numbers is an array.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.door import as_array
from jaxcam.errors import fail

Inputs = Any
Key = int | str | None
"""Which input: a place in a tuple, a name in a dict; None where there is one."""


def sorted_out(x: Any) -> Inputs:
    """One input as it is, and several in a tuple or a dict, whatever holds them."""
    if isinstance(x, Mapping):
        return dict(x)
    several = isinstance(x, tuple) or (isinstance(x, list) and any(map(_is_array, x)))
    return tuple(x) if several else x


def taken(x: Any, call: str) -> Inputs:
    """The same in arrays, of which the values are not looked at; shapes stay shapes."""

    def one(value: Any) -> Any:
        return value if isinstance(value, jax.ShapeDtypeStruct) else as_array(value, call)

    x = sorted_out(x)
    if isinstance(x, dict):
        return {key: one(value) for key, value in x.items()}
    return tuple(map(one, x)) if isinstance(x, tuple) else one(x)


def _is_array(value: Any) -> bool:
    """Whether it is an array of any library, and not a number or a list of them."""
    return hasattr(value, "shape") and value.shape != ()


def is_several(x: Inputs) -> bool:
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
    """The dtype of the floating inputs; of the widest, if they differ. JAX's own, if none is."""
    return jnp.result_type(*(list(filter(_floating, jax.tree.leaves(x))) or [float]))


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
    leaves = jax.tree.leaves(x)
    if not any(map(_floating, leaves)):
        fail(
            call,
            needs="floating input, to add noise to",
            got=", ".join(str(leaf.dtype) for leaf in leaves),
            remedy="Use a method without noise: jaxcam.cam with one of jaxcam.methods as it is. Or "
            "convert x as in training, if its numbers are measurements.",
        )
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
