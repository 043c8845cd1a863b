"""The layer that is explained where none is named: the last one that still has a spatial extent."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxcam.arrays.inputs import batch_of
from jaxcam.errors import JaxcamError, fail
from jaxcam.split.arrange import arranged
from jaxcam.split.census import Place, Sighting, census, free
from jaxcam.split.pick import Choice, pick
from jaxcam.split.site import Arguments, Network, Site


def located(site: Site, weights: Any, arrays: tuple[Any, ...], x: Any) -> Site:
    """The same site, with the layer found if none was named."""
    if not site.is_auto:
        return site
    network = Network(site.adapter, site.model, weights)
    place = last(str(site), network, site.arguments, arrays, x, site.select, site.to_map)
    return replace(site, path=tuple(place.name.split("/")), call=place.call)


def last(
    call: str,
    network: Network,
    arguments: Arguments,
    arrays: tuple[Any, ...],
    x: Any,
    select: Choice,
    to_map: Any,
) -> Place:
    """The last output with a spatial extent; of a layer and those inside it, the outermost."""
    candidates = [
        (sighting.ended, place)
        for place, sighting in free(census(network, arguments, arrays, x))
        if _is_map(sighting, x, select, to_map)
    ]
    if not candidates:
        fail(
            call,
            needs="a layer whose output has a spatial extent",
            got="none such in this model",
            remedy="Name a layer that jaxcam.layers lists: to_map=jaxcam.tokens() makes a map of "
            "tokens, such as those of the last block's first LayerNorm.",
        )
    return max(candidates)[1]


def _is_map(sighting: Sighting, x: Any, select: Choice, to_map: Any) -> bool:
    """Whether it is ``[batch, *spatial, k]``, of more than one position, and floating.

    Names, ``[batch, *spatial]``, get their channels within the network.
    """
    ranks = {
        leaf.ndim + (not jnp.issubdtype(leaf.dtype, jnp.floating)) for leaf in jax.tree.leaves(x)
    } | {leaf.ndim for leaf in jax.tree.leaves(x)}
    try:
        output = pick(sighting.output, select, call="", what="", option="select")
        # Tokens of a picture have an axis less than it: which of them still matter is not known.
        if output.ndim not in ranks or not jnp.issubdtype(output.dtype, jnp.floating):
            return False
        if to_map is not None:
            output = jax.eval_shape(lambda a: arranged("", to_map, a), output)
    except JaxcamError:
        return False
    batched = output.ndim > 2 and output.shape[0] == batch_of(x)
    return batched and math.prod(output.shape[1:-1]) > 1
