"""Recipro-CAM (Byun and Lee, arXiv 2209.14074): what the head makes of one position alone."""

import functools
import math

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Queries
from jaxcam.methods.outcomes import probability


@functools.cache
def recipro_cam(*, gaussian: bool = False) -> Queries:
    """Show each position the probability of the class when the layer has nothing else.

    With ``M_ij`` one at position ``ij`` and zero elsewhere, and ``p_c`` the softmax of the scores::

        map_ij = p_c(scores(A M_ij))

    No gradient is taken: one pass of the head for each position. The papers' figures stretch the
    map to the range 0 to 1 (`jaxcam.normalize`); ``p_c`` itself is kept here. There are no weights
    of feature maps, ``CAM.weights`` is None.

    Args:
        gaussian: let the neighbours of a position pass as well, ``M_ij`` a 3x3 bell
            ``[1 2 1; 2 4 2; 1 2 1] / 4``, one in its middle. Off by default in both of the authors'
            repositories; they divide by 16, which scales the activations by a quarter.

    Raises:
        JaxcamError: when called, scores that are not ``[batch, classes]`` of two classes or more,
            or a target that is not a class.
    """
    change = functools.partial(_alone, gaussian=bool(gaussian))
    return Queries("recipro_cam", "layer", _count, change, probability("recipro_cam"), _weigh)


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def _alone(a: Array, n: Array, *, gaussian: bool) -> Array:
    """Keep the ``n``-th position of ``a: [*spatial, k]`` alone."""
    spatial = a.shape[:-1]
    place = jnp.unravel_index(n, spatial)
    mask = jnp.ones((), a.dtype)
    for axis, (size, here) in enumerate(zip(spatial, place, strict=True)):
        away = jnp.abs(jnp.arange(size, dtype=jnp.int32) - here.astype(jnp.int32))
        along = jnp.where(away == 0, 1.0, jnp.where(away == 1, 0.5 if gaussian else 0.0, 0.0))
        shape = [size if other == axis else 1 for other in range(a.ndim)]
        mask = mask * along.astype(a.dtype).reshape(shape)
    return a * mask


def _weigh(outcomes: Array, clean: Array, a: Array) -> tuple[None, Array]:
    return None, outcomes.reshape(a.shape[:-1])
