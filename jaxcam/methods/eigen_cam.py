"""Eigen-CAM (Muhammad and Yeasin, arXiv 2008.00299): what the activations have most in common."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.methods.principal import component
from jaxcam.types import Derivatives


@functools.cache
def eigen_cam() -> Gradient:
    """Show the first principal component of the activations over positions::

        map = ReLU(sum_k v_k (A^k - mean_ij A^k))

    ``v: [k]``, of length one, is the direction in which the activations of the positions vary
    most, and ``CAM.weights``; its sign is the one with ``sum_k v_k >= 0``, by which the map goes
    with the mean of the feature maps (`jaxcam.methods.principal.component`).

    One forward pass: no gradient, and no class. Every target has the same map, and it says where
    the layer is active, not what the network makes of it; its derivative by the weights behind the
    layer is zero. The formula is pytorch-grad-cam's, whose code leaves the sign to the
    decomposition; the paper's projects without the means.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(axis=1))
    >>> x = jnp.array([[[0.0, 1.0], [0.0, 1.0], [3.0, 5.0]]])
    >>> weights = jaxcam.cam(split, x, jaxcam.methods.eigen_cam()).weights
    >>> [round(float(w), 3) for w in weights[0]]
    [0.6, 0.8]
    """
    return Gradient("eigen_cam", order=0, weigh=_weigh, scalar="u", draw=draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    del d, scale
    return component(a)[0], None


def draw(weights: Array, a: Array, mask: Array | None = None) -> Array:
    """Sum the weighted feature maps, each less its mean over positions."""
    weighted = jnp.broadcast_to(weights, a.shape) * a
    centred = weighted - weighted.mean(axis=tuple(range(a.ndim - 1)), keepdims=True)
    return (centred if mask is None else jnp.where(mask, centred, 0)).sum(axis=-1)
