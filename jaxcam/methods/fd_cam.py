"""FD-CAM (Li et al., arXiv 2206.08792): gradients, and scores with groups of feature maps alone."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example, Queries
from jaxcam.methods import masks
from jaxcam.methods.options import checked_number
from jaxcam.methods.outcomes import log_score


@functools.cache
def fd_cam(*, threshold: float = 0.5) -> Queries:
    """Weigh feature maps by their gradient, and by what the maps that look like them are worth.

    The group of a map holds those that are more like it than others, by their cosine with it, and
    ``s`` stretches over the feature maps to the range 0 to 1::

        G_k = {l: cos(A^k, A^l) > quantile_theta of row k}
        z_k = S(A on G_k) + S(A) - S(A without G_k)
        w_k = exp(s(z)_k) s(mean_ij u1)_k - 1/2        map = ReLU(sum_k w_k A^k)

    Two passes of the head for each feature map, and one gradient.

    Args:
        threshold: ``theta``, from 0 to 1: the share of the maps that are outside of a group. The
            authors' code has no default; the one here is the middle.

    Read in the authors' code (crishhh1998/FD-CAM), which divides by zero where all scores are the
    same; there ``s`` is 0 here. A feature map of zeros is like no other: all its cosines are 0.

    Raises:
        JaxcamError: a threshold that is no share.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1) @ jnp.array([[2.0], [-1.0]]))
    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]])
    >>> print(*(f"{w:.2f}" for w in jaxcam.cam(split, x, jaxcam.methods.fd_cam(), 0).weights[0]))
    2.22 -0.50
    """
    theta = float(checked_number("fd_cam", "threshold", threshold, 0, 1, "Default: 0.5."))
    prepare = functools.partial(_prepare, threshold=theta)
    return Queries(
        "fd_cam", "layer", _count, _switched, log_score, _weigh, prepare, gradient=True
    )  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    return 2 * shape[-1]


def _prepare(example: Example, *, threshold: float) -> tuple[Array, Array]:
    """Give the groups, ``[k, k]``, a row for each, and the mean gradient ``[k]``."""
    columns = widen(example.a).reshape(-1, example.a.shape[-1])
    lengths = jnp.linalg.norm(columns, axis=0, keepdims=True)
    unit = columns / jnp.where(lengths > 0, lengths, 1)
    cosines = jnp.matmul(unit.T, unit, precision="highest")
    groups = cosines > jnp.quantile(cosines, threshold, axis=1, keepdims=True)
    return groups, jnp.asarray(example.u1).mean(axis=tuple(range(example.a.ndim - 1)))


def _switched(a: Array, n: Array, given: tuple[Array, Array]) -> Array:
    """Leave the group of map ``n // 2`` alone, or take it away."""
    group = given[0][n // 2] == (n % 2 == 0)
    return a * jnp.broadcast_to(group, a.shape).astype(a.dtype)


def _weigh(
    outcomes: Array, clean: Array, a: Array, given: tuple[Array, Array]
) -> tuple[Array, Array]:
    alone, without = outcomes.reshape(-1, 2).T
    scores = masks.stretched(alone + clean - without)
    weights = jnp.exp(scores) * masks.stretched(given[1]) - 0.5
    return weights, maps.combine(weights, a)
