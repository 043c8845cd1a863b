"""The first derivative alone, for methods that need no other: one gradient, always exact."""

from typing import Any, cast

import jax
from jax import Array

from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.types import Engine, LogDerivatives, LogScore, Proof


def prove(log_score: LogScore, a: Any) -> Proof:
    """Apply to anything: a gradient needs no condition."""
    del log_score, a
    return Proof(True, "one gradient: the method uses no higher derivative")


def derive(log_score: LogScore, a: Array, *, chunk_size: int | None = None) -> LogDerivatives:
    """Take one gradient, and leave the others out."""
    del chunk_size  # one pass has no chunks
    absent = cast(Array, None)
    return LogDerivatives(with_plain_convolutions(jax.grad(log_score))(a), absent, absent)


ENGINE = Engine("gradient", exact=True, prove=prove, derive=derive, passes=lambda n: 1)
