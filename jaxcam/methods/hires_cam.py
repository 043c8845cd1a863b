"""HiResCAM (arXiv 2011.08891): gradient times activation."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def hires_cam() -> Gradient:
    """Weigh each activation by its own gradient, ``w_ij^k = u1_ij^k``.

    The gradient is that of the log-score ``u`` (the paper's logit, for the default target). What
    removing an activation does at first order (`taylor_cam` of order one); the same map as Grad-CAM
    times the number of positions where the score sees the layer through global pooling alone.
    On a path (`jaxcam.integrate`) it is complete: Integrated Gradients at the layer.
    """
    return Gradient("hires_cam", order=1, weigh=_weigh, scalar="u", additive=True)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1 * scale, None
