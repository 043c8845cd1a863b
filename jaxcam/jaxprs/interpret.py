"""Jaxprs read and run: what is inside a call, one equation run, all of them by a rule."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.extend import core, source_info_util

from jaxcam.arrays.meshes import alike

# Calls that are nothing but their body.
INLINE_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


def body(closed: Any) -> Any:
    """Return the plain jaxpr; from jax 0.12 on a closed jaxpr is its own."""
    return getattr(closed, "jaxpr", closed)


def called(equation: Any) -> Any | None:
    """Return the jaxpr of a call that is nothing but its body, with its constants, else None."""
    if equation.primitive.name not in INLINE_CALLS:
        return None
    jaxprs = [p for p in equation.params.values() if isinstance(p, core.Jaxpr | core.ClosedJaxpr)]
    return jaxprs[0] if len(jaxprs) == 1 else None


def inner(equation: Any) -> Any | None:
    """Return the body of such a call, else None."""
    program = called(equation)
    return None if program is None else body(program)


def variables(atoms: Iterable[Any]) -> list[Any]:
    """Leave the literals out."""
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def parts_of_scan(equation: Any) -> tuple[int, int]:
    """Say how many operands of a scan stay the same, and how many are carried.

    By their axes, of which rows have one less inside: parameters differ between versions of JAX.
    """
    inside = body(equation.params["jaxpr"])

    def alike_inside(outer: Sequence[Any], inner: Sequence[Any]) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(len(v.aval.shape) == len(w.aval.shape) for v, w in pairs)

    carried = alike_inside(equation.outvars, inside.outvars)
    return alike_inside(equation.invars, inside.invars) - carried, carried


def run(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation, under the name that it has in the model."""
    primitive, params = equation.primitive, equation.params
    if equation.effects or has_programs(params):
        return _run_alone(equation, operands)
    info = equation.source_info
    stack = source_info_util.current_name_stack() + info.name_stack
    with source_info_util.user_context(info.traceback, name_stack=stack), equation.ctx.manager:
        outputs = primitive.bind(*alike(list(operands)), **params)
    return outputs if primitive.multiple_results else [outputs]


def has_programs(params: dict[str, Any]) -> bool:
    """Say whether there are jaxprs or functions among the parameters of an equation."""
    jaxprs = any(True for _ in core.jaxprs_in_params(params))
    return jaxprs or any(map(callable, params.values()))


def _run_alone(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation as a jaxpr of its own: so one with programs inside binds as JAX does it."""
    equation = _apart(equation)
    pairs = zip(equation.invars, operands, strict=True)
    known = {atom: value for atom, value in pairs if not isinstance(atom, core.Literal)}
    one = _empty().replace(
        eqns=[equation], invars=list(known), outvars=equation.outvars, effects=equation.effects
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(one, []))(*known.values())


def _apart(equation: Any) -> Any:
    """Give every operand of an equation a variable of its own, so that each can have a value."""
    free = variables(equation.invars)
    if len(set(free)) == len(free):
        return equation
    fresh = iter(body(jax.make_jaxpr(lambda *v: v)(*(v.aval for v in free))).invars)
    literal = core.Literal
    return equation.replace(
        invars=[atom if isinstance(atom, literal) else next(fresh) for atom in equation.invars]
    )


def evaluate(
    equations: Iterable[Any],
    known: dict[Any, Any],
    rule: Callable[[Any, list[Any]], Sequence[Any]] = run,
) -> dict[Any, Any]:
    """Run equations in order, each by a rule; give the values of all variables."""
    known = dict(known)
    for equation in equations:
        operands = [_value(atom, known) for atom in equation.invars]
        known.update(zip(equation.outvars, rule(equation, operands), strict=True))
    return known


def arguments(jaxpr: Any, constants: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """Give the variables of a jaxpr, as it begins, their values."""
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    return known | dict(zip(jaxpr.invars, values, strict=True))


def results(jaxpr: Any, known: dict[Any, Any]) -> list[Any]:
    """Look up the results of a jaxpr among the known values."""
    return [_value(atom, known) for atom in jaxpr.outvars]


def _value(atom: Any, known: dict[Any, Any]) -> Any:
    return atom.val if isinstance(atom, core.Literal) else known[atom]


def run_all(
    program: Any, values: Sequence[Any], rule: Callable[[Any, list[Any]], Sequence[Any]] = run
) -> list[Any]:
    """Run a jaxpr, with its constants if it comes with them, each equation by a rule."""
    jaxpr = body(program)
    known = arguments(jaxpr, getattr(program, "consts", ()), values)
    return results(jaxpr, evaluate(jaxpr.eqns, known, rule))


def through_program(
    function: Callable[..., Any], run_program: Callable[[Any, list[Any]], Sequence[Any]]
) -> Callable[..., Any]:
    """Return a function that traces another, and runs its program in a way of its own.

    ``run_program(closed, leaves) -> leaves``.
    """

    def traced(*given: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*given)
        leaves = run_program(closed, jax.tree.leaves(given))
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return traced


def interpret(jaxpr: Any, inputs: Sequence[Any], rule: Callable, literal: Any) -> list[Any]:
    """Run an abstract interpretation: ``rule(equation, values) -> values``; calls are entered."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return literal(atom) if isinstance(atom, core.Literal) else known.get(atom, literal(atom))

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        called = inner(equation)
        outputs = (
            rule(equation, values) if called is None else interpret(called, values, rule, literal)
        )
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


@functools.cache
def _empty() -> Any:
    empty = body(jax.make_jaxpr(lambda: ())())
    return empty.replace(debug_info=empty.debug_info.with_unknown_names())


def has_references(jaxpr: Any) -> bool:
    """Say whether values may travel through mutable references, past the variables of a jaxpr."""
    for equation in jaxpr.eqns:
        if any("Ref" in type(v.aval).__name__ for v in (*equation.invars, *equation.outvars)):
            return True
        if any(has_references(body(sub)) for sub in core.jaxprs_in_params(equation.params)):
            return True
    return False


def operations(closed: Any) -> set[str]:
    """Name every operation in a jaxpr, those of its inner jaxprs included."""
    names = set()
    for equation in body(closed).eqns:
        names.add(equation.primitive.name)
        for sub in core.jaxprs_in_params(equation.params):
            names |= operations(sub)
    return names
