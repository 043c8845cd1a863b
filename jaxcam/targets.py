"""Which scalar is explained: from one example's scores to the log-score ``u``, ``Y = e^u``.

A target without ``class_index`` explains each image's top class, read off the clean input; an
integer explains one class for all; an array ``[batch]`` one class per image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcam.errors import fail
from jaxcam.types import held


@jax.tree_util.register_static
@dataclass(frozen=True)
class Form:
    """What a target is called, and whether ``Y = e^u`` (else ``Y = u``, a raw score)."""

    name: str
    exponentiated: bool = True


class Target(NamedTuple):
    """A log-score ``(scores [classes], index []) -> u []`` and the class that it is taken for."""

    form: Form
    log_score: Callable[[Array, Array], Array]
    class_index: Any = None


def exp_logit(class_index: Any = None) -> Target:
    """Explain ``Y = e^{S_c}``, the paper's scalar and the default: ``u = S_c``."""
    return Target(Form("exp_logit"), jax.tree_util.Partial(_score), class_index)


def softmax(class_index: Any = None) -> Target:
    """Explain the probability ``Y = p_c``: ``u = -log sum_j e^{S_j - S_c}``.

    Computed centred on the class: three derivatives of ``log_softmax`` lose all digits in float32
    once ``1 - p < 1e-6``. For ``p > 1/2`` the probability is concave, so ``D2 < 0`` almost
    everywhere and poles of alpha are common: look at ``diagnostics.poles``.
    """
    return Target(Form("softmax"), jax.tree_util.Partial(_log_probability), class_index)


def logit(class_index: Any = None) -> Target:
    """Explain the raw score ``Y = S_c`` itself.

    Behind a piecewise affine tail its second and third derivatives are zero, so that Grad-CAM++'s
    alpha is 0/0: an error, with `exp_logit` as the remedy.
    """
    return Target(Form("logit", exponentiated=False), jax.tree_util.Partial(_score), class_index)


def custom(log_score: Callable[[Array], Array]) -> Target:
    """Explain ``Y = e^u`` for any ``u = log_score(scores)`` of one example's ``[classes]``.

    Define the function once, outside loops: another function object compiles another program. Use
    `jax.tree_util.Partial` to hand it arrays that change. ``result.target`` is -1.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcam import targets
    >>> margin = targets.custom(lambda scores: scores[3] - scores[5])
    >>> either = targets.custom(lambda scores: jax.nn.logsumexp(scores[jnp.array([3, 5])]))
    """
    return Target(Form("custom"), jax.tree_util.Partial(_ignoring_class, held(log_score)), -1)


def as_target(target: Any) -> Target:
    """Accept a `Target`, a class index or ``[batch]`` of them, or None (the top class)."""
    if not isinstance(target, Target):
        target = exp_logit(target)
    if target.class_index is None:
        return target
    index = target.class_index
    kind = index.dtype if hasattr(index, "dtype") else np.asarray(index).dtype
    if not jnp.issubdtype(kind, jnp.integer):
        fail("target", needs="integer class indices", got=repr(index), remedy="Pass an int.")
    return target._replace(class_index=jnp.asarray(index, jnp.int32))


def resolve(target: Target, scores: Array) -> Array:
    """Give the class of each image, ``[batch]``, from the clean ``scores: [batch, classes]``."""
    if target.class_index is None:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    if target.class_index.shape not in ((), scores.shape[:1]):
        fail(
            "target",
            needs=f"one class index, or one per image: shape () or {scores.shape[:1]}",
            got=f"shape {target.class_index.shape}",
            remedy="Give each image of the batch one class.",
        )
    return jnp.broadcast_to(target.class_index, scores.shape[:1])


def check_class(target: Target, classes: int) -> None:
    """Refuse a class that the network does not score, where its value is known.

    Where it is traced it gives NaN (`_score`), and ``diagnostics.finite`` is False.
    """
    index = target.class_index
    if index is None or target.form.name == "custom" or isinstance(index, Tracer):
        return
    known = np.atleast_1d(np.asarray(index))
    wrong = known[(known < 0) | (known >= classes)]
    if wrong.size:
        fail(
            "target",
            needs=f"a class index from 0 to {classes - 1}",
            got=int(wrong[0]),
            remedy=f"The network scores {classes} classes.",
        )


def _score(scores: Array, index: Array) -> Array:
    # Out of range must not clamp to another class, as indexing would.
    return scores.at[index].get(mode="fill", fill_value=jnp.nan)


def _log_probability(scores: Array, index: Array) -> Array:
    return -jax.nn.logsumexp(scores - _score(scores, index))


def _ignoring_class(log_score: Callable[[Array], Array], scores: Array, index: Array) -> Array:
    del index
    return log_score(scores)
