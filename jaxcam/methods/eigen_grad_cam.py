"""EigenGradCAM: Eigen-CAM of gradient times activation, which knows the class."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.methods.eigen_cam import draw
from jaxcam.methods.principal import component
from jaxcam.types import Derivatives


@functools.cache
def eigen_grad_cam() -> Gradient:
    """Show the first principal component of gradient times activation over positions::

        G^k = u1^k A^k        map = ReLU(sum_k v_k (G^k - mean_ij G^k))

    ``v`` is the first principal axis of ``G``, as `eigen_cam` has that of ``A``, with
    ``sum_k v_k >= 0``: the map goes with the mean of ``G``, which is HiResCAM's map divided by the
    number of feature maps. ``CAM.weights`` are ``v_k u1_ij^k``, one for each element. The gradient
    is that of the log-score ``u``.

    Source: pytorch-grad-cam, which leaves the sign to the decomposition. Behind global pooling
    alone the gradient is constant, and the map Eigen-CAM's of feature maps weighted by the class.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(axis=1) @ jnp.array([[2.0], [0.0]]))
    >>> x = jnp.array([[[0.0, 1.0], [0.0, 9.0], [3.0, 5.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.eigen_grad_cam()).map)
    [[0. 0. 4.]]
    """
    return Gradient("eigen_grad_cam", order=1, weigh=_weigh, scalar="u", draw=draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    u1 = d.d1 * scale
    axis = jnp.broadcast_to(component(u1 * a)[0], a.shape)
    return axis * u1, None
