"""Grad-CAM with positive gradients (Lerma and Lucas, arXiv 2205.10838)."""

import functools

import jax
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def grad_cam_plus() -> Gradient:
    """Weigh each feature map by its mean positive gradient: ``w_k = mean_ij ReLU(D1)``.

    The control of Grad-CAM++: Lerma and Lucas show that with the usual alphas, nearly constant
    where the gradient is positive, it hardly differs from this, and needs no higher derivative.
    Like Grad-CAM++, and unlike Grad-CAM, it does not see what speaks against the class.
    """
    return Gradient("grad_cam_plus", order=1, weigh=_weigh)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return jax.nn.relu(d.d1).mean(axis=tuple(range(a.ndim - 1))) * scale, None
