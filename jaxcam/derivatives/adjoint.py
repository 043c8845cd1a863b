"""Exact derivatives from first- and second-order tangents and one shared backward pass.

For every operation ``f`` that bends, let ``lambda`` be the adjoint of its result (one backward pass
for all elements), ``J_i`` and ``Z_i`` the first and second derivative of its operand along element
``i``. Then::

    u2_i = sum_f lambda . f''[J_i, J_i]
    u3_i = sum_f lambda . (f'''[J_i, J_i, J_i] + 3 f''[J_i, Z_i])

because what ``f`` adds to a higher derivative goes on to ``u`` linearly, and that is ``lambda``. So
third-order tangents are never needed, second-order ones only up to the last bend, and what is
affine behind the last bend costs nothing. Tangents are kept small: see tangents.py.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives import rules
from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.derivatives.program import Graph, Node, as_function, evaluate, flatten, graph
from jaxcam.derivatives.sweep import sweep
from jaxcam.derivatives.structure import (
    Dependence,
    body,
    constant_axes,
    dependence,
    run,
)
from jaxcam.derivatives.tangents import (
    Element,
    Tangent,
    collect,
    dense,
    multiplied,
    one_of_each,
    scaled,
    spread_all,
    times,
    total,
    unit_vector,
)
from jaxcam.types import LogDerivatives, ScoreAndMore

Key = tuple[int, ...]
"""Along which operands a partial derivative is taken: ``(0, 1)`` is ``d^2 f / dx_0 dx_1``."""


class Bends(NamedTuple):
    """The graph of a score, and for each pointwise node its partial derivatives that are not
    proved zero, up to the third, as functions; with the axes along which each is constant.
    """

    graph: Graph
    partials: dict[int, dict[Key, tuple[Callable[..., Any], frozenset[int]]]]

    @property
    def bending(self) -> list[int]:
        """Number the nodes that have a second derivative."""
        return [i for i, node in self.graph.nodes.items() if self.bends(node)]

    def bends(self, node: Node) -> bool:
        """Say whether a node has a second derivative."""
        if node.kind == "pointwise":
            return any(len(key) > 1 for key in self.partials[node.result])
        return node.kind == "curved"


def bends(found: Graph) -> Bends:
    """Find the partial derivatives of all pointwise nodes."""
    nodes = found.nodes.items()
    return Bends(found, {i: _partials(found, n) for i, n in nodes if n.kind == "pointwise"})


def _partials(found: Graph, node: Node) -> dict[Key, tuple[Callable[..., Any], frozenset[int]]]:
    program = found.program
    whole = as_function(node)
    shapes = [program.shapes[i] for i in whole.numbers]
    constant = [program.constant[i] for i in whole.numbers]
    known: dict[Key, Callable] = {(): whole.function}
    traced = {(): body(jax.make_jaxpr(whole.function)(*shapes))}
    result = {}
    for order in (1, 2, 3):
        for key in itertools.combinations_with_replacement(range(len(node.operands)), order):
            before = key[:-1]
            if before not in known or not _depends(traced[before], key[-1]):
                continue
            known[key] = _slope(known[before], key[-1])
            traced[key] = body(jax.make_jaxpr(known[key])(*shapes))
            (axes,) = constant_axes(traced[key], constant)
            result[key] = (known[key], axes)
    return result


def _depends(jaxpr: Any, place: int) -> bool:
    none, varying = Dependence.NONE, Dependence.VARYING
    levels = [varying if i == place else none for i in range(len(jaxpr.invars))]
    return dependence(jaxpr, levels) == [varying]


def _slope(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    def slope(*values: Any) -> Any:
        def alone(x: Any) -> Any:
            return function(*values[:place], x, *values[place + 1 :])

        return jax.jvp(alone, (values[place],), (jnp.ones_like(values[place]),))[1]

    return slope


class Point(NamedTuple):
    """Everything at the point ``a`` that does not depend on the element."""

    bends: Bends
    values: dict[int, Any]
    adjoints: dict[int, Array]
    partials: dict[int, dict[Key, Array]]
    dtype: jnp.dtype


def at_point(found: Bends, a: Array) -> tuple[Point, Array, list[Any]]:
    """Make the one pass forward and backward: the point, ``u1``, and what else the score gives."""
    program = found.graph.program
    shifts = {i: jnp.zeros(program.shapes[i].shape, a.dtype) for i in found.bending}

    def forward(a: Array, shifts: dict[int, Array]) -> tuple[Array, tuple[dict, list]]:
        values = evaluate(found.graph, a, shifts)
        more = [values[i] for i in program.results[1:]]
        known = {i: v for i, v in values.items() if i not in program.fixed}
        return values[program.results[0]].astype(a.dtype), (known, more)

    gradient = jax.grad(forward, argnums=(0, 1), has_aux=True)
    (u1, adjoints), (known, more) = with_plain_convolutions(gradient)(a, shifts)
    values = {**program.fixed, **known}
    partials = {}
    for number, functions in found.partials.items():
        arguments = [values[i] for i in as_function(found.graph.nodes[number]).numbers]
        partials[number] = {
            key: one_of_each(function(*arguments), axes).astype(a.dtype)
            for key, (function, axes) in functions.items()
        }
    return Point(found, values, adjoints, partials, a.dtype), u1, more


def second_and_third(point: Point, element: Element) -> tuple[Array, Array]:
    """Give ``u2`` and ``u3`` along one element."""
    nodes = point.bends.graph.nodes
    source = point.bends.graph.program.source

    @functools.cache
    def first(number: int) -> Tangent:
        if number == source:
            return [unit_vector(element, point.dtype)]
        return _first(point, nodes[number], first, element)

    @functools.cache
    def second(number: int) -> Tangent:
        if number == source:
            return []
        node = nodes[number]
        if node.kind == "curved":
            return [dense(_curved(point, node, first, second, element).second)]
        return collect([*_first(point, node, second, element), *quadratic(number)], element)

    @functools.cache
    def quadratic(number: int) -> Tangent:
        return _quadratic(point, nodes[number], first, element)

    u2, u3 = jnp.zeros((), point.dtype), jnp.zeros((), point.dtype)
    for number in point.bends.bending:
        node = nodes[number]
        weight = point.adjoints[number]
        if node.kind == "curved":
            found = _curved(point, node, first, second, element)
            u2 = u2 + jnp.vdot(weight, found.quadratic, precision="highest")
            u3 = u3 + jnp.vdot(weight, found.cubic, precision="highest")
            continue
        cubic = _cubic(point, node, first, second, element)
        u2 = u2 + _sum(quadratic(number), weight, element)
        u3 = u3 + _sum(cubic, weight, element)
    return u2, u3


def _sum(tangent: Tangent, weight: Array, element: Element) -> Array:
    return sum(
        (total(times(term, weight, element), element) for term in tangent),
        start=jnp.zeros((), weight.dtype),
    )


def _first(
    point: Point, node: Node, tangent: Callable[[int], Tangent], element: Element
) -> Tangent:  # fmt: skip
    """Carry tangents through a node by its first derivative."""
    if node.kind == "pointwise":
        slopes = point.partials[node.result]
        moved = [
            times(term, slopes[(k,)], element)
            for k, number in enumerate(node.operands)
            if (k,) in slopes
            for term in tangent(number)
        ]
        return collect(moved, element)
    if node.kind == "curved":
        operands = [_whole(point, tangent(i), i, element) for i in node.operands]
        function, at = _as_array_function(point, node)
        return [dense(jax.jvp(function, at, tuple(operands))[1])]
    (operation,) = node.operations
    values = [point.values[i] for i in operation.operands]
    rule = rules.LINEAR[operation.name]
    moved = [
        rule(term, rules.Step(operation.equation, values, place, element))
        for place, number in enumerate(operation.operands)
        if number in point.bends.graph.program.varying
        for term in tangent(number)
    ]
    return collect(moved, element)


def _quadratic(
    point: Point, node: Node, first: Callable[[int], Tangent], element: Element
) -> Tangent:  # fmt: skip
    """Give ``f''[J, J]`` of a node; nothing where it does not bend."""
    found = []
    for key, partial in point.partials.get(node.result, {}).items():
        if len(key) == 2:
            j, k = (first(node.operands[i]) for i in key)
            often = 1 if key[0] == key[1] else 2
            found += [
                times(scaled(term, often), partial, element)
                for term in multiplied(j, k, element)
            ]  # fmt: skip
    return collect(found, element)


def _cubic(
    point: Point,
    node: Node,
    first: Callable[[int], Tangent],
    second: Callable[[int], Tangent],
    element: Element,
) -> Tangent:
    """Give ``f'''[J, J, J] + 3 f''[J, Z]`` of a pointwise node."""
    found = []
    for key, partial in point.partials[node.result].items():
        tangents = [first(node.operands[i]) for i in key]
        if len(key) == 3:
            both = multiplied(tangents[0], tangents[1], element)
            terms = multiplied(both, tangents[2], element)
            often = len(set(itertools.permutations(key)))
            found += [times(scaled(term, often), partial, element) for term in terms]
        if len(key) == 2:
            for place in range(2 if key[0] != key[1] else 1):
                bent = second(node.operands[key[1 - place]])
                terms = multiplied(tangents[place], bent, element)
                found += [times(scaled(term, 3), partial, element) for term in terms]
    return collect(found, element)


class Curved(NamedTuple):
    """What a node that is differentiated as a whole adds: its result's ``Z``, and its bends."""

    quadratic: Array
    second: Array
    cubic: Array


def _curved(
    point: Point,
    node: Node,
    first: Callable[[int], Tangent],
    second: Callable[[int], Tangent],
    element: Element,
) -> Curved:
    """Differentiate a node three times along the parabola ``x + t J + t^2 Z / 2`` of its operand.

    The third derivative along it is ``f'''[J, J, J] + 3 f''[J, Z]``.
    """
    function, at = _as_array_function(point, node)
    j = [_whole(point, first(i), i, element) for i in node.operands]
    z = [_whole(point, second(i), i, element) for i in node.operands]

    def along(t: Array, bend: float) -> Array:
        moved = [
            x + (t * v + bend * t * t / 2 * w).astype(x.dtype)
            for x, v, w in zip(at, j, z, strict=True)
        ]
        return function(*moved).astype(point.dtype)

    def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    zero = jnp.zeros((), point.dtype)
    straight = derivative(derivative(lambda t: along(t, 0.0)))
    bent = derivative(derivative(lambda t: along(t, 1.0)))
    return Curved(straight(zero), bent(zero), derivative(bent)(zero))


def _as_array_function(point: Point, node: Node) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    (operation,) = node.operations
    values = [point.values[i] for i in operation.operands]
    index = operation.results.index(node.result)

    def function(*moved: Array) -> Array:
        known = dict(zip(node.operands, moved, strict=True))
        operands = [known.get(i, v) for i, v in zip(operation.operands, values, strict=True)]
        return run(operation.equation, operands)[index]

    return function, tuple(point.values[i] for i in node.operands)


def _whole(point: Point, tangent: Tangent, number: int, element: Element) -> Array:
    """Store a tangent whole, in the dtype of its value."""
    shape = point.bends.graph.program.shapes[number]
    zero = jnp.zeros(shape.shape, point.dtype)
    return sum((spread_all(term, element).values for term in tangent), start=zero)


def derive(
    score: ScoreAndMore, a: Array, *, chunk_size: int | None = None
) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element, ``chunk_size`` of them at a time."""
    closed, shape = jax.make_jaxpr(score, return_shape=True)(a)
    found = bends(graph(flatten(closed)))
    point, u1, more = at_point(found, a)

    def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
        return second_and_third(point, Element(coordinates, a.shape, {}))

    u2, u3 = sweep(along, a.shape, chunk_size)
    more = jax.tree.unflatten(jax.tree.structure(shape[1]), more)
    return LogDerivatives(u1, u2, u3), more
