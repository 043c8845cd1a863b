"""Ablation-CAM (Desai and Ramaswamy, WACV 2020): what the score loses without a feature map."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.contracts import Queries
from jaxcam.errors import fail
from jaxcam.methods.outcomes import log_score

UNITS = ("size", "score", "none")


@functools.cache
def ablation_cam(*, unit: str = "size") -> Queries:
    """Weigh each feature map by what the score loses without it: ``w_k = (S - S_k) / |S|``.

    ``S`` is the target's log-score, the logit by default, and ``S_k`` that where ``A^k`` is zero::

        w_k = (S - S_k) / |S|        map = ReLU(sum_k w_k A^k)

    No gradient is taken: one pass of the head for each feature map. A class whose score is zero has
    no relative loss: the map is not finite, and refused; take ``unit="none"``.

    Args:
        unit: what a loss is measured in. ``size``, ``|S|``; ``score``, ``S`` itself, as printed,
            which is the same where it is positive and turns every sign around where it is not, so
            that the map of an unlikely class shows what speaks against it; ``none``, the loss as it
            is, which only scales the map.

    pytorch-grad-cam divides by ``S``. Where a layer's smallest activation is not zero, such as
    before a ReLU, it sets feature maps to ten million below that instead of zero, which is not done
    here.

    Raises:
        JaxcamError: another unit.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1) @ jnp.array([[2.0], [-1.0]]))
    >>> x = jnp.array([[[1.0, 0.0], [1.0, 2.0]]])  # S = 2 * 2 - 2 = 2: losses of 4 and -2
    >>> print(jaxcam.cam(split, x, jaxcam.methods.ablation_cam(), 0).weights)
    [[ 2. -1.]]
    """
    if unit not in UNITS:
        needs = "a unit of 'size', 'score' or 'none'"
        fail("ablation_cam", needs=needs, got=repr(unit), remedy="Default: 'size'.")
    weigh = functools.partial(_weigh, unit=unit)
    return Queries("ablation_cam", "layer", _count, _without, log_score, weigh, signed=True)


def _count(shape: tuple[int, ...]) -> int:
    return shape[-1]


def _without(a: Array, n: Array) -> Array:
    return a.at[..., n].set(0)


def _weigh(outcomes: Array, clean: Array, a: Array, *, unit: str) -> tuple[Array, Array]:
    units = {"size": jnp.abs(clean), "score": clean, "none": jnp.ones_like(clean)}
    weights = (clean - outcomes) / units[unit]
    return weights, maps.combine(weights, a)
