"""Gradient times input (Shrikumar et al., arXiv 1605.01713): first-order effects."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def gradient_x_input() -> Gradient:
    """Multiply each element of the input with its gradient: ``map_ij = sum_k u1_ij^k x_ij^k``.

    At the input, ``jaxcam.split(model, "input")``, ``signed`` is ``[batch, *spatial]`` and ``map``
    what is positive of it; k are the colours. One forward and one backward pass. At another layer
    it is HiResCAM, whose formula it has.

    Right where the score is affine from zero to the input: of a network of ReLUs without biases its
    sum is the score. Wrong elsewhere by what the biases and the kinks on the way hold; it is zero
    where the input is zero, so that "black" has no say, and where inputs are centred zero is the
    mean colour. `jaxcam.integrate` of it is Integrated Gradients, which is complete. The paper's
    name for it is from memory.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: jnp.maximum(a, 0).sum(axis=1))
    >>> x = jnp.array([[[2.0], [-1.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.gradient_x_input(), 0).map)
    [[2. 0.]]
    """
    return Gradient("gradient_x_input", order=1, weigh=_weigh, scalar="u", additive=True)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1 * scale, None
