"""Targets of networks that score classes, ``[batch, classes]``: one, several, one against others.

``S`` are the scores, ``p`` their softmax, ``c`` the class that is explained.
"""

import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jaxcam.arrays.door import as_array, known
from jaxcam.arrays.precision import widen
from jaxcam.errors import fail
from jaxcam.jaxprs.logarithms.probabilities import log_probabilities, log_sum, softplus
from jaxcam.targets.form import Aim, Form, Target, narrow, of_class, score, where_known


def exp_logit(class_index: Any = None, *, negative: bool = False) -> Target:
    """Explain ``Y = e^{S_c}``, the paper's scalar and the default: ``u = S_c``.

    Args:
        class_index: the class, or one per image; by default the top class of each image.
        negative: explain ``u = -S_c``, what speaks against the class (`counterfactual`). Of a
            network with one logit that is its other side (`binary`).

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)))  # a class for each channel
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    >>> target = jaxcam.targets.exp_logit(0)
    >>> print(jaxcam.cam(split, x, jaxcam.methods.grad_cam(), target).map[0].round(2))
    [[0.38 0.  ]]
    """
    log_score = Partial(_negated_score if negative else score)
    return Target(Form("exp_logit", plain=not negative), log_score, class_index)


def counterfactual(class_index: Any = None) -> Target:
    """Explain what speaks against a class: ``u = -S_c``.

    The counterfactual explanation of Grad-CAM (Selvaraju et al., arXiv 1610.02391; its formula is
    from memory): the map shows regions whose removal would make the network surer of the class. Of
    methods whose weights are linear in the gradient (`jaxcam.methods.grad_cam`, ``hires_cam``) it
    is the other sign of the same map; of those with a ReLU inside another map. ``exp_logit(c,
    negative=True)`` is the same.

    Args:
        class_index: the class, or one per image; by default the top class of each image.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> head = jnp.array([[1.0, 0.0], [-1.0, 3.0]])
    >>> split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) @ head)
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    >>> method = jaxcam.methods.grad_cam()
    >>> for target in (jaxcam.targets.exp_logit(0), jaxcam.targets.counterfactual(0)):
    ...     print(jaxcam.cam(split, x, method, target).map[0].round(2))
    [[0.38 0.  ]]
    [[0.   0.48]]
    """
    return exp_logit(class_index, negative=True)


def softmax(class_index: Any = None) -> Target:
    """Explain the probability ``Y = p_c``: ``u = log p_c = S_c - log sum_j e^{S_j}``.

    Computed as a sum of terms of one sign, with the largest score ``m``: ``S_c - S_m - log1p(sum_{j
    != m} e^{S_j - S_m})``. So float32 has its digits at every confidence, from ``p = 1 - 1e-30`` to
    ``1e-30``; three derivatives of ``log_softmax`` lose all of them once ``1 - p < 1e-6``. But what
    the network rounds off its scores, some ``2^-24 max |S|``, is a relative error of the odds, and
    so of every map: 2e-5 of the largest value where scores are 300, 2e-4 where they are 4,000. A
    score of -inf (a class masked out) counts for nothing, unless it is the one that is explained.

    For a network that gives probabilities, ``logits=jnp.log`` of `jaxcam.split` is the same as this
    target behind its softmax, to the same digits (jaxprs/logarithms).

    For ``p > 1/2`` the probability is concave, so ``D2 < 0`` almost everywhere and poles of alpha
    are common: look at ``diagnostics.poles``. One score alone has no softmax: see `binary`.
    """
    return Target(Form("softmax", plain=True), Partial(_log_probability), class_index)


def logit(class_index: Any = None) -> Target:
    """Explain the raw score ``Y = S_c`` itself.

    Behind a piecewise affine tail its second and third derivatives are zero, so that Grad-CAM++'s
    alpha is 0/0: an error, with `exp_logit` as the remedy.
    """
    return Target(Form("logit", exponentiated=False, plain=True), Partial(score), class_index)


def rest(class_index: Any = None) -> Target:
    """Explain score and probability at once, ReST: ``u = S_c + log p_c``, ``Y = e^{S_c} p_c``.

    From ShapleyCAM (arXiv 2501.06261), in the place of either: a logit alone does not know the
    other classes, and the gradient of a sure prediction's probability vanishes. Here ``du / dS_c =
    2 - p_c`` stays, and the others count by their probabilities, ``du / dS_j = -p_j``. ``log p_c``
    has its digits at every confidence, as in `softmax`. The formula was read in pytorch-grad-cam's
    ``ClassifierOutputReST``.

    Args:
        class_index: the class, or one per image; by default the top class of each image.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcam import targets
    >>> for target in (targets.softmax(), targets.rest()):
    ...     slope = jax.grad(target.log_score)(jnp.array([50.0, 0.0]), targets.Aim(0))
    ...     print([f"{part:.2g}" for part in slope])
    ['1.9e-22', '-1.9e-22']
    ['1', '-1.9e-22']
    """
    return Target(Form("rest"), Partial(_rest), class_index)


def contrast(
    class_index: Any = None, references: Any = None, *, gamma: Any = 0.6, nearest: int = 3
) -> Target:
    """Explain what a class has and similar ones have not: ``u = S_c - gamma mean_d S_d``.

    Finer-CAM (Zhang et al., arXiv 2501.11309): where maps of similar classes look alike, what they
    share is taken off. With ``gamma = 1`` what ``c`` and all references share cancels. The mean,
    ``gamma = 0.6`` and three references are torch-cam's reading of the paper (its pull request
    417); the authors' code in pytorch-grad-cam weighs references by their probabilities, with
    ``gamma = 1``.

    Args:
        class_index: ``c``, or one per image; by default the top class of each image.
        references: ``d``, class indices ``[m]``, or ``[batch, m]`` for each image its own; by
            default those whose scores of the clean input are nearest to ``S_c``.
        gamma: how much of the references is taken off, 0 or more.
        nearest: how many references where none are given; all others where there are fewer.

    Raises:
        JaxcamError: references that are no classes, or the class itself; a network of one score.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) @ jnp.array([[3.0, 2], [3, 0]]))
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    >>> method = jaxcam.methods.grad_cam()
    >>> for target in (jaxcam.targets.exp_logit(0), jaxcam.targets.contrast(0, [1], gamma=1)):
    ...     print(jaxcam.cam(split, x, method, target).map[0].round(2))
    [[1.14 1.14]]
    [[0.38 1.14]]
    """
    if not isinstance(nearest, numbers.Integral) or isinstance(nearest, bool) or nearest < 1:
        needs = "nearest of at least 1"
        fail("targets.contrast", needs=needs, got=repr(nearest), remedy="Default: 3.")
    about = None if references is None else _classes("targets.contrast", references)
    form = Form("contrast", nearest=int(nearest) if about is None else 0)
    return Target(form, Partial(_against, _share(gamma)), class_index, about)


def any_of(classes: Any, *, probability: bool = False) -> Target:
    """Explain several classes as one, such as all breeds of dogs: ``Y = sum_{c in C} e^{S_c}``.

    The union's score and its probability, so that each class counts as much as it is likely::

        u = log sum_{c in C} e^{S_c}        probability=True: u = log sum_{c in C} p_c

    Of one class they are `exp_logit` and `softmax`. The probability is that of a sum over ``C``
    against one over the rest, each on its own: it keeps its digits at every confidence.
    ``result.target`` is the class of ``C`` with the largest score.

    Args:
        classes: ``C``, class indices ``[m]``, or ``[batch, m]`` for each image its own. One that is
            named twice counts once.
        probability: set them against the other classes.

    Raises:
        JaxcamError: no class, or one that the network does not score.

    >>> import jax, jax.numpy as jnp
    >>> from jaxcam import targets
    >>> target = targets.any_of([0, 2], probability=True)
    >>> u = target.log_score(jnp.log(jnp.array([1.0, 5.0, 4.0])), targets.Aim(0, target.about))
    >>> print(jnp.exp(u))
    0.5
    """
    log_score = Partial(_log_share if probability else _log_total)
    return Target(Form("any_of"), log_score, None, _classes("targets.any_of", classes))


def _classes(call: str, given: Any) -> Array:
    index = as_array(given, call, "integer class indices")
    if index.ndim not in (1, 2) or index.size == 0:
        needs = "class indices [m], or [batch, m]"
        remedy = "For example [3, 5]."
        fail(call, needs=needs, got=f"{given!r} of shape {index.shape}", remedy=remedy)
    return narrow(index, call, given)


def _share(gamma: Any) -> Array:
    factor = as_array(gamma, "targets.contrast: gamma")
    value = known(factor)
    if factor.shape or factor.dtype == bool or not (value is None or 0 <= value < np.inf):
        needs = "a gamma of 0 or more"
        fail("targets.contrast", needs=needs, got=repr(gamma), remedy="Default: 0.6.")
    return factor


def _negated_score(scores: Array, aim: Aim) -> Array:
    return -score(scores, aim)


def _log_probability(scores: Array, aim: Aim) -> Array:
    return score(log_probabilities(scores, (scores.ndim - 1,)), aim)


def _rest(scores: Array, aim: Aim) -> Array:
    return widen(score(scores, aim)) + _log_probability(scores, aim)


def _against(gamma: Array, scores: Array, aim: Aim) -> Array:
    scores, others = widen(scores), jnp.asarray(aim.about)
    theirs = of_class(scores.at[others].get(mode="clip"), scores, others)
    apart = where_known(theirs, others != aim.class_index)
    return score(scores, aim) - gamma.astype(scores.dtype) * apart.mean()


def _log_total(scores: Array, aim: Aim) -> Array:
    return _split_by(scores, aim)[0]


def _log_share(scores: Array, aim: Aim) -> Array:
    among, others = _split_by(scores, aim)
    return -softplus(others - among)


def _split_by(scores: Array, aim: Aim) -> tuple[Array, Array]:
    """Give ``log sum e^S`` over the classes that were named, and over the others."""
    scores, named = widen(scores), jnp.asarray(aim.about)
    each = jnp.arange(scores.shape[-1], dtype=named.dtype)
    chosen = (named[:, None] == each[None]).any(axis=0)
    totals = [
        log_sum(jnp.where(one, scores, -jnp.inf), (0,))[0] for one in (chosen, ~chosen)
    ]  # fmt: skip
    exist = (named >= 0) & (named < scores.shape[-1])
    return where_known(totals[0], exist.all()), totals[1]
