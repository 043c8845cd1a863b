"""Which scalar is explained: from one example's scores to the log-score ``u``, ``Y = e^u``.

A target without ``class_index`` explains each image's top class, read off the clean input; an
integer explains one class for all; an array ``[batch]`` one class per image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.door import as_array, known
from jaxcam.errors import fail
from jaxcam.jaxprs.logarithms.probabilities import log_probabilities
from jaxcam.types import held

CLASSES, REGION, EMBEDDING, ANY = "classes", "region", "embedding", "any"


@jax.tree_util.register_static
@dataclass(frozen=True)
class Form:
    """What a target is called, and whether ``Y = e^u`` (else ``Y = u``, a raw score).

    scores: what it takes for scores, one example's: ``classes`` ``[classes]``, ``region``
    ``[*spatial, classes]``, ``embedding`` ``[d]`` or a pair ``[2, d]``, or ``any``.
    """

    name: str
    exponentiated: bool = True
    scores: str = CLASSES


class Aim(NamedTuple):
    """What a target is taken for, of one image or with a batch axis: the class, and its array.

    about: the region, or the reference.
    """

    class_index: Array
    about: Array | None = None


class Target(NamedTuple):
    """A log-score ``(scores, aim) -> u []`` of one example, and what it is taken for.

    about: the region or the reference, one for all images or one for each.
    """

    form: Form
    log_score: Callable[[Array, Aim], Array]
    class_index: Any = None
    about: Any = None


def exp_logit(class_index: Any = None, *, negative: bool = False) -> Target:
    """Explain ``Y = e^{S_c}``, the paper's scalar and the default: ``u = S_c``.

    Args:
        class_index: the class, or one per image; by default the top class of each image.
        negative: explain ``u = -S_c``, what speaks against the class. Of a network with one logit
            that is its other side, since ``1 - sigmoid(S) = sigmoid(-S)``.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> binary = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) @ jnp.array([[1.0], [-1.0]]))
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    >>> for other_side in (False, True):
    ...     target = jaxcam.targets.exp_logit(0, negative=other_side)
    ...     print(jaxcam.cam(binary, x, jaxcam.methods.grad_cam(), target).map[0].round(2))
    [[0.38 0.  ]]
    [[0.   0.48]]
    """
    log_score = jax.tree_util.Partial(_negated_score if negative else _score)
    return Target(Form("exp_logit"), log_score, class_index)


def softmax(class_index: Any = None) -> Target:
    """Explain the probability ``Y = p_c``: ``u = log p_c = S_c - log sum_j e^{S_j}``.

    Computed as a sum of terms of one sign, with the largest score ``m``: ``S_c - S_m - log1p(sum_{j
    != m} e^{S_j - S_m})``. So float32 has its digits at every confidence, from ``p = 1 - 1e-30`` to
    ``1e-30``; three derivatives of ``log_softmax`` lose all of them once ``1 - p < 1e-6``. A score
    of -inf (a class masked out) counts for nothing, unless it is the one that is explained.

    For a network that gives probabilities, ``logits=jnp.log`` of `jaxcam.split` is the same as this
    target behind its softmax, to the same digits (jaxprs/logarithms).

    For ``p > 1/2`` the probability is concave, so ``D2 < 0`` almost everywhere and poles of alpha
    are common: look at ``diagnostics.poles``. One score alone has no softmax: see `exp_logit`.
    """
    return Target(Form("softmax"), jax.tree_util.Partial(_log_probability), class_index)


def logit(class_index: Any = None) -> Target:
    """Explain the raw score ``Y = S_c`` itself.

    Behind a piecewise affine tail its second and third derivatives are zero, so that Grad-CAM++'s
    alpha is 0/0: an error, with `exp_logit` as the remedy.
    """
    return Target(Form("logit", exponentiated=False), jax.tree_util.Partial(_score), class_index)


def region(class_index: Any = None, mask: Any = None, *, mean: bool = False) -> Target:
    """Explain a class in a region of a dense output, ``[batch, *spatial, classes]``, ``Y = e^u``::

        u = sum_{ij in M} S_ij,c            mean=True: the mean over M

    as Seg-Grad-CAM does (Vinogradova et al., arXiv 2002.11434). A sum over many pixels varies much
    from one noisy sample to the next, and so do sample weights ``e^u``: the mean is steadier.

    Args:
        class_index: the class, or one per image; by default the class of the largest sum over the
            region, or without a mask the one that is on top in the most pixels.
        mask: ``M``, booleans or 0 and 1, ``[*spatial]``, or one mask per image; by default the
            pixels where the class is on top in the clean input, and of an output with one channel,
            which has no other class, those where its logit is above 0. (Of one probability give the
            mask: ``p > 0.5``.)
        mean: divide by the number of pixels.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> dense = jaxcam.Split(features=jnp.tanh, scores=lambda a, x: a)  # a class for each channel
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.5]]]])
    >>> there = jaxcam.targets.region(0, mask=jnp.array([[True, False], [False, False]]))
    >>> print(jaxcam.cam(dense, x, jaxcam.methods.taylor_cam(order=1), there).map[0].round(2))
    [[0.76 0.  ]
     [0.   0.  ]]
    """
    if mask is not None:
        mask = _as_mask(mask)
    log_score = jax.tree_util.Partial(_mean_score if mean else _summed_score)
    return Target(Form("region", scores=REGION), log_score, class_index, mask)


def _as_mask(mask: Any) -> Array:
    mask = as_array(mask, "region")
    values = known(mask)
    if values is not None and values.dtype.kind in "iu" and np.isin(values, (0, 1)).all():
        mask = values.astype(bool)
    if mask.dtype != bool:
        remedy = "Compare: mask > 0, or labels == 7."
        fail("region", needs="a mask of booleans", got=mask.dtype, remedy=remedy)
    if values is not None and not values.any():
        fail("region", needs="at least one pixel in the mask", got="none", remedy="See mask=.")
    return as_array(mask, "region")


def similarity(reference: Any = None, *, scale: Any = 1.0) -> Target:
    """Explain how alike two embeddings are: ``u = scale cos(e, reference)``, ``Y = e^u``.

    For networks that give an embedding ``[batch, d]`` instead of scores, and for pairs of them
    ``[batch, 2, d]`` (``logits=lambda out: jnp.stack([out.image, out.text], axis=1)`` of a split).
    ``result.target`` is -1.

    Args:
        reference: an embedding ``[d]``, or one per image; None compares the two of a pair.
        scale: the network's own factor, such as CLIP's ``exp(logit_scale)``.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> pooled = jaxcam.Split(features=jnp.tanh, scores=lambda a, x: a.mean((1, 2)))
    >>> x = jnp.ones((1, 2, 2, 3)).at[0, 0, 0, 1].set(3.0)
    >>> alike = jaxcam.targets.similarity(jnp.array([0.0, 1.0, 0.0]), scale=10.0)
    >>> result = jaxcam.cam(pooled, x, jaxcam.methods.grad_cam_pp(), alike)
    >>> result.map.shape, result.diagnostics.report.exact
    ((1, 2, 2), True)
    """
    log_score = jax.tree_util.Partial(_similarity, as_array(scale, "similarity"))
    about = None if reference is None else as_array(reference, "similarity")
    return Target(Form("similarity", scores=EMBEDDING), log_score, -1, about)


def custom(log_score: Callable[[Array], Array]) -> Target:
    """Explain ``Y = e^u`` for any ``u = log_score(scores)`` of one example's ``[classes]``.

    Define the function once, outside loops: another function object compiles another program. Use
    `jax.tree_util.Partial` to hand it arrays that change. ``result.target`` is -1. A function in
    the place of a target is taken for this.

    Raises:
        JaxcamError: it is no function; or, when scores are there, it does not give one floating
            number, or takes an element that they do not have.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcam import targets
    >>> margin = targets.custom(lambda scores: scores[3] - scores[5])
    >>> either = targets.custom(lambda scores: jax.nn.logsumexp(scores[jnp.array([3, 5])]))
    """
    if not callable(log_score):
        remedy = "A class index is a target itself."
        fail("targets.custom", needs="a function of scores", got=repr(log_score), remedy=remedy)
    own = jax.tree_util.Partial(_ignoring_aim, held(log_score))
    return Target(Form("custom", scores=ANY), own, -1)


def as_target(target: Any) -> Target:
    """Accept a `Target`, a class index or ``[batch]`` of them, None (the top class), a function."""
    if not isinstance(target, Target):
        target = custom(cast(Any, target)) if callable(target) else exp_logit(target)
    if target.class_index is None:
        return target
    index = as_array(target.class_index, "target", "integer class indices")
    if not jnp.issubdtype(index.dtype, jnp.integer):
        got = repr(target.class_index)
        fail("target", needs="integer class indices", got=got, remedy="Pass an int.")
    values = known(index)
    if values is not None and (values != values.astype(np.int32)).any():
        got = repr(target.class_index)
        fail("target", needs="class indices below 2^31", got=got, remedy="Pass an int.")
    narrow = index if values is None else values
    return target._replace(class_index=as_array(narrow.astype(np.int32), "target"))


def check_class(target: Target, classes: int) -> None:
    """Refuse a class that the network does not score, where its value is known.

    Where it is traced it gives NaN (`_score`), and ``diagnostics.finite`` is False.
    """
    index = None if target.class_index is None else known(target.class_index)
    if index is None or target.form.scores in (ANY, EMBEDDING):
        return
    wrong = index[(index < 0) | (index >= classes)]
    if wrong.size:
        fail(
            "target",
            needs=f"a class index from 0 to {classes - 1}",
            got=int(wrong[0]),
            remedy=f"The network scores {classes} classes."
            if classes > 1
            else "The network has one score: class 0 explains it, and "
            "jaxcam.targets.exp_logit(0, negative=True) the other side of it.",
        )


def _score(scores: Array, aim: Aim) -> Array:
    return _of_class(jnp.asarray(scores).at[..., aim.class_index].get(mode="clip"), scores, aim)


def _negated_score(scores: Array, aim: Aim) -> Array:
    return -_score(scores, aim)


def _of_class(u: Array, scores: Array, aim: Aim) -> Array:
    """Give NaN for a class that is none: clipped or wrapped it would be another one."""
    known = (aim.class_index >= 0) & (aim.class_index < scores.shape[-1])
    return u * jnp.where(known, 1, jnp.nan).astype(u.dtype)  # by a factor: its derivatives too


def _log_probability(scores: Array, aim: Aim) -> Array:
    return _score(log_probabilities(scores, (scores.ndim - 1,)), aim)


def _summed_score(scores: Array, aim: Aim) -> Array:
    there = jnp.where(jnp.asarray(aim.about), _score(scores, aim), 0)
    return _of_class(there.sum(), scores, aim)  # also where the region is empty


def _mean_score(scores: Array, aim: Aim) -> Array:
    count = jnp.maximum(jnp.asarray(aim.about).sum(), 1)  # a class that is nowhere on top
    return _summed_score(scores, aim) / count.astype(scores.dtype)


def _similarity(scale: Array, scores: Array, aim: Aim) -> Array:
    one, other = (scores, aim.about) if aim.about is not None else scores
    lengths = jnp.linalg.norm(one) * jnp.linalg.norm(other)
    return scale * (one * other).sum() / lengths


def _ignoring_aim(log_score: Callable[[Array], Array], scores: Array, aim: Aim) -> Array:
    del aim
    return log_score(scores)
