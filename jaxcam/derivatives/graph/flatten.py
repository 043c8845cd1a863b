"""A log-score as a flat list of operations, its values numbered.

What does not depend on ``a`` differentiably (weights, comparisons, selections) does not vary: it is
computed once, at the point.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxcam.derivatives.reasons import Refused
from jaxcam.jaxprs.dependence import Dependence, constant_rule, dependence_rule, single_places
from jaxcam.jaxprs.interpret import body, called, has_references, run
from jaxcam.jaxprs.primitives import Fact, known_as

POINTWISE = known_as(Fact.POINTWISE)


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


def flatten(closed: Any) -> Program:
    """Read the jaxpr of a score ``(a, *context)`` once, forward, and number all that it computes.

    The bodies of calls are read in their place. Each value gets the next number, under which tables
    hold what is known of it (`_Tables`); each equation becomes an `Operation` of such numbers.

    Raises:
        Refused: numbers are complex, of which tangents would keep the real part alone, ``a`` is
            empty, or values travel through references.
    """
    jaxpr = body(closed)
    if has_references(jaxpr):
        raise Refused("values travel through mutable references (jax.new_ref), past its variables")
    tables = _Tables([], {}, {}, {}, {})
    a, *context = closed.in_avals
    arguments = [
        tables.add_source(a, Dependence.VARYING),
        *(tables.add_source(aval, Dependence.NONE) for aval in context),
    ]
    results = tables.enter(jaxpr, closed.consts, arguments)
    if any(jnp.issubdtype(tables.shapes[i].dtype, jnp.complexfloating) for i in tables.varying):
        raise Refused("complex numbers have no tangents here")
    if 0 in a.shape:
        raise Refused("an empty array has no tangents")
    return Program(
        tuple(tables.operations), tables.fixed, tuple(arguments), tuple(results), tables.varying,
        tables.constant, tables.shapes,
    )  # fmt: skip


class _Tables(NamedTuple):
    """What was met so far: the operations, and by its number what is known of each value.

    fixed, constant and shapes are those of the `Program`. levels: how values depend on ``a``.
    """

    operations: list[Operation]
    fixed: dict[int, Any]
    levels: dict[int, Dependence]
    constant: dict[int, frozenset[int]]
    shapes: dict[int, Any]

    @property
    def varying(self) -> frozenset[int]:
        """Number the values that depend on ``a`` differentiably."""
        return frozenset(i for i, level in self.levels.items() if level is Dependence.VARYING)

    def add_value(self, aval: Any, level: Dependence, constant: frozenset[int]) -> int:
        """Give a value the next number; what is empty depends on nothing."""
        number, empty = len(self.levels), 0 in aval.shape
        self.levels[number] = Dependence.NONE if empty else level
        self.constant[number], self.shapes[number] = constant, aval
        return number

    def add_source(self, aval: Any, level: Dependence) -> int:
        """Number a value that no operation makes: constant along axes of size one alone."""
        return self.add_value(aval, level, single_places(aval.shape))

    def add_fixed(self, aval: Any, value: Any) -> int:
        """Number a literal, or an array that the score closes over."""
        number = self.add_source(aval, Dependence.NONE)
        self.fixed[number] = value
        return number

    def add_operation(self, equation: Any, operands: tuple[int, ...], call: str) -> tuple[int, ...]:
        """Write an equation down, and number its results."""
        avals = [atom.aval for atom in equation.outvars]
        levels = dependence_rule(equation, [self.levels[i] for i in operands])
        constant = constant_rule(equation, [self.constant[i] for i in operands])
        known = zip(avals, levels, constant, strict=True)
        results = tuple(self.add_value(*one) for one in known)
        self.operations.append(Operation(equation, operands, results, call))
        return results

    def enter(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[int], call: str = ""
    ) -> list[int]:
        """Write all equations of a jaxpr down, and give the numbers of its results."""
        pairs = zip(jaxpr.constvars, constants, strict=True)
        numbers = {var: self.add_fixed(var.aval, value) for var, value in pairs}
        numbers.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            operands = tuple(self.number_of(atom, numbers) for atom in equation.invars)
            inside = called(equation)
            if inside is None:
                results = self.add_operation(*self.aligned(equation, operands), call)
            else:
                constants, name = getattr(inside, "consts", ()), call or _public_name(equation)
                results = self.enter(body(inside), constants, operands, name)
            numbers.update(zip(equation.outvars, results, strict=True))
        return [self.number_of(atom, numbers) for atom in jaxpr.outvars]

    def number_of(self, atom: Any, numbers: dict[Any, int]) -> int:
        """Look a variable up; a literal gets a number wherever it is used."""
        literal = isinstance(atom, core.Literal)
        return self.add_fixed(atom.aval, atom.val) if literal else numbers[atom]

    def aligned(self, equation: Any, operands: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """Make implicit broadcasting explicit: pointwise operations stretch axes of size one."""
        if equation.primitive.name not in POINTWISE or len(equation.outvars) != 1:
            return equation, operands
        shape = equation.outvars[0].aval.shape
        stretched = tuple(self.stretched(i, shape) for i in operands)
        if stretched == operands:
            return equation, operands
        avals = [
            jax.ShapeDtypeStruct(shape if old != new else atom.aval.shape, atom.aval.dtype)
            for atom, old, new in zip(equation.invars, operands, stretched, strict=True)
        ]
        primitive, params = equation.primitive, equation.params
        same = _equation(lambda *values: primitive.bind(*values, **params), *avals)
        return same.replace(source_info=equation.source_info), stretched

    def stretched(self, number: int, shape: tuple[int, ...]) -> int:
        """Write down that a varying operand is broadcast; what is fixed may stay small."""
        old = self.shapes[number]
        if self.levels[number] is not Dependence.VARYING or old.shape in (shape, ()):
            return number
        spread = _equation(lambda x: jnp.broadcast_to(x, shape), old)
        return self.add_operation(spread, (number,), "")[0]


def _public_name(call: Any) -> str:
    """Give the name of a function that a reader knows (``gelu``), if it is a call of one."""
    name = str(call.params.get("name") or "")
    return name if name.isidentifier() and name[0] != "_" else ""


def _equation(function: Callable[..., Any], *avals: Any) -> Any:
    """Give the one equation that a function of arrays is."""
    (equation,) = body(jax.make_jaxpr(function)(*avals)).eqns
    return equation


def evaluate(program: Program, arguments: Sequence[Any]) -> dict[int, Any]:
    """Compute every value from ``a, *context``."""
    given = dict(zip(program.arguments, arguments, strict=True))
    return compute(program.operations, program.fixed | given)


def compute(operations: Iterable[Operation], values: dict[int, Any]) -> dict[int, Any]:
    """Run operations in order, and add what they give to the values that they start from."""
    values = dict(values)
    for operation in operations:
        results = run(operation.equation, [values[i] for i in operation.operands])
        values.update(zip(operation.results, results, strict=True))
    return values
