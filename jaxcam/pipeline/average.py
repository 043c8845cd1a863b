"""The weighted mean of derivatives over noisy samples, in one pass and bounded memory.

Sample ``n`` counts with ``w_n = e^{t u_n}``, whose common factor cancels::

    mean B = sum_n w_n B_n / sum_n w_n        w_n = e^{t u_n - max t u}

accumulated as online softmax does, with a running maximum to which the sums are rescaled, so that
``u = 1000`` neither overflows nor underflows.

The sums are kept in a few groups of samples, which are independent of each other: samples that
depend on each other, the units of `noise.Scheme`, are in one group. From half of the groups at a
time comes the standard error of anything computed from the means (balanced half-samples; McCarthy,
Review of the International Statistical Institute 37, 1969). A half is off by as much as the whole
is, and so meets the jumps that the whole may have passed: bounded alpha jumps from 0 to 1 where
``D2`` crosses zero (alphas.py), which nobody sees who leaves out one group at a time, moving ``D2``
a quarter of its error. Such a jackknife wants a smooth statistic (Shao and Wu, Annals of Statistics
17, 1989; halves do not).

An error that is learnt from ``G`` groups is itself uncertain, and the difference measured by it has
Student's distribution with ``G - 1`` degrees of freedom. Stated errors are therefore wider, by a
factor (`WIDER`) such that two of them cover what two deviations of a normal distribution do,
95.4 %, however few the groups, where what the map is made of is normal. It is so of means of many
samples. Of few, whose derivatives are skewed (kinks, weights ``e^u``), two errors cover less:
``python -m benchmarks.errors`` says how much.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.types import Derivatives

GROUPS = 16
# t / 2 with P(|T| < t) = P(|N(0, 1)| < 2) for 1 to 15 degrees of freedom.
WIDER = (
    6.9839, 2.2633, 1.6534, 1.4347, 1.3243, 1.2583, 1.2144, 1.1832,
    1.1599, 1.1418, 1.1274, 1.1157, 1.1059, 1.0976, 1.0906,
)  # fmt: skip


class Average(NamedTuple):
    """Sums so far, one example. ``top: []``, the largest log-weight; the rest ``[groups, ...]``."""

    top: Array
    taken: Array
    weight: Array
    square: Array
    kept: Array
    sums: Derivatives


class Sample(NamedTuple):
    """What noisy samples add; leading axis ``[chunk]``. ``log_weight`` is ``-inf`` for padding."""

    log_weight: Array
    kept: Array
    derivatives: Derivatives


def start(like: Derivatives, dtype: jnp.dtype, num_samples: int, unit: int = 1) -> Average:
    """Begin with no samples of ``num_samples``, for derivatives shaped ``like`` one example's."""
    groups = groups_of(num_samples, unit)
    zeros = jax.tree.map(lambda v: jnp.zeros_like(v, shape=(groups, *v.shape)), like)
    nothing = jnp.zeros_like(like.d1, dtype, shape=groups)
    top = jnp.full_like(like.d1, jnp.finfo(dtype).min, dtype, shape=())
    return Average(top, nothing, nothing, nothing, nothing, zeros)


def groups_of(num_samples: int, unit: int = 1) -> int:
    """Give the number of groups: as many as there are units, up to `GROUPS`."""
    return min(-(-num_samples // unit), GROUPS)


def of_chunk(samples: Sample, ids: Array, groups: int, unit: int = 1) -> Average:
    """Give the average of a chunk; sample ``n`` goes to group ``n // unit mod groups``."""
    # The maximum only keeps numbers in range: it cancels, in derivatives too. A chunk may be
    # nothing but padding.
    lowest = jnp.finfo(samples.log_weight.dtype).min
    top = jax.lax.stop_gradient(jnp.maximum(lowest, samples.log_weight.max()))
    weight = jnp.exp(samples.log_weight - top)
    present = jnp.isfinite(samples.log_weight).astype(weight.dtype)
    numbers = jnp.arange(groups, dtype=ids.dtype)
    member = (ids[None] // unit % groups == numbers[:, None]).astype(weight.dtype)
    return Average(
        top=top,
        taken=_combined(member, present),
        weight=_combined(member, weight),
        square=_combined(member, weight**2),
        kept=_combined(member, present * samples.kept.astype(weight.dtype)),
        sums=jax.tree.map(partial(_combined, member * weight[None]), samples.derivatives),
    )


def merged(one: Average, other: Average) -> Average:
    """Add two averages of different samples of one example."""
    top = jax.lax.stop_gradient(jnp.maximum(one.top, other.top))
    sums = jax.tree.map(jnp.add, _rescaled(one, top), _rescaled(other, top))
    return sums._replace(top=top)


def across(average: Average, axis: str) -> Average:
    """Add the averages of all devices along an axis of a mesh, of one example or of many."""
    top = jax.lax.stop_gradient(jax.lax.pmax(jax.lax.stop_gradient(average.top), axis))
    return jax.lax.psum(_rescaled(average, top), axis)._replace(top=top)


def _rescaled(average: Average, top: Array) -> Average:
    shrink = jnp.exp(average.top - top)
    return average._replace(
        weight=average.weight * _along(shrink, average.weight),
        square=average.square * _along(shrink**2, average.square),
        sums=jax.tree.map(lambda sums: sums * _along(shrink, sums), average.sums),
    )


def mean(average: Average) -> Derivatives:
    """Divide the sums of all groups by their weight."""
    total = average.weight.sum()
    all_of_them = jnp.ones_like(average.weight)
    return jax.tree.map(lambda sums: _combined(all_of_them, sums) / total, average.sums)


def effective_samples(average: Average) -> Array:
    """Give ``(sum w)^2 / sum w^2``: n where all samples count alike, 1 where one decides."""
    return average.weight.sum() ** 2 / average.square.sum()


def num_samples(average: Average) -> Array:
    """Give n, the samples that were added."""
    return average.taken.sum()


def standard_error(average: Average, statistic: Callable[[Derivatives], Array]) -> Array:
    """Estimate the standard error of ``statistic(mean)`` from its values on halves of the groups.

    There must be two groups, and a sample in each.

    With ``n`` samples, ``m_h`` of them in half ``h`` (`halves`), ``t`` the statistic and ``t_h``
    its value on that half alone::

        variance = mean over h of  m_h / (n - m_h) (t_h - t)^2

    and the error is its root, wider by the factor for ``G - 1`` degrees of freedom. Two errors hold
    at the least what each half says: where one is twice as far off as that root, half of its
    distance is the error.

    The variance is unbiased for a mean of independent samples: ``Var(t_h - t)`` is
    ``Var(t_h) - Var(t)``, which is ``(n - m_h) / m_h`` times ``Var(t)``.
    """
    groups = average.weight.shape[0]
    n = num_samples(average)

    def apart(half: Array) -> Array:
        weight = jnp.dot(half, average.weight, precision="highest")
        # A half whose samples weigh nothing beside the others': its means count as zero.
        per = 1 / jnp.where(weight > 0, weight, 1)
        of_half = jax.tree.map(lambda sums: per * _combined(half, sums), average.sums)
        size = jnp.dot(half, average.taken, precision="highest")
        squared = (statistic(of_half) - whole) ** 2
        return (size / (n - size)).astype(squared.dtype) * squared

    whole = statistic(mean(average))
    chosen = jnp.asarray(halves(groups), average.weight.dtype)
    squared = jax.lax.map(apart, chosen)
    variance = jnp.maximum(squared.mean(axis=0), squared.max(axis=0) / 4)
    return WIDER[groups - 2] * jnp.sqrt(variance)


def halves(groups: int) -> np.ndarray:
    """Give halves of 2 to 16 groups, or what is nearest, as rows of ones and zeros.

    The signs of a Hadamard matrix (Sylvester's), and the opposite ones: the rows are orthogonal, so
    that each pair of groups is as often in one half as in two. Where the groups are no power of
    two, the columns of the next one that are left.
    """
    signs = np.ones((1, 1), int)
    while len(signs) < groups:
        signs = np.block([[signs, signs], [signs, -signs]])
    chosen = np.concatenate([signs, -signs])[:, :groups] > 0
    proper = chosen.any(axis=1) & ~chosen.all(axis=1)
    return chosen[proper].astype(np.float32)


def _combined(coefficients: Array, values: Array) -> Array:
    """Combine ``[groups, ...]`` linearly, as a product of matrices: compilers have kernels for it.

    In full precision: accelerators round the factors by default.
    """
    return jnp.tensordot(coefficients, values, axes=1, precision="highest")


def _along(vector: Array, values: Array) -> Array:
    """Shape ``[n]``, or a number, so that it multiplies ``[n, ...]``."""
    return vector.reshape(*vector.shape, *(1,) * (values.ndim - vector.ndim))
