"""The input as a layer: ``features`` gives it back, and ``scores`` runs the whole model.

Sensitivity maps, gradient times input, Integrated Gradients and SmoothGrad are the library's other
methods at this layer.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxcam.arrays.door import as_array
from jaxcam.arrays.inputs import is_several, picked, replaced, taken
from jaxcam.arrays.outputs import check_scores, describe
from jaxcam.errors import fail
from jaxcam.split.passes import logits_of
from jaxcam.split.site import Site, join
from jaxcam.types import Split

INPUT = "input"


def cut_input(site: Site, weights: Any, arrays: tuple[Any, ...]) -> Split:
    """Cut before the model. Which of several inputs is the layer, ``select`` says."""
    return Split(Partial(features, site), Partial(scores, site, weights, arrays))


def features(site: Site, x: Any) -> Array:
    """``a``: the input itself."""
    x = taken(x, f"{site}.features(x)")
    a = picked(x, _key(site, x))
    if not jnp.issubdtype(a.dtype, jnp.floating):
        remedy = "Take a layer behind the embedding, or convert pixels as in training."
        fail(str(site), needs="floating input", got=describe(a), remedy=remedy)
    if a.ndim < 3:
        remedy = "Add the axis of channels in the model, or take a layer that has one."
        fail(str(site), needs="input [batch, *spatial, k]", got=describe(a), remedy=remedy)
    return a


def scores(site: Site, weights: Any, arrays: tuple[Any, ...], a: Array, x: Any) -> Array:
    """``[batch, classes]`` of the model on ``a``, and on what else there is in ``x``."""
    call = f"{site}.scores(a, x)"
    a, x = as_array(a, call), taken(x, call)
    x = replaced(x, _key(site, x), a)
    # No call of any layer is watched.
    nowhere = replace(site, path=(), call=-1, select=None, to_map=None)
    output, _ = site.adapter.run(nowhere, weights, join(site.arguments, arrays), None, x)
    logits = logits_of(site, output)
    check_scores(str(site), logits, x)
    return logits


def _key(site: Site, x: Any) -> Any:
    """Which of several inputs: the one that is named, or the only floating one."""
    if not is_several(x):
        if site.select is not None:
            remedy = "It says which of several inputs is the layer."
            fail(str(site), needs="no select= where x is one array", got=site.select, remedy=remedy)
        return None
    named = dict(enumerate(x)) if isinstance(x, tuple) else x
    floating = [key for key, leaf in named.items() if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if site.select is None and len(floating) == 1:
        return floating[0]
    if isinstance(site.select, jax.Array) or callable(site.select) or site.select not in floating:
        fail(
            str(site),
            needs=f"select= of {', '.join(map(repr, floating))}, the input that is the layer",
            got=repr(site.select),
            remedy="Name one floating input; the others stay as they are.",
        )
    return site.select
