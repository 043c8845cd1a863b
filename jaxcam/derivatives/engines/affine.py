"""Piecewise affine scores: second and third derivatives are zero, the first is one gradient.

ReLU, max-pool, convolutions, dense layers and BatchNorm in evaluation mode are all piecewise
affine, so under ``exp_logit`` Grad-CAM++'s closed form is exact for any such network. The proof
reads the jaxpr of the gradient (dependence.py): where it depends on ``a`` through comparisons and
selections alone, it is constant on each piece.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines.gradient import gradient
from jaxcam.derivatives.proof import analyse
from jaxcam.derivatives.reasons import first_nonlinear
from jaxcam.jaxprs.dependence import Dependence
from jaxcam.types import LogDerivatives

WORDS = {
    Dependence.NONE: "affine: the gradient does not depend on the activations at all",
    Dependence.FLAT: "piecewise affine: the gradient depends on the activations only through "
    "comparisons and selections",
}


def prove(traced: Traced, name: str = "") -> Proof:
    """Prove ``u2 = u3 = 0`` from the jaxpr of the gradient."""
    del name
    structure = traced.once(analyse)
    if structure.error:
        return Proof(False, f"the gradient cannot be traced: {structure.error}")
    if structure.gradient in WORDS:
        return Proof(True, WORDS[structure.gradient])
    return Proof(False, f"not proved piecewise affine: {first_nonlinear(traced.closed)}")


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Take one gradient; the rest is zero by the proof."""
    u1, more = gradient(traced, *arguments)
    return LogDerivatives(u1, jnp.zeros_like(u1), jnp.zeros_like(u1)), more


ENGINE = Engine("affine", exact=True, prove=prove, derive=derive, single=True)
