"""What methods of queries ask of a changed example: its log-score, or the class's probability."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.errors import fail


def log_score(u: Array, scores: Array, class_index: Any) -> Array:
    """Give the explained log-score: ``S_c`` by default."""
    del scores, class_index
    return u


@cache
def probability(call: str) -> Callable[[Array, Array, Any], Array]:
    """Give the outcome ``p_c = softmax(scores)_c``, for a method of that name.

    Raises:
        JaxcamError: when called, scores that are not ``[batch, classes]`` of two classes or more,
            or a target that is not a class as it is.
    """
    return partial(_probability, call)


def _probability(call: str, u: Array, scores: Array, class_index: Any) -> Array:
    del u
    if scores.ndim != 1 or scores.size == 1:
        axes = ", ".join(map(str, scores.shape))
        fail(
            call,
            needs="the probability of a class: scores [batch, classes], two classes or more",
            got=f"scores of shape [batch, {axes}]",
            remedy="Say by logits= of jaxcam.split which scores they are; of one logit S, "
            "jnp.concatenate([0 * S, S], -1) are its two sides.",
        )
    if class_index is None:
        fail(
            call,
            needs="the probability of a class: a target of exp_logit, softmax or logit",
            got="another one, which may be the other side of a class, or its distance from others",
            remedy="Explain a class, or take a method that asks for the target's own score, such "
            "as ablation_cam or occlusion.",
        )
    known = (class_index >= 0) & (class_index < scores.size)  # else it would be another one
    return jnp.where(known, jax.nn.softmax(scores)[class_index], jnp.nan)
