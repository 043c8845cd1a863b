"""Why a model or a layer cannot be split, said with what can be done instead."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NoReturn

from jaxcam.errors import fail
from jaxcam.split.census import MAPPED, census
from jaxcam.split.site import Network, Site

_LISTED = 20


def refuse_model(call: str, model: Any) -> NoReturn:
    """Not a model of these: a compiled or plain function, a class, or another library's object."""
    if isinstance(model, type):
        got, remedy = f"the class {model.__name__}", "Make an instance of it."
    else:
        compiled = callable(model) and hasattr(model, "lower")
        kind = "a compiled function" if compiled else f"a {type(model).__name__}"
        got = f"{kind}, whose layers cannot be seen from outside"
        remedy = (
            "Pass the model itself; any other network as a pair of pure functions, "
            "jaxcam.Split(Partial(features, params), Partial(scores, params)) with "
            "jax.tree_util.Partial, features(params, x) -> a and "
            "scores(params, a, x) -> [batch, classes]."
        )
    fail(
        call,
        needs="a flax.linen or flax.nnx module, or a functional Keras model",
        got=got,
        remedy=remedy,
    )


def refuse_name(call: str, layer: str, names: Iterable[str]) -> NoReturn:
    """No such layer: the nearest names, and a list of all of them."""
    names = list(dict.fromkeys(names))
    near = get_close_matches(layer, names, n=3, cutoff=0.5)
    nearest = f"Nearest: {', '.join(near)}. " if near else ""
    more = len(names) - _LISTED
    rest = f" and {more} more, which jaxcam.layers(model, x) lists" if more > 0 else ""
    fail(
        call,
        needs="the name of a layer that the model calls",
        got=repr(layer),
        remedy=f"{nearest}Layers: {', '.join(names[:_LISTED])}{rest}.",
    )


def refuse_layer(site: Site, weights: Any, arrays: tuple[Any, ...], x: Any) -> None:
    """Raise if the layer is what is wrong: not called, not so often, or within a loop.

    Does nothing if it is not, or if the model cannot even be traced: then that error is the one.
    """
    try:
        network = Network(site.adapter, site.model, weights)
        sightings = census(network, site.arguments, arrays, x)
    except Exception:
        return
    matches = [sighting for sighting in sightings if sighting.name == site.layer]
    free = [sighting for sighting in matches if sighting.inside is None]
    if not matches:
        refuse_name(str(site), site.layer, (s.name for s in sightings if s.inside is None))
    if not free:
        _refuse_loop(site, matches[0].inside)
    if site.call >= len(free):
        times = "once" if len(free) == 1 else f"{len(free)} times"
        fail(
            str(site),
            needs=f"a call of the layer from 0 to {len(free) - 1}",
            got=f"call={site.call}, of a layer that is called {times}",
            remedy="Calls are counted from 0, in the order in which the model makes them.",
        )


def _refuse_loop(site: Site, inside: str | None) -> NoReturn:
    """One name stands for many outputs there, and replacing one would replace them all."""
    if inside == MAPPED:
        fail(
            str(site),
            needs="a layer whose output can be taken out of the model",
            got="one whose variables are mapped on the way to it (WeightNorm, SpectralNorm)",
            remedy="Take the layer that maps them: jaxcam.layers lists it.",
        )
    fail(
        str(site),
        needs="a layer with one output per call",
        got=f"a layer inside a {inside}, where one call stands for many",
        remedy="Take a layer outside of it (jaxcam.layers lists them), or write that part of the "
        "model as a Python loop.",
    )
