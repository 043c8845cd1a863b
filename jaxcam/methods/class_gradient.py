"""Class gradient visualisation of traces (arXiv 2009.08898): what raises the class."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def class_gradient() -> Gradient:
    """Show the positive gradient of the class at each sample: ``map_t = sum_k ReLU(u1_t^k)``.

    Meant for traces of one dimension, ``x: [batch, time, channel]`` at
    ``jaxcam.split(model, "input")``; traces have one channel as a rule. Any number of axes will do.
    One forward and one backward pass.

    The source's formula was not found: that it is the gradient of the class's score at the input,
    positive influence alone, is known, and that it is ``ReLU`` of it, without a product with the
    trace, is a reconstruction (`gradient_x_input` is the other reading). What is negative is not
    shown; it is in ``weights``, ``u1: [batch, time, channel]``.

    Right for where raising the signal raises the score now. Wrong for how much of the score is due
    to a sample (`jaxcam.integrate`), and blind where the network is saturated.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a[:, 0] - 2 * a[:, 1])
    >>> print(jaxcam.cam(split, jnp.ones((1, 2, 1)), jaxcam.methods.class_gradient(), 0).map)
    [[1. 0.]]
    """
    return Gradient("class_gradient", order=1, weigh=_weigh, scalar="u", draw=_draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1 * scale, None


def _draw(weights: Array, a: Array, mask: Array | None = None, /) -> Array:
    positive = jax.nn.relu(jnp.broadcast_to(weights, a.shape))
    return (positive if mask is None else jnp.where(mask, positive, 0)).sum(axis=-1)
