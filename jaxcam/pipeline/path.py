"""Nodes of a path from a baseline; nothing else knows about paths.

On the straight path ``A_t = B + t (A - B)`` the score changes by what its gradient says::

    u(A) - u(B) = integral over t of  sum_i (A - B)_i u1_i(A_t)  =~  sum_n w_n sum_i (A - B)_i u1_i

whatever the score, so that a mean of gradients over the path divides the whole difference among the
elements (Sundararajan et al., arXiv 1703.01365), up to the error of the quadrature.

gauss: Gauss and Legendre's nodes, exact for polynomials of degree ``2 n - 1``: the error falls
    faster than any power where the score is smooth.
midpoint: the middles of ``n`` equal parts. Behind kinks the gradient jumps along the path, no rule
    gains from smoothness, and equal parts find each jump to ``1 / n``. (`benchmarks.nodes`)
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.precision import widen

GAUSS, MIDPOINT = "gauss", "midpoint"
RULES = (GAUSS, MIDPOINT)


def nodes(rule: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Give where on the path from 0 to 1 the nodes are, and their weights, which sum to one."""
    if rule == GAUSS:
        where, weights = np.polynomial.legendre.leggauss(count)
        return (where + 1) / 2, weights / 2
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


def between(start: Array, end: Array, share: Array) -> Array:
    """Give the point at ``share`` of the way, in the dtype of ``start``."""
    if not jnp.issubdtype(start.dtype, jnp.floating):
        return start
    begin, finish = widen(start), widen(end)
    return (begin + share.astype(begin.dtype) * (finish - begin)).astype(start.dtype)
