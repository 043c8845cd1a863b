"""From weights and activations to a map, and from a map to a picture's resolution and range."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.door import as_array, known
from jaxcam.errors import fail


def combine(weights: Array, a: Array, mask: Array | None = None) -> Array:
    """Sum ``sum_k w_k (M * A)^k`` over feature maps, before any ReLU: ``[*spatial]``.

    ``weights`` is ``[k]`` or shaped like ``a: [*spatial, k]``; ``mask`` broadcasts to ``a``. The
    weights come from all positions whatever the mask, so that the maps of a partition of the
    neurons sum to the layer's.
    """
    spread = jnp.broadcast_to(weights, a.shape)
    masked = a if mask is None else jnp.where(mask, a, jnp.zeros_like(a))
    return (spread * masked).sum(axis=-1)


def upsample(map: Array, size: Sequence[int]) -> Array:
    """Resize maps ``[batch, *spatial]`` to ``[batch, *size]`` linearly (half-pixel centres).

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> jaxcam.upsample(jnp.ones((1, 8, 8)), (224, 224)).shape
    (1, 224, 224)
    """
    map = as_array(map, "upsample")
    numbers = isinstance(size, Iterable) and all(
        isinstance(length, Integral) and length > 0 for length in size
    )
    if not numbers or map.ndim < 2 or len(size) != map.ndim - 1:
        count = "the" if map.ndim < 2 else map.ndim - 1
        fail(
            "upsample",
            needs=f"a size of {count} spatial axes for maps [batch, *spatial], as integers",
            got=f"size {size!r} and maps of shape {map.shape}",
            remedy="Leave the batch axis out of the size, and keep it in the maps.",
        )
    return jax.image.resize(map, (map.shape[0], *size), method="linear")


def normalize(map: Array) -> Array:
    """Stretch each map of ``[batch, *spatial]`` to the range 0 to 1; a constant map becomes 0.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> print(jaxcam.normalize(jnp.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])))
    [[0.  0.5 1. ]
     [0.  0.  0. ]]
    """
    map = as_array(map, "normalize")
    axes = tuple(range(1, map.ndim))
    low, high = map.min(axis=axes, keepdims=True), map.max(axis=axes, keepdims=True)
    span = high - low
    return (map - low) / jnp.where(span > 0, span, jnp.ones_like(span))


def fuse(maps: Sequence[Array], size: Sequence[int] | None = None, *, how: str = "mean") -> Array:
    """Fuse the maps of several layers, ``[batch, *spatial]`` each, into one ``[batch, *size]``.

    Each map is resized linearly (`upsample`) and divided by its largest size, so that layers count
    alike whatever that of their activations; a map that is zero everywhere stays zero::

        mean: 1/L sum_l m_l    max: max_l m_l    product: prod_l m_l      m_l = map_l / max |map_l|

    pytorch-grad-cam takes the mean, torch-cam the maximum; the product is RefineCAM (arXiv
    2605.14641, as read in both libraries), which keeps of a fine and noisy early map what every
    coarse one agrees with. Signed maps have a mean alone.

    Args:
        maps: of the same images, from one layer each.
        size: the resolution of the result; by default the finest of the maps'.
        how: ``mean``, ``max`` or ``product``.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> late, early = jnp.array([[[0.0, 4.0]]]), jnp.array([[[0.1, 0.2]]])
    >>> print(jaxcam.fuse([late, early]))
    [[[0.25 1.  ]]]
    """
    several = isinstance(maps, Sequence) and not isinstance(maps, str)
    if not several or not maps or how not in FUSIONS:
        fail(
            "fuse",
            needs=f"a list of at least one map, and how= of {' or '.join(FUSIONS)}",
            got=f"{f'{len(maps)} maps' if several else type(maps).__name__} and {how!r}",
            remedy="For example fuse([late.map, early.map], how='max').",
        )
    maps = [as_array(map, "fuse") for map in maps]
    shapes = [map.shape for map in maps]
    if len({(shape[:1], len(shape)) for shape in shapes}) > 1 or len(shapes[0]) < 2:
        fail(
            "fuse",
            needs="maps [batch, *spatial] of the same images",
            got=f"shapes {', '.join(str(shape) for shape in shapes)}",
            remedy="Explain the same batch at every layer.",
        )
    if how != "mean" and any(_has_negative(map) for map in maps):
        fail(
            "fuse",
            needs=f"maps without negative values, for how={how!r}",
            got="signed ones",
            remedy="Take how='mean', or what is positive of them: jax.nn.relu(map).",
        )
    finest = max((shape[1:] for shape in shapes), key=math.prod)
    return FUSIONS[how](jnp.stack([_scaled(upsample(map, size or finest)) for map in maps]), axis=0)


FUSIONS = {"mean": jnp.mean, "max": jnp.max, "product": jnp.prod}


def _has_negative(map: Array) -> bool:
    negative = known((map < 0).any())
    return negative is not None and bool(negative)


def _scaled(map: Array) -> Array:
    top = jnp.abs(map).max(axis=tuple(range(1, map.ndim)), keepdims=True)
    return map / jnp.where(top > 0, top, jnp.ones_like(top))


def check_subset(channels: Any, neurons: Any) -> tuple[Array | None, Array | None]:
    """Refuse subsets that are wrong for any layer; `neuron_mask` does the rest."""
    remedy = "Leave it None to explain the whole layer."
    if channels is not None:
        channels = as_array(channels, "channels")
        if _is_empty(channels):
            fail("channels", needs="at least one feature map", got="none", remedy=remedy)
        kind = channels.dtype == bool or jnp.issubdtype(channels.dtype, jnp.integer)
        if channels.ndim != 1 or not kind:
            got = f"{channels.dtype} of shape {channels.shape}"
            fail("channels", needs="indices or booleans of one axis", got=got, remedy=remedy)
    if neurons is not None:
        neurons = as_array(neurons, "neurons")
        if neurons.dtype != bool:
            fail("neurons", needs="booleans", got=neurons.dtype, remedy="Compare: mask > 0.")
        if _is_empty(neurons):
            fail("neurons", needs="at least one neuron", got="none", remedy=remedy)
    return channels, neurons


def neuron_mask(channels: Array | None, neurons: Array | None, shape: tuple[int, ...]) -> Array:
    """Join the paper's two subset modes into one mask of ``shape``, that of ``a: [batch, ..., k]``.

    channels: indices of feature maps, or booleans ``[k]``. neurons: booleans ``[*spatial, k]``, or
    ``[batch, *spatial, k]``. None keeps all.
    """
    mask, count = jnp.ones(shape, bool), shape[-1]
    if channels is not None:
        if channels.dtype != bool:
            channels = jnp.zeros(count, bool).at[channels].set(True, mode="drop")
        if channels.shape != (count,):
            got = f"booleans of shape {channels.shape}"
            fail("channels", needs=f"booleans of shape ({count},)", got=got, remedy="Or indices.")
        mask = mask & jnp.broadcast_to(channels, shape)
    if neurons is not None:
        if neurons.shape not in (shape, shape[1:]):
            fail(
                "neurons",
                needs=f"a mask of shape {shape[1:]}, or {shape}",
                got=f"shape {neurons.shape}",
                remedy="The mask has the layer's shape: see jaxcam.layers.",
            )
        mask = mask & jnp.broadcast_to(neurons, shape)
    return mask


def check_channels(channels: Array | None, count: int) -> None:
    """Refuse indices of feature maps that the layer does not have, where they are known."""
    indices = None if channels is None else known(channels)
    if indices is None or indices.dtype == bool:
        return
    wrong = indices[(indices < 0) | (indices >= count)].tolist()
    if wrong:
        needs = f"feature maps from 0 to {count - 1}"
        fail("channels", needs=needs, got=wrong, remedy="See jaxcam.layers for the layer's shape.")


def _is_empty(chosen: Array) -> bool:
    if chosen.size == 0 or chosen.dtype != bool:
        return chosen.size == 0
    values = known(chosen)
    return values is not None and not values.any()
