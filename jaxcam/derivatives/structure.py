"""What a jaxpr proves about a score, without computing anything.

Two questions are asked of the gradient of ``u``, traced once. How does it depend on ``A``
(`Dependence`)? If through comparisons and selections alone, ``u`` is piecewise affine and
``u2 = u3 = 0``. And along which axes is it constant (`constant_axes`)?

Soundness: an operation without a rule passes on the strongest dependence of its inputs and no
constant axis, so an unfamiliar one can only refuse a proof, never grant one. In particular
``custom_jvp`` and ``custom_vjp`` calls are never looked into: their derivative is what their author
wrote, not what their body shows.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxcam.types import Traced


class Dependence(IntEnum):
    """How a value depends on the activations, from not at all to differentiably."""

    NONE = 0
    FLAT = 1  # changes, but its derivative is zero wherever it exists: comparisons, rounding
    VARYING = 2


# Zero derivative wherever it exists; comparisons need no line, their result is boolean (_flat).
FLAT_OPERATIONS = {"sign", "floor", "ceil", "round", "stop_gradient"}

# Operations of which only some operands carry a derivative; the others select.
CARRYING_OPERANDS = {
    "select_n": slice(1, None),
    "select_and_scatter_add": slice(0, 1),
    "select_and_gather_add": slice(0, 1),
}

# Calls that are nothing but their body.
INLINE_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}

ELEMENTWISE = {
    "add", "add_any", "sub", "mul", "div", "neg", "convert_element_type", "copy", "select_n",
    "integer_pow", "exp", "log", "tanh", "logistic", "rsqrt", "sqrt", "max", "min", "sign", "abs",
    "pow", "square", "erf", "stop_gradient", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
}  # fmt: skip


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
    found = called(equation)
    return None if found is None else body(found)


def run(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation."""
    primitive, params = equation.primitive, equation.params
    simple = not (core.jaxprs_in_params(params) or any(map(callable, params.values())))
    if simple and not equation.effects:
        found = primitive.bind(*operands, **params)
        return found if primitive.multiple_results else [found]
    # As a jaxpr of its own: a primitive with functions inside binds as JAX itself does it.
    pairs = zip(equation.invars, operands, strict=True)
    known = {atom: value for atom, value in pairs if not isinstance(atom, core.Literal)}
    one = _empty().replace(
        eqns=[equation], invars=list(known), outvars=equation.outvars, effects=equation.effects
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(one, []))(*known.values())


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


def _interpret(jaxpr: Any, inputs: Sequence[Any], rule: Callable, literal: Any) -> list[Any]:
    """Run an abstract interpretation: ``rule(equation, values) -> values``; calls are entered."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return literal(atom) if isinstance(atom, core.Literal) else known.get(atom, literal(atom))

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        called = inner(equation)
        outputs = (
            rule(equation, values) if called is None else _interpret(called, values, rule, literal)
        )
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _flat(level: Dependence) -> Dependence:
    return min(level, Dependence.FLAT)


def dependence_rule(equation: Any, levels: Sequence[Dependence]) -> list[Dependence]:
    """Follow the dependence through one operation."""
    name = equation.primitive.name
    strongest = max(levels, default=Dependence.NONE)
    if name in FLAT_OPERATIONS:
        return [_flat(strongest)]
    if name in CARRYING_OPERANDS:
        carried = max(levels[CARRYING_OPERANDS[name]])
        return [max(carried, _flat(strongest))]
    # Integers and booleans carry no derivative, except where their bits are read as a float again.
    discrete = name != "bitcast_convert_type"
    return [
        _flat(strongest)
        if discrete and not jnp.issubdtype(out.aval.dtype, jnp.inexact)
        else strongest
        for out in equation.outvars
    ]


def dependence(jaxpr: Any, inputs: Sequence[Dependence]) -> list[Dependence]:
    """Say how each output depends on the activations, given how each input does."""
    return _interpret(jaxpr, inputs, dependence_rule, lambda _: Dependence.NONE)


def constant_rule(equation: Any, axes: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Follow the axes along which a value is constant through one operation."""
    if not equation.outvars:  # printing, for one
        return []
    name, params = equation.primitive.name, equation.params
    shape = equation.outvars[0].aval.shape
    if name == "broadcast_in_dim":
        placed = params["broadcast_dimensions"]
        kept = {placed[axis] for axis in axes[0]}
        old = equation.invars[0].aval.shape
        stretched = {placed[i] for i, size in enumerate(old) if size != shape[placed[i]]}
        return [frozenset(kept | stretched | (set(range(len(shape))) - set(placed)))]
    if name in ELEMENTWISE:
        # A scalar is constant along every axis of the others, an axis of size one along that one.
        ranked = [
            known | single_places(atom.aval.shape) if atom.aval.shape else set(range(len(shape)))
            for atom, known in zip(equation.invars, axes, strict=True)
        ]
        return [frozenset(range(len(shape))).intersection(*ranked)]
    if name == "reduce_sum":
        left = [
            axis for axis in range(len(equation.invars[0].aval.shape)) if axis not in params["axes"]
        ]
        return [frozenset(i for i, axis in enumerate(left) if axis in axes[0])]
    if name == "transpose":
        return [frozenset(i for i, axis in enumerate(params["permutation"]) if axis in axes[0])]
    if name in ("reshape", "squeeze", "expand_dims"):
        return [_same_axes(equation.invars[0].aval.shape, shape, axes[0])]
    return [frozenset() for _ in equation.outvars]


def _same_axes(old: tuple[int, ...], new: tuple[int, ...], axes: frozenset[int]) -> frozenset[int]:
    """Carry constant axes over a reshape that only adds or drops axes of size one."""
    long_old = [i for i, size in enumerate(old) if size != 1]
    long_new = [i for i, size in enumerate(new) if size != 1]
    if [old[i] for i in long_old] != [new[i] for i in long_new]:
        return frozenset()
    moved = {b for a, b in zip(long_old, long_new, strict=True) if a in axes}
    return frozenset(moved | {i for i, size in enumerate(new) if size == 1})


def single_places(shape: Sequence[int]) -> frozenset[int]:
    """Give the axes along which any value of a shape is constant: those of size one."""
    return frozenset(i for i, size in enumerate(shape) if size == 1)


def constant_axes(
    jaxpr: Any, inputs: Sequence[frozenset[int]] | None = None
) -> list[frozenset[int]]:
    """Give for each output the axes along which it is constant, given those of the inputs."""

    def unknown(atom: Any) -> frozenset[int]:
        return single_places(atom.aval.shape)

    known = [unknown(var) for var in jaxpr.invars] if inputs is None else inputs
    return _interpret(jaxpr, known, constant_rule, unknown)


@functools.cache
def _empty() -> Any:
    empty = body(jax.make_jaxpr(lambda: ())())
    return empty.replace(debug_info=empty.debug_info.with_unknown_names())


class Structure(NamedTuple):
    """What was proved of one score ``u(a, *context)`` and its gradient along ``a``.

    score: how ``u`` depends on ``a``. gradient: how the gradient depends on ``a``; on_context:
    on the rest (the network's input). pooled: the gradient is the same at every position, so that
    the higher derivatives are too (u depends on sums over positions alone).
    error: why the gradient could not be traced, in which case nothing is proved.
    """

    score: Dependence = Dependence.VARYING
    gradient: Dependence = Dependence.VARYING
    on_context: Dependence = Dependence.VARYING
    pooled: bool = False
    error: str | None = None


def analyse(traced: Traced) -> Structure:
    """Say what a score ``u(a, *context)`` and its gradient along ``a`` show."""
    none, varying = Dependence.NONE, Dependence.VARYING
    forward = body(traced.closed)
    others = [none] * (len(forward.invars) - 1)
    if _has_references(forward):
        return Structure()
    of_score = dependence(forward, [varying, *others])[0]
    try:
        gradient = jax.make_jaxpr(jax.grad(lambda *arguments: traced(*arguments)[0]))
        backward = body(gradient(*traced.arguments))
    except (TypeError, ValueError, NotImplementedError) as error:
        return Structure(of_score, error=str(error).splitlines()[0])
    (on_a,) = dependence(backward, [varying, *others])
    (on_context,) = dependence(backward, [none, *(varying for _ in others)])
    (axes,) = constant_axes(backward)
    pooled = axes >= frozenset(range(len(traced.a.shape) - 1))
    return Structure(of_score, on_a, on_context, pooled)


def _has_references(jaxpr: Any) -> bool:
    """Say whether values may travel through mutable references, past the variables of a jaxpr."""
    for equation in jaxpr.eqns:
        if any("Ref" in type(v.aval).__name__ for v in (*equation.invars, *equation.outvars)):
            return True
        if any(_has_references(body(sub)) for sub in core.jaxprs_in_params(equation.params)):
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
