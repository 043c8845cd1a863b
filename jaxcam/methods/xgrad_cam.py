"""XGrad-CAM (Fu et al., arXiv 2008.02312)."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def xgrad_cam() -> Gradient:
    """Weigh each feature map by the mean gradient that its activations see::

        w_k = sum_ij u1_ij^k A_ij^k / sum_ij A_ij^k        map = ReLU(sum_k w_k A_ij^k)

    So chosen that the weighted sums of feature maps add up to ``sum_ijk u1 A``, which is the score
    where the head is linear without biases: before the ReLU the map sums to what `hires_cam`'s
    does, spread over each feature map by its activations. The gradient is that of the log-score
    ``u``.

    Meant for layers behind a ReLU. Where activations are negative too their sum may vanish while
    the numerator does not, and the weight grows without bound; the published code adds 1e-6 to the
    sum, which changes the sign of small negative ones. Here the quotient is as it stands, and zero
    for a feature map whose sum is zero.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: (a[:, 0] * 2 + a[:, 1]) @ jnp.ones((1, 2)))
    >>> x = jnp.array([[[1.0], [3.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.xgrad_cam(), 0).weights)
    [[1.25]]
    """
    return Gradient("xgrad_cam", order=1, weigh=_weigh, scalar="u", signed=True)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    positions = tuple(range(a.ndim - 1))
    total = a.sum(axis=positions)
    there = total != 0
    owed = (d.d1 * scale * a).sum(axis=positions)
    return jnp.where(there, owed / jnp.where(there, total, 1), 0), None
