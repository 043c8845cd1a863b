"""IS-CAM (Naidu et al., arXiv 2010.03023): Score-CAM with scores integrated over fading masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam import maps
from jaxcam.contracts import Example, Queries
from jaxcam.errors import fail
from jaxcam.methods import masks
from jaxcam.methods.options import check_count
from jaxcam.methods.outcomes import log_score

STEPS = ("even", "cumulative")


@functools.cache
def is_cam(*, num_steps: int = 10, steps: str = "even") -> Queries:
    """Weigh feature maps as Score-CAM, by scores that are averaged while masks fade in.

    With the masks ``H_k`` of `score_cam`, and ``t_i = i / N`` from ``1 / N`` to 1::

        w_k = softmax_k(1/N sum_i S(t_i x H_k))        map = ReLU(sum_k w_k A^k)

    One pass of the network for each feature map and step.

    Args:
        num_steps: ``N``.
        steps: ``even``, an integral from black to the masked input; or ``cumulative``,
            ``t_i = sum_{j <= i} j / N``, as torch-cam computes it and, from memory, the paper: the
            steps add up to ``(N + 1) / 2``, and all but the first few are of an input brighter
            than any that the network has seen (5.5 times, for 10).

    torch-cam stretches maps before it enlarges them, which is not done here. With one step it is
    Score-CAM, either way.

    Raises:
        JaxcamError: a number of steps below 1, steps of another name; when called, several inputs,
            a layer with other axes than the input.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1))
    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]])
    >>> method = jaxcam.methods.is_cam(num_steps=2)  # of scores 2 and 1, three quarters each
    >>> print(*(f"{w:.2f}" for w in jaxcam.cam(split, x, method, 0).weights[0]))
    0.68 0.32
    """
    check_count("is_cam", "num_steps", num_steps, 1, "Default: 10.")
    if steps not in STEPS:
        needs = "steps 'even' or 'cumulative'"
        fail("is_cam", needs=needs, got=repr(steps), remedy="Default: 'even'.")
    shares = np.arange(1, num_steps + 1) / num_steps
    shares = tuple(np.cumsum(shares) if steps == "cumulative" else shares)
    return Queries(
        "is_cam", "input",
        functools.partial(_count, steps=num_steps),
        functools.partial(_behind, shares=shares),
        log_score,
        functools.partial(_weigh, steps=num_steps),
        _prepare,
    )  # fmt: skip


def _count(shape: tuple[int, ...], *, steps: int) -> int:
    return steps * shape[-1]


def _prepare(example: Example) -> Array:
    masks.check_axes("is_cam", example)
    return example.a


def _behind(x: Array, n: Array, a: Array, *, shares: tuple[float, ...]) -> Array:
    mask = masks.of_map(masks.feature_map(a, n % a.shape[-1]), x.shape[:-1])
    return masks.masked(x, jnp.asarray(shares, mask.dtype)[n // a.shape[-1]] * mask)


def _weigh(outcomes: Array, clean: Array, a: Array, _: Array, *, steps: int) -> tuple[Array, Array]:
    weights = jax.nn.softmax(outcomes.reshape(steps, -1).mean(axis=0))
    return weights, maps.combine(weights, a)
