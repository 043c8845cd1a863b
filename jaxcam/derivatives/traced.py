"""A score, traced once, so that what is found out about it is found out once.

Which engine serves a score is asked of several, and each needs its jaxpr, its gradient's jaxpr, its
tangents: tracing these takes longer than compiling a small network.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.outputs import describe, is_array
from jaxcam.arrays.running import untraceable, worded
from jaxcam.contracts import Traced
from jaxcam.errors import JaxcamError, JaxcamWarning, fail, message
from jaxcam.jaxprs.dependence import Dependence, dependence
from jaxcam.jaxprs.interpret import body
from jaxcam.jaxprs.logarithms.rewriting import exact_logarithms
from jaxcam.jaxprs.starts import with_known_starts
from jaxcam.types import LogScore


def trace(
    score: Callable[..., Any],
    *arguments: Any,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> Traced:
    """Trace a score at ``a, *context``, arrays or `jax.ShapeDtypeStruct`.

    Logarithms of probabilities are put so that they keep their digits (jaxprs/logarithms). The
    score gives ``u``, or ``u`` and what else its forward pass gives.
    """
    closed, shape = jax.make_jaxpr(score, return_shape=True)(*arguments)
    closed = exact_logarithms(with_known_starts(closed))
    more = jax.tree.structure(shape[1] if isinstance(shape, tuple) else None)
    return Traced(closed, more, tuple(closed.in_avals), chunk_size, axis, {})


def check_score(call: str, log_score: LogScore, a: Array) -> None:
    """Refuse what has no derivatives, or is not a scalar of one example."""
    needs = "a scalar log-score of one example"
    if not callable(log_score):
        remedy = "Pass a function of the activations that returns a number."
        fail(call, needs=needs, got=describe(log_score), remedy=remedy)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        fail(
            call, needs="floating activations", got=a.dtype, remedy="Convert: a.astype('float32')."
        )
    if not a.ndim:
        fail(call, needs="an axis of channels, [*spatial, k]", got="a number", remedy="a[None]")
    try:
        out = jax.eval_shape(log_score, a)
    except JaxcamError:
        raise
    except Exception as error:
        got = f"{worded(error)}, on activations of shape {a.shape}"
        got, remedy = untraceable(error) or (got, "It is given one example's, without batch axis.")
        raise JaxcamError(message(call, needs=needs, got=got, remedy=remedy)) from error
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != ():
        got = f"an output of shape {shape}" if is_array(out) else describe(out)
        fail(call, needs=needs, got=got, remedy="Pick one class, and vmap over the batch.")
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        remedy = (
            "Take its real part or its modulus, whichever is meant."
            if dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating)
            else "A count or a comparison has no derivative: give the score that is counted."
        )
        fail(call, needs=f"{needs}, floating", got=f"a number of {dtype}", remedy=remedy)


def warn_of_constant(call: str, traced: Traced) -> None:
    """Tell of a score whose derivatives are zero because nothing of ``a`` reaches it."""
    levels = [Dependence.VARYING, *(Dependence.NONE for _ in traced.arguments[1:])]
    level = dependence(body(traced.closed), levels)[0]
    if level is Dependence.VARYING:
        return
    only = "" if level is Dependence.NONE else " except through comparisons or rounding"
    got = f"one that does not depend on them{only}, so that all its derivatives are zero"
    remedy = "Compute it from the function's argument, with what can be differentiated."
    needs = "a score that depends on the activations"
    warnings.warn(message(call, needs=needs, got=got, remedy=remedy), JaxcamWarning, stacklevel=2)
