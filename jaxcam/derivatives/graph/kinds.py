"""A program as a graph of the few kinds of operation that its derivatives tell apart.

Each operation on the way from ``a`` to ``u`` is one of

- *pointwise*: element ``i`` of the result depends on element ``i`` of the operands alone. Chains of
  them with one operand in common (``x -> x sigmoid(x)``) become one node for each value of the
  chain that is seen outside of it.
- *linear* in its one operand, or picking among its elements (a maximum): it carries tangents on.
- *curved*: anything else, differentiated as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives import reasons as refusal
from jaxcam.derivatives.graph import handwritten
from jaxcam.derivatives.graph.flatten import Operation, Program, compute
from jaxcam.derivatives.graph.singular import is_masking, is_singular, is_steep, is_switching
from jaxcam.derivatives.tangents.rules import RULES
from jaxcam.jaxprs.interpret import run
from jaxcam.jaxprs.primitives import Fact, known_as

POINTWISE, JOINT = known_as(Fact.POINTWISE), known_as(Fact.JOINT)
PLAIN = known_as(Fact.LINEAR | Fact.BILINEAR)


class Node(NamedTuple):
    """A step of the tangents: ``result`` from ``operands``.

    operation: the one that makes the result, in a chain the last. telling: that which names the
    node to a reader, in a chain the last that is more than a sum or a product.
    """

    kind: str
    operands: tuple[int, ...]
    result: int
    operation: Operation
    telling: Operation


class Pointwise(NamedTuple):
    """Pointwise nodes with the same operands: all that a chain shows, or one node by itself."""

    operands: tuple[int, ...]
    results: tuple[int, ...]
    operations: tuple[Operation, ...]


class Graph(NamedTuple):
    """The nodes between ``a`` and ``u``, in order, and the program that they come from.

    chain: for a value inside a chain of pointwise operations, the value that the chain starts from.
    """

    program: Program
    nodes: dict[int, Node]
    chain: dict[int, int]

    def pointwise(self) -> Iterator[Pointwise]:
        """Give the pointwise nodes, those of a chain together."""
        chains: dict[int, list[Operation]] = {}
        shown: dict[int, list[int]] = {}
        for operation in self.program.operations:
            for result in operation.results:
                if result in self.chain:
                    chains.setdefault(self.chain[result], []).append(operation)
        for number, node in self.nodes.items():
            if number in self.chain:
                shown.setdefault(self.chain[number], []).append(number)
            elif node.kind == "pointwise":
                yield Pointwise(node.operands, (number,), (node.operation,))
        for root, numbers in shown.items():
            yield Pointwise((root,), tuple(numbers), tuple(chains[root]))


def graph_of(program: Program) -> Graph:
    """Find the nodes on the way from ``a`` to ``u``.

    Raises:
        Refused: a derivative written by hand has other tangents at other levels.
    """
    _check_written(program)
    graph = _graph(program, frozenset())
    ends = frozenset(i for nodes in graph.pointwise() for i in _ends(nodes, program))
    return _graph(program, ends) if ends else graph


def _ends(nodes: Pointwise, program: Program) -> list[int]:
    """Number the values at which a chain is to end: what switches off goes before what is singular,
    and a mask behind it.

    The derivative of the two together is zero times infinity.
    """
    if not any(is_singular(operation, program) for operation in nodes.operations):
        return []
    *before, last = nodes.operations
    ends = [o.results[0] for o in before if is_switching(o, program)]
    masked = is_masking(last, program)
    for operation in reversed(before):
        if masked and is_steep(operation, program):
            ends.append(operation.results[0])
        masked = masked or is_masking(operation, program)
    return ends


def _graph(program: Program, ends: frozenset[int]) -> Graph:
    """Find the nodes; chains end at some values, and begin anew from them."""
    needed = _needed(program)
    chain: dict[int, int] = {}
    nodes: dict[int, Node] = {}
    seen_outside = {program.results[0], *ends}
    for operation in program.operations:
        moved = tuple(dict.fromkeys(i for i in operation.operands if i in program.varying))
        results = [i for i in operation.results if i in needed]
        if not moved or not results:
            continue
        roots = tuple(dict.fromkeys(i if i in ends else chain.get(i, i) for i in moved))
        pointwise = is_pointwise(operation, program)
        if pointwise and len(roots) == 1:
            (result,) = results
            chain[result] = roots[0]
            before = [nodes[i].telling for i in moved if i in chain and i not in ends]
            nodes[result] = Node("pointwise", roots, result, operation, _telling(operation, before))
            continue
        seen_outside.update(moved)
        kind = "pointwise" if pointwise else _kind(operation, moved)
        nodes.update({i: Node(kind, moved, i, operation, operation) for i in results})
    inside = chain.keys() - seen_outside
    return Graph(program, {i: n for i, n in nodes.items() if i not in inside}, chain)


def _check_written(program: Program) -> None:
    needed = _needed(program)
    for operation in program.operations:
        moved = [i in program.varying for i in operation.operands]
        on_the_way = any(moved) and not needed.isdisjoint(operation.results)
        if on_the_way and not handwritten.of_one_tangent(operation.equation, moved):
            raise refusal.Refused(
                f"the rule of {refusal.where(operation.equation, operation.call)} (jax.custom_jvp) "
                "gives a value that is not seen to be the function itself, so that its second "
                "derivative need not follow the rule"
            )


def _telling(operation: Operation, before: Sequence[Operation]) -> Operation:
    """Choose the operation that names a chain, given those that name what it continues."""
    plain = operation.name in PLAIN and not operation.call
    return max(before, key=lambda o: o.results) if plain and before else operation


def _kind(operation: Operation, moved: tuple[int, ...]) -> str:
    single = len(moved) == 1 and operation.operands.count(moved[0]) == 1
    linear = operation.name in RULES and (single or operation.name in JOINT)
    return "linear" if linear else "curved"


def _needed(program: Program) -> set[int]:
    """Number the varying values on which ``u`` depends."""
    needed = {program.results[0]} & program.varying
    for operation in reversed(program.operations):
        if needed.intersection(operation.results):
            needed.update(i for i in operation.operands if i in program.varying)
    return needed


def is_pointwise(operation: Operation, program: Program) -> bool:
    """Say whether an operation works element by element on all its varying operands."""
    if len(operation.results) != 1:
        return False
    shape = operation.equation.outvars[0].aval.shape
    aligned = all(
        atom.aval.shape == shape
        or (i not in program.varying and len(atom.aval.shape) in (0, len(shape)))
        for atom, i in zip(operation.equation.invars, operation.operands, strict=True)
    )
    if not aligned:
        return False
    moved = [i in program.varying for i in operation.operands]
    return operation.name in POINTWISE or handwritten.is_pointwise(operation.equation, moved)


def as_array_function(
    nodes: Sequence[Node], values: dict[int, Any]
) -> tuple[Callable[..., tuple[list[Array], list[Any]]], tuple[Array, ...]]:
    """Give the nodes of one operation as a function of their operands, and where these are.

    The function gives the nodes' results, and all results of the operation.
    """
    operation, operands = nodes[0].operation, nodes[0].operands
    places = [operation.results.index(node.result) for node in nodes]

    def function(*moved: Array) -> tuple[list[Array], list[Any]]:
        known = values | dict(zip(operands, moved, strict=True))
        results = run(operation.equation, [known[i] for i in operation.operands])
        return [results[place] for place in places], list(results)

    return function, tuple(values[i] for i in operands)


class AsFunction(NamedTuple):
    """Pointwise nodes as a function: their operands first, then everything else that it takes."""

    function: Callable[..., list[Any]]
    numbers: tuple[int, ...]


def as_function(nodes: Pointwise) -> AsFunction:
    """Give pointwise nodes as a function of their operands and of the fixed values they use."""
    made = {i for operation in nodes.operations for i in operation.results}
    used = dict.fromkeys(i for operation in nodes.operations for i in operation.operands)
    fixed = [i for i in used if i not in made and i not in nodes.operands]
    numbers = (*nodes.operands, *fixed)

    def function(*values: Any) -> list[Any]:
        known = compute(nodes.operations, dict(zip(numbers, values, strict=True)))
        return [known[i] for i in nodes.results]

    return AsFunction(function, numbers)


def slope_at(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Differentiate a pointwise function of several arrays along one: each element along itself."""

    def slope(*values: Any) -> Any:
        def alone(x: Any) -> Any:
            return function(*values[:place], x, *values[place + 1 :])

        return jax.jvp(alone, (values[place],), (jnp.ones_like(values[place]),))[1]

    return slope
