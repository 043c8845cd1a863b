"""Taylor-CAM: what the score loses when activations are removed, to third order."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.types import Derivatives

ORDERS = (1, 2, 3)


@functools.cache
def taylor_cam(*, order: int = 3) -> Gradient:
    """Map what each activation is worth: the log-score's loss when it alone is set to zero.

    With ``a = A_ij^k`` and ``u1, u2, u3`` the derivatives of ``u`` along it, Taylor's theorem at
    ``A`` gives the effect of that step, of which the map sums the terms up to ``order``::

        u(A) - u(A without a) = u1 a - u2 a^2 / 2 + u3 a^3 / 6 + O(a^4)
        w_ij^k = u1 - u2 a / 2 + u3 a^2 / 6        map = ReLU(sum_k w_ij^k A_ij^k)

    ``order=1`` is HiResCAM, gradient times activation (arXiv 2011.08891). The sum over ``k`` is one
    of removals one at a time, not the removal of a position's activations together.

    It weighs derivatives of ``u`` for every target, also where ``Y = e^u``: the effect on a logit
    for `exp_logit` and `logit`, on ``log p`` for `softmax`. There is no alpha, hence neither poles
    (``diagnostics.poles`` is None) nor a 0/0: behind a piecewise affine tail ``u2 = u3 = 0``, all
    orders are the same map, and what is left of the true effect is kinks crossed on the way.

    Smoothed (`jaxcam.smooth`), ``u1``, ``u2`` and ``u3`` are averaged over the noisy inputs, each
    on its own and weighted like those of other methods; ``a`` is the clean activation.

    Args:
        order: how many terms, 1 to 3.

    Returns:
        `Gradient`, whose ``CAM.weights`` are one for each element, ``[batch, *spatial, k]``.

    Raises:
        JaxcamError: any other order.

    `jaxcam.check_removal` compares it with true removals on your network.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> cubes = jaxcam.Split(features=lambda x: x, scores=lambda a, x: (a**3).sum(1))
    >>> x = jnp.array([[[1.0], [2.0], [3.0]]])
    >>> for order in (1, 3):  # without a, the sum of a^3 is smaller by a^3
    ...     result = jaxcam.cam(cubes, x, jaxcam.methods.taylor_cam(order=order))
    ...     print(order, result.map)
    1 [[ 3. 24. 81.]]
    3 [[ 1.  8. 27.]]
    """
    if order not in ORDERS:
        fail("taylor_cam", needs="order 1, 2 or 3", got=repr(order), remedy="Default: 3.")
    weigh = functools.partial(_weigh, order=order)
    return Gradient("taylor_cam", order=order, weigh=weigh, scalar="u", additive=True)


def _weigh(d: Derivatives, a: Array, scale: Array, *, order: int) -> tuple[Array, None]:
    # As (u3 a) a, never u3 (a a): what lies between u3 and u3 a^2 fits wherever both do.
    step = a * scale
    weights = d.d1
    if order > 1:
        weights = weights - d.d2 * step / 2
    if order > 2:
        weights = weights + d.d3 * step * step / 6
    return weights * scale, None
