"""SS-CAM (Wang et al., arXiv 2006.14255): Score-CAM with scores averaged over noisy masks."""

import functools
import math

import jax
from jax import Array

from jaxcam import maps
from jaxcam.contracts import Example, Queries
from jaxcam.methods import masks
from jaxcam.methods.options import check_count, checked_number
from jaxcam.methods.outcomes import log_score
from jaxcam.pipeline import noise

INDEPENDENT = noise.SCHEMES["independent"]


@functools.cache
def ss_cam(*, num_samples: int = 35, noise_level: float = 2.0) -> Queries:
    """Weigh feature maps as Score-CAM, by scores that are averaged over noisy masks.

    With the masks ``H_k`` of `score_cam`, from 0 to 1, and ``eps ~ N(0, I)`` at every pixel::

        w_k = softmax_k(mean_i S(x (H_k + sigma eps_ik)))        map = ReLU(sum_k w_k A^k)

    One pass of the network for each feature map and sample. The noise of a map is its own: the
    ``i``-th of map ``k`` depends on the key, on ``i`` and on ``k`` alone, and is the same for every
    colour.

    Args:
        num_samples: how many noisy masks there are of each map.
        noise_level: ``sigma``, as a share of the mask's range. The default is torch-cam's: twice
            the range, so that most of a mask is noise.

    The formula is torch-cam's [the paper has a second form, with noise on the activations, which
    was not read]; its code stretches maps before it enlarges them. It is Score-CAM at
    ``noise_level=0``. A `key` is needed.

    Raises:
        JaxcamError: a number of samples below 1, a negative deviation; when called, no key, several
            inputs, a layer with other axes than the input.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1))
    >>> x, key = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]]), jax.random.key(0)
    >>> jaxcam.cam(split, x, jaxcam.methods.ss_cam(num_samples=4), 0, key=key).weights.shape
    (1, 2)
    """
    check_count("ss_cam", "num_samples", num_samples, 1, "Default: 35.")
    level = float(checked_number("ss_cam", "noise_level", noise_level, 0, math.inf, "Default: 2."))
    return Queries(
        "ss_cam", "input",
        functools.partial(_count, samples=num_samples),
        functools.partial(_behind, level=level),
        log_score,
        functools.partial(_weigh, samples=num_samples),
        _prepare,
        random=True,
    )  # fmt: skip


def _count(shape: tuple[int, ...], *, samples: int) -> int:
    return samples * shape[-1]


def _prepare(example: Example) -> tuple[Array, Array | None]:
    masks.check_axes("ss_cam", example)
    return example.a, example.key


def _behind(x: Array, n: Array, given: tuple[Array, Array], *, level: float) -> Array:
    """Take sample ``n // K`` of map ``n % K``: more samples leave the first as they are."""
    a, key = given
    mask = masks.of_map(masks.feature_map(a, n % a.shape[-1]), x.shape[:-1])
    return masks.masked(x, mask + level * INDEPENDENT.draw(key, n, mask.shape, mask.dtype))


def _weigh(
    outcomes: Array, clean: Array, a: Array, given: tuple[Array, Array], *, samples: int
) -> tuple[Array, Array]:
    weights = jax.nn.softmax(outcomes.reshape(samples, -1).mean(axis=0))
    return weights, maps.combine(weights, a)
