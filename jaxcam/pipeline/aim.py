"""What a target is taken for, image by image: the class, and the region, reference or others."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.errors import fail
from jaxcam.pipeline.custom import check_custom
from jaxcam.targets import ANY, BINARY, CLASSES, EMBEDDING, OUTPUTS, REGION, Aim, Target

COMPETING = {
    "softmax": "one score, whose softmax is 1 whatever it is",
    "rest": "one score, whose softmax is 1 whatever it is",
    "contrast": "one score, and no other to set it against",
}


def per_image(target: Target, rank: int) -> Target:
    """Say of each array of a target whether it has a row per image, for scores of ``rank`` axes."""
    index, about = target.class_index, target.about
    return jax.tree.map(lambda _: False, target)._replace(
        class_index=None if index is None else index.ndim == 1,
        about=None if about is None else about.ndim == _rank_about(target, rank),
    )


def resolve(target: Target, scores: Array) -> Aim:
    """Give what is explained of each image, from the clean ``scores: [batch, ...]``."""
    _check_scores(target, scores)
    about, batch = _about(target, scores), len(scores)
    if target.class_index is None:
        index = _chosen(target, scores, about).astype(jnp.int32)
    elif target.class_index.shape not in ((), (batch,)):
        fail(
            "target",
            needs=f"one class index, or one per image: shape () or ({batch},)",
            got=f"shape {target.class_index.shape}",
            remedy="Give each image of the batch one class.",
        )
    else:
        index = jnp.broadcast_to(target.class_index, (batch,))
    if target.form.scores == REGION and about is None:
        about = _on_top(scores, index)
    if target.form.nearest and about is None:
        about = _nearest(scores, index, target.form.nearest)
    return Aim(index, about)


def _chosen(target: Target, scores: Array, about: Array | None) -> Array:
    """Give the class of each image where none is named: the top one, or that of those named."""
    if target.form.name == "any_of" and about is not None:
        place = jnp.take_along_axis(scores, about, axis=1, mode="clip").argmax(axis=1)
        return jnp.take_along_axis(about, place[:, None], axis=1)[:, 0]
    return jnp.argmax(_totals(target, scores, about), axis=-1)


def _nearest(scores: Array, index: Array, count: int) -> Array:
    """Name the other classes whose scores are nearest to that of a class, ``[batch, count]``."""
    own = index[:, None] == jnp.arange(scores.shape[1], dtype=index.dtype)[None]
    apart = jnp.abs(scores - jnp.take_along_axis(scores, index[:, None], axis=1, mode="clip"))
    order = jnp.argsort(jnp.where(own, jnp.nan, apart), axis=1, stable=True)  # NaN comes last
    return order[:, : min(count, scores.shape[1] - 1)].astype(jnp.int32)


def _on_top(scores: Array, index: Array) -> Array:
    """Mark where a class is on top; one channel alone is a logit, on top where it is above 0."""
    if scores.shape[-1] == 1:
        return scores[..., 0] > 0
    return scores.argmax(axis=-1) == index.reshape(-1, *(1 for _ in scores.shape[1:-1]))


def empty_regions(target: Target, scores: Array, index: Array) -> Array:
    """Say of each image whether its region, where a class is on top, has no pixel; ``[batch]``."""
    if target.form.scores != REGION or target.about is not None:
        return jnp.zeros(len(scores), bool)
    return ~_on_top(scores, index).reshape(len(scores), -1).any(axis=1)


def top(target: Target, scores: Array, aim: Aim) -> Array:
    """Give the class that one example's scores put on top; see `has_classes`."""
    about = None if aim.about is None else aim.about[None]
    return jnp.argmax(_totals(target, scores[None], about)[0])


def has_classes(target: Target, rank: int) -> bool:
    """Whether the last of the scores' ``rank`` axes (with the batch's) are classes that compete."""
    form = target.form.scores
    return form in (CLASSES, REGION, BINARY) or (form == ANY and rank == 2)


def _check_scores(target: Target, scores: Array) -> None:
    """Refuse scores that are of another kind than the target's."""
    form, shape = target.form, f"scores of shape {scores.shape}"
    if form.scores == ANY:
        check_custom(target.log_score, jax.ShapeDtypeStruct(scores.shape[1:], scores.dtype))
    if form.name in COMPETING and scores.shape[-1] == 1:
        remedy = (
            "Explain its logit by jaxcam.targets.exp_logit(0), and the other side of a binary "
            "network by exp_logit(0, negative=True)."
        )
        got = COMPETING[form.name]
        fail(f"target {form.name!r}", needs="two classes or more", got=got, remedy=remedy)
    if form.scores == BINARY and (scores.ndim != 2 or scores.shape[-1] != 1):
        remedy = "Of one of several classes it is exp_logit or, against the others, softmax."
        fail("target 'binary'", needs="one logit, scores [batch, 1]", got=shape, remedy=remedy)
    if form.scores == OUTPUTS:
        _check_outputs(target, scores)
    if form.scores == CLASSES and scores.ndim != 2:
        remedy = (
            "Explain a dense output by jaxcam.targets.region, or flatten the scores: logits= of "
            "jaxcam.split."
        )
        fail(f"target {form.name!r}", needs="scores [batch, classes]", got=shape, remedy=remedy)
    if form.scores == REGION and scores.ndim < 3:
        remedy = "Explain scores [batch, classes] by jaxcam.targets.exp_logit."
        needs = "a dense output [batch, *spatial, classes]"
        fail("target 'region'", needs=needs, got=shape, remedy=remedy)
    if form.scores == EMBEDDING:
        pair = target.about is None
        if scores.ndim != (3 if pair else 2) or (pair and scores.shape[1] != 2):
            needs = "pairs [batch, 2, d]" if pair else "embeddings [batch, d]"
            remedy = "Say by logits= of jaxcam.split what they are, or give a reference."
            fail("target 'similarity'", needs=needs, got=shape, remedy=remedy)


def _check_outputs(target: Target, scores: Array) -> None:
    shape = f"scores of shape {scores.shape}"
    if scores.ndim != 2:
        remedy = "Say by logits= of jaxcam.split which quantities they are."
        fail("target 'regression'", needs="outputs [batch, outputs]", got=shape, remedy=remedy)
    if target.class_index is None and scores.shape[-1] > 1:
        needs, remedy = "the output that is explained", "Name it: jaxcam.targets.regression(0)."
        fail("target 'regression'", needs=needs, got=f"none, of {scores.shape[-1]}", remedy=remedy)


def _rank_about(target: Target, rank: int) -> int:
    """How many axes a region or a reference has that comes with a row per image."""
    return rank - 1 if target.form.scores == REGION else rank


def _about(target: Target, scores: Array) -> Array | None:
    """The region or the reference of each image."""
    about = target.about
    if about is None:
        return None
    rank = _rank_about(target, scores.ndim)
    shape = (len(scores), *scores.shape[1:rank])
    if target.form.scores == CLASSES:
        return _each(target, about, len(scores))
    if about.shape not in (shape, shape[1:]):
        fail(
            f"target {target.form.name!r}",
            needs=f"{'a mask' if about.dtype == bool else 'a reference'} of shape {shape[1:]}, or "
            f"{shape}",
            got=f"shape {about.shape}",
            remedy="It has the shape of the network's output, without the axis of classes.",
        )
    return jnp.broadcast_to(about, shape)


def _each(target: Target, about: Array, batch: int) -> Array:
    """Give the classes that are named for each image, ``[batch, m]``."""
    if about.ndim == 2 and len(about) != batch:
        fail(
            f"target {target.form.name!r}",
            needs=f"class indices [m], or [{batch}, m] for each image its own",
            got=f"shape {about.shape}",
            remedy="Name as many classes for each image of the batch.",
        )
    return jnp.broadcast_to(about, (batch, about.shape[-1]))


def _totals(target: Target, scores: Array, about: Array | None) -> Array:
    """What classes compete by, ``[batch, classes]``: a region's sums, or the scores themselves.

    Without a mask, in how many pixels each class is on top. Of one logit, its two sides.
    """
    if target.form.scores == BINARY:
        return jnp.concatenate([-scores, scores], axis=1)
    if target.form.scores != REGION:
        return scores.reshape(len(scores), -1)
    if about is None:
        above = scores == scores.max(axis=-1, keepdims=True)
        return above.sum(axis=tuple(range(1, scores.ndim - 1)))
    return jnp.where(about[..., None], scores, 0).sum(axis=tuple(range(1, scores.ndim - 1)))
