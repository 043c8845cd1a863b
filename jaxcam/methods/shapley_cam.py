"""ShapleyCAM (arXiv 2501.06261): Shapley values of the score's Taylor series."""

import functools

from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.types import Derivatives

ORDERS = (2, 3)


@functools.cache
def shapley_cam(*, order: int = 2, elementwise: bool = False) -> Gradient:
    """Weigh by the Shapley value of each activation in the Taylor series of the log-score at A.

    Of the game "activation or zero" with the series as its worth, to second and to third order,
    with ``H`` the Hessian of ``u`` and ``T`` its third derivatives, all at A::

        order 2:  s = u1 - H a / 2
        order 3:  s = u1 - H a / 2 + T[a, a] / 6 + (q - a p) / 12
                  p_i = sum_j T_iij a_j    q_i = sum_j T_ijj a_j^2

        w_k = mean_ij s_ij^k    map = ReLU(sum_k w_k A^k)    elementwise: w_ij^k = s_ij^k

    ``H a`` is one Hessian-vector product, whatever the size of the layer. The third order is
    derived here, not in the paper: ``a s`` are the exact Shapley values of a cubic; ``p`` and
    ``q`` are derivatives of the exact ``u2``, and cost what that costs, several times.

    Behind ReLU networks ``H`` is zero almost everywhere, and the method is Grad-CAM, or HiResCAM
    element by element: where that is proved the report says so, and one gradient is taken. It is
    the expansion point, not the order, that errs behind smooth, saturated tails: `shapley` samples
    the values themselves, and `integrate` follows a path.

    Args:
        order: 2, as in the paper, or 3.
        elementwise: leave out the mean over positions.

    Raises:
        JaxcamError: another order.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> pairs = jaxcam.Split(lambda x: x, lambda a, x: a[:, 0] * a[:, 1] + a[:, 2])
    >>> x = jnp.array([[[2.0], [3.0], [5.0]]])
    >>> print(jaxcam.cam(pairs, x, jaxcam.methods.shapley_cam(elementwise=True)).map)
    [[3. 3. 5.]]
    """
    if order not in ORDERS:
        fail("shapley_cam", needs="order 2 or 3", got=repr(order), remedy="Default: 2.")
    weigh = functools.partial(_weigh, elementwise=elementwise)
    return Gradient("shapley_cam", order=order, weigh=weigh, scalar="u along a", signed=True)


def _weigh(d: Derivatives, a: Array, scale: Array, *, elementwise: bool) -> tuple[Array, None]:
    shares = (d.d1 - d.d2 / 2 if d.d3 is None else d.d1 - d.d2 / 2 + d.d3 / 6) * scale
    return shares if elementwise else shares.mean(axis=tuple(range(a.ndim - 1))), None
