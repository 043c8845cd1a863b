"""The first derivative alone, for methods that need no other: one gradient, always exact."""

from typing import Any, cast

import jax
from jax import Array

from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.types import Engine, LogDerivatives, Proof, Traced


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
    """Give ``du/da``, and what else the forward pass gives."""
    return with_plain_convolutions(jax.grad(traced, has_aux=True))(*arguments)


ENGINE = Engine("gradient", exact=True, prove=prove, derive=derive, single=True)
