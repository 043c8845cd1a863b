"""Places that nothing behind them sees: an infinite slope there reaches nothing.

In ``sqrt(x) * mask`` the slope of the root is infinite where ``x`` is zero, and zeros of the mask
behind it take it away again; in floating point zero times infinity is NaN. It is the other side of
still.py: there nothing comes to a place, here nothing goes on from it.

Whether anything sees a place is found by one pass backward, with truth in place of numbers: a value
is seen through any partial derivative, of whatever order, that is not zero, and through a sum
whatever its weights. So what is not seen may be taken for seen, never the other way round.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.graph.kinds import Graph, Node, as_array_function

Key = tuple[int, ...]

WEIGHED = {"dot_general", "conv_general_dilated"}  # linear, with coefficients of either sign
# Linear with coefficients that are not negative, so that nothing cancels.
ARRANGED = {
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "reduce_sum"),
    *("concatenate", "slice", "dynamic_slice", "gather", "pad", "rev", "cumsum"),
    *("reduce_window_sum", "reduce_max", "reduce_min", "reduce_window_max", "sort"),
}


def without_signs(
    node: Node, values: dict[int, Any]
) -> tuple[Callable[..., Array], tuple[Array, ...]] | None:
    """Give a linear node as a function in which nothing cancels, and where; None if not known."""
    operation = node.operation
    if node.kind != "linear" or operation.name not in WEIGHED | ARRANGED:
        return None
    if operation.name in WEIGHED:
        fixed = [i for i in operation.operands if i not in node.operands]
        values = values | {i: jnp.abs(values[i]) for i in fixed}
    function, at = as_array_function([node], values)
    return lambda *moved: function(*moved)[0][0], at


def behind(graph: Graph, numbers: frozenset[int]) -> frozenset[int]:
    """Number some values, and the nodes that depend on them."""
    found = set(numbers)
    for node in graph.nodes.values():
        if not found.isdisjoint(node.operands):
            found.add(node.result)
    return frozenset(found)


def seen(
    graph: Graph,
    numbers: frozenset[int],
    values: dict[int, Any],
    partials: dict[int, dict[Key, Array]],
) -> dict[int, Array]:
    """Say at which places the given nodes, and all behind them, are seen."""
    program, numbers = graph.program, behind(graph, numbers)
    found = {i: jnp.zeros(program.shapes[i].shape, bool) for i in numbers}
    found[program.results[0]] = jnp.ones((), bool)
    for number, node in reversed(graph.nodes.items()):
        if numbers.isdisjoint(node.operands):
            continue
        through = _through(node, found[number], values, partials.get(number, {}))
        for operand, there in zip(node.operands, through, strict=True):
            if operand in numbers:
                found[operand] = found[operand] | there
    return found


def _through(
    node: Node, there: Array, values: dict[int, Any], partials: dict[Key, Array]
) -> list[Array]:
    """Say where the operands of a node are seen, given where its result is."""
    if node.kind == "pointwise":
        nowhere = jnp.zeros_like(there)
        return [
            sum((there & (v != 0) for key, v in partials.items() if k in key), nowhere)
            for k in range(len(node.operands))
        ]
    linear = without_signs(node, values)
    if linear is None:
        return [jnp.broadcast_to(there.any(), jnp.shape(values[i])) for i in node.operands]
    function, at = linear
    result, pull = jax.vjp(function, *at)
    return [weight != 0 for weight in pull(there.astype(result.dtype))]
