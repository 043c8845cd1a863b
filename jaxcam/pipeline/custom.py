"""What a function given to `jaxcam.targets.custom` must be, checked once on abstract scores."""

import math
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxcam.arrays.running import untraceable, worded
from jaxcam.errors import JaxcamError, fail
from jaxcam.jaxprs.dependence import Dependence, dependence
from jaxcam.jaxprs.interpret import body, run

LARGEST = 64  # numbers in an array of indices that is looked at
NEEDS = "one floating number from one example's scores"


def check_custom(log_score: Any, scores: Any) -> None:
    """Refuse what is no log-score of one example's ``scores``, given by shape and dtype.

    log_score: as the target has it, a `jax.tree_util.Partial` with the user's function inside.
    """
    (own,) = log_score.args
    call = f"targets.custom({getattr(own.func, '__name__', type(own.func).__name__)})"
    try:
        closed, shape = jax.make_jaxpr(own, return_shape=True)(scores)
    except JaxcamError:
        raise
    except Exception as error:
        known = untraceable(error)
        if known is not None:
            _refuse(call, *known)
        got = f"{worded(error)}, for scores of shape {scores.shape}"
        _refuse(call, got, "Does it fit these scores?")
    _check_result(call, closed, shape)
    _check_indices(call, closed)


def _check_result(call: str, closed: Any, shape: Any) -> None:
    if jax.tree.structure(shape) != jax.tree.structure(0):
        got = "None" if shape is None else f"a {type(shape).__name__}"
        _refuse(call, got, "Return one array of shape ().")
    if shape.shape:
        remedy = "Take one element of it, such as [0], or its sum, mean or maximum."
        _refuse(call, f"an array of shape {shape.shape}", remedy)
    if jnp.issubdtype(shape.dtype, jnp.complexfloating):
        remedy = "Take its real part or its modulus, whichever is meant."
        _refuse(call, f"a number of {shape.dtype}", remedy)
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        _refuse(call, f"a number of {shape.dtype}", "A count has no derivative: sum the scores.")
    jaxpr = body(closed)
    if dependence(jaxpr, [Dependence.VARYING])[0] is Dependence.NONE:
        _refuse(call, "a number that does not depend on the scores", "Compute it from them.")


def _check_indices(call: str, closed: Any) -> None:
    """Refuse an index that is written down and out of range: JAX takes another element."""
    jaxpr = body(closed)
    known = {v: c for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if _concrete(c)}
    for equation in jaxpr.eqns:
        values = [v.val if isinstance(v, core.Literal) else known.get(v) for v in equation.invars]
        for index, length, size in _starts(equation, values):
            if not 0 <= index <= length - size:
                got = f"the index {index if index >= 0 else index - length}"
                remedy = "A negative one counts from the end."
                _refuse(call, f"{got} into an axis of length {length}", remedy)
        if all(math.prod(out.aval.shape) <= LARGEST for out in equation.outvars) and all(
            value is not None for value in values
        ):
            with jax.ensure_compile_time_eval():
                outputs = [np.asarray(value) for value in run(equation, values)]
            known.update(zip(equation.outvars, outputs, strict=True))


def _concrete(value: Any) -> bool:
    return not isinstance(value, Tracer) and np.size(value) <= LARGEST


def _starts(equation: Any, values: list[Any]) -> Iterator[tuple[int, int, int]]:
    """For each index that is known: the index, the length of its axis, and how much is taken."""
    name, params = equation.primitive.name, equation.params
    if name not in ("dynamic_slice", "gather"):
        return
    lengths, sizes = equation.invars[0].aval.shape, params["slice_sizes"]
    axes, starts = range(len(lengths)), values[1:]
    if name == "gather":
        axes = params["dimension_numbers"].start_index_map
        starts = [None] * len(axes) if values[1] is None else np.moveaxis(values[1], -1, 0)
    for axis, start in zip(axes, starts, strict=True):
        if start is not None:
            yield from ((int(i), lengths[axis], sizes[axis]) for i in np.ravel(start))


def _refuse(call: str, got: str, remedy: str) -> NoReturn:
    fail(call, needs=NEEDS, got=got, remedy=remedy)
