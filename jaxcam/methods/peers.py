"""Grad-CAM++ by the conventions of other libraries, to reproduce figures that were made with them.

They agree on ``w_k = sum_ij alpha_ij ReLU(D1_ij)`` and depart from the papers in alpha, each in its
own way (`grad_cam_pp`). All take powers of the logit's gradient for derivatives, ``D_k = g^k``,
which is ``engine="power"`` with the default target. What they do to a map afterwards no `Gradient`
can hold: stretch it to the range 0 to 1 (`jaxcam.normalize`) and enlarge it (`jaxcam.upsample`).

Read in the sources of pytorch-grad-cam 1.5.7, torch-cam 0.5.0, tf-keras-vis 0.8.7, xplique 2.0.2.
The first two are held against the libraries themselves (``pytest -m parity``), and
``python -m benchmarks.faults`` measures what each departure does to a map.
"""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.methods.alphas import Alphas, pole_shares
from jaxcam.types import Derivatives, Poles

THIRD = ("sum A", "sum A D3", "mean A")
ALPHA = ("quotient", "numerator", "share")


@functools.cache
def pytorch_grad_cam_pp() -> Gradient:
    """Weigh as pytorch-grad-cam's ``GradCAMPlusPlus``: 1e-6 is added to the denominator.

    ``alpha = g^2 / (2 g^2 + (sum A) g^3 + 1e-6)`` depends on the unit of the score and of the
    activations. Where ``g^2`` is well below 1e-6 alpha fades from ``1 / r`` to ``10^6 g^2``: the
    gradients of a mean over 7x7 positions are there in many a ResNet.
    """
    return grad_cam_pp(eps=1e-6)._replace(name="pytorch_grad_cam_pp")


@functools.cache
def torch_cam_grad_cam_pp() -> Gradient:
    """Weigh as torch-cam's ``GradCAMpp``: alpha is ``g^2``, never divided.

    The division in place acts on the copy that a mask makes of a tensor, and is lost, so that
    ``w_k = sum g^2 ReLU(g)``: large gradients count with their third power.
    """
    return grad_cam_pp(alpha="numerator")._replace(name="torch_cam_grad_cam_pp")


@functools.cache
def torch_cam_smooth_grad_cam_pp() -> Gradient:
    """Weigh by the alpha of torch-cam's ``SmoothGradCAMpp``: summed index, and 1e-8 added.

    ``alpha = D2 / (2 D2 + sum_ab A_ab D3_ab + 1e-8)``. Without noise this is its map. With noise,
    `jaxcam.smooth` of it differs still: torch-cam takes ``ReLU(D1)`` and the activations of the map
    from the last noisy input, which no `Gradient` sees, and noise of one deviation for all images.
    """
    method = grad_cam_pp(third="sum A D3", eps=1e-8)
    return method._replace(name="torch_cam_smooth_grad_cam_pp")


@functools.cache
def tf_keras_vis_grad_cam_pp() -> Gradient:
    """Weigh as tf-keras-vis's ``GradcamPlusPlus``: alpha is divided by its sum over positions.

    The sum runs over all positions, those with ``D1 <= 0`` too. Its factor ``e^S``, which overflows
    past 88 and which no picture shows, is left out.
    """
    return grad_cam_pp(alpha="share")._replace(name="tf_keras_vis_grad_cam_pp")


@functools.cache
def xplique_grad_cam_pp() -> Gradient:
    """Weigh as xplique's ``GradCAMPP``: the mean of A in the place of its sum.

    ``alpha = g^2 / (2 g^2 + (mean A) g^3)``. Its mean over positions, in the place of the sum of
    ``alpha ReLU(g)``, is a constant factor and left out.
    """
    return grad_cam_pp(third="mean A")._replace(name="xplique_grad_cam_pp")


@functools.cache
def grad_cam_pp(*, third: str = "sum A", eps: float = 0.0, alpha: str = "quotient") -> Gradient:
    """Weigh by Grad-CAM++ with single conventions of other libraries, without a guard of poles::

        w_k = sum_ij alpha_ij ReLU(D1_ij)        alpha = D2 / (2 D2 + T + eps)

    Without options it is `jaxcam.methods.grad_cam_pp` with ``poles="raw"``.

    Args:
        third: what ``T`` is. ``sum A``: the papers', ``(sum_ab A_ab) D3_ij``. ``sum A D3``: the sum
            of products ``sum_ab A_ab D3_ab``, the same for all positions. ``mean A``:
            ``(mean_ab A_ab) D3_ij``.
        eps: added as it is, whatever the sign of the rest, in the network's own units of ``D2``.
        alpha: ``quotient``; ``numerator``, ``D2`` alone; or ``share``, the quotient divided by its
            sum over the positions of the feature map.

    Returns:
        `Gradient`; ``diagnostics.poles`` are those of its own quotient, None for ``numerator``.

    Raises:
        JaxcamError: another word, or an eps that is negative or no number.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: 1e-3 * a.sum(axis=(1, 2)))
    >>> x = jnp.ones((1, 2, 2, 1))
    >>> for method in (jaxcam.methods.grad_cam_pp(), jaxcam.methods.peers.pytorch_grad_cam_pp()):
    ...     result = jaxcam.cam(split, x, method, 0, engine="power")
    ...     print(f"{result.weights[0, 0]:.6f}")  # 4 positions: 4 alpha 1e-3
    0.001996
    0.001332
    """
    _check("third", third in THIRD, " or ".join(map(repr, THIRD)), third)
    number = isinstance(eps, int | float) and 0 <= eps < float("inf")
    _check("eps", number, "of at least 0", eps)
    _check("alpha", alpha in ALPHA, " or ".join(map(repr, ALPHA)), alpha)
    weigh = functools.partial(_weigh, third=third, eps=float(eps), alpha=alpha)
    return Gradient("peers.grad_cam_pp", order=3, weigh=weigh)


def alphas(d: Derivatives, a: Array, scale: Array, *, third: str, eps: float, alpha: str) -> Alphas:
    """Compute alpha of one example by the options of `grad_cam_pp`; arguments as for its weights.

    ``numerator`` has the unit of ``D2``, and comes with ``a`` measured in units of ``1 / scale``.
    """
    positions = tuple(range(a.ndim - 1))
    measured = a * scale
    if third == "sum A D3":
        term = (measured * d.d3).sum(positions, keepdims=True)
    elif third == "mean A":
        term = measured.mean(positions, keepdims=True) * d.d3
    else:
        term = measured.sum(positions, keepdims=True) * d.d3
    bottom = 2 * d.d2 + term
    if eps:
        bottom = bottom + eps * (1 / scale) * (1 / scale)
    used = d.d2 != 0
    quotient = jnp.where(used, d.d2, 0) / jnp.where(used, bottom, 1)
    alpha_ = quotient
    if alpha == "numerator":
        alpha_ = d.d2
    elif alpha == "share":
        total = quotient.sum(positions, keepdims=True)
        alpha_ = quotient / jnp.where(total == 0, 1, total)
    r = jnp.where(used, bottom, 0) / jnp.where(used, d.d2, 1)
    return Alphas(alpha_, r, quotient, jnp.zeros_like(used))


def _weigh(
    d: Derivatives, a: Array, scale: Array, *, third: str, eps: float, alpha: str
) -> tuple[Array, Poles | None]:
    weighed = alphas(d, a, scale, third=third, eps=eps, alpha=alpha)
    weights = (weighed.alpha * jnp.maximum(d.d1, 0)).sum(tuple(range(a.ndim - 1))) * scale
    if alpha == "numerator":
        return weights * scale * scale, None
    return weights, pole_shares(weighed, d)


def _check(name: str, valid: bool, needs: str, got: object) -> None:
    if not valid:
        needs = f"{name} {needs}"
        fail("peers.grad_cam_pp", needs=needs, got=repr(got), remedy="See its docstring.")
