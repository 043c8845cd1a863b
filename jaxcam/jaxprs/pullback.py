"""Gradients, with convolutions in a plain order, and of float16 carried in single precision.

float16 ends at 6e-8, and loses digits below 6e-5. The gradient of a mean over 512x512 positions is
there, whatever the network: what is passed backwards falls out of the range in which the values
that are passed forward lie. So it goes backwards in float32, through the same operations, at the
values that the network has in float16. bfloat16 has the range of float32, and is left as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.jaxprs.convolutions import run_plain, with_plain_convolutions
from jaxcam.jaxprs.interpret import (
    body,
    called,
    has_programs,
    run,
    run_all,
    through_program,
)

HALF = jnp.dtype("float16")


def gradient_of(
    function: Callable[..., tuple[Array, Any]], argnums: int | tuple[int, ...] = 0
) -> Callable[..., tuple[Any, Any]]:
    """Return ``(gradient, more)`` of a function that gives ``(number, more)``."""

    def gradient(*given: Any) -> tuple[Any, Any]:
        if not _has_half(jax.make_jaxpr(function)(*given)):
            return with_plain_convolutions(jax.grad(function, argnums, has_aux=True))(*given)
        chosen = (argnums,) if isinstance(argnums, int) else argnums

        def of_chosen(*moved: Any) -> tuple[Array, Any]:
            all_of_them = list(given)
            for place, value in zip(chosen, moved, strict=True):
                all_of_them[place] = value
            return function(*all_of_them)

        value, back, more = jax.vjp(of_chosen, *(given[i] for i in chosen), has_aux=True)
        gradients = _in_single(back)(jnp.ones_like(value))
        return (gradients[0] if isinstance(argnums, int) else gradients), more

    return gradient


def in_single(pull: Callable[..., Any], like: Sequence[jax.ShapeDtypeStruct]) -> Callable[..., Any]:
    """Return the same linear function of a list of cotangents, which stay in single precision.

    like: the cotangents that it takes. What it gives is not rounded to half precision either.
    """
    closed = jax.make_jaxpr(pull)(list(like))
    return lambda given: run_all(closed, given, _rule)


def _in_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same linear function, with what depends on its arguments in single precision."""

    def single(closed: Any, given: Sequence[Any]) -> list[Any]:
        wide = run_all(closed, given, _rule)
        return [v.astype(aval.dtype) for v, aval in zip(wide, closed.out_avals, strict=True)]

    return through_program(function, single)


def _rule(equation: Any, operands: list[Any]) -> Sequence[Any]:
    """Run one equation; one that is given half precision runs in single."""
    inside = called(equation)
    if inside is not None:
        return run_all(inside, operands, _rule)
    if has_programs(equation.params):
        # A loop, and what else has programs inside, keeps its precision.
        declared = [atom.aval.dtype for atom in equation.invars]
        return run(equation, [_as(v, d) for v, d in zip(operands, declared, strict=True)])
    params = {name: _wider(value) for name, value in equation.params.items()}
    return run_plain(equation.replace(params=params), [_as(value, None) for value in operands])


def _as(value: Any, dtype: Any) -> Any:
    """Convert half precision to single, or a value to the dtype that is declared for it."""
    value = jnp.asarray(value)
    if dtype is None:
        return value.astype(jnp.float32) if value.dtype == HALF else value
    return value.astype(dtype) if value.dtype != dtype else value


def _wider(param: Any) -> Any:
    """Ask for single precision where an operation was asked for half."""
    is_half = isinstance(param, jnp.dtype | type) and param in (HALF, jnp.float16)
    return jnp.dtype("float32") if is_half else param


def _has_half(closed: Any) -> bool:
    """Say whether anything in a program is float16."""
    for equation in body(closed).eqns:
        if any(getattr(v.aval, "dtype", None) == HALF for v in equation.outvars):
            return True
        if any(map(_has_half, core.jaxprs_in_params(equation.params))):
            return True
    return False
