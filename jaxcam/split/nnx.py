"""The adapter for `flax.nnx`: a layer's output is watched and replaced in a private copy.

The copy's layer gets a subclass of its own class, on the instance alone, and variables of its own
that carry what the subclass reads and writes. So it goes through ``nnx.jit`` and ``nnx.remat`` as
the model's own state does, and what leaves ``nnx.scan`` or ``nnx.vmap`` is stacked, which shows.

Imported on demand: ``flax.nnx`` takes longer to import than the rest of this library.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, reduce
from typing import Any

import jax
from flax import errors, nnx

from jaxcam.errors import fail
from jaxcam.inputs import call_with
from jaxcam.split.census import Tape, mark
from jaxcam.split.passes import Seen, visit
from jaxcam.split.refusals import refuse_name
from jaxcam.split.site import Adapter, Network, Site


class Watched(nnx.Variable):
    """What the watched layer of a private copy carries: the substitute, or its calls so far."""


def network(call: str, model: nnx.Module, variables: Any) -> Network:
    """The model's graph and state in evaluation mode; the model itself stays as it is.

    ``graph=True`` takes what either mode of nnx can express.
    """
    if variables is not None:
        fail(
            call,
            needs="no variables= for an nnx module, which holds its own",
            got=f"a {type(variables).__name__}",
            remedy="Put them into the model by nnx.update, or leave them away.",
        )
    evaluated = nnx.view(
        model, deterministic=True, use_running_average=True, raise_if_not_found=False, graph=True
    )
    graph, state = nnx.split(evaluated, graph=True)
    return Network(ADAPTER, graph, jax.tree.map(_value, state, is_leaf=_is_variable))


def resolve(call: str, model: nnx.Module, path: tuple[str, ...]) -> tuple[str, ...]:
    """The path by which `jaxcam.layers` knows a module, which may have several; or a refusal.

    Whether the model calls it shows when it runs.
    """
    layer = _walk(model, path)
    if not path or not isinstance(layer, nnx.Module):
        refuse_name(call, "/".join(path), (name for name, _ in _layers(model)))
    names = (name for name, node in _layers(model) if node is layer)
    return tuple(next(names, "/".join(path)).split("/"))


def run(
    site: Site, state: nnx.State, kwargs: dict[str, Any], a: Any, x: Any
) -> tuple[Any, tuple[Seen, ...]]:
    """Run a copy of the model with the layer watched or, given ``a``, replaced."""
    # Without copy=True the copy's variables would be the state's own.
    model = nnx.merge(site.model, state, copy=True)
    layer = _walk(model, site.path)
    object.__setattr__(layer, "__class__", _watched(type(layer)))
    layer.jaxcam_site = nnx.static(site)
    layer.jaxcam_seen = Watched((), ref=False, hijax=False)
    if a is not None:
        layer.jaxcam_substitute = Watched(a, ref=False, hijax=False)
    positional, named = call_with(x)
    try:
        output = model(*positional, **named, **kwargs)
    except errors.TraceContextError:
        fail(
            str(site),
            needs="a layer that the model calls directly or within transformations of nnx",
            got="one within a plain transformation of JAX, which cannot hand out its output",
            remedy="Write nnx.remat for jax.checkpoint and nnx.jit for jax.jit in the model.",
        )
    return output, layer.jaxcam_seen.get_value()


def survey(
    tape: Tape, graph: nnx.GraphDef, state: nnx.State, kwargs: dict[str, Any], x: Any
) -> None:
    """Run a copy of the model with every layer's output marked."""
    model = nnx.merge(graph, state, copy=True)
    for name, layer in _layers(model):
        object.__setattr__(layer, "__class__", _taped(type(layer)))
        layer.jaxcam_tape = nnx.static((tape, name))
    positional, named = call_with(x)
    model(*positional, **named, **kwargs)


ADAPTER = Adapter(run, survey)
"""What `flax.nnx` models are run with."""


@cache
def _watched(cls: type) -> type:
    """The subclass that a watched layer is an instance of, one per class: graphs compare equal."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = cls.__call__(self, *args, **kwargs)
        before = self.jaxcam_seen.get_value()
        substitute = getattr(self, "jaxcam_substitute", None)
        a = None if substitute is None else substitute.get_value()
        output, seen = visit(self.jaxcam_site, before, output, a)
        self.jaxcam_seen.set_value((*before, seen))
        return output

    return _subclass(cls, call)


@cache
def _taped(cls: type) -> type:
    """The same for a survey."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tape, name = self.jaxcam_tape
        return mark(tape, name, lambda: cls.__call__(self, *args, **kwargs))

    return _subclass(cls, call)


def _subclass(cls: type, call: Callable[..., Any]) -> type:
    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _value(variable: Any) -> Any:
    """A variable of its own with the value of now, also of one that is held by reference."""
    return variable.copy(ref=False, hijax=False) if _is_variable(variable) else variable


def _layers(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    """Every module that can be called but the model itself, once, by its first name."""
    for path, node in list(nnx.iter_graph(model, graph=True)):
        if path and isinstance(node, nnx.Module) and callable(node):
            yield "/".join(map(str, path)), node


def _walk(model: nnx.Module, path: tuple[str, ...]) -> Any:
    """What the path leads to, ``None`` if nowhere. A number is an index, a name may be a key."""
    try:
        return reduce(_step, path, model)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def _step(node: Any, part: str) -> Any:
    if part.isdigit() and hasattr(node, "__getitem__"):
        return node[int(part)]
    return node[part] if isinstance(node, Mapping) else getattr(node, part)
