"""Games: positions as players, coalitions of them as queries, and sampled Shapley values.

With the activations ``A`` of an example and a baseline ``B``, a coalition ``S`` of positions is
worth ``v(S) = u(A on S, B elsewhere)``. A permutation lets the players in one by one, and each is
credited with what the score gains when it comes; the mean over all permutations is the Shapley
value, the one division of ``u(A) - u(B)`` that is symmetric, additive and complete.

Every permutation that is drawn is walked backwards too (antithetic: who came early comes late),
and such a pair is one observation: from their spread comes the standard error. Pair ``m`` depends
on the key and ``m`` alone. The credits of a walk add up to ``v(all) - v(none)``, and so do means.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.keys import numbered
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Game
from jaxcam.errors import fail
from jaxcam.jaxprs import loops
from jaxcam.jaxprs.logarithms.rewriting import exactly
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline import blank, points, queries
from jaxcam.pipeline.blank import Seen
from jaxcam.pipeline.job import Job, Settings
from jaxcam.pipeline.network import check_network
from jaxcam.targets import Aim
from jaxcam.types import CAM, Diagnostics, Report

ROUND = 16  # pairs between two looks at the error; fixed, so that chunks do not move where it stops
FIRST_LOOK = 32  # pairs from which a spread is known well enough to stop by it
MOST_PLAYERS = 4096


class Worth(NamedTuple):
    """The mean over pairs of walks so far, one example. ``taken: []``; the others ``[players]``.

    squares: the sum of squared distances from the mean.
    """

    taken: Array
    mean: Array
    squares: Array


def answer(job: Job, settings: Settings, method: Game) -> CAM:
    """Explain images by what their positions are worth."""
    check_network(job.shared.split(), job.x)
    network, numbers = job.network, job.numbers
    a = jax.vmap(network.features)(job.x)
    queries.check_layer(method.name, network, a, job.x)
    queries.check_whole(method.name, job, "its players are positions")
    labels, sizes = players(method, a.shape[1:-1])
    scores = jax.vmap(exactly(network.scores))(a, job.x)
    aim = aims.resolve(job.target, scores)
    start = points.start_of(method.name, job, a)

    def image(x: Inputs, aim: Aim, a: Array, start: Array, key: Array) -> tuple[Any, ...]:
        def worth(present: Array) -> Array:
            mixed = jnp.where(present[labels][..., None], a, start)
            return widen(exactly(network.log_score)(mixed, x, aim))

        ends = worth(jnp.zeros(len(sizes), bool)), worth(jnp.ones(len(sizes), bool))
        sampled = _sampled(method, settings, partial(_pairs, worth, ends, key), numbers.tolerance,
                           ends[0], len(sizes))  # fmt: skip
        each = jnp.asarray(sizes, sampled.mean.dtype)
        error = _standard_error(sampled)
        signed, spread = ((v / each)[labels] for v in (sampled.mean, error))
        return signed, spread, _relative(error / each, sampled.mean / each), sampled.taken, ends

    packed = (job.x, aim, a, start, numbers.keys)
    signed, error, relative, taken, (before, after) = jax.lax.map(lambda one: image(*one), packed)
    seen = jax.vmap(queries.seen)(signed)
    finite = ~blank.has(seen, Seen.NOT_FINITE)
    total = after - before
    share = signed.sum(axis=tuple(range(1, signed.ndim))) / total
    passes = 2 * (len(sizes) - 1)
    words = (
        f"sampled: {len(sizes)} players, {passes} forward passes of the head for each permutation "
        "and its reverse, and no derivative"
    )
    diagnostics = Diagnostics(
        report=Report("coalitions", True, words, averaged=True), poles=None, num_samples=taken,
        effective_samples=None, top_class_kept=None, standard_error=error, relative_error=relative,
        finite=finite, blank=finite & ~blank.has(seen, settings.visible), seen=seen,
        total=total, completeness=share, gap=jnp.abs(1 - share),
    )  # fmt: skip
    return CAM(settings.shown(signed), signed, None, scores, aim.class_index, diagnostics)


def players(method: Game, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give the player of each position, ``[*spatial]`` from 0, and how many positions each has."""
    if method.players is None:
        labels = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    elif isinstance(method.players[0], int):
        blocks: Any = method.players * len(shape) if len(method.players) == 1 else method.players
        if len(blocks) != len(shape):
            needs = f"players= of 1 or {len(shape)} sizes for a layer of {len(shape)} spatial axes"
            fail(method.name, needs=needs, got=blocks, remedy="For example players=2.")
        labels = np.zeros(shape, int)
        for axis, block in enumerate(blocks):
            across = np.arange(shape[axis]) // block
            along = across.reshape(-1, *(1,) * (len(shape) - axis - 1))
            labels = labels * (across.max() + 1) + along
    else:
        given, values = method.players
        if given != shape:
            needs = f"labels of shape {shape}, one for each position of the layer"
            remedy = "jaxcam.layers lists the shapes of layers."
            fail(method.name, needs=needs, got=f"shape {given}", remedy=remedy)
        labels = np.unique(np.array(values), return_inverse=True)[1].reshape(shape)
    sizes = np.bincount(labels.ravel())
    if len(sizes) > MOST_PLAYERS:
        fail(
            method.name,
            needs=f"at most {MOST_PLAYERS} players: a permutation takes twice as many passes",
            got=f"{len(sizes)}, the positions of a layer of {shape}",
            remedy="Join positions: players=8 makes blocks of 8, or give labels (superpixels).",
        )
    return labels, sizes


def order(key: Array, number: Array, count: int) -> Array:
    """Give the ``number``-th permutation: which of ``count`` players comes when."""
    return jax.random.permutation(numbered(key, number), count)


def _pairs(
    worth: Any, ends: tuple[Array, Array], key: Array, settings: Settings, count: int, ids: Array
) -> Array:
    """Credit the players in the walks of each permutation and of its reverse: ``[pairs, players]``.

    The coalitions of all walks are numbered through, and scored in chunks of any size.
    """
    none, every = ends
    if count == 1:
        return jnp.broadcast_to(every - none, (len(ids), 1))
    ranks = jax.vmap(lambda n: jnp.argsort(order(key, n, count)).astype(jnp.int32))(ids)
    steps = 2 * (count - 1)

    def one(n: Array) -> Array:
        rank, step = ranks[n // steps], n % steps
        size = step // 2 + 1
        return worth(jnp.where(step % 2 == 0, rank < size, rank >= count - size))

    coalitions = steps * len(ids)
    chunk = settings.chunk_size or loops.fitting(jax.make_jaxpr(one)(loops.NUMBER), coalitions)
    rows = loops.repeating(coalitions, min(chunk, coalitions))
    values = loops.map_in_order(jax.vmap(one), rows).reshape(-1)[:coalitions]
    values = values.reshape(len(ids), count - 1, 2)
    first, last = (jnp.broadcast_to(end, (len(ids), 1, 2)) for end in ends)
    gains = jnp.diff(jnp.concatenate([first, values, last], axis=1), axis=1)
    forth = jnp.take_along_axis(gains[..., 0], ranks, axis=1)
    back = jnp.take_along_axis(gains[..., 1], count - 1 - ranks, axis=1)
    return (forth + back) / 2


def _sampled(
    method: Game, settings: Settings, pairs: Any, tolerance: Any, like: Array, count: int
) -> Worth:
    """Take rounds of pairs: all that are asked for, or until the error is below the tolerance."""
    most = method.num_permutations
    length = min(ROUND, most)
    nothing = jnp.zeros_like(like, shape=count)
    start = Worth(jnp.zeros_like(like, jnp.int32), nothing, nothing)

    def taken(so_far: Worth) -> Worth:
        ids = so_far.taken + jnp.arange(length, dtype=jnp.int32)
        return _added(so_far, pairs(settings, count, ids), ids < most)

    if not method.adaptive:
        rounds = -(-most // length)
        return jax.lax.scan(lambda w, _: (taken(w), None), start, None, length=rounds)[0]

    def open(state: tuple[Worth, Array]) -> Array:
        so_far, due = state
        above = _relative(_standard_error(so_far), so_far.mean) > tolerance
        return (so_far.taken < most) & ((so_far.taken < due) | above)

    def turn(state: tuple[Worth, Array]) -> tuple[Worth, Array]:
        so_far, due = state
        looked = so_far.taken >= due
        later = so_far.taken + jnp.maximum(so_far.taken // 4, ROUND)
        return taken(so_far), jnp.where(looked, later, due)

    return jax.lax.while_loop(open, turn, (start, jnp.full_like(start.taken, FIRST_LOOK)))[0]


def _added(so_far: Worth, values: Array, counted: Array) -> Worth:
    """Add the pairs that count, ``[pairs, players]``, to mean and squares."""
    weight = counted.astype(values.dtype)[:, None]
    number = weight.sum()
    mean = (weight * values).sum(axis=0) / number
    squares = (weight * (values - mean[None]) ** 2).sum(axis=0)
    before = so_far.taken.astype(values.dtype)
    total, apart = before + number, mean - so_far.mean
    return Worth(
        so_far.taken + counted.sum(dtype=jnp.int32),
        so_far.mean + apart * number / total,
        so_far.squares + squares + apart**2 * before * number / total,
    )


def _standard_error(worth: Worth) -> Array:
    """Give the standard error of each mean: the spread of pairs by the root of their number."""
    n = worth.taken.astype(worth.mean.dtype)
    variance = worth.squares / jnp.maximum(n * (n - 1), 1)
    safe = jnp.where(variance > 0, variance, 1)  # the root has no slope at zero
    return jnp.where(variance > 0, jnp.sqrt(safe), 0)


def _relative(error: Array, mean: Array) -> Array:
    """Give the largest error as a share of the largest value."""
    worst = error.max()
    return jnp.where(worst > 0, worst / jnp.abs(mean).max(), worst)
