"""The first and the second tangent of every value along one element, each made once.

A tangent is made from those of the values before (`_needs`), in a loop over what is still missing:
a network may be a thousand operations deep, which no recursion is. Only those are made that
somebody asks for.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.derivatives.graph.constants import constant_value
from jaxcam.derivatives.graph.kinds import Node, as_array_function
from jaxcam.derivatives.graph.point import Point
from jaxcam.derivatives.tangents.axes import Element
from jaxcam.derivatives.tangents.products import collect, multiplied, scaled, summed
from jaxcam.derivatives.tangents.rules import RULES, axes_before
from jaxcam.derivatives.tangents.step import Step
from jaxcam.derivatives.tangents.terms import Tangent, dense, spread_all, times


class Ask(NamedTuple):
    """A tangent: of which order, of which value, and summed over which axes (of size one then)."""

    order: int
    number: int
    over: tuple[int, ...] = ()


class Curved(NamedTuple):
    """What a node that is differentiated as a whole adds to the second and third derivative.

    quadratic: ``f''[J, J]``. second: its result's ``Z``. cubic: ``f'''[J, J, J] + 3 f''[J, Z]``.
    """

    quadratic: Array
    second: Array
    cubic: Array


class Way(NamedTuple):
    """What is carried along one element.

    given: the values that the tangents start from, and their first ones; the second are zero there.
    """

    point: Point
    element: Element
    given: dict[int, Tangent]
    known: dict[Ask, Tangent]
    wholes: dict[int, Curved]

    def first(self, number: int) -> Tangent:
        """Give the first derivative of a value along the element."""
        return tangent(self, Ask(1, number))

    def second(self, number: int) -> Tangent:
        """Give the second derivative."""
        return tangent(self, Ask(2, number))

    def node(self, number: int) -> Node:
        """Look up the node that makes a value."""
        return self.point.score.graph.nodes[number]


def tangent(way: Way, ask: Ask) -> Tangent:
    """Make a tangent, after those that it is made from."""
    waiting = [ask]
    while waiting:
        missing = [] if waiting[-1] in way.known else _needs(way, waiting[-1])
        missing = [needed for needed in missing if needed not in way.known]
        if missing:
            waiting += missing
            continue
        last = waiting.pop()
        if last not in way.known:
            way.known[last] = _made(way, last)
    return way.known[ask]


def _needs(way: Way, ask: Ask) -> list[Ask]:
    """List the tangents that one is made from."""
    order, number, over = ask
    if number in way.given:
        return []
    node = way.node(number)
    if over:
        before = _before(way, node, over)
        return [Ask(order, number)] if before is None else _of_operands(way, node, order, before)
    if node.kind == "curved":
        return [Ask(n, i) for n in range(1, order + 1) for i in node.operands]
    partials = way.point.partials.get(number, {}) if order == 2 else {}
    squared = [Ask(1, node.operands[i]) for key in partials if len(key) == 2 for i in key]
    return [*squared, *_of_operands(way, node, order, _reduced(node))]


def _of_operands(way: Way, node: Node, order: int, over: tuple[int, ...]) -> list[Ask]:
    slopes = way.point.slopes.get(node.result)
    carrying = [i for k, i in enumerate(node.operands) if slopes is None or k in slopes]
    return [Ask(order, i, over) for i in carrying]


def _made(way: Way, ask: Ask) -> Tangent:
    order, number, over = ask
    if over:
        return _summed(way, ask)
    if number in way.given:
        return way.given[number] if order == 1 else []
    node = way.node(number)
    if node.kind == "curved":
        return [dense(_slope(way, node) if order == 1 else curved(way, number).second)]
    carried = _carried(way, node, order, _reduced(node))
    return carried if order == 1 else collect([*carried, *_quadratic(way, node)], way.element)


def _reduced(node: Node) -> tuple[int, ...]:
    """Give the axes over which a node sums."""
    operation = node.operation
    return tuple(operation.equation.params["axes"]) if operation.name == "reduce_sum" else ()


def _carried(
    way: Way, node: Node, order: int, over: tuple[int, ...], kept: Sequence[int] = ()
) -> Tangent:
    """Carry tangents through a node by its first derivative.

    over: the axes over which the operands' were summed before; kept: those of the result, of size
    one now.
    """
    if node.kind == "pointwise":
        slopes, partials = way.point.slopes[node.result], way.point.partials[node.result]
        moved = [
            times(term, slope if order == 1 else partials[(k,)], way.element)
            for k, slope in slopes.items()
            for number in [node.operands[k]]
            for term in tangent(way, Ask(order, number, over))
        ]
        return collect(moved, way.element)
    rule, program = RULES[node.operation.name], way.point.score.graph.program
    moved = [
        new
        for place, number in enumerate(node.operation.operands)
        if number in program.varying
        for term in tangent(way, Ask(order, number, over))
        for new in rule(term, _step(way, node, place, kept))
    ]
    return collect(moved, way.element)


def _step(way: Way, node: Node, place: int, kept: Sequence[int]) -> Step:
    """Put a linear node as its rule sees it, with the tangent of the operand at a place."""
    operation, program = node.operation, way.point.score.graph.program
    values = [way.point.values[i] for i in operation.operands]
    result = operation.results.index(node.result)
    full = operation.equation.outvars[result].aval.shape
    shape = tuple(1 if i in kept else size for i, size in enumerate(full))

    def constant(place: int) -> np.ndarray | None:
        key, done = ("constant", operation.operands[place]), way.element.done
        if key not in done:
            done[key] = constant_value(program, operation.operands[place])
        return done[key]

    return Step(operation.equation, values, place, way.element, shape, result, constant)


def _before(way: Way, node: Node, over: Sequence[int]) -> tuple[int, ...] | None:
    """Say over which axes of its operands to sum, instead of these axes of a node's result.

    Ahead of products with matrices and of sums of two branches where the two can change places:
    the product is then one of a single place. A bend has its say first: None.
    """
    if node.kind == "linear":
        operation = node.operation
        place = operation.operands.index(node.operands[0])
        before = axes_before(operation.equation, place, over)
        return None if before is None else tuple(before)
    if node.kind == "pointwise" and not way.point.score.is_bend(node):
        slopes = way.point.partials[node.result]
        constant = all(slope.shape[i] == 1 for slope in slopes.values() for i in over)
        return tuple(over) if constant else None
    return None


def _summed(way: Way, ask: Ask) -> Tangent:
    """Sum the tangent of a value over axes, which keep the size one."""
    order, number, over = ask
    node = None if number in way.given else way.node(number)
    before = None if node is None else _before(way, node, over)
    if node is None or before is None:
        whole = tangent(way, Ask(order, number))
        return [summed(term, over, way.element) for term in whole]
    return _carried(way, node, order, before, over)


def _quadratic(way: Way, node: Node) -> Tangent:
    """Give ``f''[J, J]`` of a node; nothing where it does not bend."""
    products = []
    for key, partial in way.point.partials.get(node.result, {}).items():
        if len(key) == 2:
            j, k = (way.first(node.operands[i]) for i in key)
            often = 1 if key[0] == key[1] else 2
            products += [
                times(scaled(term, often), partial, way.element)
                for term in multiplied(j, k, way.element)
            ]
    return collect(products, way.element)


# Nodes that are differentiated as a whole.


def curved(way: Way, number: int) -> Curved:
    """Differentiate a node three times along the parabola ``x + t J + t^2 Z / 2`` of its operand.

    The third derivative along it is ``f'''[J, J, J] + 3 f''[J, Z]``.
    """
    if number in way.wholes:
        return way.wholes[number]
    node = way.node(number)
    function, at = as_array_function([node], way.point.values)
    j = [_whole(way, 1, i) for i in node.operands]
    z = [_whole(way, 2, i) for i in node.operands]

    def along(t: Array, curvature: float) -> Array:
        moved = [
            x + (t * v + curvature * t * t / 2 * w).astype(x.dtype)
            for x, v, w in zip(at, j, z, strict=True)
        ]
        return function(*moved)[0][0].astype(way.point.dtype)

    def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    zero = jnp.zeros((), way.point.dtype)
    on_line = derivative(derivative(lambda t: along(t, 0.0)))
    on_parabola = derivative(derivative(lambda t: along(t, 1.0)))
    way.wholes[number] = Curved(on_line(zero), on_parabola(zero), derivative(on_parabola)(zero))
    return way.wholes[number]


def _slope(way: Way, node: Node) -> Array:
    function, at = as_array_function([node], way.point.values)
    operands = [_whole(way, 1, i) for i in node.operands]
    moved = tuple(v.astype(x.dtype) for v, x in zip(operands, at, strict=True))
    return jax.jvp(lambda *xs: function(*xs)[0][0], at, moved)[1].astype(way.point.dtype)


def _whole(way: Way, order: int, number: int) -> Array:
    """Store the tangent of a value whole."""
    shape = way.point.score.graph.program.shapes[number]
    zero = jnp.zeros(shape.shape, way.point.dtype)
    terms = tangent(way, Ask(order, number))
    return sum((spread_all(term, way.element).values for term in terms), start=zero)
