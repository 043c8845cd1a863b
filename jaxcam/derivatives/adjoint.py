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
from jax.extend import core

from jaxcam.derivatives.bends import Point, at_point, bends
from jaxcam.derivatives.merge import merged
from jaxcam.derivatives.products import collect, multiplied, scaled, summed, total
from jaxcam.derivatives.program import Node, Operation
from jaxcam.derivatives.rules import LINEAR, axes_before
from jaxcam.derivatives.step import Step
from jaxcam.derivatives.structure import operations, run
from jaxcam.derivatives.survey import FORMS, Survey, against, in_words, positions_meet, survey
from jaxcam.derivatives.sweep import POSITION, divide, sweep
from jaxcam.derivatives.tangents import (
    Element,
    Tangent,
    Term,
    dense,
    joint,
    spread_all,
    times,
    unit_vector,
)
from jaxcam.types import Engine, LogDerivatives, Proof, Traced

Watch = Callable[[Node, list[Tangent]], None]
"""Is shown every node that bends, and the tangents that meet in it."""


class Way(NamedTuple):
    """What is carried along one element: the first and the second tangent of any value."""

    point: Point
    element: Element
    first: Callable[[int], Tangent]
    second: Callable[[int], Tangent]


def second_and_third(
    point: Point,
    element: Element,
    *,
    waist: tuple[int, Array] | None = None,
    watch: Watch | None = None,
) -> tuple[Array, Array]:
    """Give ``u2`` and ``u3`` along one element.

    waist: a value on every way from ``a`` to a bend, and its tangent, if they start from there
    (peeled.py).
    """
    nodes = point.bends.graph.nodes
    source = point.bends.graph.program.source
    given = {source: [unit_vector(element, point.dtype)]}
    if waist is not None:
        given = {waist[0]: [dense(waist[1])]}

    @functools.cache
    def first(number: int) -> Tangent:
        return given[number] if number in given else _carried(way, nodes[number], first)

    @functools.cache
    def second(number: int) -> Tangent:
        if number in given:
            return []
        node = nodes[number]
        if node.kind == "curved":
            return [dense(curved(number).second)]
        return collect([*_carried(way, node, second), *quadratic(number)], element)

    @functools.cache
    def quadratic(number: int) -> Tangent:
        return _quadratic(way, nodes[number])

    @functools.cache
    def curved(number: int) -> Curved:
        return _curved(way, nodes[number])

    way = Way(point, element, first, second)
    u2, u3 = jnp.zeros((), point.dtype), jnp.zeros((), point.dtype)
    for number in point.bends.bending:
        node = nodes[number]
        weight = point.adjoints[number]
        if watch is not None:
            watch(node, [first(i) for i in node.operands])
        if node.kind == "curved":
            u2 = u2 + jnp.vdot(weight, curved(number).quadratic, precision="highest")
            u3 = u3 + jnp.vdot(weight, curved(number).cubic, precision="highest")
        else:
            bent = _bent(way, node, weight)
            u2, u3 = u2 + bent[0], u3 + bent[1]
    return u2, u3


def _carried(way: Way, node: Node, tangent: Callable[[int], Tangent]) -> Tangent:
    """Carry tangents through a node by its first derivative."""
    point, element = way.point, way.element
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
        function, at = _as_array_function(point, node)
        operands = [_whole(way, tangent, i) for i in node.operands]
        moved = tuple(v.astype(x.dtype) for v, x in zip(operands, at, strict=True))
        return [dense(jax.jvp(function, at, moved)[1].astype(point.dtype))]
    (operation,) = node.operations
    if operation.name == "reduce_sum":
        over = operation.equation.params["axes"]
        return _through(way, operation, lambda number: _summed(way, tangent, number, over))
    return _through(way, operation, tangent)


def _through(
    way: Way, operation: Operation, tangent: Callable[[int], Tangent], over: Sequence[int] = ()
) -> Tangent:
    """Carry tangents through a linear operation; ``over``: axes of its result of size one now."""
    values = [way.point.values[i] for i in operation.operands]
    full = operation.equation.outvars[0].aval.shape
    shape = tuple(1 if i in over else size for i, size in enumerate(full))
    rule = LINEAR[operation.name]
    moved = [
        rule(term, Step(operation.equation, values, place, way.element, shape))
        for place, number in enumerate(operation.operands)
        if number in way.point.bends.graph.program.varying
        for term in tangent(number)
    ]
    return collect(moved, way.element)


def _summed(
    way: Way, tangent: Callable[[int], Tangent], number: int, over: Sequence[int]
) -> Tangent:
    """Sum the tangent of a value over axes, which keep the size one.

    Ahead of products with matrices and of sums of two branches where the two can change places:
    the product is then one of a single place. A bend has its say first.
    """
    node, point = way.point.bends.graph.nodes.get(number), way.point
    if node is not None and node.kind == "linear":
        (operation,) = node.operations
        place = operation.operands.index(node.operands[0])
        before = axes_before(operation.equation, place, over)
        if before is not None:
            return _through(way, operation, lambda i: _summed(way, tangent, i, before), over)
    if node is not None and node.kind == "pointwise" and not point.bends.bends(node):
        slopes = point.partials[number]
        if all(slope.shape[i] == 1 for slope in slopes.values() for i in over):
            moved = [
                times(term, slope, way.element)
                for (k,), slope in slopes.items()
                for term in _summed(way, tangent, node.operands[k], over)
            ]
            return collect(moved, way.element)
    return [summed(term, over, way.element) for term in tangent(number)]


def _quadratic(way: Way, node: Node) -> Tangent:
    """Give ``f''[J, J]`` of a node; nothing where it does not bend."""
    found = []
    for key, partial in way.point.partials.get(node.result, {}).items():
        if len(key) == 2:
            j, k = (way.first(node.operands[i]) for i in key)
            often = 1 if key[0] == key[1] else 2
            found += [
                times(scaled(term, often), partial, way.element)
                for term in multiplied(j, k, way.element)
            ]
    return collect(found, way.element)


def _bent(way: Way, node: Node, weight: Array) -> tuple[Array, Array]:
    """Give what a pointwise node adds to ``u2`` and ``u3``.

    Products are not written out as tangents: each is summed with its weight at once.
    """
    u2, u3 = jnp.zeros((), way.point.dtype), jnp.zeros((), way.point.dtype)
    for key, partial in way.point.partials[node.result].items():
        tangents = [way.first(node.operands[i]) for i in key]
        often = len(set(itertools.permutations(key)))
        if len(key) == 2:
            u2 = u2 + often * _contraction(way, tangents, weight, partial)
            for place in range(often):
                bent = [tangents[place], way.second(node.operands[key[1 - place]])]
                u3 = u3 + 3 * _contraction(way, bent, weight, partial)
        if len(key) == 3:
            u3 = u3 + often * _contraction(way, tangents, weight, partial)
    return u2, u3


def _contraction(way: Way, tangents: Sequence[Tangent], weight: Array, partial: Array) -> Array:
    """Sum the product of tangents, times ``weight`` and ``partial``, over all places."""
    pattern = joint(weight, partial, way.element)
    products: dict[tuple[int, ...], list[tuple[Term, ...]]] = {}
    for terms in itertools.product(*tangents):  # equal ones, in whatever order, are computed once
        products.setdefault(tuple(sorted(map(id, terms))), []).append(terms)
    found = jnp.zeros((), way.point.dtype)
    for equal in products.values():
        one = total(equal[0], pattern, way.element)
        found = found if one is None else found + len(equal) * one
    return found


class Curved(NamedTuple):
    """What a node that is differentiated as a whole adds: its result's ``Z``, and its bends."""

    quadratic: Array
    second: Array
    cubic: Array


def _curved(way: Way, node: Node) -> Curved:
    """Differentiate a node three times along the parabola ``x + t J + t^2 Z / 2`` of its operand.

    The third derivative along it is ``f'''[J, J, J] + 3 f''[J, Z]``.
    """
    function, at = _as_array_function(way.point, node)
    j = [_whole(way, way.first, i) for i in node.operands]
    z = [_whole(way, way.second, i) for i in node.operands]

    def along(t: Array, bend: float) -> Array:
        moved = [
            x + (t * v + bend * t * t / 2 * w).astype(x.dtype)
            for x, v, w in zip(at, j, z, strict=True)
        ]
        return function(*moved).astype(way.point.dtype)

    def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    zero = jnp.zeros((), way.point.dtype)
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


def _whole(way: Way, tangent: Callable[[int], Tangent], number: int) -> Array:
    """Store the tangent of a value whole."""
    shape = way.point.bends.graph.program.shapes[number]
    zero = jnp.zeros(shape.shape, way.point.dtype)
    return sum((spread_all(term, way.element).values for term in tangent(number)), start=zero)


class Carried(NamedTuple):
    """The derivatives as a program ``(a, *context) -> [u1, u2, u3, *more]``, and a survey of the
    tangents in it.
    """

    closed: core.ClosedJaxpr
    survey: Survey


def carried(traced: Traced) -> Carried:
    """Trace the derivatives along every element, ``chunk_size`` of them at a time."""
    found = traced.once(bends)
    rank = len(traced.a.shape)
    met: list[Node] = []
    placed: list[bool] = []

    def derivatives(a: Array, *context: Array) -> list[Array]:
        point, u1, more = at_point(found, a, *context)

        def watch(node: Node, tangents: list[Tangent]) -> None:
            if positions_meet(node, tangents, rank):
                met.append(node)

        def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
            return second_and_third(point, Element(coordinates, a.shape, {}), watch=watch)

        parts = divide(along, a.shape)
        placed.append(POSITION in parts.moved)
        return [u1, *sweep(parts, a.shape, traced.chunk_size, traced.axis), *more]

    closed = merged(derivatives, *traced.arguments)
    return Carried(closed, survey(found, met, placed=any(placed)))


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element."""
    found = core.jaxpr_as_fun(traced.once(carried).closed)(*arguments)
    return LogDerivatives(*found[:3]), jax.tree.unflatten(traced.more, found[3:])


def surveyed(traced: Traced) -> Survey | str:
    """Survey a score, or say why it has no tangents."""
    if "custom_vjp_call" in operations(traced.closed):
        return "a hand-written reverse rule (custom_vjp) has no forward derivative"
    try:
        return traced.once(carried).survey
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__} while tracing the tangents: {reason}"


def prove(traced: Traced, name: str = "adjoint") -> Proof:
    """Trace the tangents: any operation will do that JAX differentiates forward three times.

    The named forms are those in which tangents cost least:

    - ``powered``: no bend follows another, and each is elementwise: ``u_k`` is a transposed pass
      with the k-th powers of the kernel.
    - ``coloured``: tangents of different positions have no place in common where anything bends.
    """
    found = traced.once(surveyed)
    if isinstance(found, str):
        return Proof(False, found)
    reasons = against(found)
    if name in FORMS:
        return Proof(reasons[name] is None, reasons[name] or in_words(name, found), name)
    form = next((form for form in FORMS if reasons[form] is None), "adjoint")
    return Proof(True, in_words(form, found), form)


ENGINE = Engine("adjoint", exact=True, prove=prove, derive=derive, forms=FORMS)
