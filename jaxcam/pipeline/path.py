"""Nodes of a path from a baseline; nothing else knows about paths.

On the straight path ``A_t = B + t (A - B)`` the score changes by what its gradient says::

    u(A) - u(B) = integral over t of  sum_i (A - B)_i u1_i(A_t)  =~  sum_n w_n sum_i (A - B)_i u1_i

whatever the score, so that a mean of gradients over the path divides the whole difference among the
elements (Sundararajan et al., arXiv 1703.01365), up to the error of the quadrature.

gauss: Gauss and Legendre's nodes, exact for polynomials of degree ``2 n - 1``: the error falls
    faster than any power where the score is smooth.
midpoint: the middles of ``n`` equal parts. Behind kinks the gradient jumps along the path, no rule
    gains from smoothness, and equal parts find each jump to ``1 / n``. (`benchmarks.nodes`)

Up to a tolerance nodes come in levels, of 4, 8, 16 ... of Gauss's, each anew, since they do not
nest; of 4, 12, 36 ... midpoints, among which are those of the level before. What a level changes in
the map is what the level before was off by, all but the error of the new one, and so a bound for
that, with room: Gauss's errors fall by far more than half from level to level, those behind kinks
to about a third. That is no proof: jumps may lie where two levels are off alike.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.precision import widen

GAUSS, MIDPOINT = "gauss", "midpoint"
RULES = (GAUSS, MIDPOINT)
FIRST = 4  # nodes of the first level, and of a round: all levels are made of such rounds
FINER = {GAUSS: 2, MIDPOINT: 3}
LEVEL = 1e-4  # of the log-score: differences below are no ground to stand on


class Nodes(NamedTuple):
    """The nodes of all levels, numbered through: ``where`` on the path, their ``weights``.

    ends: how many there are at the end of each level.
    """

    where: np.ndarray
    weights: np.ndarray
    ends: tuple[int, ...]


def nodes(rule: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Give where on the path from 0 to 1 the nodes are, and their weights, which sum to one."""
    if rule == GAUSS:
        where, weights = np.polynomial.legendre.leggauss(count)
        return (where + 1) / 2, weights / 2
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


@functools.cache
def numbered(rule: str, count: int, adaptive: bool) -> Nodes:
    """Number the nodes: one level of ``count``, or all levels of at most as many."""
    if not adaptive:
        return Nodes(*nodes(rule, count), (count,))
    sizes = [FIRST]
    while sizes[-1] * FINER[rule] <= count:
        sizes.append(sizes[-1] * FINER[rule])
    if rule == GAUSS:
        where, weights = zip(*(nodes(rule, size) for size in sizes), strict=True)
        return Nodes(np.concatenate(where), np.concatenate(weights), _ends(sizes))
    # The middle of each three parts is that of one part of the level before.
    finer = [nodes(rule, size)[0] for size in sizes]
    where = [finer[0], *(new[np.arange(len(new)) % FINER[rule] != 1] for new in finer[1:])]
    return Nodes(np.concatenate(where), np.ones(sizes[-1]), tuple(sizes))


def _ends(sizes: list[int]) -> tuple[int, ...]:
    return tuple(np.cumsum(sizes).tolist())


def between(start: Array, end: Array, share: Array) -> Array:
    """Give the point at ``share`` of the way, in the dtype of ``start``."""
    if not jnp.issubdtype(start.dtype, jnp.floating):
        return start
    begin, finish = widen(start), widen(end)
    return (begin + share.astype(begin.dtype) * (finish - begin)).astype(start.dtype)
