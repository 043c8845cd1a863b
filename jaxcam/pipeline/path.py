"""Nodes of a path from a baseline, and where it starts; nothing else knows about paths.

On the straight path ``A_t = B + t (A - B)`` the score changes by what its gradient says::

    u(A) - u(B) = integral over t of  sum_i (A - B)_i u1_i(A_t)  =~  sum_n w_n sum_i (A - B)_i u1_i

whatever the score, so that a mean of gradients over the path divides the whole difference among the
elements (Sundararajan et al., arXiv 1703.01365), up to the error of the quadrature.

gauss: Gauss and Legendre's nodes, exact for polynomials of degree ``2 n - 1``: the error falls
    faster than any power where the score is smooth.
midpoint: the middles of ``n`` equal parts. Behind kinks the gradient jumps along the path, no rule
    gains from smoothness, and equal parts find each jump to ``1 / n``. (`benchmarks.nodes`)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.door import as_array
from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Path
from jaxcam.errors import fail

GAUSS, MIDPOINT = "gauss", "midpoint"
RULES = (GAUSS, MIDPOINT)


def nodes(rule: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Give where on the path from 0 to 1 the nodes are, and their weights, which sum to one."""
    if rule == GAUSS:
        where, weights = np.polynomial.legendre.leggauss(count)
        return (where + 1) / 2, weights / 2
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


def baseline_of(path: Path, x: Inputs) -> Any:
    """Give the inputs to start from, like ``x``: zeros by default."""
    if path.baseline is None:
        return jax.tree.map(_zeros, x)
    given = jax.tree.map(lambda leaf: as_array(leaf, "integrate: baseline"), path.baseline)
    if jax.tree.structure(given) != jax.tree.structure(x):
        _misfit("as many arrays as x has, in the same order", jax.tree.structure(given))
    return jax.tree.map(_like, given, x)


def _zeros(x: Array) -> Array:
    """No light; names and numbers of things (integers) have no zero, and stay."""
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _like(given: Array, x: Array) -> Array:
    if given.shape not in (x.shape, x.shape[1:]):
        _misfit(f"an input of shape {x.shape[1:]}, or one for each: {x.shape}", given.shape)
    return jnp.broadcast_to(given.astype(x.dtype), x.shape)


def laid_out(start: Array, a: Array) -> Array:
    """Give activations to start from, for a batch: shaped like ``a: [batch, *spatial, k]``."""
    if start.shape not in (a.shape, a.shape[1:], a.shape[-1:]):
        _misfit(f"activations of shape {a.shape[1:]}, {a.shape[-1:]} or {a.shape}", start.shape)
    return jnp.broadcast_to(start.astype(a.dtype), a.shape)


def between(start: Array, end: Array, share: Array) -> Array:
    """Give the point at ``share`` of the way, in the dtype of ``start``."""
    if not jnp.issubdtype(start.dtype, jnp.floating):
        return start
    begin, finish = widen(start), widen(end)
    return (begin + share.astype(begin.dtype) * (finish - begin)).astype(start.dtype)


def _misfit(needs: str, got: Any) -> None:
    remedy = (
        "baseline=None is an input of zeros; one input, or a batch of them, starts there; "
        "('activations', array) starts at activations of the layer."
    )
    fail("integrate", needs=f"a baseline: {needs}", got=got, remedy=remedy)
