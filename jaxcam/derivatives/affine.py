"""Piecewise affine scores: second and third derivatives are zero, the first is one gradient.

ReLU, max-pool, convolutions, dense layers and BatchNorm in evaluation mode are all piecewise
affine, so under ``exp_logit`` Grad-CAM++'s closed form is exact for any such network. The proof
reads the jaxpr of the gradient (structure.py): where it depends on ``a`` through comparisons and
selections alone, it is constant on each piece.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.gradient import gradient
from jaxcam.derivatives.refusal import first_nonlinear
from jaxcam.derivatives.structure import Dependence, analyse
from jaxcam.types import Engine, LogDerivatives, Proof, Traced

WORDS = {
    Dependence.NONE: "affine: the gradient does not depend on the activations at all",
    Dependence.FLAT: "piecewise affine: the gradient depends on the activations only through "
    "comparisons and selections",
}


def prove(traced: Traced, name: str = "") -> Proof:
    """Prove ``u2 = u3 = 0`` from the jaxpr of the gradient."""
    del name
    found = traced.once(analyse)
    if found.error:
        return Proof(False, f"the gradient cannot be traced: {found.error}")
    if found.gradient in WORDS:
        return Proof(True, WORDS[found.gradient])
    return Proof(False, f"not proved piecewise affine: {first_nonlinear(traced.closed)}")


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Take one gradient; the rest is zero by the proof."""
    u1, more = gradient(traced, *arguments)
    return LogDerivatives(u1, jnp.zeros_like(u1), jnp.zeros_like(u1)), more


ENGINE = Engine("affine", exact=True, prove=prove, derive=derive, single=True)
