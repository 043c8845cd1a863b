"""The adapter for `flax.nnx`: a layer's output is watched and replaced in a private copy.

The copy's layer gets a subclass of its own class, on the instance alone, and variables of its own
that carry what the subclass reads and writes. So it goes through ``nnx.jit`` and ``nnx.remat`` as
the model's own state does, and what leaves ``nnx.scan`` or ``nnx.vmap`` is stacked, which shows.
Their names begin with ``to_nnx__``: all that is called otherwise, ``nnx.bridge.ToNNX`` takes for
variables of its linen module.

Imported on demand: ``flax.nnx`` takes longer to import than the rest of this library.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, reduce
from typing import Any

import jax
from flax import errors, nnx

from jaxcam.arrays.inputs import call_with
from jaxcam.arrays.outputs import is_array
from jaxcam.errors import fail
from jaxcam.split.census import Tape, mark
from jaxcam.split.linen import in_our_words
from jaxcam.split.passes import Seen, visit
from jaxcam.split.refusals import refuse_name
from jaxcam.split.site import Adapter, Arguments, Network, Site, divide, join
from jaxcam.split.state import Held, changed, refuse, training

_EVALUATION = {"deterministic": True, "use_running_average": True}


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
    evaluated = nnx.view(model, **_EVALUATION, raise_if_not_found=False, graph=True)
    # Modules without a view of their own have the flags all the same: nnx.SpectralNorm, the user's.
    evaluated.set_attributes(**_EVALUATION, raise_if_not_found=False, graph=True)
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
    before, arguments = _held(model), divide(str(site), kwargs)
    layer = _walk(model, site.path)
    object.__setattr__(layer, "__class__", _watched(type(layer)))
    layer.to_nnx__site = nnx.static(site)
    layer.to_nnx__seen = Watched((), ref=False, hijax=False)
    if a is not None:
        layer.to_nnx__substitute = Watched(a, ref=False, hijax=False)
    positional, named = call_with(x)
    try:
        with in_our_words(site):  # of linen modules within, by nnx.bridge
            output = model(*positional, **named, **kwargs)
    except errors.TraceContextError:
        fail(
            str(site),
            needs="a layer that the model calls directly or within transformations of nnx",
            got="one within a plain transformation of JAX, which cannot hand out its output",
            remedy="Write nnx.remat for jax.checkpoint and nnx.jit for jax.jit in the model.",
        )
    if changed(before, _held(model)):
        _check_evaluation(site, state, arguments, x)
    return output, layer.to_nnx__seen.get_value()


def _check_evaluation(
    site: Site, state: nnx.State, arguments: tuple[Arguments, tuple[Any, ...]], x: Any
) -> None:
    """Refuse a model whose answer is not a function of its input alone: linen does the same."""
    static, arrays = arguments

    def trial(rest: Any, x: Any) -> tuple[Any, Held, Held]:
        state, arrays = rest
        model = nnx.merge(site.model, state, copy=True)
        before = _held(model)
        positional, named = call_with(x)
        output = model(*positional, **named, **join(static, arrays))
        return list(filter(is_array, jax.tree.leaves(output))), before, _held(model)

    held = dict(_variables(nnx.merge(site.model, state, copy=True)))

    def is_generator(name: str) -> bool:
        return isinstance(held[name], nnx.RngState)

    if names := training(trial, (state, arrays), x, is_generator=is_generator):
        refuse(
            str(site),
            names,
            random=any(map(is_generator, names)),
            remedy="Pass the argument of the model that switches it, such as train=False, or set "
            "the model's own flag before it is split. One that always does so can be given as a "
            "pair of pure functions, jaxcam.Split.",
        )


def survey(
    tape: Tape, graph: nnx.GraphDef, state: nnx.State, kwargs: dict[str, Any], x: Any
) -> None:
    """Run a copy of the model with every layer's output marked."""
    model = nnx.merge(graph, state, copy=True)
    for name, layer in _layers(model):
        object.__setattr__(layer, "__class__", _taped(type(layer)))
        layer.to_nnx__tape = nnx.static((tape, name))
    positional, named = call_with(x)
    model(*positional, **named, **kwargs)


ADAPTER = Adapter(run, survey)
"""What `flax.nnx` models are run with."""


@cache
def _watched(cls: type) -> type:
    """The subclass that a watched layer is an instance of, one per class: graphs compare equal."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = cls.__call__(self, *args, **kwargs)
        before = self.to_nnx__seen.get_value()
        substitute = getattr(self, "to_nnx__substitute", None)
        a = None if substitute is None else substitute.get_value()
        output, seen = visit(self.to_nnx__site, before, output, a)
        self.to_nnx__seen.set_value((*before, seen))
        return output

    return _subclass(cls, call)


@cache
def _taped(cls: type) -> type:
    """The same for a survey."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tape, name = self.to_nnx__tape
        return mark(tape, name, lambda: cls.__call__(self, *args, **kwargs))

    return _subclass(cls, call)


def _subclass(cls: type, call: Callable[..., Any]) -> type:
    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _value(variable: Any) -> Any:
    """A variable of its own with the value of now, also of one that is held by reference."""
    return variable.copy(ref=False, hijax=False) if _is_variable(variable) else variable


def _variables(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    """Everything that a call could update, but what is sown, which nobody reads."""
    for path, held in nnx.to_flat_state(nnx.state(model, graph=True)):
        if not isinstance(held, nnx.Intermediate):
            yield "/".join(map(str, path)), held


def _held(model: nnx.Module) -> Held:
    return {
        name: jax.tree.leaves(held.get_raw_value() if _is_variable(held) else held)
        for name, held in _variables(model)
    }


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
