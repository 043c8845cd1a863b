"""FEM, the feature explanation method (Fuad et al., IPTA 2020): how often a feature stands out."""

import functools
import numbers

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.types import Derivatives


@functools.cache
def fem(*, deviations: float = 2.0) -> Gradient:
    """Weigh each feature map by the share of positions at which it stands out::

        w_k = mean_ij [A_ij^k > mean_ij A^k + deviations * std_ij A^k]    map = ReLU(sum_k w_k A^k)

    The standard deviation is that of all positions, divided by their number. By Cantelli's
    inequality no weight is above ``1 / (1 + deviations^2)``, and on a layer of few positions
    (below six, for two deviations) no activation can stand out at all: that map is blank.

    One forward pass: no gradient, and no class; every target has the same map. The formula is
    pytorch-grad-cam's; the paper is said to sum the binary maps in place of the activations.

    Args:
        deviations: how far above its mean a feature stands out, in standard deviations.

    Raises:
        JaxcamError: deviations that are no number of zero or more.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(axis=1))
    >>> x = jnp.array([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [4.0, 1.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.fem(deviations=1.5)).weights)
    [[0.25 0.  ]]
    """
    if not isinstance(deviations, numbers.Real) or not 0 <= deviations < float("inf"):
        needs = "deviations of 0 or more, a number"
        fail("fem", needs=needs, got=repr(deviations), remedy="Default: 2.")
    weigh = functools.partial(_weigh, deviations=float(deviations))
    return Gradient("fem", order=0, weigh=weigh, scalar="u")


def _weigh(d: Derivatives, a: Array, scale: Array, *, deviations: float) -> tuple[Array, None]:
    del d, scale
    positions = tuple(range(a.ndim - 1))
    mean, spread = (f(a, axis=positions, keepdims=True) for f in (jnp.mean, jnp.std))
    above = a > mean + deviations * spread
    return above.mean(axis=positions, dtype=a.dtype), None
