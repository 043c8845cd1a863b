"""ReLUs found in a program, however they were written, and given another backward pass.

With ``p`` what comes back from above and ``x`` what went in::

    gradient        p [x > 0]
    deconvolution   p [p > 0]
    guided          p [p > 0] [x > 0]

The values stay as they are. A ReLU is a maximum with zero; a clip that begins at zero (ReLU6),
whose upper end keeps its derivative; a choice between the value and zero by its sign; a product
with its sign as a number; or a hand-written derivative (`jax.custom_jvp`, `jax.custom_vjp`) of one
of these alone, ``jax.nn.relu`` among them. Calls (``jit``, ``remat``), loops of a known length and
branches are entered. ``max(0, E[x^2] - E[x]^2)`` is a variance, and none.

What is left and may be a ReLU in disguise (a leaky slope, another threshold, a hard sigmoid, a ReLU
inside a larger hand-written derivative) is named, and refused: no backward pass is guessed.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.errors import fail
from jaxcam.jaxprs.interpret import body, called, operations, parts_of_scan, run
from jaxcam.jaxprs.logarithms.origins import Value, number

Rule = Literal["guided", "deconvolution"]

CUSTOM = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
SIGNS = {"gt": True, "ge": True, "lt": False, "le": False}
PLAIN = {
    "max", "min", "clamp", "select_n", "mul", "gt", "ge", "lt", "le", "convert_element_type",
    "broadcast_in_dim", "copy", "jit", "pjit",
}  # fmt: skip
"""All that a ReLU with a hand-written derivative may consist of."""
SMOOTH = {"exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf", "erfc"}
GUARD = 1e-3  # thresholds below it keep something from zero, and select nothing


class Notes(NamedTuple):
    """What was met on the way from the argument to the result, by name and place."""

    relus: list[str]
    strange: list[str]
    smooth: list[str]


def with_relus(function: Callable[[Array], Array], rule: Rule, call: str) -> Callable:
    """Give the function of one array with the backward pass of its ReLUs replaced.

    Raises:
        JaxcamError: in the name of ``call``, if there is no ReLU, or what may be one is not
            recognised.
    """

    def changed(a: Array) -> Array:
        closed = jax.make_jaxpr(function)(a)
        notes = Notes([], [], [])
        start = _moving(Value(a))
        (result,) = _Reader(rule, notes).program(closed, [start])
        _check(call, notes)
        return result.array

    return changed


def _check(call: str, notes: Notes) -> None:
    if notes.strange:
        fail(
            call,
            needs="ReLUs that it can read, and nothing that may be another one",
            got=", ".join(dict.fromkeys(notes.strange)),
            remedy="Write it as jax.nn.relu, or take sensitivity_map, which needs no ReLU.",
        )
    if not notes.relus:
        instead = ", ".join(dict.fromkeys(notes.smooth)) or "none of any kind that it knows"
        fail(
            call,
            needs="a ReLU between the layer and the scores, whose backward pass it changes",
            got=f"a network without one (activations: {instead})",
            remedy="Take sensitivity_map or smooth_grad, which need no ReLU.",
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def rectified(rule: Rule, x: Array, y: Array) -> Array:
    """Give ``y``, which is ``ReLU(x)``; the derivative goes to ``x`` by the rule."""
    return y


def _forward(rule: Rule, x: Array, y: Array) -> tuple[Array, Array]:
    return y, x


def _backward(rule: Rule, x: Array, p: Array) -> tuple[Array, Array]:
    passes = p > 0 if rule == "deconvolution" else (p > 0) & (x > 0)
    return jnp.where(passes, p, jnp.zeros_like(p)), jnp.zeros_like(p)


rectified.defvjp(_forward, _backward)


class _Reader(NamedTuple):
    """Programs run with their ReLUs replaced; what is met is noted in ``notes``.

    calls: the named functions that are entered, for words.
    """

    rule: Rule
    notes: Notes
    calls: tuple[str, ...] = ()

    def program(self, program: Any, arguments: Sequence[Value]) -> list[Value]:
        jaxpr = body(program)
        known = dict(zip(jaxpr.constvars, map(Value, getattr(program, "consts", ())), strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def value(atom: Any) -> Value:
            return Value(atom.val) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = tuple(map(value, equation.invars))
            known.update(zip(equation.outvars, self.equation(equation, operands), strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, operands: tuple[Value, ...]) -> list[Value]:
        name, moved = equation.primitive.name, any(map(_moves, operands))
        inside = called(equation)
        if inside is not None:
            word = str(equation.params.get("name", ""))
            calls = (*self.calls, word) if word and word[0] not in "<_" else self.calls
            return self._replace(calls=calls).program(inside, operands)
        if not moved or name == "stop_gradient":
            return _plain(equation, operands)
        if name in CUSTOM:
            return self.handwritten(equation, operands)
        if name == "scan":
            return self.scan(equation, operands)
        if name == "cond":
            return self.cond(equation, operands)
        self.note(equation, name)
        x = _relu_of(equation, operands)
        if x is None:
            if any(map(self.hides, core.jaxprs_in_params(equation.params))) or _strange(
                name, operands
            ):
                self.notes.strange.append(self.where(equation))
            return [_moving(v) for v in _plain(equation, operands)]
        self.notes.relus.append(self.where(equation))
        (y,) = _plain(equation, operands)
        below = x.array
        if name == "clamp":
            below = jnp.minimum(below, operands[2].array)
        y = Value(rectified(self.rule, below, y.array), equation, operands)
        y.known["relu of"] = x
        return [_moving(y)]

    def handwritten(self, equation: Any, operands: tuple[Value, ...]) -> list[Value]:
        """Read a function with its own derivative, if all that it is is a ReLU."""
        program = next(core.jaxprs_in_params(equation.params))
        closed = equation.params.get("call_jaxpr", equation.params.get("fun_jaxpr", program))
        inner = self._replace(notes=Notes([], [], []))
        if operations(closed) <= PLAIN:
            results = inner.program(closed, operands)
            if inner.notes.relus and not inner.notes.strange:
                self.notes.relus.extend(inner.notes.relus)
                return results
        if self.hides(closed):
            self.notes.strange.append(self.where(equation))
        self.note(equation, self.where(equation))
        return [_moving(v) for v in _plain(equation, operands)]

    def scan(self, equation: Any, operands: tuple[Value, ...]) -> list[Value]:
        """Run a scan, each turn read; what is carried may depend on the argument in any turn."""
        fixed, carried = parts_of_scan(equation)
        program = equation.params["jaxpr"]

        def turn(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
            inside = [*operands[:fixed], *map(_moving, map(Value, [*carry, *row]))]
            outputs = [value.array for value in self.program(program, inside)]
            return outputs[:carried], outputs[carried:]

        rest = [value.array for value in operands[fixed:]]
        carry, rows = jax.lax.scan(
            turn, rest[:carried], rest[carried:],
            length=equation.params["length"], reverse=equation.params["reverse"],
        )  # fmt: skip
        return [_moving(Value(array, equation, operands)) for array in (*carry, *rows)]

    def cond(self, equation: Any, operands: tuple[Value, ...]) -> list[Value]:
        """Run a choice of branches, each read."""
        index, *rest = operands

        def branch(program: Any) -> Callable[..., list[Any]]:
            def read(*arrays: Any) -> list[Any]:
                pairs = zip(arrays, rest, strict=True)
                given = [_moving(Value(a)) if _moves(v) else Value(a) for a, v in pairs]
                return [jnp.asarray(value.array) for value in self.program(program, given)]

            return read

        branches = [branch(program) for program in equation.params["branches"]]
        arrays = jax.lax.switch(index.array, branches, *(value.array for value in rest))
        return [_moving(Value(array, equation, operands)) for array in arrays]

    def hides(self, program: Any) -> bool:
        """Say whether a program that is run as it is has a ReLU in it."""
        names = operations(program)
        if names & SMOOTH and not names & {"dot_general", "conv_general_dilated"}:
            return False  # softplus and its like: a maximum inside, and a smooth whole
        inner = self._replace(notes=Notes([], [], []))

        def read(*arrays: Any) -> list[Any]:
            values = [_moving(Value(array)) for array in arrays]
            return [jnp.asarray(value.array) for value in inner.program(program, values)]

        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in body(program).invars]
        try:
            jax.eval_shape(read, *avals)
        except Exception:  # what cannot be read cannot be known to be free of ReLUs
            return True
        return bool(inner.notes.relus or inner.notes.strange)

    def note(self, equation: Any, name: str) -> None:
        """Remember a smooth activation, for words."""
        if name in SMOOTH or equation.primitive.name in CUSTOM:
            self.notes.smooth.append(self.calls[-1] if self.calls else name)

    def where(self, equation: Any) -> str:
        """Name an operation, or the function that it is part of, and its place in the model."""
        info = getattr(body(equation.params.get("call_jaxpr")), "debug_info", None)
        own = getattr(info, "func_name", "")
        word = own if own.isidentifier() else ""
        word = word or (self.calls[-1] if self.calls else equation.primitive.name)
        place = str(getattr(equation.source_info, "name_stack", ""))
        return f"{word} in {place}" if place else word


def _plain(equation: Any, operands: tuple[Value, ...]) -> list[Value]:
    arrays = run(equation, [value.array for value in operands])
    return [Value(array, equation, operands, i) for i, array in enumerate(arrays)]


def _moving(value: Value) -> Value:
    """Mark a value as one that depends on the argument, if it can differentiably."""
    if jnp.issubdtype(jnp.result_type(value.array), jnp.inexact):
        value.known["moves"] = True
    return value


def _moves(value: Value) -> bool:
    return value.known.get("moves", False)


def _relu_of(equation: Any, operands: tuple[Value, ...]) -> Value | None:
    """Give the ``x`` of which an operation is the ReLU, None if it is none."""
    name = equation.primitive.name
    if name == "max":
        x, other = _and_number(operands)
        return x if x is not None and other == 0 and not _is_variance(x) else None
    if name == "clamp":
        low, x, _ = operands
        return x if number(low) == 0 and _moves(x) and not _is_shifted(x) else None
    if name == "select_n" and len(operands) == 3:
        sign, below, above = operands
        x, positive = _sign_of(sign)
        chosen, left = (above, below) if positive else (below, above)
        same = x is not None and _core(chosen) is _core(x)
        return x if same and number(left) == 0 else None
    if name == "mul":
        for value, sign in (operands, operands[::-1]):
            x, positive = _sign_of(_core(sign))
            if x is not None and positive and _core(value) is _core(x):
                return x
    return None


def _strange(name: str, operands: tuple[Value, ...]) -> bool:
    """Say whether an operation that is no ReLU may be one in disguise."""
    if name in ("max", "min"):
        x, other = _and_number(operands)
        if x is None:
            return _is_multiple(*operands) or _is_multiple(*operands[::-1])
        if not math.isfinite(other):
            return False
        if name == "min":
            below = x.known.get("relu of")
            return other == 0 or (below is not None and _is_shifted(below))
        return abs(other) > GUARD
    if name == "clamp":
        low = number(operands[0])
        return _moves(operands[1]) and (low is None or abs(low) > GUARD or low == 0)
    if name == "select_n":
        x, _ = _sign_of(operands[0])
        return x is not None
    if name == "add":
        one, other = operands
        return _is_size_of(one, other) or _is_size_of(other, one)
    return False


def _and_number(operands: Sequence[Value]) -> tuple[Value | None, float]:
    """Tell what moves from the number that it is compared with; None if it is none."""
    for x, other in (operands, operands[::-1]):
        bound = number(other)
        if bound is not None and _moves(x):
            return x, bound
    return None, 0.0


def _sign_of(value: Value) -> tuple[Value | None, bool]:
    """Give the ``x`` whose sign a comparison with zero is, and whether it asks for ``x > 0``."""
    name = value.name
    if name not in SIGNS:
        return None, False
    one, other = value.operands
    if number(other) == 0 and _moves(one):
        return one, SIGNS[name]
    if number(one) == 0 and _moves(other):
        return other, not SIGNS[name]
    return None, False


def _core(value: Value) -> Value:
    """The same value before conversions."""
    while value.name in ("convert_element_type", "copy"):
        value = value.operands[0]
    return value


def _is_variance(value: Value) -> bool:
    """Say whether a value is a difference ``E[x^2] - E[x]^2``, below zero by rounding alone."""
    if _core(value).name != "sub":
        return False
    square = _core(_core(value).operands[1])
    return square.name in ("square", "integer_pow") or (
        square.name == "mul" and _core(square.operands[0]) is _core(square.operands[1])
    )


def _is_shifted(value: Value) -> bool:
    """Say whether a value is another plus a number, as in hard sigmoids."""
    made = _core(value)
    return made.name in ("add", "sub") and any(number(v) is not None for v in made.operands)


def _is_multiple(one: Value, other: Value) -> bool:
    """Say whether one value is another times a number: the slope of a leaky ReLU."""
    made = _core(one)
    if made.name != "mul":
        return False
    return any(
        number(factor) is not None and _core(value) is _core(other)
        for value, factor in (made.operands, made.operands[::-1])
    )


def _is_size_of(one: Value, other: Value) -> bool:
    """Say whether one value is the size of another: ``x + |x|``."""
    return _moves(one) and _core(one).name == "abs" and _core(one).operands[0] is _core(other)
