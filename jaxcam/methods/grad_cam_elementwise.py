"""GradCAMElementWise, as pytorch-grad-cam has it."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def grad_cam_elementwise() -> Gradient:
    """Sum what speaks for the class, element by element: ``map_ij = sum_k ReLU(D1_ij^k A_ij^k)``.

    `hires_cam` with the ReLU inside the sum: what speaks against the class at a position is left
    out and not subtracted, so that the map is larger, never blank where anything speaks for the
    class, and no account of the score. At a layer behind a ReLU it is `layer_cam`. ``weights`` are
    the gradients, ``[batch, *spatial, k]``. There is no paper; the source is pytorch-grad-cam.
    """
    return Gradient("grad_cam_elementwise", order=1, weigh=_weigh, draw=_draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1 * scale, None


def _draw(weights: Array, a: Array, mask: Array | None = None, /) -> Array:
    for_it = jax.nn.relu(jnp.broadcast_to(weights, a.shape) * a)
    return (for_it if mask is None else jnp.where(mask, for_it, 0)).sum(axis=-1)
