"""The adapter for functional models of Keras 3, on its JAX backend: their graph is walked.

``keras.Model([layer.output, *model.inputs], model.output)`` would do, but it makes new nodes for
the model's own layers, after which ``layer.output`` of the user's model is ambiguous. Walking the
graph makes none: each operation is called as the model calls it, and the layer is watched there.
Calls of a layer are made in the order in which its author wrote them, that of its nodes; Keras
itself goes from the output backwards.

Imported on demand: a process without Keras cannot have a model of it.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import chain
from typing import Any

from jaxcam.arrays.outputs import describe
from jaxcam.errors import fail
from jaxcam.split import state
from jaxcam.split.census import Tape, mark
from jaxcam.split.passes import Seen, visit
from jaxcam.split.refusals import refuse_name
from jaxcam.split.site import Adapter, Network, Site
from jaxcam.split.state import Held

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
    path = next((name for name in (layer, layer.replace(".", "/")) if name in names), None)
    if path is None:
        refuse_name(call, layer, names)
    return tuple(path.split("/"))


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

    output, updates = _evaluate(site.model, weights, x, watch)
    if updates:
        _check_evaluation(site, weights, x)
    return output, tuple(seen)


def _check_evaluation(site: Site, weights: list[Any], x: Any) -> None:
    """Refuse layers that are in training mode whatever they are told."""

    def trial(weights: list[Any], x: Any) -> tuple[Any, Held, Held]:
        output, updates = _evaluate(site.model, weights, x, lambda name, call: call())
        before = {path: [old] for path, (old, _) in updates.items()}
        after = {path: [new] for path, (_, new) in updates.items()}
        return keras.tree.flatten(output), before, after

    training = state.training(trial, weights, x, is_generator=_is_seed)
    if training:
        state.refuse(
            str(site),
            training,
            random=any(map(_is_seed, training)),
            remedy="A split model runs with training=False, which its layers must heed. One that "
            "never does can be given as a pair of pure functions, jaxcam.Split.",
        )


def _is_seed(path: str) -> bool:
    return path.endswith("seed_generator_state")


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


class _Scope(keras.StatelessScope):
    """One that knows what was put in place of what, by the variables' paths, also of others."""

    def __init__(self, state_mapping: list[tuple[Any, Any]]):
        super().__init__(state_mapping)
        self.updates: dict[str, tuple[Any, Any]] = {}

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, new = update
        old, _ = self.updates.get(variable.path, (variable.value, new))
        self.updates[variable.path] = old, new
        super().add_update(update)


def _evaluate(model: Any, weights: list[Any], x: Any, watch: Watch) -> tuple[Any, Any]:
    """The output of ``model(x, training=False)`` with these values of its variables.

    And what the call did to them, as ``{path: (old, new)}``.
    """
    graph = _graph(model)
    if isinstance(x, tuple) and len(x) != len(graph.inputs):  # Keras would leave the others out
        needs = f"{len(graph.inputs)} inputs, as many as the Keras model has"
        fail("x", needs=needs, got=f"{len(x)}", remedy="Pass them in the order of model.inputs.")
    with _Scope(list(zip(model.variables, weights, strict=True))) as scope:
        output = _Evaluation(lambda x: _walk(graph, "", x, watch))(x, training=False)
    return output, scope.updates


def _walk(graph: Any, prefix: str, inputs: Any, watch: Watch) -> Any:
    """Call the operations of a graph, those of nested models one by one."""
    given = keras.tree.flatten(graph._standardize_inputs(inputs))
    values = {id(tensor): value for tensor, value in zip(graph.inputs, given, strict=True)}
    for node in _in_order(graph):
        args, kwargs = node.arguments.fill_in(values)
        output = _call(node.operation, prefix, args, kwargs, watch)
        new = keras.tree.flatten(output)
        values.update(zip(map(id, node.outputs), new, strict=True))
    leaves = [values[id(tensor)] for tensor in graph.outputs]
    outputs = keras.tree.pack_sequence_as(graph._outputs_struct, leaves)
    return outputs[0] if isinstance(outputs, list | tuple) and len(outputs) == 1 else outputs


def _call(operation: Any, prefix: str, args: Any, kwargs: dict[str, Any], watch: Watch) -> Any:
    """Call one operation, which may be a model whose own are to be seen."""
    name, inner = prefix + operation.name, _graph(operation)
    # A training= that the graph was made with yields to that of the call, as in Keras.
    kwargs = {key: value for key, value in kwargs.items() if key != "training"}
    if inner is None or any(value is not None for value in (*args[1:], *kwargs.values())):
        return watch(name, lambda: operation(*args, **kwargs))
    return watch(name, lambda: _walk(inner, f"{name}/", args[0], watch))


def _in_order(graph: Any) -> list[Any]:
    """The nodes that are computed: in Keras' order, but those of one operation as they were made.

    There is such an order: the one in which all of them were made.
    """
    depths = sorted(graph._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in graph._nodes_by_depth[depth]]
    waiting = [node for node in nodes if node.operation and not node.is_input]
    known, turns = {id(tensor) for tensor in graph.inputs}, dict[int, list[Any]]()
    for node in waiting:
        turns.setdefault(id(node.operation), []).append(node)
    for turn in turns.values():
        turn.sort(key=lambda node: node.operation._inbound_nodes.index(node), reverse=True)
    order: list[Any] = []

    def taken(node: Any) -> bool:
        turn = turns[id(node.operation)]
        if turn[-1] is not node or not known.issuperset(map(id, node.input_tensors)):
            return False
        order.append(turn.pop())
        known.update(map(id, node.outputs))
        return True

    for _ in nodes:
        waiting = [node for node in waiting if not taken(node)]
    return order


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
