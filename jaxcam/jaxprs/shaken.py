"""A function with the last digits of every result on the way moved: is it more than rounding?

Where terms cancel that are equal in exact arithmetic, what is left is the rounding of their last
digits. It looks like any other number; but it changes by its own size when these digits move, and a
number that is more than rounding does not (random, or Monte Carlo, arithmetic: Vignes 1993, Parker
1997). So no operation needs a rule of its own, and no unit, size or precision is assumed.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.jaxprs.cost import terms
from jaxcam.jaxprs.interpret import called, parts_of_scan, run, run_all

# What rounds. Not what only chooses or moves values: a maximum must stay equal to one of them.
ROUNDS = {
    "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "conv_general_dilated", "convert_element_type", "cos", "cosh", "cumlogsumexp", "cumprod",
    "cumsum", "div", "dot_general", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "fft",
    "integer_pow", "log", "log1p", "log2", "logistic", "mul", "pow", "reduce_prod", "reduce_sum",
    "reduce_window_sum", "rsqrt", "scatter-add", "select_and_scatter_add", "sin", "sinh", "sqrt",
    "square", "sub", "tan", "tanh",
}  # fmt: skip


def shaken(function: Callable[..., Any], *given: Any) -> Callable[[Array, Array], Any]:
    """Return ``(draw, digits) -> function(*given)``, where each result ``v`` on the way is moved to
    ``v (1 + digits n^(1/2) eps s)``, with its own random signs ``s``, those of the number ``draw``.
    ``digits`` 0 moves nothing. A sum has ``n`` terms, each rounded; anything else one.

    Not inside branches, and loops of a number of turns that is not known.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*given)

    def moved(draw: Array, digits: Array) -> Any:
        places = itertools.count()

        def rule(equation: Any, operands: list[Any]) -> Sequence[Any]:
            if equation.primitive.name == "scan":
                return _turned(equation, operands, inner)
            inside = called(equation) or equation.params.get("call_jaxpr")
            if inside is not None:
                return inner(inside, operands)
            outputs = run(equation, operands)
            if equation.primitive.name not in ROUNDS:
                return outputs
            far = digits * _spread(equation)
            return [_moved(value, draw, next(places), far) for value in outputs]

        def inner(closed: Any, operands: Sequence[Any]) -> list[Any]:
            return run_all(closed, operands, rule)

        leaves = [_moved(value, draw, next(places), digits) for value in jax.tree.leaves(given)]
        return jax.tree.unflatten(jax.tree.structure(shape), inner(closed, leaves))

    return moved


def _turned(
    equation: Any, operands: Sequence[Any], inner: Callable[[Any, Sequence[Any]], list[Any]]
) -> list[Any]:
    """Run a scan, each turn as ``inner`` runs a program."""
    params = equation.params
    fixed, carried = parts_of_scan(equation)
    constants, rest = operands[:fixed], operands[fixed:]

    def turn(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = inner(params["jaxpr"], [*constants, *carry, *row])
        return outputs[:carried], outputs[carried:]

    carry, rows = jax.lax.scan(
        turn, list(rest[:carried]), list(rest[carried:]),
        length=params["length"], reverse=params["reverse"],
    )  # fmt: skip
    return [*carry, *rows]


def _spread(equation: Any) -> float:
    """Give ``n^(1/2)``: how far a sum of ``n`` rounded terms strays, in units of one rounding."""
    given, out = equation.invars[0].aval, equation.outvars[0].aval
    if equation.primitive.name.startswith("reduce_"):
        return math.sqrt(math.prod(given.shape) / max(1, math.prod(out.shape)))
    return math.sqrt(terms(equation))


def _moved(value: Any, draw: Array, place: int, digits: Array) -> Any:
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    info = jnp.finfo(value.dtype)
    # Sums in half precision are carried in single, and rounded once.
    far = digits if info.bits >= 32 else jnp.minimum(digits, 1)
    step = far.astype(value.dtype) * info.eps
    return value * jnp.where(_heads(draw, place, value.shape), 1 + step, 1 - step)


def _heads(draw: Array, place: int, shape: tuple[int, ...]) -> Array:
    """Toss a coin for each element, by a hash of its number: far cheaper to compile than keys."""
    size = math.prod(shape)
    number = jax.lax.iota(jnp.uint32, size) * jnp.uint32(0x9E3779B9)
    start = draw.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B)
    start = start + jnp.uint32((place + 1) * 0xC2B2AE35 & 0xFFFFFFFF)
    mixed = number ^ start
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return (mixed >> 31 == 1).reshape(shape)
