"""The adapter for functional models of Keras 3, on its JAX backend: their graph is walked.

``keras.Model([layer.output, *model.inputs], model.output)`` would do, but it makes new nodes for
the model's own layers, after which ``layer.output`` of the user's model is ambiguous. Walking the
graph makes none: each operation is called as the model calls it, and the layer is watched there.

Imported on demand: a process without Keras cannot have a model of it.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import chain
from typing import Any

from jaxcam.errors import fail
from jaxcam.split.census import Tape, mark
from jaxcam.split.passes import Seen, visit
from jaxcam.split.pick import describe
from jaxcam.split.refusals import refuse_name
from jaxcam.split.site import Adapter, Network, Site

# By name: where Keras is not installed, tools would take `import keras` for this file.
keras: Any = import_module("keras")

Watch = Callable[[str, Callable[[], Any]], Any]


def network(call: str, model: Any, variables: Any, kwargs: Mapping[str, Any]) -> Network:
    """The model's values, in the order of ``model.variables``.

    The model itself is static and compared by identity: a layer whose settings (and not variables)
    change afterwards is not compiled anew.
    """
    if keras.config.backend() != "jax":
        fail(
            call,
            needs="Keras on its JAX backend",
            got=f"the backend {keras.config.backend()}",
            remedy="Set the environment variable KERAS_BACKEND=jax before Keras is imported.",
        )
    if _graph(model) is None:
        fail(
            call,
            needs="a functional Keras model that is built, or a Sequential one",
            got=f"a {type(model).__name__} without a graph, whose layers cannot be seen",
            remedy="Make it by keras.Model(inputs, outputs), call a Sequential model once, or pass "
            "a pair of pure functions, jaxcam.Split(Partial(features, params), "
            "Partial(scores, params)).",
        )
    if kwargs:
        fail(
            call,
            needs="no arguments of the call of a Keras model",
            got=", ".join(f"{name}=" for name in sorted(kwargs)),
            remedy="Leave them away: a split model runs with training=False.",
        )
    return Network(ADAPTER, model, _values(call, model, variables))


def resolve(call: str, model: Any, layer: str) -> tuple[str, ...]:
    """The layer's name in parts, ``("backbone", "conv1")`` for one inside of a nested model."""
    names = list(_names(_graph(model)))
    found = next((name for name in (layer, layer.replace(".", "/")) if name in names), None)
    if found is None:
        refuse_name(call, layer, names)
    return tuple(found.split("/"))


def run(
    site: Site, weights: list[Any], kwargs: dict[str, Any], a: Any, x: Any
) -> tuple[Any, tuple[Seen, ...]]:
    """Run the graph with the layer watched or, given ``a``, replaced."""
    seen: list[Seen] = []

    def watch(name: str, call: Callable[[], Any]) -> Any:
        output = call()
        if name != site.layer:
            return output
        output, now = visit(site, tuple(seen), output, a)
        seen.append(now)
        return output

    return _evaluate(site.model, weights, x, watch), tuple(seen)


def survey(tape: Tape, model: Any, weights: list[Any], kwargs: dict[str, Any], x: Any) -> None:
    """Run the graph with every layer's output marked."""
    _evaluate(model, weights, x, lambda name, call: mark(tape, name, call))


ADAPTER = Adapter(run, survey)
"""What functional Keras models are run with."""


class _Evaluation(keras.Layer):
    """Whatever is called within a call of this one takes its ``training=False``."""

    def __init__(self, run: Callable[[Any], Any]):
        super().__init__(name="jaxcam", dtype="float32", autocast=False)
        self.run = run

    def call(self, x: Any, training: bool = False) -> Any:
        return self.run(x)


def _evaluate(model: Any, weights: list[Any], x: Any, watch: Watch) -> Any:
    """The output of ``model(x, training=False)`` with these values of its variables."""
    values = zip(model.variables, weights, strict=True)
    with keras.StatelessScope(state_mapping=list(values)):
        return _Evaluation(lambda x: _walk(_graph(model), "", x, watch))(x, training=False)


def _walk(graph: Any, prefix: str, inputs: Any, watch: Watch) -> Any:
    """Call the operations of a graph in its order, those of nested models one by one."""

    def watched(operation: Any) -> Callable[..., Any]:
        name = prefix + operation.name

        # A training= that the graph was made with yields to that of the call, as in Keras.
        def call(*args: Any, training: Any = None, **kwargs: Any) -> Any:
            inner, rest = _graph(operation), (*args[1:], *kwargs.values())
            if inner is None or any(value is not None for value in rest):
                return watch(name, lambda: operation(*args, **kwargs))
            return watch(name, lambda: _walk(inner, f"{name}/", args[0], watch))

        return call

    outputs = graph._run_through_graph(graph._standardize_inputs(inputs), operation_fn=watched)
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs


def _graph(model: Any) -> Any:
    """The graph that a model's call runs through; ``None`` without one or with code of its own."""
    owner = next((cls.__module__ for cls in type(model).__mro__ if "call" in vars(cls)), "")
    graph = getattr(model, "_functional", model)  # that of a Sequential model
    return graph if isinstance(graph, keras.Function) and owner.startswith("keras.") else None


def _names(graph: Any, prefix: str = "") -> Iterator[str]:
    """Every operation but the inputs."""
    for operation in graph.operations:
        if not isinstance(operation, keras.layers.InputLayer):
            yield prefix + operation.name
            if inner := _graph(operation):
                yield from _names(inner, f"{prefix}{operation.name}/")


def _values(call: str, model: Any, variables: Any) -> list[Any]:
    """The values of now, or those given in the two lists that ``stateless_call`` takes."""
    if variables is None:
        return [variable.value for variable in model.variables]
    own = model.trainable_variables, model.non_trainable_variables
    try:
        pairs = [zip(*both, strict=True) for both in zip(own, variables, strict=True)]
        given = {id(variable): value for variable, value in chain(*pairs)}
    except (TypeError, ValueError):
        fail(
            call,
            needs="variables= as stateless_call takes them, (trainable, non_trainable), with "
            f"{len(own[0])} and {len(own[1])} arrays",
            got=describe(variables),
            remedy="Leave them away for the values that the model holds.",
        )
    return [given[id(variable)] for variable in model.variables]
