"""Guided Backprop (Springenberg et al., arXiv 1412.6806): only positive gradients."""

import functools

from jax import Array
from jax.tree_util import Partial

from jaxcam.contracts import Gradient
from jaxcam.jaxprs.relus import with_relus
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.types import Split, held


@functools.cache
def guided_backprop(*, over: str = "max") -> Gradient:
    """Show ``max_k |r_ij^k|``: the gradient, where each ReLU passes back ``p [p > 0] [x > 0]``.

    ``p`` is what comes back to a ReLU from above, and ``x`` what went into it. Meant for the input,
    ``jaxcam.split(model, "input")``; at another layer the ReLUs behind it count. ``r`` itself,
    signed, ``[batch, *spatial, k]``, is ``weights``. One forward and one backward pass. The ReLUs
    are found in the program, whoever wrote them (`jaxcam.jaxprs.relus`); the upper end of a ReLU6
    keeps its derivative. Scores, and their own derivatives, stay as they are. A hand-written
    derivative of a ReLU is replaced.

    Right as a picture of which edges excite the network at all. Wrong as an explanation of a class:
    the map hardly depends on it. Nie et al. (arXiv 1805.07039, from memory) show that it recovers
    the image in part; Adebayo et al. (arXiv 1810.03292) that it does not change when higher layers
    are randomised (their errata: higher ones, not all). Hold it against another class before use.

    Args:
        over: what is made of the colours, ``max`` or ``sum`` of their sizes.

    Raises:
        JaxcamError: when called, a network without any ReLU behind the layer (GELU, SiLU), or one
            that may have a ReLU in a form that is not recognised (a leaky one, a hard sigmoid).

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> head = jnp.array([[1.0, -1.0]])
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: jax.nn.relu(a).sum(1) @ head)
    >>> x = jnp.array([[[2.0], [-1.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.guided_backprop(), 0).map)
    [[1. 0.]]
    """
    return sensitivity_map(over=over)._replace(name="guided_backprop", change=guided)


def guided(split: Split) -> Split:
    """Give the network with guided ReLUs behind its layer."""
    return Split(split.features, Partial(_scores, held(split.scores)))


def _scores(scores: Partial, a: Array, x: Array) -> Array:
    return with_relus(lambda a: scores(a, x), "guided", "guided_backprop")(a)
