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
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import errors, traverse_util

from jaxcam.arrays.door import through
from jaxcam.arrays.inputs import call_with
from jaxcam.errors import fail
from jaxcam.split.census import Tape, mark
from jaxcam.split.passes import Seen, visit
from jaxcam.split.site import Adapter, Network, Site, divide, join
from jaxcam.split.state import Held, not_handed_on, not_there_before, refuse

_SEEN, _SUBSTITUTE, _LABEL = "jaxcam seen", "jaxcam substitute", "jaxcam label"
_PROBE = "jaxcam probe"
_UPDATE = "_update_variables"  # of nnx.bridge.ToLinen, after its call: it is given the nnx model
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
    return Network(ADAPTER, model, through(variables, call))


def run(
    site: Site, variables: Mapping[str, Any], kwargs: dict[str, Any], a: Any, x: Any
) -> tuple[Any, tuple[Seen, ...]]:
    """Run the model with the layer watched or, given ``a``, replaced.

    The layer is the module that finds the slot for it among its variables. With the slot its block
    differs from others like it, of which ``nn.jit`` traces only the first.
    """
    # What else a cached trace depends on.
    collection = f"jaxcam {site.call} {site.select!r} {site.to_map!r}"
    roots: dict[tuple[str, ...], Any] = {}

    def watch(module: nn.Module, call: Callable[[], Any]) -> Any:
        roots.setdefault(module.path, module.scope and module.scope.root)
        output = call()
        if not module.has_variable(collection, _SUBSTITUTE):
            return output
        before = module.get_variable(collection, _SEEN, ())
        output, seen = visit(site, before, output, module.get_variable(collection, _SUBSTITUTE))
        module.sow(collection, _SEEN, seen)
        return output

    slot = reduce(lambda tree, key: {key: tree}, reversed(site.path), {_SUBSTITUTE: a})
    positional, named = call_with(x)
    bridged: list[Bridged] = []
    with _calls(watch, bridged.append), in_our_words(site):
        output, sown = site.model.apply(
            {**variables, collection: slot}, *positional, mutable=[collection], **named, **kwargs
        )
    if any(one.changed for one in bridged):
        _check_bridged(site.model, variables, kwargs, x)
    lifted = roots.get(site.path) is not roots.get(())
    if lifted and a is None and not _reached(site.model, variables, kwargs, x, [site.path]):
        return output, ()
    at_layer = reduce(lambda tree, key: tree[key], site.path, sown[collection])
    return output, at_layer.get(_SEEN, ())


def survey(
    tape: Tape, model: nn.Module, variables: Mapping[str, Any], kwargs: dict[str, Any], x: Any
) -> None:
    """Run the model with every layer's output marked."""
    roots: dict[tuple[str, ...], Any] = {}

    def watch(module: nn.Module, call: Callable[[], Any]) -> Any:
        roots.setdefault(module.path, module.scope and module.scope.root)
        return mark(tape, "/".join(module.path), call) if module.path else call()

    # Static values among the variables, others for each module and each survey: nn.jit must trace
    # every block anew, and not take the trace of one like it.
    labels = {
        f"{_LABEL} {name}": _labels(tape, (), tree)
        for name, tree in variables.items()
        if isinstance(tree, Mapping)
    }
    positional, named = call_with(x)
    bridged: list[Bridged] = []
    with _calls(watch, bridged.append), in_our_words("jaxcam.layers(model, x)"):
        model.apply({**variables, **labels}, *positional, **named, **kwargs)
    if any(one.changed for one in bridged):
        _check_bridged(model, variables, kwargs, x)
    lifted = [path for path, root in roots.items() if root is not roots[()]]
    if lifted:
        reached = _reached(model, variables, kwargs, x, lifted)
        tape.kept.update("/".join(path) for path in lifted if path not in reached)


def _reached(
    model: nn.Module, variables: Any, kwargs: Any, x: Any, paths: list[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """The layers to which a slot gets as it was made, and back out of the model; they are tried.

    ``nn.map_variables`` maps the slot along with the variables, and may fail at it.
    """

    def trial(rest: Any, x: Any) -> tuple[Any, Held, Held]:
        variables, arrays, slots = rest

        def watch(module: nn.Module, call: Callable[[], Any]) -> Any:
            if module.has_variable(_PROBE, _SUBSTITUTE):
                module.sow(_PROBE, _SEEN, module.get_variable(_PROBE, _SUBSTITUTE))
            return call()

        positional, named = call_with(x)
        probes = traverse_util.unflatten_dict(
            {(*path, _SUBSTITUTE): slot for path, slot in zip(paths, slots, strict=True)}
        )
        with _calls(watch):
            _, sown = model.apply(
                {**variables, _PROBE: probes}, *positional, mutable=[_PROBE], **named,
                **join(static, arrays),
            )  # fmt: skip
        seen: Any = traverse_util.flatten_dict(sown.get(_PROBE, {}))
        names = ["/".join(path) for path in paths]
        before = {name: [slot] for name, slot in zip(names, slots, strict=True)}
        after = {"/".join(path[:-1]): list(s[:1]) for path, s in seen.items() if path[-1] == _SEEN}
        return [], before, after

    static, arrays = divide("", kwargs)
    slots = [jax.ShapeDtypeStruct((2, 2), "float32")] * len(paths)
    try:
        mapped = not_handed_on(trial, (variables, arrays, slots), x)
    except Exception:  # of the transformation's function, which was not made for slots
        if len(paths) == 1:
            return []
        return [path for path in paths if _reached(model, variables, kwargs, x, [path])]
    return [path for path in paths if "/".join(path) not in mapped]


ADAPTER = Adapter(run, survey)
"""What `flax.linen` models are run with."""


class Bridged(NamedTuple):
    """What an nnx model in a linen one (``nnx.bridge.ToLinen``) was called with, and its batch
    statistics after the call, by name. linen drops those.
    """

    given: list[Any]
    statistics: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether any of them is another array."""
        return not set(map(id, self.statistics.values())) <= set(map(id, self.given))


@contextmanager
def _calls(
    watch: Callable[[nn.Module, Callable[[], Any]], Any],
    bridged: Callable[[Bridged], None] = lambda _: None,
) -> Iterator[None]:
    """Have ``watch`` around every call of a module, once: ``super().__call__`` is not another."""
    running: list[tuple[str, ...]] = []

    def intercept(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == _UPDATE:
            bridged(_bridged(module, *args))
        if context.method_name != "__call__" or module.scope is None or module.path in running:
            return next_fun(*args, **kwargs)
        running.append(module.path)
        try:
            return watch(module, lambda: next_fun(*args, **kwargs))
        finally:
            running.pop()

    with nn.intercept_methods(intercept):
        yield


def _bridged(wrapper: nn.Module, model: Any) -> Bridged:
    from flax import nnx  # not for those who have no such model

    if not (isinstance(wrapper, nnx.bridge.ToLinen) and isinstance(model, nnx.Module)):
        return Bridged([], {})
    held = nnx.to_flat_state(nnx.state(model, nnx.BatchStat))
    return Bridged(
        jax.tree.leaves(wrapper.variables),
        {"/".join(map(str, (*wrapper.path, *path))): v.get_raw_value() for path, v in held},
    )


def _check_bridged(model: nn.Module, variables: Any, kwargs: Any, x: Any) -> None:
    """Refuse nnx models in a linen one whose call makes other statistics.

    ``nnx.jit`` and ``nnx.remat`` hand every array back as a new one: the jaxpr tells.
    """
    static, arrays = divide("", kwargs)

    def trial(rest: Any, x: Any) -> tuple[Any, Held, Held]:
        variables, arrays = rest
        bridged: list[Bridged] = []
        positional, named = call_with(x)
        with _calls(lambda _, call: call(), bridged.append):
            model.apply(variables, *positional, **named, **join(static, arrays))
        after: Held = {}
        for one in bridged:
            for name, value in one.statistics.items():
                after.setdefault(name, []).append(value)
        return [], {"": [array for one in bridged for array in one.given]}, after

    if names := not_there_before(trial, (variables, arrays), x):
        refuse(
            "nnx.bridge.ToLinen",
            names,
            random=False,
            remedy="Pass use_running_average=True to its call, or among the kwargs= of ToLinen.",
        )


@contextmanager
def in_our_words(call: object) -> Iterator[None]:
    """Flax's own errors that a caller of this library can do something about, in its words."""
    switch = "Pass the argument of the model that switches it, such as train=False"
    try:
        yield
    except errors.ModifyScopeVariableError as error:
        fail(
            str(call),
            needs="a model in evaluation mode",
            got="one that updates its variables (BatchNorm in training mode): "
            f"{str(error).split(' because ')[0]}",
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
