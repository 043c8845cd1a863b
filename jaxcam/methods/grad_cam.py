"""Grad-CAM (arXiv 1610.02391)."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.types import Derivatives


@functools.cache
def grad_cam() -> Gradient:
    """Weigh each feature map by its mean gradient: ``w_k = mean_ij D1``.

    The default target gives ``D1 = e^{S_c} g`` with the positive ``e^{S_c}`` divided out, so the
    weights are those of the logit, the paper's scalar.
    """
    return Gradient("grad_cam", order=1, weigh=_weigh, signed=True)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return d.d1.mean(axis=tuple(range(a.ndim - 1))) * scale, None
