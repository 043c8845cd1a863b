"""A program read forward, with every value kept beside what made it.

So one can ask backwards: is this the quotient of a value and a sum of its elements, and which
element belongs to which sum (`matched`)?
"""

import functools
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from jaxcam.jaxprs.interpret import body, called, run
from jaxcam.jaxprs.merge import key_of
from jaxcam.jaxprs.primitives import Fact, known_as

# Operations that only pick, repeat or reorder the elements of their first operand.
MOVES = known_as(Fact.MOVING)
CONVERSIONS = {"convert_element_type", "copy"}

OWN_RULES = {"_softmax", "logit"}  # of JAX, whose hand-written derivative is that of their body


@dataclass(eq=False)
class Value:
    """An array of a program, and what made it; without an equation it was given.

    index: which result of the equation. exact: computed anew, not by the equation. known: what was
    found out about it.
    """

    array: Any
    equation: Any = None
    operands: tuple["Value", ...] = ()
    index: int = 0
    exact: bool = False
    known: dict[Any, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The primitive that made it, or nothing."""
        return "" if self.equation is None else self.equation.primitive.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return np.shape(self.array)

    @property
    def made(self) -> "Value":
        """The same value within the call that gave it, as far inside as calls go."""
        return self.once("made", _inside)

    def anew(self, array: Array) -> "Value":
        """The same value, computed in another way."""
        dtype = jnp.result_type(self.array)
        return Value(array.astype(dtype).reshape(self.shape), self.equation, self.operands,
                     self.index, exact=True)  # fmt: skip

    def once(self, name: str, find: Callable[["Value"], Any]) -> Any:
        """Find something out, or look up what was found before."""
        if name not in self.known:
            self.known[name] = find(self)
        return self.known[name]


Rule = Callable[[Any, tuple[Value, ...]], list[Value]]


def plain(equation: Any, operands: tuple[Value, ...]) -> list[Value]:
    """Run an equation as it is."""
    arrays = run(equation, [value.array for value in operands])
    return [Value(array, equation, operands, i) for i, array in enumerate(arrays)]


def read(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Value], rule: Rule = plain
) -> list[Value]:
    """Run a program, each equation by a rule."""
    known = dict(zip(jaxpr.constvars, map(Value, constants), strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    done: dict[Any, list[Value]] = {}

    def value(atom: Any) -> Value:
        return Value(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = tuple(map(value, equation.invars))
        key = key_of(equation, [value.array for value in operands])
        if key not in done:  # what is computed twice is one value
            done[key] = rule(equation, operands)
        known.update(zip(equation.outvars, done[key], strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def entered(equation: Any) -> Any | None:
    """Return the jaxpr of a call that may be read as its body, else None."""
    if equation is None or equation.primitive.name != "custom_jvp_call":
        return None if equation is None else called(equation)
    closed = equation.params["call_jaxpr"]
    info = body(closed).debug_info
    own = info.func_name in OWN_RULES and info.func_filename.startswith(_home())
    return closed if own else None


@functools.cache
def _home() -> str:
    return jax.__file__.removesuffix("__init__.py")


def _inside(value: Value) -> Value:
    call = entered(value.equation)
    if call is None:
        return value
    results = read(body(call), getattr(call, "consts", ()), value.operands)
    return results[value.index].made


def mentions(jaxpr: Any, names: set[str]) -> bool:
    """Say whether a program, or a call in it that can be entered, has one of these operations."""
    for equation in jaxpr.eqns:
        call = entered(equation)
        if equation.primitive.name in names or (call and mentions(body(call), names)):
            return True
    return False


def number(value: Value) -> float | None:
    """The number that a value is everywhere, if it is one that the program writes down."""
    made = value.made
    if made.name in MOVES:
        return number(made.operands[0])
    single = made.equation is None and isinstance(made.array, int | float | np.generic | np.ndarray)
    return float(made.array) if single and np.ndim(made.array) == 0 else None


def origin(value: Value, through: Set[str] = MOVES) -> tuple[Value, list[Value]]:
    """The value that was moved to become this one, and the moves, in order."""
    steps, made = [], value.made
    while made.name in through:
        steps.append(made)
        made = made.operands[0].made
    return made, steps[::-1]


def steps_from(start: Value, value: Value) -> list[Value] | None:
    """The moves that make a value from another one, in order; None if others are needed."""
    steps, made, start = [], value.made, start.made
    while made is not start:
        if made.name not in MOVES:
            return None
        steps.append(made)
        made = made.operands[0].made
    return steps[::-1]


def moved(steps: Sequence[Value], array: Array) -> Array:
    """Move an array as a value was moved."""
    for step in steps:
        array = run(step.equation, [array, *(other.array for other in step.operands[1:])])[0]
    return array


def matched(total: Value, elements: Sequence[Value], sums: Sequence[Value]) -> bool:
    """Say whether each element meets the sum that it is part of.

    ``total`` is a sum over axes of its operand; ``elements`` are the moves from that operand, and
    ``sums`` those from the total, to the two that meet. Known by moving numbers about; an operation
    that is no move (a logarithm) leaves its elements where they are.
    """
    if math.prod(total.shape) == 1:
        return True
    one = _moved_numbers(elements, _rows(total))
    other = _moved_numbers(sums, _numbered(total.shape))
    return one is not None and other is not None and _meet(other, one)


def _numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def _rows(total: Value) -> np.ndarray:
    """For each element of what was summed, the number of its sum."""
    rows = np.expand_dims(_numbered(total.shape), total.equation.params["axes"])
    return np.broadcast_to(rows, total.operands[0].shape)


def _meet(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two arrays are equal where one is stretched to meet the other."""
    try:
        return one.ndim == other.ndim and bool((np.broadcast_to(one, other.shape) == other).all())
    except ValueError:
        return False


def _moved_numbers(steps: Sequence[Value], numbers: np.ndarray) -> np.ndarray | None:
    array: Any = numbers
    with jax.ensure_compile_time_eval():
        for step in steps:
            if len(step.operands) > 1:
                return None  # where to depends on other values
            if step.name in MOVES - {"convert_element_type"}:
                array = run(step.equation, [jnp.asarray(array)])[0]
    return np.asarray(array)


def same_shift(total: Value, sums: Sequence[Value], taken: Value, added: Value) -> bool:
    """Say whether to each sum is added what was taken from each of its elements before."""
    (one, ones), (other, others) = origin(taken), origin(added)
    if one is not other:
        return False
    if math.prod(one.shape) == 1:
        return True
    # The number of what is added, in place of the number of the sum: then as `matched`.
    of_sum = _moved_numbers(sums, _numbered(total.shape))
    of_shift = _moved_numbers(others, _numbered(one.shape))
    from_elements = _moved_numbers(ones, _numbered(one.shape))
    if of_sum is None or of_shift is None or from_elements is None:
        return False
    if of_sum.shape != of_shift.shape:
        return False
    table = np.full(math.prod(total.shape), -1, np.int32)
    table[of_sum.reshape(-1)] = of_shift.reshape(-1)
    return _meet(from_elements, table[_rows(total)])
