"""Sensitivity maps (Simonyan et al., arXiv 1312.6034): the size of the gradient."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.types import Derivatives

OVER = {"max": jnp.max, "sum": jnp.sum}


@functools.cache
def sensitivity_map(*, over: str = "max") -> Gradient:
    """Show how much the log-score moves with each position: ``map_ij = max_k |u1_ij^k|``.

    Meant for the input, ``jaxcam.split(model, "input")``, where k are the colours; at any other
    layer they are its feature maps. Smoothed it is SmoothGrad (`smooth_grad`), of which the
    gradients are averaged and not their sizes.

    Args:
        over: what is made of the colours, ``max`` as in the paper or ``sum``.

    Raises:
        JaxcamError: another word.
    """
    if over not in OVER:
        needs = f"over {' or '.join(map(repr, OVER))}"
        fail("sensitivity_map", needs=needs, got=repr(over), remedy="See its docstring.")
    draw = functools.partial(_draw, over=over)
    return Gradient("sensitivity_map", order=1, weigh=_weigh, scalar="u", draw=draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1 * scale, None


def _draw(weights: Array, a: Array, mask: Array | None = None, /, *, over: str) -> Array:
    size = jnp.abs(jnp.broadcast_to(weights, a.shape))
    return OVER[over](size if mask is None else jnp.where(mask, size, 0), axis=-1)
