"""Masks of the input that are made of a layer's feature maps, one at a time.

What is masked has the input's resolution, of which a layer of many maps would fill the memory many
times: a mask is made where it is used, and never kept.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example
from jaxcam.errors import fail


def check_axes(call: str, example: Example) -> None:
    """Refuse a layer whose maps are no maps of the input."""
    a, x = example.a, example.x
    if a.ndim == x.ndim:
        return
    got = f"shapes {a.shape} and {x.shape} of one example"
    remedy = "Say by to_map= of jaxcam.split how it is a map."
    fail(call, needs="a layer with as many axes as the input", got=got, remedy=remedy)


def stretched(map: Array) -> Array:
    """Stretch a map to the range 0 to 1; a constant one becomes 0."""
    return maps.normalize(map[None])[0]


def enlarged(map: Array, size: Any) -> Array:
    """Resize a map linearly, pixels being squares: their middles stay where they are."""
    return maps.upsample(map[None], size)[0]


def enlarged_to_corners(map: Array, size: Any) -> Array:
    """Resize a map linearly, pixels being points: the first and the last stay where they are."""
    for axis, length in enumerate(size):
        step = (map.shape[axis] - 1) / max(1, length - 1)
        map = between(map, axis, jnp.arange(length, dtype=map.dtype) * step)
    return map


def between(map: Array, axis: int, where: Array) -> Array:
    """Take places ``where: [m]`` along an axis, linearly between those that are there.

    What is before the first is the first, and behind the last the last.
    """
    last = map.shape[axis] - 1
    where = jnp.clip(where, 0, last)
    below = jnp.clip(where.astype(jnp.int32), 0, max(0, last - 1))
    low, high = (jnp.take(map, jnp.minimum(i, last), axis=axis) for i in (below, below + 1))
    along = [where.size if other == axis else 1 for other in range(map.ndim)]
    return low + (where - below.astype(where.dtype)).reshape(along) * (high - low)


def of_map(map: Array, size: Any) -> Array:
    """Give the paper's mask of a feature map, ``s(up(A^k))``."""
    return stretched(enlarged(map, size))


def masked(x: Array, mask: Array) -> Array:
    """Multiply every channel of an input with a mask: ``x: [*spatial, c]``."""
    return (widen(x) * mask[..., None].astype(widen(x).dtype)).astype(x.dtype)


def feature_map(a: Array, k: Array) -> Array:
    """Take one feature map of ``a: [*spatial, k]``, in single precision at least."""
    return widen(jax.lax.dynamic_index_in_dim(a, k, axis=-1, keepdims=False))
