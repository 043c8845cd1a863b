"""A log-score as a graph of the few kinds of operation that its derivatives tell apart.

The jaxpr of ``u`` is flattened, and each operation on the way from ``a`` to ``u`` is one of

- *pointwise*: element ``i`` of the result depends on element ``i`` of the operands alone. Chains of
  them with one operand in common (``x -> x sigmoid(x)``) become one node.
- *linear* in its one operand, or picking among its elements (a maximum): it carries tangents on.
- *curved*: anything else, differentiated as a whole.

What does not depend on ``a`` differentiably (weights, comparisons, selections) is fixed: it is
computed once, at the point.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.derivatives.rules import LINEAR, POINTWISE
from jaxcam.derivatives.structure import (
    Dependence,
    body,
    called,
    constant_rule,
    dependence_rule,
    inner,
    run,
    single_places,
)


class Operation(NamedTuple):
    """One equation, its operands and results numbered over the whole program.

    call: the named function that it is part of (``gelu``), if there is one.
    """

    equation: Any
    operands: tuple[int, ...]
    results: tuple[int, ...]
    call: str = ""

    @property
    def name(self) -> str:
        """The primitive."""
        return self.equation.primitive.name


class Program(NamedTuple):
    """``(a, *context) -> (u, more)`` as operations in order.

    Values are numbered: ``arguments[0]`` is ``a``, ``results[0]`` is ``u``; ``fixed`` holds the
    values of literals and of arrays that the score closes over; ``varying`` numbers what depends on
    ``a`` differentiably; ``constant`` gives the axes along which a value is constant; ``shapes``
    shape and dtype.
    """

    operations: tuple[Operation, ...]
    fixed: dict[int, Any]
    arguments: tuple[int, ...]
    results: tuple[int, ...]
    varying: frozenset[int]
    constant: dict[int, frozenset[int]]
    shapes: dict[int, jax.ShapeDtypeStruct]

    @property
    def source(self) -> int:
        """The number of ``a``."""
        return self.arguments[0]


class Node(NamedTuple):
    """A step of the tangents: ``result`` from ``operands``, by ``operations``."""

    kind: str
    operands: tuple[int, ...]
    result: int
    operations: tuple[Operation, ...]


class Graph(NamedTuple):
    """The nodes between ``a`` and ``u``, in order, and the program that they come from.

    chain: for a value inside a chain of pointwise operations, the value that the chain starts from.
    """

    program: Program
    nodes: dict[int, Node]
    chain: dict[int, int]


def flatten(closed: Any) -> Program:
    """Number the values of the jaxpr of a score ``(a, *context)``; calls are entered.

    Raises:
        TypeError: numbers are complex, of which tangents would keep the real part alone, or an
            array is empty.
    """
    fixed: dict[int, Any] = {}
    operations: list[Operation] = []
    level: dict[int, Dependence] = {}
    axes: dict[int, frozenset[int]] = {}
    shapes: dict[int, jax.ShapeDtypeStruct] = {}

    def new(aval: Any, known: Dependence, constant_along: frozenset[int]) -> int:
        number = len(level)
        level[number], axes[number] = known, constant_along
        shapes[number] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return number

    def constant(aval: Any, value: Any) -> int:
        number = new(aval, Dependence.NONE, single_places(aval.shape))
        fixed[number] = value
        return number

    def append(equation: Any, operands: tuple[int, ...], call: str) -> list[int]:
        levels = dependence_rule(equation, [level[i] for i in operands])
        constant_along = constant_rule(equation, [axes[i] for i in operands])
        avals = [atom.aval for atom in equation.outvars]
        results = [new(*known) for known in zip(avals, levels, constant_along, strict=True)]
        operations.append(Operation(equation, operands, tuple(results), call))
        return results

    def stretch(number: int, shape: tuple[int, ...]) -> int:
        """Write down that a varying operand is broadcast; what is fixed may stay small."""
        old = shapes[number]
        if level[number] is not Dependence.VARYING or old.shape in (shape, ()):
            return number
        (result,) = append(_equation(lambda x: jnp.broadcast_to(x, shape), old), (number,), "")
        return result

    def enter(
        jaxpr: Any, constants: Sequence[Any], arguments: Sequence[int], within: str = ""
    ) -> list[int]:
        numbers = {v: constant(v.aval, c) for v, c in zip(jaxpr.constvars, constants, strict=True)}
        numbers.update(zip(jaxpr.invars, arguments, strict=True))

        def number(atom: Any) -> int:
            literal = isinstance(atom, core.Literal)
            return constant(atom.aval, atom.val) if literal else numbers[atom]

        for equation in jaxpr.eqns:
            operands = tuple(map(number, equation.invars))
            call = called(equation)
            if call is None:
                results = append(*_stretched(equation, operands, stretch), within)
            else:
                constants = getattr(call, "consts", ())
                name = str(equation.params.get("name") or "")
                named = within or (name if name.isidentifier() and name[0] != "_" else "")
                results = enter(body(call), constants, operands, named)
            numbers.update(zip(equation.outvars, results, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    levels = [Dependence.VARYING, *(Dependence.NONE for _ in closed.in_avals[1:])]
    arguments = [
        new(aval, known, single_places(aval.shape))
        for aval, known in zip(closed.in_avals, levels, strict=True)
    ]
    results = enter(body(closed), closed.consts, arguments)
    varying = frozenset(i for i, known in level.items() if known is Dependence.VARYING)
    if any(jnp.issubdtype(shapes[i].dtype, jnp.complexfloating) for i in varying):
        raise TypeError("complex numbers have no tangents here")
    if any(0 in shapes[i].shape for i in varying):
        raise TypeError("empty arrays have no tangents")
    return Program(
        tuple(operations), fixed, tuple(arguments), tuple(results), varying, axes, shapes
    )


def _stretched(
    equation: Any, operands: tuple[int, ...], stretch: Callable[[int, tuple[int, ...]], int]
) -> tuple[Any, tuple[int, ...]]:
    """Make implicit broadcasting explicit: pointwise operations stretch axes of size one."""
    if equation.primitive.name not in POINTWISE or len(equation.outvars) != 1:
        return equation, operands
    shape = equation.outvars[0].aval.shape
    stretched = tuple(stretch(i, shape) for i in operands)
    if stretched == operands:
        return equation, operands
    avals = [
        jax.ShapeDtypeStruct(shape if old != new else atom.aval.shape, atom.aval.dtype)
        for atom, old, new in zip(equation.invars, operands, stretched, strict=True)
    ]
    primitive, params = equation.primitive, equation.params
    same = _equation(lambda *values: primitive.bind(*values, **params), *avals)
    return same.replace(source_info=equation.source_info), stretched


def _equation(function: Callable[..., Any], *avals: Any) -> Any:
    """Give the one equation that a function of arrays is."""
    (equation,) = body(jax.make_jaxpr(function)(*avals)).eqns
    return equation


def graph(program: Program) -> Graph:
    """Find the nodes on the way from ``a`` to ``u``."""
    needed = _needed(program)
    chain: dict[int, int] = {}
    within: dict[int, tuple[Operation, ...]] = {}
    nodes: dict[int, Node] = {}
    seen_outside = {program.results[0]}

    def root(number: int) -> int:
        return chain.get(number, number)

    for operation in program.operations:
        moved = tuple(dict.fromkeys(i for i in operation.operands if i in program.varying))
        results = [i for i in operation.results if i in needed]
        if not moved or not results:
            continue
        roots = tuple(dict.fromkeys(map(root, moved)))
        if is_pointwise(operation, program) and len(roots) == 1:
            (result,) = results
            chain[result] = roots[0]
            earlier = [within.get(i, ()) for i in moved]
            within[result] = (*dict.fromkeys(o for some in earlier for o in some), operation)
            nodes[result] = Node("pointwise", roots, result, within[result])
            continue
        seen_outside.update(moved)
        kind = "pointwise" if is_pointwise(operation, program) else _kind(operation, moved)
        nodes.update({i: Node(kind, moved, i, (operation,)) for i in results})
    inside = chain.keys() - seen_outside
    return Graph(program, {i: n for i, n in nodes.items() if i not in inside}, chain)


def _kind(operation: Operation, moved: tuple[int, ...]) -> str:
    single = len(moved) == 1 and operation.operands.count(moved[0]) == 1
    many = operation.name == "concatenate"
    plain = operation.name in LINEAR and len(operation.results) == 1
    return "linear" if plain and (single or many) else "curved"


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
    if operation.name in POINTWISE:
        return True
    return operation.name == "custom_jvp_call" and _is_pointwise_call(operation, program)


def _is_pointwise_call(operation: Operation, program: Program) -> bool:
    """Say whether a hand-written derivative works element by element, up to the third order."""
    atoms = operation.equation.invars
    moved = [i in program.varying for i in operation.operands]
    if sum(moved) != 1:
        return False

    def call(*values: Any) -> Any:
        return run(operation.equation, values)[0]

    place = moved.index(True)
    third = slope_at(slope_at(slope_at(call, place), place), place)
    try:
        traced = jax.make_jaxpr(third)(*(atom.aval for atom in atoms))
    except Exception:
        return False  # its author's rule cannot be differentiated further
    return _all_pointwise(body(traced), atoms[place].aval.shape)


def slope_at(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Differentiate a pointwise function of several arrays along one: each element along itself."""

    def slope(*values: Any) -> Any:
        def alone(x: Any) -> Any:
            return function(*values[:place], x, *values[place + 1 :])

        return jax.jvp(alone, (values[place],), (jnp.ones_like(values[place]),))[1]

    return slope


def _all_pointwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    for equation in jaxpr.eqns:
        call = inner(equation)
        if equation.primitive.name == "custom_jvp_call":
            call = body(equation.params["call_jaxpr"])
        if call is not None:
            if not _all_pointwise(call, shape):
                return False
            continue
        spread = equation.primitive.name == "broadcast_in_dim" and (
            equation.invars[0].aval.shape == ()
        )
        shapes = {atom.aval.shape for atom in (*equation.invars, *equation.outvars)}
        if not (spread or equation.primitive.name in POINTWISE) or not shapes <= {shape, ()}:
            return False
    return True


def evaluate(
    found: Graph, arguments: Sequence[Array], shifts: dict[int, Array]
) -> dict[int, Any]:  # fmt: skip
    """Compute every value from ``a, *context``; ``shifts`` are added to the results of nodes.

    A shift acts where a node's result is used by other nodes, not within its own chain, so that
    the derivative along a shift is the adjoint of that node alone.
    """
    program = found.program
    given = dict(zip(program.arguments, arguments, strict=True))
    outside: dict[int, Any] = program.fixed | given
    inside: dict[int, Any] = {}
    for operation in program.operations:
        own = found.chain.get(operation.results[0]) if operation.results else None

        def read(number: int, own: int | None = own) -> Any:
            within = own is not None and found.chain.get(number) == own
            return inside[number] if within else outside[number]

        results = run(operation.equation, [read(i) for i in operation.operands])
        for number, value in zip(operation.results, results, strict=True):
            inside[number] = value
            shift = shifts.get(number)
            outside[number] = value if shift is None else value + shift.astype(value.dtype)
    return outside


class Pointwise(NamedTuple):
    """A node as a function: its operands first, then everything else that it takes."""

    function: Callable[..., Any]
    numbers: tuple[int, ...]


def as_function(node: Node) -> Pointwise:
    """Give a pointwise node as a function of its operands and of the fixed values it uses."""
    made = {i for operation in node.operations for i in operation.results}
    used = dict.fromkeys(i for operation in node.operations for i in operation.operands)
    fixed = [i for i in used if i not in made and i not in node.operands]
    numbers = (*node.operands, *fixed)

    def function(*values: Any) -> Any:
        known = dict(zip(numbers, values, strict=True))
        for operation in node.operations:
            results = run(operation.equation, [known[i] for i in operation.operands])
            known.update(zip(operation.results, results, strict=True))
        return known[node.result]

    return Pointwise(function, numbers)
