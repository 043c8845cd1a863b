"""VarGrad (Adebayo et al., arXiv 1810.03292): the variance of noisy gradients."""

import functools

import jax
from jax import Array

from jaxcam.contracts import Gradient
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.types import Derivatives


@functools.cache
def var_grad(*, over: str = "max") -> Gradient:
    """Show how much noise moves the gradient: ``map_ij = max_k (mean_n u1_n^2 - (mean_n u1_n)^2)``.

    To be averaged by `smooth_grad` (``methods.make`` of this name does it), n forward and backward
    passes and a clean one; of one input it is zero. ``weights`` are the variances, ``[batch,
    *spatial, k]``; over n samples, not n - 1, as captum and xplique have it (from memory).

    Large where the score bends, not where it depends on the input: a linear score has none,
    whatever it looks at, and the map is then blank. As a difference of means it is good to about
    1e-6 of the mean square in float32, and what falls below zero by rounding is zero.

    Args:
        over: what is made of the colours, ``max`` or ``sum``.

    >>> import jaxcam
    >>> method = jaxcam.methods.smooth_grad(jaxcam.methods.var_grad())
    """
    method = sensitivity_map(over=over)
    return method._replace(name="var_grad", weigh=_weigh, scalar="u1^k")


def _weigh(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return jax.nn.relu(d.d2 - d.d1**2) * scale**2, None
