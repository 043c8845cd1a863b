"""The first derivative alone, for methods that need no other: one gradient, always exact."""

from typing import Any, cast

import jax
from jax import Array

from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.types import Engine, LogDerivatives, LogScore, Proof, ScoreAndMore


def prove(log_score: LogScore, a: Any, name: str = "") -> Proof:
    """Apply to anything: a gradient needs no condition."""
    del log_score, a, name
    return Proof(True, "one gradient: the method uses no higher derivative")


def derive(
    score: ScoreAndMore, a: Array, *, chunk_size: int | None = None
) -> tuple[LogDerivatives, Any]:
    """Take one gradient, and leave the others out."""
    del chunk_size  # one pass has no chunks
    absent = cast(Array, None)
    u1, more = gradient(score, a)
    return LogDerivatives(u1, absent, absent), more


def gradient(score: ScoreAndMore, a: Array) -> tuple[Array, Any]:
    """Give ``du/da``, and what else the forward pass gives."""
    return with_plain_convolutions(jax.grad(score, has_aux=True))(a)


ENGINE = Engine("gradient", exact=True, prove=prove, derive=derive, single=True)
