"""Abs-CAM (arXiv 2207.03648): weights of absolute gradients, then of scores behind their maps."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example, Gradient, Method, Queries
from jaxcam.errors import fail
from jaxcam.methods import masks
from jaxcam.methods.outcomes import probability
from jaxcam.types import Derivatives

STAGES = ("final", "initial")


@functools.cache
def abs_cam(*, stage: str = "final") -> Method:
    """Show where feature maps are that keep the class, weighed by absolute gradients first.

    With ``s`` a stretch to the range 0 to 1 and ``up`` to the input's size::

        w_k = mean_ij |u1^k|        M_k = s(up(w_k A^k))        y_k = p_c(x M_k)
        initial: ReLU(sum_k w_k A^k)        final: ReLU(sum_k y_k s(w_k A^k))

    The final map asks for one pass of the network for each feature map, and one gradient; the
    initial one is a gradient method, which `jaxcam.smooth` and `jaxcam.integrate` take.

    Args:
        stage: ``final`` or ``initial``.

    The stretch cancels ``w_k``, whatever it is above zero: the final map is Score-CAM by the
    authors' convention of maps that are stretched before they are added up, without those whose
    gradient is zero everywhere. The definition is read in third-party code alone, of whose final
    map the ``M_k`` themselves are summed, at the input's size; here they are summed at the layer's,
    stretched there.

    Raises:
        JaxcamError: another stage; when called for a final map, several inputs, a layer with other
            axes than the input, a target that is not a class.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1) @ jnp.array([[-1.0, 2.0], [0, 0]]))
    >>> x = jnp.array([[[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.abs_cam(stage="initial"), 0).map)
    [[1. 0. 3.]]
    """
    if stage not in STAGES:
        needs = "a stage 'final' or 'initial'"
        fail("abs_cam", needs=needs, got=repr(stage), remedy="Default: 'final'.")
    if stage == "initial":
        return Gradient("abs_cam", order=1, weigh=_weigh_gradients)
    return Queries(
        "abs_cam", "input", _count, _behind, probability("abs_cam"), _weigh, _prepare, gradient=True
    )


def _weigh_gradients(d: Derivatives, a: Array, scale: Array) -> tuple[Array, None]:
    return jnp.abs(d.d1).mean(axis=tuple(range(a.ndim - 1))) * scale, None


def _count(shape: tuple[int, ...]) -> int:
    return shape[-1]


def _prepare(example: Example) -> Array:
    """Give the weighted feature maps."""
    masks.check_axes("abs_cam", example)
    weights = jnp.abs(jnp.asarray(example.u1)).mean(axis=tuple(range(example.a.ndim - 1)))
    return widen(example.a) * jnp.broadcast_to(weights, example.a.shape)


def _behind(x: Array, n: Array, weighted: Array) -> Array:
    return masks.masked(x, masks.of_map(masks.feature_map(weighted, n), x.shape[:-1]))


def _weigh(outcomes: Array, clean: Array, a: Array, weighted: Array) -> tuple[None, Array]:
    shown = jax.vmap(masks.stretched, in_axes=-1, out_axes=-1)(weighted)
    return None, maps.combine(outcomes, shown)
