"""Why a map is blank, and which may be rounding alone: from what is seen in its arrays."""

import functools
from enum import IntFlag

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.precision import widen
from jaxcam.types import Derivatives

DOUBT = 1e-4


class Seen(IntFlag):
    """What is true of one example somewhere among the chosen feature maps and neurons.

    NOT_FINITE, POSITIVE, NEGATIVE: the sum of weighted activations at a position. MOVES: a
    derivative is not zero; ACTIVE: nor an activation; WEIGHS: nor a weight; PRODUCT: nor a weight
    and its activation. RISES: a first derivative is positive, anywhere in the layer. ROUNDING: what
    was found was rounding alone, and is set to zero. ASKED: the map is one of `Queries`. ALONE: it
    is one of activations alone.
    """

    NOT_FINITE = 1
    POSITIVE = 2
    NEGATIVE = 4
    MOVES = 8
    ACTIVE = 16
    WEIGHS = 32
    PRODUCT = 64
    RISES = 128
    ROUNDING = 256
    ASKED = 512
    ALONE = 1024


def seen(d: Derivatives, a: Array, weights: Array, signed: Array, mask: Array) -> Array:
    """Say of one example what is `Seen`, as an integer. ``a, mask: [*spatial, k]``."""
    spread = jnp.broadcast_to(weights, a.shape)
    moves = functools.reduce(jnp.logical_or, (v != 0 for v in d if v is not None))
    active, weighs = (a != 0) & mask, (spread != 0) & mask
    shown = {
        Seen.NOT_FINITE: ~jnp.isfinite(signed),
        Seen.POSITIVE: signed > 0,
        Seen.NEGATIVE: signed < 0,
    }
    made = {
        Seen.MOVES: moves & mask,
        Seen.ACTIVE: active,
        Seen.WEIGHS: weighs,
        Seen.PRODUCT: active & weighs,
        Seen.RISES: d.d1 > 0,
    }
    return anywhere(shown) | anywhere(made)


def anywhere(facts: dict[Seen, Array]) -> Array:
    """Join what is true anywhere: in one pass, which is quick to run and to compile."""
    bits = (jnp.where(fact, jnp.int32(flag), 0) for flag, fact in facts.items())
    joined = functools.reduce(jnp.bitwise_or, bits)
    return jax.lax.reduce_or(joined, tuple(range(joined.ndim)))


def has(seen: Array, flag: Seen) -> Array:
    """Say whether something was seen."""
    return (seen & jnp.int32(flag)) != 0


def least(dtype: jnp.dtype, scores: Array) -> Array:
    """Give what a layer should do to one example's score at first order, to be beyond doubt.

    In units of the score: a share of the largest of ``scores``, whose last digits are rounding, and
    of one, since ``u`` is a logarithm. dtype: of the layer.
    """
    digits = max(jnp.finfo(dtype).eps, jnp.finfo(scores.dtype).eps)
    return max(DOUBT, 128 * float(digits)) * jnp.maximum(jnp.abs(widen(scores)).max(), 1)


def doubtful(d: Derivatives, a: Array, signed: Array, scale: Array, least: Array) -> Array:
    """Say whether one example's map may be rounding: ``sum |u1 a| < least``, or far more than
    what is left of it in the map. Cheap, and no verdict: rounding.py has that.
    """
    effect = (jnp.abs(d.d1) * jnp.abs(a)).sum() * scale
    return (effect < least) | (jnp.abs(signed).sum() < DOUBT * effect)


LAYER, CHOSEN = "the layer", "the chosen feature maps and neurons"
ROUNDING = (
    "what was found is rounding alone, and was set to zero. It changes by its own size with the "
    "last digits of the numbers on the way: in exact arithmetic it is zero, as before a "
    "normalisation that is then averaged over the same axes, or this precision cannot hold it. "
    "Explain a layer behind the normalisation, or another target; float64 weights and input inside "
    "`with jax.enable_x64(True)` keep what is real"
)
NEGATIVE = (
    "the sum of weighted activations of {where} is negative or zero at every position, and only "
    "what is positive is shown. result.signed has the sum"
)
INACTIVE = "every activation of {where} is zero"
UNMOVED = (
    "all derivatives along {where} are zero: near this input the score does not depend on it. "
    "Behind it something is switched off or saturated, or the score looks elsewhere"
)
SURE = (
    "the probability of what is explained differs from 1 by less than {dtype} can hold, "
    "1 - p = {rest}: its derivatives are zero there. Explain the logit, "
    "jaxcam.targets.exp_logit(), or call inside `with jax.enable_x64(True):` with weights and "
    "input of float64"
)
UNWEIGHTED = (
    "the weights of {where} are zero, although derivatives are not: they cancel in each weight, or "
    "are too small to be held"
)
AGAINST = (
    "no derivative along the layer is positive, and this method counts no others: every activation "
    "there speaks against what is explained"
)
UNANSWERED = (
    "no change that was made counts for what is explained: its score stays as it is, or falls by "
    "none of them"
)
LEVEL = (
    "nothing stands out among the activations of {where}, of which alone this map is made: they "
    "are the same at every position, or of too few"
)
APART = "in {where} what has a weight is not active, and what is active has no weight"
CANCELLED = (
    "the weighted activations of {where} add up to exactly zero at every position: they cancel, or "
    "are too small to be held"
)


def why(seen: Seen, *, subset: bool) -> str:
    """Word why a map is blank; ``subset``: it is one of chosen feature maps or neurons."""
    # The first that holds; each is true by itself, or because no earlier one holds.
    words = {
        ROUNDING: Seen.ROUNDING in seen,
        NEGATIVE: Seen.NEGATIVE in seen,
        UNANSWERED: Seen.ASKED in seen,
        INACTIVE: Seen.ACTIVE not in seen,
        LEVEL: Seen.ALONE in seen,
        UNMOVED: not seen & (Seen.MOVES | Seen.WEIGHS),
        UNWEIGHTED: Seen.WEIGHS not in seen and Seen.RISES in seen,
        AGAINST: Seen.WEIGHS not in seen,
        APART: Seen.PRODUCT not in seen,
        CANCELLED: True,
    }
    return next(word for word, holds in words.items() if holds).format(
        where=CHOSEN if subset else LAYER
    )
