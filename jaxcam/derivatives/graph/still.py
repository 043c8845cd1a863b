"""Places that no element of ``a`` moves: there zero stays zero, though a derivative is infinite.

The slope of a square root at zero is infinite, the third derivative of ``1 / sqrt(1e-12)`` is
beyond float32, and both are multiplied by tangents: those of the variance of equal numbers, of the
norm of a channel that is zero everywhere. Mathematically such a product is zero where the tangent
is, in floating point it is NaN, and one NaN in a sum is all of it. So derivatives that are not
finite are set to zero where what they are multiplied by is zero along *every* element. Where
something moves, they stay as they are: the slope of ``sqrt(x)`` at zero is infinite.

Whether anything moves is found by one pass forward, with truth in place of numbers (`_movement`):
a product moves where both factors may, a sum where any term may. It can take what is still for
moving, for sums that cancel, never the other way round; and it is made only where something is not
finite.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.graph.kinds import Graph, Node
from jaxcam.derivatives.graph.seen import seen, without_signs
from jaxcam.derivatives.graph.singular import has_singular, is_singular, is_steep

Key = tuple[int, ...]
ByNode = dict[int, dict[Key, Array]]


class Moving(NamedTuple):
    """Where a value has a first derivative along any element, and where a second one."""

    first: Array
    second: Array


class Slopes(NamedTuple):
    """The partial derivatives as second tangents meet them, and the first ones as first tangents
    do.
    """

    partials: ByNode
    first: dict[int, dict[int, Array]]


class Guarded(NamedTuple):
    """The pointwise nodes that may have an infinite derivative, and all before these and before
    others that may.

    steep: those that may have it where they are finite themselves.
    """

    singular: frozenset[int]
    steep: frozenset[int]
    nodes: frozenset[int]


def guarded(graph: Graph) -> Guarded:
    """Find what may be infinite."""
    singular, steep = (
        {
            result
            for nodes in graph.pointwise()
            if any(asked(operation, graph.program) for operation in nodes.operations)
            for result in nodes.results
        }
        for asked in (is_singular, is_steep)
    )
    wholes = (i for i, node in graph.nodes.items() if node.kind == "curved")
    numbers = singular.union(i for i in wholes if has_singular(graph.nodes[i].operation))
    for node in reversed(graph.nodes.values()):
        if node.result in numbers:
            numbers.update(node.operands)
    nodes = frozenset(numbers & graph.nodes.keys())
    return Guarded(frozenset(singular), frozenset(steep), nodes)


def slopes(graph: Graph, numbers: Guarded, values: dict[int, Any], partials: ByNode) -> Slopes:
    """Take out of the partial derivatives what is infinite and meets zeros alone."""
    first = {i: {key[0]: v for key, v in of.items() if len(key) == 1} for i, of in partials.items()}
    doubtful = {i: of for i, of in partials.items() if i in numbers.singular}
    if not any(doubtful.values()):
        return Slopes(partials, first)

    def kept() -> tuple[ByNode, dict[int, dict[int, Array]]]:
        return doubtful, {i: first[i] for i in doubtful}

    def cleaned() -> tuple[ByNode, dict[int, dict[int, Array]]]:
        moving = _movement(graph, numbers.nodes, values, partials)
        reaching = seen(graph, numbers.steep, values, partials)
        second, ones = {}, {}
        for i, of in doubtful.items():
            meets, on = _meets(graph.nodes[i], of, moving), reaching.get(i, jnp.ones((), bool))
            second[i] = {key: _where(meets[key] & on, v) for key, v in of.items()}
            along = [moving[operand].first & on for operand in graph.nodes[i].operands]
            ones[i] = {k: _where(along[k], v) for k, v in first[i].items()}
        return second, ones

    finite = jnp.stack([jnp.isfinite(v).all() for of in doubtful.values() for v in of.values()])
    second, ones = jax.lax.cond(finite.all(), kept, cleaned)
    return Slopes(partials | second, first | ones)


def _meets(node: Node, partials: dict[Key, Array], moving: dict[int, Moving]) -> dict[Key, Array]:
    """Say where a partial derivative is multiplied by anything but zeros.

    By ``J`` and by ``Z`` of its operand; by ``J J`` and ``J Z``; by ``J J J``.
    """
    meets = {}
    for key in partials:
        j, *more = (moving[node.operands[k]] for k in key)
        if not more:
            meets[key] = j.first | j.second
        elif len(more) == 1:
            (k,) = more
            meets[key] = j.first & (k.first | k.second) | k.first & j.second
        else:
            meets[key] = j.first & more[0].first & more[1].first
    return meets


def _where(meets: Array, partial: Array) -> Array:
    """Put zero for what is not finite and meets nothing."""
    for i, size in enumerate(partial.shape):
        meets = meets.any(i, keepdims=True) if size == 1 else meets
    return jnp.where(meets | jnp.isfinite(partial), partial, jnp.zeros_like(partial))


def product(x: Array, y: Array) -> Array:
    """Multiply, where zero times anything is zero; differentiable where both are finite."""
    clean_x = jnp.where((y == 0) & ~jnp.isfinite(x), jnp.zeros_like(x), x)
    clean_y = jnp.where((x == 0) & ~jnp.isfinite(y), jnp.zeros_like(y), y)
    return clean_x * clean_y


def _movement(
    graph: Graph, numbers: frozenset[int], values: dict[int, Any], partials: ByNode
) -> dict[int, Moving]:
    """Find where values move, from ``a`` to the given nodes."""
    source = graph.program.source
    shape = graph.program.shapes[source].shape
    moving = {source: Moving(jnp.ones(shape, bool), jnp.zeros(shape, bool))}
    for number, node in graph.nodes.items():
        if number not in numbers:
            continue
        if node.kind == "pointwise":
            moving[number] = _pointwise(node, partials[number], moving)
        elif node.kind == "linear":
            first, second = (
                _linear(node, values, [moving[i][k] for i in node.operands]) for k in (0, 1)
            )
            moving[number] = Moving(first, second)
        else:
            shape = graph.program.shapes[number].shape
            first = jnp.stack([moving[i].first.any() for i in node.operands]).any()
            second = jnp.stack([moving[i].second.any() for i in node.operands]).any() | first
            moving[number] = Moving(jnp.broadcast_to(first, shape), jnp.broadcast_to(second, shape))
    return moving


def _pointwise(node: Node, partials: dict[Key, Array], moving: dict[int, Moving]) -> Moving:
    shape = moving[node.operands[0]].first.shape
    first, second = jnp.zeros(shape, bool), jnp.zeros(shape, bool)
    for key, partial in partials.items():
        j, *more = (moving[node.operands[k]] for k in key)
        if not more:
            first = first | (partial != 0) & j.first
            second = second | (partial != 0) & j.second
        elif len(more) == 1:
            second = second | (partial != 0) & j.first & more[0].first
    return Moving(first, second)


def _linear(node: Node, values: dict[int, Any], masks: list[Array]) -> Array:
    """Follow masks through a linear operation, as numbers that never cancel."""
    made = node.operation.equation.outvars[node.operation.results.index(node.result)]
    linear = without_signs(node, values)
    if linear is None:
        return jnp.broadcast_to(jnp.stack([mask.any() for mask in masks]).any(), made.aval.shape)
    function, at = linear
    along = tuple(mask.astype(v.dtype) for mask, v in zip(masks, at, strict=True))
    return jax.jvp(function, at, along)[1] != 0
