"""The partial derivatives of a score's operations, as programs, and which of them are bends.

A *bend* is an operation with a second derivative. Differentiated once for a score, without
computing anything.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from jaxcam.contracts import Traced
from jaxcam.derivatives.graph.flatten import Program, flatten
from jaxcam.derivatives.graph.kinds import Graph, Node, Pointwise, as_function, graph_of, slope_at
from jaxcam.jaxprs.dependence import Dependence, constant_axes, dependence
from jaxcam.jaxprs.interpret import body
from jaxcam.jaxprs.merge import merged

Key = tuple[int, ...]
"""Along which operands a partial derivative is taken: ``(0, 1)`` is ``d^2 f / dx_0 dx_1``."""


Axes = dict[Key, frozenset[int]]
"""The partial derivatives of a node that are not proved zero, and along which axes each of them is
constant."""


class PartialsProgram(NamedTuple):
    """The partial derivatives of pointwise nodes with the same operands, up to the third.

    closed: gives those that are not proved zero, of one node after the other, from the values that
    ``numbers`` name. axes: by node.
    """

    numbers: tuple[int, ...]
    closed: core.ClosedJaxpr
    axes: dict[int, Axes]


class Differentiated(NamedTuple):
    """The graph of a score, and the partial derivatives of its pointwise nodes."""

    graph: Graph
    programs: tuple[PartialsProgram, ...]
    axes: dict[int, Axes]

    @property
    def bends(self) -> list[int]:
        """Number the nodes that have a second derivative."""
        return [i for i, node in self.graph.nodes.items() if self.is_bend(node)]

    def is_bend(self, node: Node) -> bool:
        """Say whether a node has a second derivative."""
        if node.kind == "pointwise":
            return any(len(key) > 1 for key in self.axes[node.result])
        return node.kind == "curved"


def differentiated(traced: Traced) -> Differentiated:
    """Find the graph of a score, and the partial derivatives of all its pointwise nodes."""
    graph = graph_of(flatten(traced.closed))
    programs = tuple(_program(graph.program, nodes) for nodes in graph.pointwise())
    axes = {number: of for program in programs for number, of in program.axes.items()}
    return Differentiated(graph, programs, axes)


def _program(program: Program, nodes: Pointwise) -> PartialsProgram:
    """Differentiate all nodes of a chain together: each value of it is then passed once."""
    chain = as_function(nodes)
    shapes = [program.shapes[i] for i in chain.numbers]
    constant = [program.constant[i] for i in chain.numbers]
    slopes: dict[Key, core.ClosedJaxpr] = {(): jax.make_jaxpr(chain.function)(*shapes)}
    kept: dict[Key, list[int]] = {(): list(range(len(nodes.results)))}
    for order in (1, 2, 3):
        for key in itertools.combinations_with_replacement(range(len(nodes.operands)), order):
            before = slopes.get(key[:-1])
            moving = [] if before is None else _moving(body(before), key[-1], kept[key[:-1]])
            if before is not None and moving:
                slope = slope_at(core.jaxpr_as_fun(before), key[-1])
                slopes[key], kept[key] = jax.make_jaxpr(slope)(*shapes), moving
    del slopes[()]
    constants = {key: constant_axes(body(closed), constant) for key, closed in slopes.items()}
    axes = {
        number: {key: constants[key][i] for key in slopes if i in kept[key]}
        for i, number in enumerate(nodes.results)
    }

    def every(*values: Any) -> list[Any]:
        partials = {key: core.jaxpr_as_fun(closed)(*values) for key, closed in slopes.items()}
        return [partials[key][i] for i, n in enumerate(nodes.results) for key in axes[n]]

    return PartialsProgram(chain.numbers, merged(every, *shapes), axes)


def _moving(jaxpr: Any, place: int, among: Sequence[int]) -> list[int]:
    """Say which of some results depend differentiably on one argument."""
    none, varying = Dependence.NONE, Dependence.VARYING
    levels = [varying if i == place else none for i in range(len(jaxpr.invars))]
    dependences = dependence(jaxpr, levels)
    return [i for i in among if dependences[i] is varying]
