"""The first derivative alone, for methods that need no other: one gradient, always exact."""

from typing import Any, cast

import jax
from jax import Array

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.graph.flatten import flatten
from jaxcam.derivatives.graph.partials import Differentiated, differentiated
from jaxcam.derivatives.graph.point import first_at_point
from jaxcam.derivatives.graph.singular import STEEP, is_steep
from jaxcam.derivatives.reasons import Refused, first_line
from jaxcam.jaxprs.choices import choosing
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.pullback import gradient_of
from jaxcam.types import LogDerivatives


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything: a gradient needs no condition."""
    del traced, name
    return Proof(True, "one gradient: the method uses no higher derivative")


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Take one gradient, and leave the others out."""
    absent = cast(Array, None)
    u1, more = gradient(traced, *arguments)
    return LogDerivatives(u1, absent, absent), more


def gradient(traced: Traced, *arguments: Array) -> tuple[Array, Any]:
    """Give ``du/da``, and what else the forward pass gives.

    A maximum is a choice here (choices.py), so that what it switches off before a root stays zero;
    and with a root on the way, what a mask behind it takes away is zero too (graph/seen.py).

    Raises:
        Refused: JAX has no reverse derivative of the score.
    """
    steep = traced.once(_steep)
    if steep is not None:
        u1, more = first_at_point(steep, *arguments)
        return u1, jax.tree.unflatten(traced.more, more)
    try:
        return gradient_of(traced.once(_chosen))(*arguments)
    except Exception as error:  # whatever JAX, or a hand-written derivative, has against it
        raise Refused(f"{first_line(error)} (while tracing the gradient)") from error


def _chosen(traced: Traced) -> Traced:
    return traced._replace(closed=choosing(traced.closed))


def _steep(traced: Traced) -> Differentiated | None:
    """Give the score as a graph, if its slope may be infinite where it is finite itself."""
    names = operations(traced.closed)
    if STEEP.isdisjoint(names) or "custom_vjp_call" in names:
        return None
    program = flatten(traced.closed)
    written = "custom_jvp_call"  # each would have to be traced, and few are
    steep = (o.name != written and is_steep(o, program) for o in program.operations)
    try:
        return traced.once(differentiated) if any(steep) else None
    except Exception:  # what a graph has against a score, one gradient need not have
        return None


ENGINE = Engine("gradient", exact=True, prove=prove, derive=derive, single=True)
