"""Shapley values of positions, sampled with errors: Shap-CAM (arXiv 2208.03608) done right."""

import math
import numbers
from typing import Any

import numpy as np

from jaxcam.arrays.door import as_numpy
from jaxcam.contracts import Game
from jaxcam.errors import fail
from jaxcam.methods.options import check_count, checked_number
from jaxcam.pipeline.baselines import told_apart


def shapley(
    *,
    num_permutations: int = 64,
    tolerance: Any = None,
    max_permutations: int = 4096,
    baseline: Any = None,
    players: Any = None,
) -> Game:
    """Divide the score's gain from a baseline B among positions by their Shapley values.

    Positions of the layer are players; a coalition S is worth the log-score with the activations A
    at its positions and those of the baseline everywhere else::

        v(S) = u(A on S, B elsewhere)
        map_ij = mean over orders of  v(those before ij, and ij) - v(those before ij)

    the one division of ``u(A) - u(B)`` that is symmetric, additive and complete. The mean over all
    orders of the players is sampled: each permutation that is drawn is walked forwards and
    backwards, by head passes alone, ``2 (players - 1)`` of them. Every walk adds up to the whole
    difference, and so does the map (`Diagnostics.gap` is rounding). `Diagnostics.standard_error`
    is that of each position, from the spread of such pairs of walks, ``relative_error`` its largest
    as a share of the largest ``|map_ij|``, ``num_samples`` the permutations drawn.

    It is one definition of a true map, for one baseline: name the baseline with the figure. What
    Shap-CAM's public code has otherwise: a fill of channel means, no error, and a sum over draws
    divided by their number twice. ``channels`` and ``neurons`` have no meaning here.

    Args:
        num_permutations: how many are drawn, each walked both ways; at least 2, so that there is an
            error. Without a ``tolerance``.
        tolerance: draw until ``relative_error`` is at most this, image by image: looked at after 32
            permutations, and then at every quarter more, at least 16. The loop cannot be
            differentiated in reverse mode.
        max_permutations: where to stop in any case; used with a tolerance alone.
        baseline: what stands where a player is absent, as in `jaxcam.integrate`: None for an input
            of zeros, an input or one for each image, or ``("activations", array)``.
        players: None, every position; a size, or one for each spatial axis, for blocks of
            positions; or integers ``[*spatial]``, the player of each position (superpixels). What
            a player is worth is divided equally among its positions.

    Raises:
        JaxcamError: when made, counts or a tolerance that are none; when called, a baseline or
            labels of another shape, more than 4,096 players, or no key.

    Warns:
        JaxcamWarning: the score is the same at the baseline; ``max_permutations`` were not enough.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> pairs = jaxcam.Split(lambda x: x, lambda a, x: a[:, 0] * a[:, 1] + a[:, 2])
    >>> x = jnp.array([[[2.0], [3.0], [5.0]]])
    >>> result = jaxcam.cam(pairs, x, jaxcam.methods.shapley(), key=jax.random.key(0))
    >>> print(result.map, result.diagnostics.total)  # 2 * 3 comes from both alike
    [[3. 3. 5.]] [11.]
    """
    adaptive = tolerance is not None
    name, count = (
        ("max_permutations", max_permutations)
        if adaptive
        else ("num_permutations", num_permutations)
    )
    check_count("shapley", name, count, 2, "An error needs two of them.")
    if adaptive:
        tolerance = checked_number("shapley", "tolerance", tolerance, 0, math.inf, "Try 0.05.")
    given, baseline = told_apart("shapley", baseline)
    return Game(
        "shapley", int(count), _players(players), tolerance, adaptive, baseline, given
    )  # fmt: skip


def _players(players: Any) -> Any:
    """Give blocks as a tuple of sizes, and labels as their shape and a tuple of numbers."""
    if players is None:
        return None
    sizes = (players,) if isinstance(players, numbers.Integral) else players
    if isinstance(sizes, tuple) and all(isinstance(size, numbers.Integral) for size in sizes):
        if not sizes or min(sizes) < 1:
            fail("shapley", needs="blocks of at least 1 position", got=players, remedy="Try 2.")
        return tuple(int(size) for size in sizes)
    labels = as_numpy(players, "shapley: players")
    if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0:
        needs = "players as None, sizes of blocks, or integers [*spatial]"
        got = f"{labels.dtype} of shape {labels.shape}"
        fail("shapley", needs=needs, got=got, remedy="For example players=2.")
    return labels.shape, tuple(labels.ravel().tolist())
