"""CAM (Zhou et al., arXiv 1512.04150): the weights of the last layer, behind global pooling."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def cam() -> Gradient:
    """Weigh feature maps by the class's row of the dense layer behind global average pooling::

        S_c = sum_k w_k mean_ij A^k + b_c        map = ReLU(sum_k w_k A^k)

    Defined where the score is that, and refused elsewhere: it is read off the program that the
    gradient is the same at every position and depends on no activation. Then
    ``w_k = sum_ij dS_c/dA_ij^k``, whatever the layers between are called, and CAM is Grad-CAM, and
    HiResCAM, times the number of positions. The paper has no ReLU; `CAM.signed` is its map, and
    sums to the number of positions times ``S_c - b_c``.

    Raises:
        JaxcamError: when called, a layer behind which there is more than pooling and a dense layer,
            or a target whose log-score is not linear in the scores, such as ``softmax``.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> dense = jnp.array([[1.0, -1.0], [0.5, 2.0]])
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.mean(axis=(1, 2)) @ dense)
    >>> result = jaxcam.cam(split, jnp.ones((1, 4, 4, 2)), jaxcam.methods.cam(), 1)
    >>> print(result.weights)
    [[-1.  2.]]
    """
    return Gradient("cam", order=1, weigh=_weigh, scalar="u", linear=True, signed=True)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1.sum(axis=tuple(range(a.ndim - 1))) * scale, None
