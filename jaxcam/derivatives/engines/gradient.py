"""The first derivative alone, for methods that need no other: one gradient, always exact."""

from typing import Any, cast

from jax import Array

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.reasons import Refused, first_line
from jaxcam.jaxprs.choices import choosing
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

    A maximum is a choice here (choices.py), so that what it switches off before a root stays zero.

    Raises:
        Refused: JAX has no reverse derivative of the score.
    """
    try:
        return gradient_of(traced.once(_chosen))(*arguments)
    except Exception as error:  # whatever JAX, or a hand-written derivative, has against it
        raise Refused(f"{first_line(error)} (while tracing the gradient)") from error


def _chosen(traced: Traced) -> Traced:
    return traced._replace(closed=choosing(traced.closed))


ENGINE = Engine("gradient", exact=True, prove=prove, derive=derive, single=True)
