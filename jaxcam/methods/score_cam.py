"""Score-CAM (Wang et al., arXiv 1910.01279): the score of the input behind each feature map."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example, Queries
from jaxcam.errors import fail
from jaxcam.methods import masks
from jaxcam.methods.options import check_count
from jaxcam.methods.outcomes import log_score, probability


class Convention(NamedTuple):
    """How a mask is made of a map, what is asked of the masked input, and what it weighs.

    ``shares``: softmax over feature maps. ``skips``: a map that is constant weighs nothing.
    """

    mask: Callable[[Array, Any], Array]
    outcome: Callable[[Array, Array, Any], Array]
    shares: bool
    skips: bool = False


def _stretched_first(map: Array, size: Any) -> Array:
    return masks.enlarged(masks.stretched(map), size)


def _to_corners(map: Array, size: Any) -> Array:
    return masks.stretched(masks.enlarged_to_corners(map, size))


PROBABILITY = probability("score_cam")
CONVENTIONS = {
    "paper": Convention(masks.of_map, log_score, shares=True),
    "authors": Convention(masks.of_map, PROBABILITY, shares=False, skips=True),
    "torch-cam": Convention(_stretched_first, log_score, shares=True),
    "pytorch-grad-cam": Convention(_to_corners, log_score, shares=True),
    "tf-keras-vis": Convention(masks.of_map, PROBABILITY, shares=False),
}


@functools.cache
def score_cam(*, convention: str = "paper", max_maps: int | None = None) -> Queries:
    """Weigh each feature map by the score of the input behind it: ``w_k = softmax_k S(x H_k)``.

    With ``up`` to the input's size, linearly, ``s`` a stretch to the range 0 to 1 (a constant map
    becomes 0), and ``S`` the target's log-score, the logit by default::

        H_k = s(up(A^k))    w_k = softmax_k(S(x H_k) - S(x_b))    map = ReLU(sum_k w_k A^k)

    The paper's increase of confidence is over a baseline ``x_b``, the same for all ``k``, which
    cancels in the softmax, whatever it is. No gradient is taken: one pass of the network for each
    feature map. Masks are made one chunk at a time (``chunk_size``), however many maps there are.

    Args:
        convention: ``paper``, as above [from memory, and torch-cam's docstring]; or as published
            code computes it: ``torch-cam`` stretches first, ``H_k = up(s(A^k))``, and subtracts
            ``S(x)``; ``pytorch-grad-cam`` enlarges so that corners stay where they are; ``authors``
            weighs by probabilities, ``w_k = p_c(x H_k)``, not shared out by a softmax, and leaves
            out maps that are constant; so does ``tf-keras-vis``, with all maps. (It enlarges by
            cubic splines, which is not done here; its score is the user's, and mostly ``p_c``.)
            With the target `jaxcam.targets.softmax` the paper's weights are the authors', up to a
            factor: ``softmax_k log p_k = p_k / sum p``.
        max_maps: ask for the maps of the largest variance alone, so many of them, and leave the
            others out: Faster Score-CAM (tabayashi0117; ``max_N`` of tf-keras-vis). None for all.

    Scores differ by many units from map to map, and a softmax of logits then chooses one map: the
    conventions give different pictures.

    Raises:
        JaxcamError: another convention, a number of maps below 1; when called, several inputs, a
            layer with other axes than the input; of a probability, a target that is not a class.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1) @ jnp.eye(2))
    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]])
    >>> print(*(f"{w:.2f}" for w in jaxcam.cam(split, x, jaxcam.methods.score_cam(), 0).weights[0]))
    0.73 0.27
    """
    if convention not in CONVENTIONS:
        needs = f"a convention of {', '.join(map(repr, CONVENTIONS))}"
        fail("score_cam", needs=needs, got=repr(convention), remedy="Default: 'paper'.")
    if max_maps is not None:
        check_count("score_cam", "max_maps", max_maps, 1, "None takes all maps.")
    count = functools.partial(_count, max_maps=max_maps)
    rules = CONVENTIONS[convention]
    return Queries(
        "score_cam", "input", count,
        functools.partial(_behind, mask=rules.mask),
        rules.outcome,
        functools.partial(_weigh, rules=rules),
        functools.partial(_prepare, count=count),
    )  # fmt: skip


def _count(shape: tuple[int, ...], *, max_maps: int | None) -> int:
    return shape[-1] if max_maps is None else min(max_maps, shape[-1])


def _prepare(example: Example, *, count: Callable[[tuple[int, ...]], int]) -> tuple[Array, Array]:
    """Choose feature maps, by number, and hand on the layer that they are of."""
    masks.check_axes("score_cam", example)
    a = example.a
    chosen = jnp.arange(a.shape[-1], dtype=jnp.int32)
    if (most := count(a.shape)) < a.shape[-1]:
        variance = widen(a).var(axis=tuple(range(a.ndim - 1)))
        chosen = jax.lax.top_k(variance, most)[1]
    return a, chosen


def _behind(x: Array, n: Array, given: tuple[Array, Array], *, mask: Any) -> Array:
    a, chosen = given
    return masks.masked(x, mask(masks.feature_map(a, chosen[n]), x.shape[:-1]))


def _weigh(
    outcomes: Array, clean: Array, a: Array, given: tuple[Array, Array], *, rules: Convention
) -> tuple[Array, Array]:
    _, chosen = given
    found = jax.nn.softmax(outcomes) if rules.shares else outcomes
    if rules.skips:
        own = a.reshape(-1, a.shape[-1])[:, chosen]
        found = jnp.where(own.max(axis=0) > own.min(axis=0), found, 0)
    weights = jnp.zeros_like(found, shape=a.shape[-1:]).at[chosen].set(found)
    return weights, maps.combine(weights, a)
