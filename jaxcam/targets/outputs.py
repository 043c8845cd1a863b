"""Targets of networks whose output is no row of classes that compete.

One logit, quantities, a class for each pixel, an embedding, or anything by a function of one's own.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jaxcam.arrays.door import as_array, known
from jaxcam.arrays.precision import widen
from jaxcam.errors import fail
from jaxcam.targets.form import (
    ANY,
    BINARY,
    EMBEDDING,
    OUTPUTS,
    REGION,
    Aim,
    Form,
    Target,
    of_class,
    score,
    where_known,
)
from jaxcam.types import held


def binary(side: Any = None) -> Target:
    """Explain one side of a network with one logit, ``[batch, 1]``: ``u = S`` or ``u = -S``.

    ``p = 1 / (1 + e^-S)`` is the probability of side 1 and ``1 - p`` that of side 0, so that ``Y =
    e^u`` are the odds of the side, ``p / (1 - p)`` or ``(1 - p) / p``. pytorch-grad-cam has the
    same as ``BinaryClassifierOutputTarget``. ``result.target`` is the side.

    Args:
        side: 1 or 0 (True or False), or one per image, such as its label; by default the side that
            the network takes of each image.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> network = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) @ jnp.array([[1.0], [-1.0]]))
    >>> x = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])
    >>> for side in (0, 1):
    ...     target = jaxcam.targets.binary(side)
    ...     print(jaxcam.cam(network, x, jaxcam.methods.grad_cam(), target).map[0].round(2))
    [[0.   0.48]]
    [[0.38 0.  ]]
    """
    if side is not None:
        side = as_array(side, "targets.binary", "the side 0 or 1")
        side = side.astype(jnp.int32) if side.dtype == bool else side
    return Target(Form("binary", scores=BINARY), Partial(_side), side)


def regression(output: Any = None, *, negative: bool = False, scale: Any = 1.0) -> Target:
    """Explain what raises a quantity that a network estimates, ``[batch, outputs]``: ``u = S / s``.

    Nothing competes: there is no top class, and the output is named where there are several. The
    maps of methods that are linear in the first derivative (Grad-CAM, HiResCAM, Integrated
    Gradients) only grow with ``1 / s``, and at ``s = 1`` additive ones divide the quantity itself,
    in its own unit. ``Y = e^u`` has no unit, so alphas and sample weights do depend on ``s``: take
    a change of the quantity that matters, such as its standard deviation over the data.

    Args:
        output: which one, or one per image; needed where the network has several.
        negative: explain what lowers it, ``u = -S / s``.
        scale: ``s``, above 0, in the unit of the output.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> age = jaxcam.Split(lambda x: x, lambda a, x: a.sum((1, 2)) @ jnp.array([[3.0], [-1.0]]))
    >>> x = jnp.array([[[[10.0, 0.0], [2.0, 3.0]]]])
    >>> result = jaxcam.cam(age, x, jaxcam.methods.hires_cam(), jaxcam.targets.regression())
    >>> print(result.signed[0], result.scores[0])  # 33 in all
    [[30.  3.]] [33.]
    """
    factor = as_array(scale, "targets.regression: scale")
    value = known(factor)
    if factor.shape or factor.dtype == bool or not (value is None or 0 < value < np.inf):
        needs = "a scale above 0"
        fail("targets.regression", needs=needs, got=repr(scale), remedy="Default: 1.")
    form = Form("regression", scores=OUTPUTS)
    return Target(form, Partial(_lowered if negative else _raised, factor), output)


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
    log_score = Partial(_mean_score if mean else _summed_score)
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
    log_score = Partial(_similarity, as_array(scale, "similarity"))
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
    own = Partial(_ignoring_aim, held(log_score))
    return Target(Form("custom", scores=ANY), own, -1)


def _side(scores: Array, aim: Aim) -> Array:
    u, side = widen(scores[..., 0]), aim.class_index
    return where_known(jnp.where(side == 1, u, -u), (side == 0) | (side == 1))


def _raised(scale: Array, scores: Array, aim: Aim) -> Array:
    quantity = widen(score(scores, aim))
    return quantity / scale.astype(quantity.dtype)


def _lowered(scale: Array, scores: Array, aim: Aim) -> Array:
    return -_raised(scale, scores, aim)


def _summed_score(scores: Array, aim: Aim) -> Array:
    there = jnp.where(jnp.asarray(aim.about), score(scores, aim), 0)
    return of_class(there.sum(), scores, aim.class_index)  # also where the region is empty


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
