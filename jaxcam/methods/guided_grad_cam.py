"""Guided Grad-CAM (arXiv 1610.02391): Guided Backprop where Grad-CAM looks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxcam.arrays.inputs import is_several
from jaxcam.contracts import Gradient
from jaxcam.errors import fail
from jaxcam.jaxprs.relus import with_relus
from jaxcam.maps import upsample
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.types import Split, held


@functools.cache
def guided_grad_cam(*, over: str = "max") -> Gradient:
    """Multiply Guided Backprop with Grad-CAM, upsampled: ``map_ij = max_c |r_ij^c| up(L)_ij``.

    ``L = ReLU(sum_k mean_ij(u1^k) A^k)`` at the layer where the model is cut, and ``r`` the guided
    gradient (`guided_backprop`) of the whole network at its input. Unlike other methods of a layer
    its map has the input's resolution, ``[batch, *spatial of x]``, and ``weights`` are the signed
    product ``r up(L): [batch, *spatial, colours]``; ``channels`` and ``neurons`` are the input's.
    One forward and two backward passes (and one more forward, which the compiler shares in part).

    Grad-CAM tells classes apart and is coarse; Guided Backprop is fine and hardly depends on the
    class. The product looks like both, but inside the coarse blob it shows what Guided Backprop
    shows, whichever the class: details are no evidence. adityac94's code cuts the blob at 0.25
    first, which is not done here. The formula is from memory.

    Args:
        over: what is made of the colours, ``max`` or ``sum`` of their sizes.

    Raises:
        JaxcamError: when called, an input that is not one floating array ``[batch, *spatial, c]``
            with as many axes as the layer; and as for `guided_backprop`.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> head = lambda a, x: jax.nn.relu(a).sum(1) @ jnp.array([[1.0, -1.0]])
    >>> split = jaxcam.Split(lambda x: 3 * x, head)
    >>> x = jnp.array([[[2.0], [-1.0]]])
    >>> print(jaxcam.cam(split, x, jaxcam.methods.guided_grad_cam(), 0).map)
    [[9. 0.]]
    """
    return sensitivity_map(over=over)._replace(name="guided_grad_cam", change=_change)


def _change(split: Split) -> Split:
    """Give the network cut at its input, with the product as its gradient there."""
    return Split(Partial(_input), Partial(_scores, held(split.features), held(split.scores)))


def _input(x: Any) -> Array:
    if is_several(x) or not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 3:
        got = "several inputs" if is_several(x) else f"{x.dtype} of shape {x.shape}"
        remedy = "Take grad_cam, which asks nothing of the input."
        needs = "one floating input [batch, *spatial, c]"
        fail("guided_grad_cam", needs=needs, got=got, remedy=remedy)
    return x


def _scores(features: Partial, scores: Partial, a: Array, x: Array) -> Array:
    layer = jax.lax.stop_gradient(a)
    activations = features(layer)
    if activations.ndim != a.ndim:
        needs = "a layer with as many axes as the input"
        got = f"shapes {activations.shape} and {a.shape}"
        remedy = "Say by to_map= of jaxcam.split how it is a map."
        fail("guided_grad_cam", needs=needs, got=got, remedy=remedy)
    seen, added = _product(a, activations)
    guided = with_relus(lambda a: scores(features(a), a), "guided", "guided_grad_cam")(seen)
    # Zero, with the gradient at the layer: `_product` meets both on the way back.
    plain = scores(activations + added, layer)
    return guided + (plain - jax.lax.stop_gradient(plain))


@jax.custom_vjp
def _product(x: Array, a: Array) -> tuple[Array, Array]:
    """Give ``x``, and zeros to add to ``a``; what comes back to ``x`` is multiplied by the map."""
    return x, jnp.zeros_like(a)


def _forward(x: Array, a: Array) -> tuple[tuple[Array, Array], Array]:
    return _product(x, a), a


def _backward(a: Array, back: tuple[Array, Array]) -> tuple[Array, Array]:
    guided, gradient = back
    weights = gradient.mean(axis=tuple(range(1, a.ndim - 1)), keepdims=True)
    map = jax.nn.relu((weights * a).sum(axis=-1))
    larger = upsample(map, guided.shape[1:-1])
    return guided * larger[..., None].astype(guided.dtype), jnp.zeros_like(a)


_product.defvjp(_forward, _backward)
