"""SmoothGrad squared (Hooker et al., arXiv 1806.10758): the mean square of noisy gradients."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.types import Derivatives


@functools.cache
def smooth_grad_squared(*, over: str = "max") -> Gradient:
    """Square the gradients before they are averaged: ``map_ij = max_k mean_n (u1_n^k)^2``.

    Of one input the squared gradient; to be averaged by `smooth_grad` (``methods.make`` of this
    name does it): ``smooth_grad(smooth_grad_squared())``, n forward and backward passes and a clean
    one. ``weights`` are the mean squares, ``[batch, *spatial, k]``, in squared units of the
    gradient.

    It has no sign left, and no limit at which it is a derivative: large where the gradient is large
    or restless, ``(mean u1)^2 + var_grad``. Hooker et al. find it far better than SmoothGrad at
    picking pixels whose removal hurts a retrained network. In float32 gradients below 1e-19 square
    to zero.

    Args:
        over: what is made of the colours, ``max`` or ``sum``.

    >>> import jaxcam
    >>> method = jaxcam.methods.smooth_grad(jaxcam.methods.smooth_grad_squared())
    """
    method = sensitivity_map(over=over)
    return method._replace(name="smooth_grad_squared", weigh=_weigh, scalar="u1^k")


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d2 * scale**2, None
