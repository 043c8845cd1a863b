"""LayerCAM (Jiang et al., IEEE Transactions on Image Processing 30, 2021)."""

import functools

import jax
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def layer_cam() -> Gradient:
    """Weigh each activation by its own positive gradient::

        w_ij^k = ReLU(D1_ij^k)        map = ReLU(sum_k w_ij^k A_ij^k)

    Made for early layers, where one weight for a whole feature map mixes what it does at different
    positions. Maps of several layers are joined by `jaxcam.fuse`; the paper first scales those of
    early layers by ``tanh(2 map / max map)``, which is left to the caller.
    """
    return Gradient("layer_cam", order=1, weigh=_weigh)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return jax.nn.relu(d.d1) * scale, None
