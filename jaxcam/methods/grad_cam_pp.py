"""Grad-CAM++ (arXiv 1710.11063), and averaged over noise Smooth Grad-CAM++ (arXiv 1908.01224)."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.methods.alphas import alphas, pole_shares
from jaxcam.types import Derivatives, Poles

NUMERATORS = ("d2", "d1")
POLES = ("bounded", "raw")


@functools.cache
def grad_cam_pp(*, numerator: str = "d2", poles: str = "bounded") -> Gradient:
    """Weigh each feature map by its positive gradients, each by its alpha::

        w_k = sum_ij alpha_ij ReLU(D1_ij)        alpha = D2 / (2 D2 + (sum A) D3)

    numerator, poles: see `jaxcam.methods.alphas.alphas`.
    """
    _check("numerator", numerator, NUMERATORS)
    _check("poles", poles, POLES)
    weigh = functools.partial(_weigh, numerator=numerator, poles=poles)
    return Gradient("grad_cam_pp", order=3, weigh=weigh)


def _weigh(
    d: Derivatives, a: Array, scale: Array, *, numerator: str, poles: str
) -> tuple[Array, Poles]:
    # alpha = 1 / r has no unit, so that w has D1's; with D1 above, alpha has that of 1 / D1.
    weighed = alphas(d, a * scale, numerator=numerator, poles=poles)
    unit = scale if numerator == "d2" else jnp.ones_like(scale)
    weights = (weighed.alpha * jnp.maximum(d.d1, 0)).sum(axis=tuple(range(a.ndim - 1)))
    return weights * unit, pole_shares(weighed, d)


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        needs = " or ".join(map(repr, allowed))
        fail("grad_cam_pp", needs=f"{name} {needs}", got=repr(value), remedy="See its docstring.")
