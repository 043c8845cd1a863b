"""Models cut at a layer: `split`; `layers` and `last_layer` to see where.

The core of the library takes any pair of pure functions; this package makes them from models of
`flax.linen`, `flax.nnx` and Keras. Nothing outside of it knows about Flax or Keras.
"""

import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from jaxcam.arrays.inputs import taken
from jaxcam.arrays.running import running
from jaxcam.errors import fail
from jaxcam.split import linen
from jaxcam.split.arrange import ToMap, tokens
from jaxcam.split.census import census, free
from jaxcam.split.last import last
from jaxcam.split.passes import cut
from jaxcam.split.pick import Choice
from jaxcam.split.refusals import refuse_model
from jaxcam.split.site import AUTO, Network, Site, divide
from jaxcam.split.whole import INPUT, cut_input
from jaxcam.types import Split

__all__ = ["last_layer", "layers", "split", "tokens"]


def split(
    model: Any,
    layer: str = AUTO,
    *,
    variables: Any = None,
    call: int = 0,
    select: Choice = None,
    to_map: ToMap | None = None,
    logits: Choice = None,
    **kwargs: Any,
) -> Split:
    """Cut a model at a layer into ``features(x) -> a`` and ``scores(a, x)``.

    ``x`` is ``[batch, *spatial, channel]``, or for a model of several inputs a tuple or list of
    arrays or a dict of them by keyword, each with the batch axis first. ``a`` is the layer's
    output, ``[batch, *spatial, k]``, and the scores are ``[batch, classes]``, or a map of them
    ``[batch, *spatial, classes]``. ``scores`` runs the whole model with the layer's output replaced
    by ``a``: what goes around the layer (a residual connection) still comes from ``x``, and
    ``scores(features(x), x)`` is the model's own output, to the last bit unless the compiler fuses
    across the layer. Both are pure and work under any transformation of JAX; the model, its state
    and its class stay as they are. Weights, and arrays among ``kwargs``, are leaves of the result:
    a split of the same model with new weights of the same shapes reuses what was compiled.

    Args:
        model: a `flax.linen` module; or a `flax.nnx` module or a functional Keras model (on the JAX
            backend), which are put into evaluation mode.
        layer: its name as `layers` gives it, ``"Block_0/Conv_1"`` or ``"stages/3/layers/2"``;
            ``.`` may stand for ``/`` where there is none. ``auto``: what `last_layer` finds.
            ``input``: the input itself, for maps of its own pixels (a layer of that name is
            ``"/input"``).
        variables: all collections of a linen module; not for nnx, nor for a bound linen module. For
            Keras, if not the model's own: ``(trainable, non_trainable)``, as ``stateless_call``
            takes them.
        call: which call, where the model calls the layer several times: from 0 on, in the order of
            the model's calls, or for Keras in that of the layer's nodes.
        select: which array, where the layer returns several: an index, a key, an attribute's name,
            or a function that returns one of them. A function is compared by identity, so define
            it once. At ``input``, which of several inputs: a place in the tuple, or a name.
        to_map: makes a map ``[batch, *spatial, k]`` of the layer's output by picking and reordering
            elements: `jaxcam.tokens` for transformers, ``lambda a: jnp.moveaxis(a, 1, -1)`` for
            channels that come first. What it leaves out stays as the network computes it.
        logits: the same as ``select`` for the model's output; here a function may also compute
            (``jnp.log``).
        kwargs: go to the model's call. linen models need theirs for evaluation mode,
            ``train=False``; ``rngs=`` and ``method=`` go to their ``apply``.

    Raises:
        JaxcamError: at once, if the model, its variables, the arguments or (nnx) the name are not
            usable; when ``features`` or ``scores`` is first traced, if the model does not call the
            layer, or not as often, or within a loop (``nn.scan``, ``nn.vmap``), or if shapes are
            not as above.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> from jaxcam.split import split
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = x + nn.gelu(nn.Conv(8, (3, 3), name="conv")(x))
    ...         return nn.Dense(5)(x.mean((1, 2)))
    >>> x = jax.random.normal(jax.random.key(0), (2, 16, 16, 8))
    >>> variables = Net().init(jax.random.key(1), x)
    >>> features, scores = split(Net(), "conv", variables=variables)
    >>> a = features(x)
    >>> a.shape, scores(a, x).shape
    ((2, 16, 16, 8), (2, 5))
    >>> bool(jnp.all(scores(a, x) == Net().apply(variables, x)))
    True
    """
    named = repr(layer) if isinstance(layer, str | int) else f"a {type(layer).__name__}"
    where = f"jaxcam.split(model, {named})"
    network = _network(where, model, variables, kwargs)
    whole = layer == INPUT
    path = (INPUT,) if whole else () if layer == AUTO else _path(where, model, layer)
    _check_options(where, layer, call, select, to_map, logits)
    arguments, arrays = divide(where, kwargs)
    site = Site(network.adapter, network.model, path, call, select, to_map, logits, arguments)
    return (cut_input if whole else cut)(site, _snapshot(network.weights), _snapshot(arrays))


def layers(model: Any, x: Any, *, variables: Any = None, **kwargs: Any) -> dict[str, Any]:
    """Shape and dtype of every layer's output, by the name that `split` takes, in call order.

    Nothing is computed: ``x`` may be a `jax.ShapeDtypeStruct`. A layer stands before those inside
    it, and the model itself is left out. What a layer returns besides one array is given as a
    pytree (`split` then needs ``select=``). Later calls of a layer stand as ``"name call=1"``, for
    ``split(model, "name", call=1)``. Layers inside a loop (``nn.scan``, ``nn.vmap``) are left out,
    because they cannot be split.

    Raises `jaxcam.errors.JaxcamError` as `split` does if the model or its variables are not usable.

    >>> import jax
    >>> from flax import nnx
    >>> from jaxcam.split import layers
    >>> rngs = nnx.Rngs(0)
    >>> conv, norm = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
    >>> model = nnx.Sequential(conv, norm, nnx.relu)
    >>> for name, output in layers(model, jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")).items():
    ...     print(name, output.shape)
    layers/0 (1, 8, 8, 8)
    layers/1 (1, 8, 8, 8)
    """
    where = "jaxcam.layers(model, x)"
    x = taken(x, where)
    network = _network(where, model, variables, kwargs)
    arguments, arrays = divide(where, kwargs)
    with running(where, x):
        sightings = census(network, arguments, arrays, x)
    return {str(place): sighting.output for place, sighting in free(sightings)}


def last_layer(
    model: Any,
    x: Any,
    *,
    variables: Any = None,
    select: Choice = None,
    to_map: ToMap | None = None,
    **kwargs: Any,
) -> str:
    """The last layer with a spatial extent, by its name: ``layer="auto"`` of `split`.

    Of all outputs with the axes of ``x`` and more than one position, the one that is computed last;
    where a block returns what its last layer does, the block. Tokens, which have an axis less, are
    not considered. Nothing is computed: ``x`` may be a `jax.ShapeDtypeStruct`.

    >>> import jax
    >>> from flax import nnx
    >>> import jaxcam
    >>> conv = nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0))
    >>> model = nnx.Sequential(conv, lambda x: x.mean((1, 2)), nnx.Linear(8, 5, rngs=nnx.Rngs(0)))
    >>> jaxcam.last_layer(model, jax.ShapeDtypeStruct((1, 16, 16, 3), "float32"))
    'layers/0'
    """
    where = "jaxcam.last_layer(model, x)"
    x = taken(x, where)
    network = _network(where, model, variables, kwargs)
    _check_options(where, AUTO, 0, select, to_map, None)
    arguments, arrays = divide(where, kwargs)
    with running(where, x):
        return str(last(where, network, arguments, arrays, x, select, to_map))


def _network(where: str, model: Any, variables: Any, kwargs: Mapping[str, Any]) -> Network:
    """Whose model it is. Only a process that has imported a library can have a model of it."""
    if isinstance(model, nn.Module):
        return linen.network(where, model, variables, kwargs)
    if _is_keras(model):
        from jaxcam.split import keras

        return keras.network(where, model, variables, kwargs)
    if _is_nnx(model):
        from jaxcam.split import nnx

        return nnx.network(where, model, variables)
    refuse_model(where, model)


def _is_nnx(model: Any) -> bool:
    module = getattr(sys.modules.get("flax.nnx"), "Module", None)
    return module is not None and isinstance(model, module)


def _is_keras(model: Any) -> bool:
    layer = getattr(sys.modules.get("keras"), "Layer", None)
    return layer is not None and isinstance(model, layer)


def _path(where: str, model: Any, layer: Any) -> tuple[str, ...]:
    """``"a/b"`` or ``"a.b"`` in parts; with a slash in it, a dot is part of a name.

    A linen model shows its layers only when it is called: there an unknown name is found then.
    """
    if not isinstance(layer, str):
        fail(
            where,
            needs="the name of a layer",
            got=f"a {type(layer).__name__}",
            remedy="jaxcam.layers(model, x) lists the names.",
        )
    if _is_keras(model):
        from jaxcam.split import keras

        return keras.resolve(where, model, layer)
    path = tuple(filter(None, layer.split("/" if "/" in layer else ".")))
    if _is_nnx(model):
        from jaxcam.split import nnx

        return nnx.resolve(where, model, path)
    if not path:
        fail(
            where,
            needs="the name of a layer, and not the whole model",
            got="no name",
            remedy="jaxcam.layers(model, x, variables=variables) lists the names.",
        )
    return path


def _check_options(
    where: str, layer: Any, call: Any, select: Any, to_map: Any, logits: Any
) -> None:
    if not isinstance(call, int) or call < 0:
        fail(where, needs="call= from 0 on", got=repr(call), remedy="0 is the first call.")
    if layer == AUTO and call:
        remedy = "jaxcam.last_layer(model, x) says its name."
        fail(where, needs="no call= of a layer without a name", got=f"call={call}", remedy=remedy)
    if layer == INPUT and (call or to_map is not None):
        got = "call=" if call else "to_map="
        remedy = "Leave it out: the input is one array, as the model takes it."
        fail(where, needs="a layer that is called and laid out", got=got, remedy=remedy)
    if to_map is not None and not callable(to_map):
        remedy = "For example to_map=jaxcam.tokens(before=1)."
        fail(where, needs="a function for to_map=", got=repr(to_map), remedy=remedy)
    for option, choice in {"select": select, "logits": logits}.items():
        if not (choice is None or isinstance(choice, int | str) or callable(choice)):
            fail(
                where,
                needs=f"{option}= to be an index, a key or a function",
                got=repr(choice),
                remedy=f"Pass {option}=lambda output: output[...] for anything else.",
            )


def _snapshot(tree: Any) -> Any:
    """New containers around the same arrays: a model trained further does not change the split."""
    return jax.tree.map(lambda leaf: leaf, tree)
