"""Deconvolution (Zeiler and Fergus, arXiv 1311.2901): what comes back, rectified."""

import functools

from jax import Array
from jax.tree_util import Partial

from jaxcam.contracts import Gradient
from jaxcam.jaxprs.relus import with_relus
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.types import Split, held


@functools.cache
def deconvolution(*, over: str = "max") -> Gradient:
    """Show ``max_k |r_ij^k|``: the gradient, where each ReLU passes back ``p [p > 0]``.

    ``p`` is what comes back to a ReLU from above; what went into it does not matter. Max-pooling
    passes back to its maxima, as in the paper, and the upper end of a ReLU6 keeps its derivative.
    Meant for the input, ``jaxcam.split(model, "input")``; at another layer the ReLUs behind it
    count. ``r`` itself, signed, ``[batch, *spatial, k]``, is ``weights``. One forward and one
    backward pass. The ReLUs are found in the program, whoever wrote them (`jaxcam.jaxprs.relus`).

    Right for what a unit looks for, through the switches of max-pooling. Wrong as an explanation:
    without pooling the map is the same for every picture, and it is nearly independent of the class
    (Nie et al., arXiv 1805.07039, from memory). Noise that it does not depend on is not drawn.

    Args:
        over: what is made of the colours, ``max`` or ``sum`` of their sizes.

    Raises:
        JaxcamError: when called, as for `guided_backprop`.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> head = jnp.array([[1.0, -1.0]])
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: jax.nn.relu(a).sum(1) @ head)
    >>> x = jnp.array([[[2.0], [-1.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.deconvolution(), 0).map)
    [[1. 1.]]
    """
    return sensitivity_map(over=over)._replace(name="deconvolution", change=_change)


def _change(split: Split) -> Split:
    return Split(split.features, Partial(_scores, held(split.scores)))


def _scores(scores: Partial, a: Array, x: Array) -> Array:
    return with_relus(lambda a: scores(a, x), "deconvolution", "deconvolution")(a)
