"""The adapter for `flax.linen`: a layer's output is watched and replaced by an interceptor.

What the interceptor reads and writes travels in a variable collection of its own, and not in
Python variables. So it goes through ``nn.remat`` and ``nn.jit`` as the model's own variables do,
the trace that ``nn.jit`` caches for it is not the one that the user's calls find, and ``nn.scan``
and ``nn.vmap``, which do not lift the collection, leave it empty: a layer in there is not found,
where it would otherwise be replaced in every iteration.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import flax.linen as nn
import jax
from flax import errors

from jaxcam.errors import fail
from jaxcam.inputs import call_with
from jaxcam.split.census import Tape, mark
from jaxcam.split.passes import Seen, visit
from jaxcam.split.site import Adapter, Network, Site

_SEEN, _SUBSTITUTE, _LABEL = "jaxcam seen", "jaxcam substitute", "jaxcam label"
_OURS = {"mutable", "capture_intermediates"}


def network(call: str, model: nn.Module, variables: Any, kwargs: Mapping[str, Any]) -> Network:
    """Check what can be checked without an input; a bound module brings its own variables."""
    if model.scope is not None:
        model, bound = model.unbind()
        variables = bound if variables is None else variables
    if not isinstance(variables, Mapping):
        fail(
            call,
            needs="variables= with the collections of a linen module, as init returns them",
            got="none" if variables is None else f"a {type(variables).__name__}",
            remedy='Pass variables={"params": params, "batch_stats": ...}.',
        )
    if taken := _OURS & kwargs.keys():
        fail(
            call,
            needs="the arguments of the model's call",
            got=", ".join(f"{name}=" for name in sorted(taken)),
            remedy="Leave it away: a split model runs in evaluation mode and changes nothing.",
        )
    return Network(ADAPTER, model, variables)


def run(
    site: Site, variables: Mapping[str, Any], kwargs: dict[str, Any], a: Any, x: Any
) -> tuple[Any, tuple[Seen, ...]]:
    """Run the model with the layer watched or, given ``a``, replaced.

    The layer is the module that finds the slot for it among its variables. With the slot its block
    differs from others like it, of which ``nn.jit`` traces only the first.
    """
    # What else a cached trace depends on.
    collection = f"jaxcam {site.call} {site.select!r} {site.to_map!r}"

    def watch(module: nn.Module, call: Callable[[], Any]) -> Any:
        output = call()
        if not module.has_variable(collection, _SUBSTITUTE):
            return output
        before = module.get_variable(collection, _SEEN, ())
        output, seen = visit(site, before, output, module.get_variable(collection, _SUBSTITUTE))
        module.sow(collection, _SEEN, seen)
        return output

    slot = reduce(lambda tree, key: {key: tree}, reversed(site.path), {_SUBSTITUTE: a})
    positional, named = call_with(x)
    with _calls(watch), _explained(site):
        output, sown = site.model.apply(
            {**variables, collection: slot}, *positional, mutable=[collection], **named, **kwargs
        )
    at_layer = reduce(lambda tree, key: tree[key], site.path, sown[collection])
    return output, at_layer.get(_SEEN, ())


def survey(
    tape: Tape, model: nn.Module, variables: Mapping[str, Any], kwargs: dict[str, Any], x: Any
) -> None:
    """Run the model with every layer's output marked."""

    def watch(module: nn.Module, call: Callable[[], Any]) -> Any:
        return mark(tape, "/".join(module.path), call) if module.path else call()

    # Static values among the variables, others for each module and each survey: nn.jit must trace
    # every block anew, and not take the trace of one like it.
    labels = {
        f"{_LABEL} {name}": _labels(tape, (), tree)
        for name, tree in variables.items()
        if isinstance(tree, Mapping)
    }
    positional, named = call_with(x)
    with _calls(watch), _explained("jaxcam.layers(model, x)"):
        model.apply({**variables, **labels}, *positional, **named, **kwargs)


ADAPTER = Adapter(run, survey)
"""What `flax.linen` models are run with."""


@contextmanager
def _calls(watch: Callable[[nn.Module, Callable[[], Any]], Any]) -> Iterator[None]:
    """Have ``watch`` around every call of a module, once: ``super().__call__`` is not another."""
    running: list[tuple[str, ...]] = []

    def intercept(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or module.scope is None or module.path in running:
            return next_fun(*args, **kwargs)
        running.append(module.path)
        try:
            return watch(module, lambda: next_fun(*args, **kwargs))
        finally:
            running.pop()

    with nn.intercept_methods(intercept):
        yield


@contextmanager
def _explained(call: object) -> Iterator[None]:
    """Flax's own errors that a caller of this library can do something about, in its words."""
    switch = "Pass the argument of the model that switches it, such as train=False"
    try:
        yield
    except errors.ModifyScopeVariableError:
        fail(
            str(call),
            needs="a model in evaluation mode",
            got="one that updates its variables (BatchNorm in training mode)",
            remedy=f"{switch}.",
        )
    except NameError as error:
        if "unbound axis name" not in str(error):
            raise
        fail(
            str(call),
            needs="a model in evaluation mode",
            got=f"one that averages over devices (BatchNorm in training mode): {error}",
            remedy=f"{switch}.",
        )
    except errors.InvalidRngError:
        fail(
            str(call),
            needs="a model in evaluation mode",
            got="one that asks for random numbers (dropout in training mode)",
            remedy=f"{switch} or deterministic=True, or rngs=.",
        )
    except (
        errors.ScopeParamNotFoundError,
        errors.ScopeParamShapeError,
        errors.ScopeCollectionNotFound,
        errors.ScopeVariableNotFoundError,
        errors.ApplyScopeInvalidVariablesStructureError,
    ) as error:
        fail(
            str(call),
            needs="the variables of this model, and an x that fits them",
            got=f"others: {str(error).splitlines()[0]}",
            remedy='Pass all that init returned, such as {"params": ..., "batch_stats": ...}, and '
            "x with its batch axis.",
        )


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Label:
    tape: Tape
    path: tuple[str, ...]


def _labels(tape: Tape, path: tuple[str, ...], tree: Mapping[str, Any]) -> dict[str, Any]:
    """A label for each module that has variables, nested as they are."""
    inner = {
        name: _labels(tape, (*path, name), value)
        for name, value in tree.items()
        if isinstance(value, Mapping)
    }
    return {_LABEL: _Label(tape, path), **inner}
