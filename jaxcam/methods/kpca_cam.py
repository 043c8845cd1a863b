"""KPCA-CAM (arXiv 2410.00267): the first kernel principal component of the activations."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.methods.principal import leading, signed
from jaxcam.types import Derivatives


def _rbf(products: Array) -> Array:
    squares = jnp.diagonal(products)
    return jnp.exp(2 * products - squares[:, None] - squares[None, :])


KERNELS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda products: products,
    "poly": lambda products: (products + 1) ** 3,
    "rbf": _rbf,
    "sigmoid": lambda products: jnp.tanh(products + 1),
}


@functools.cache
def kpca_cam(*, kernel: str = "sigmoid", gamma: float | None = None) -> Gradient:
    """Show the first kernel principal component of the activations over positions.

    With ``C_p: [k]`` the activations of position ``p`` less their means over positions, and ``K``
    the kernel centred in both of its axes, the map is that of the leading eigenvector::

        K_pq = kernel(gamma C_p . C_q)    K q = lambda q    map = ReLU(sqrt(lambda) q)

    The kernels and their constants are scikit-learn's: ``linear`` (`eigen_cam`'s map), ``poly``
    ``(s + 1)^3``, ``rbf`` ``exp(-gamma |C_p - C_q|^2)``, ``sigmoid`` ``tanh(s + 1)``, with
    ``s = gamma C_p . C_q``. The sign is the one by which the map goes with the mean of the feature
    maps over ``k``, as `eigen_cam`'s does. One forward pass: no gradient and no class.

    The map is no weighted sum of feature maps: ``CAM.weights`` are ones, and ``channels`` and
    ``neurons`` choose of which activations it is the component. The formula is pytorch-grad-cam's
    from memory, whose sign is the decomposition's.

    Args:
        kernel: one of the four.
        gamma: what products are multiplied by; None for one over the number of feature maps.

    Raises:
        JaxcamError: another kernel; a gamma that is not above zero.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(axis=1))
    >>> x = jnp.array([[[0.0], [0.0], [3.0]]])
    >>> map = jaxcam.cam(split, x, jaxcam.methods.kpca_cam(kernel="linear", gamma=1.0)).map
    >>> [round(float(value), 3) for value in map[0]]
    [0.0, 0.0, 2.0]
    """
    if kernel not in KERNELS:
        needs = f"a kernel of {', '.join(KERNELS)}"
        fail("kpca_cam", needs=needs, got=repr(kernel), remedy="See its docstring.")
    if gamma is not None and not 0 < gamma < float("inf"):
        remedy = "None divides by the number of feature maps."
        fail("kpca_cam", needs="a gamma above 0", got=repr(gamma), remedy=remedy)
    draw = functools.partial(_draw, kernel=kernel, gamma=gamma)
    return Gradient("kpca_cam", order=0, weigh=_weigh, scalar="u", draw=draw)


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    del d, scale
    return jnp.ones(a.shape[-1], a.dtype), None


def _draw(
    weights: Array, a: Array, mask: Array | None = None, /, *, kernel: str, gamma: float | None
) -> Array:
    rows = (a if mask is None else jnp.where(mask, a, 0)).reshape(-1, a.shape[-1]) * weights[None]
    rows = rows - rows.mean(axis=0, keepdims=True)
    similar = KERNELS[kernel](rows @ rows.T * (1 / rows.shape[1] if gamma is None else gamma))
    means = (similar.mean(axis=axis, keepdims=True) for axis in (0, 1))
    centred = similar - sum(means) + similar.mean()
    vector = leading(centred)
    size = vector @ centred @ vector
    level = jnp.finfo(a.dtype).eps * len(rows) * jnp.abs(similar).max()
    scaled = jnp.where(size > level, jnp.sqrt(jnp.where(size > level, size, 1)), 0)
    return (scaled * signed(vector, vector @ rows.sum(axis=1))).reshape(a.shape[:-1])
