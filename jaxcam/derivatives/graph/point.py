"""A score at one point: its values, its partial derivatives, and the adjoints of its values.

All that does not depend on the element along which is differentiated: one pass forward and one
backward.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.arrays.meshes import varying, varying_axes
from jaxcam.derivatives.graph import still
from jaxcam.derivatives.graph.kinds import Graph, as_array_function
from jaxcam.derivatives.graph.partials import Differentiated, Key
from jaxcam.derivatives.tangents.terms import one_of_each
from jaxcam.jaxprs.convolutions import with_plain_convolutions
from jaxcam.jaxprs.interpret import run
from jaxcam.jaxprs.pullback import HALF, in_single

Pull = Callable[[list[Array]], Sequence[Array]]
"""From the adjoints of the results of an operation to those of its operands."""


class Point(NamedTuple):
    """Everything at the point ``a`` that does not depend on the element.

    partials: of the pointwise nodes. slopes: their first partial derivatives, by operand, as first
    tangents meet them (still.py). weighed: the partial derivatives above the first, times the
    adjoint of the node.
    """

    score: Differentiated
    values: dict[int, Any]
    adjoints: dict[int, Array]
    partials: dict[int, dict[Key, Array]]
    slopes: dict[int, dict[int, Array]]
    weighed: dict[int, dict[Key, Array]]
    dtype: jnp.dtype


def at_point(score: Differentiated, a: Array, *context: Array) -> tuple[Point, Array, list[Any]]:
    """Make the one pass forward and backward: the point, ``u1``, and what else the score gives."""
    graph, guarded = score.graph, still.guarded(score.graph)

    def multiply(number: int, x: Array, y: Array) -> Array:
        return still.product(x, y) if number in guarded.nodes else x * y

    def passes(a: Array, *context: Array) -> tuple[dict, dict, still.Slopes]:
        values, pulls = _forward(graph, (a, *context))
        slopes = still.slopes(graph, guarded, values, _partials(score, values, a.dtype))
        adjoints = _backward(graph, pulls, slopes.partials, multiply, a.dtype)
        return {i: v for i, v in values.items() if i not in graph.program.fixed}, adjoints, slopes

    known, adjoints, slopes = with_plain_convolutions(passes)(a, *context)
    values = {**graph.program.fixed, **known}
    weighed = {
        i: {k: multiply(i, adjoints[i], v) for k, v in of.items() if len(k) > 1}
        for i, of in slopes.partials.items()
    }
    point = Point(score, values, adjoints, slopes.partials, slopes.first, weighed, a.dtype)
    more = [values[i] for i in graph.program.results[1:]]
    return point, adjoints[graph.program.source], more


def first_at_point(score: Differentiated, a: Array, *context: Array) -> tuple[Array, list[Any]]:
    """Give ``u1`` and what else the score gives, where zero times an infinite slope is zero."""
    graph = score.graph

    def passes(a: Array, *context: Array) -> tuple[Array, list[Any]]:
        values, pulls = _forward(graph, (a, *context))
        partials = _partials(score, values, a.dtype)
        adjoints = _backward(graph, pulls, partials, lambda _, x, y: still.product(x, y), a.dtype)
        return adjoints[graph.program.source], [values[i] for i in graph.program.results[1:]]

    return with_plain_convolutions(passes)(a, *context)


def _forward(graph: Graph, arguments: Sequence[Array]) -> tuple[dict[int, Any], dict[int, Pull]]:
    """Compute every value, and for what is not pointwise how to go back, by its first result."""
    given = zip(graph.program.arguments, arguments, strict=True)
    values: dict[int, Any] = graph.program.fixed | dict(given)
    pulls: dict[int, Pull] = {}
    for operation in graph.program.operations:
        nodes = [graph.nodes[i] for i in operation.results if i in graph.nodes]
        if not nodes or nodes[0].kind == "pointwise":
            results = run(operation.equation, [values[i] for i in operation.operands])
        else:
            function, at = as_array_function(nodes, values)
            made, pull, results = jax.vjp(function, *at, has_aux=True)
            pulls[nodes[0].result] = _of_wide(pull, made)
        values.update(zip(operation.results, results, strict=True))
    return values, pulls


def _of_wide(pull: Callable[..., Any], results: Sequence[Array]) -> Pull:
    """Let a pullback take adjoints in their own precision, wherever the results lie."""
    like = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in results]
    if any(v.dtype == HALF for v in like):
        return in_single(pull, like)

    def pulled(given: list[Array]) -> Sequence[Array]:
        pairs = zip(given, results, strict=True)
        return pull([varying(v.astype(w.dtype), varying_axes(w)) for v, w in pairs])

    return pulled


def _partials(score: Differentiated, values: dict[int, Any], dtype: Any) -> still.ByNode:
    """Compute the partial derivatives, each with one place along the axes where it is constant."""
    partials = {}
    for numbers, closed, axes in score.programs:
        slopes = iter(core.jaxpr_as_fun(closed)(*(values[i] for i in numbers)))
        for number, constant in axes.items():
            partials[number] = {
                key: one_of_each(next(slopes), along).astype(dtype)
                for key, along in constant.items()
            }
    return partials


def _backward(
    graph: Graph, pulls: dict[int, Pull], partials: still.ByNode, multiply: Callable, dtype: Any
) -> dict[int, Array]:
    """Find the derivative of ``u`` along each value, ``a`` among them, from the last to the first.

    That of a value inside a chain is not along it, but along what the chain starts from.
    """
    shapes = graph.program.shapes
    adjoints = {
        i: jnp.zeros(shapes[i].shape, dtype) for i in (graph.program.source, *graph.nodes)
    } | {graph.program.results[0]: jnp.ones((), dtype)}
    for number, node in reversed(graph.nodes.items()):
        if node.kind == "pointwise":
            more = [
                multiply(number, adjoints[number], partials[number][(k,)])
                if (k,) in partials[number]
                else jnp.zeros((), dtype)
                for k in range(len(node.operands))
            ]
        elif number in pulls:
            made = [i for i in node.operation.results if i in graph.nodes]
            more = pulls[number]([adjoints[i] for i in made])
        else:
            continue  # with the first result of the same operation
        for operand, one in zip(node.operands, more, strict=True):
            adjoints[operand] = adjoints[operand] + one.astype(dtype)
    return adjoints
