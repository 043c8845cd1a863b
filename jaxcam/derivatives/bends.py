"""What bends in a score: its operations with a second derivative, and their partial derivatives.

Everything here is the same for all elements along which is differentiated: `bends` is found once
for a score, and `at_point` is one pass forward and backward.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.derivatives.merge import merged
from jaxcam.derivatives.program import (
    Graph,
    Node,
    Program,
    as_function,
    evaluate,
    flatten,
    graph,
    slope_at,
)
from jaxcam.derivatives.structure import Dependence, body, constant_axes, dependence
from jaxcam.derivatives.tangents import one_of_each
from jaxcam.types import Traced

Key = tuple[int, ...]
"""Along which operands a partial derivative is taken: ``(0, 1)`` is ``d^2 f / dx_0 dx_1``."""


class Partials(NamedTuple):
    """The partial derivatives of a pointwise node that are not proved zero, up to the third.

    closed: gives all of them from the values that ``numbers`` name. axes: for each, those along
    which it is constant.
    """

    numbers: tuple[int, ...]
    closed: core.ClosedJaxpr
    axes: dict[Key, frozenset[int]]


class Bends(NamedTuple):
    """The graph of a score, and the partial derivatives of each of its pointwise nodes."""

    graph: Graph
    partials: dict[int, Partials]

    @property
    def bending(self) -> list[int]:
        """Number the nodes that have a second derivative."""
        return [i for i, node in self.graph.nodes.items() if self.bends(node)]

    def bends(self, node: Node) -> bool:
        """Say whether a node has a second derivative."""
        if node.kind == "pointwise":
            return any(len(key) > 1 for key in self.partials[node.result].axes)
        return node.kind == "curved"


def bends(traced: Traced) -> Bends:
    """Find the graph of a score, and the partial derivatives of all its pointwise nodes."""
    found = graph(flatten(traced.closed))
    nodes = found.nodes.items()
    return Bends(found, {i: _partials(found.program, n) for i, n in nodes if n.kind == "pointwise"})


def _partials(program: Program, node: Node) -> Partials:
    whole = as_function(node)
    shapes = [program.shapes[i] for i in whole.numbers]
    constant = [program.constant[i] for i in whole.numbers]
    slopes: dict[Key, core.ClosedJaxpr] = {(): jax.make_jaxpr(whole.function)(*shapes)}
    for order in (1, 2, 3):
        for key in itertools.combinations_with_replacement(range(len(node.operands)), order):
            before = slopes.get(key[:-1])
            if before is not None and _depends(body(before), key[-1]):
                slopes[key] = jax.make_jaxpr(slope_at(_function(before), key[-1]))(*shapes)
    del slopes[()]
    axes = {key: constant_axes(body(closed), constant)[0] for key, closed in slopes.items()}

    def every(*values: Any) -> list[Any]:
        return [_function(closed)(*values) for closed in slopes.values()]

    return Partials(whole.numbers, merged(every, *shapes), axes)


def _function(closed: core.ClosedJaxpr) -> Callable[..., Any]:
    return lambda *values: core.jaxpr_as_fun(closed)(*values)[0]


def _depends(jaxpr: Any, place: int) -> bool:
    none, varying = Dependence.NONE, Dependence.VARYING
    levels = [varying if i == place else none for i in range(len(jaxpr.invars))]
    return dependence(jaxpr, levels) == [varying]


class Point(NamedTuple):
    """Everything at the point ``a`` that does not depend on the element."""

    bends: Bends
    values: dict[int, Any]
    adjoints: dict[int, Array]
    partials: dict[int, dict[Key, Array]]
    dtype: jnp.dtype


def at_point(found: Bends, a: Array, *context: Array) -> tuple[Point, Array, list[Any]]:
    """Make the one pass forward and backward: the point, ``u1``, and what else the score gives."""
    program = found.graph.program
    shifts = {i: jnp.zeros(program.shapes[i].shape, a.dtype) for i in found.bending}

    def forward(
        a: Array, shifts: dict[int, Array], *context: Array
    ) -> tuple[Array, tuple[dict, list]]:  # fmt: skip
        values = evaluate(found.graph, (a, *context), shifts)
        more = [values[i] for i in program.results[1:]]
        known = {i: v for i, v in values.items() if i not in program.fixed}
        return values[program.results[0]].astype(a.dtype), (known, more)

    gradient = jax.grad(forward, argnums=(0, 1), has_aux=True)
    (u1, adjoints), (known, more) = with_plain_convolutions(gradient)(a, shifts, *context)
    values = {**program.fixed, **known}
    partials = {}
    for number, (numbers, closed, axes) in found.partials.items():
        slopes = core.jaxpr_as_fun(closed)(*(values[i] for i in numbers))
        partials[number] = {
            key: one_of_each(slope, axes[key]).astype(a.dtype)
            for key, slope in zip(axes, slopes, strict=True)
        }
    return Point(found, values, adjoints, partials, a.dtype), u1, more
