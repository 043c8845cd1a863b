"""What is proved of a score and its gradient, each traced once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcam.contracts import Traced
from jaxcam.derivatives.graph import handwritten
from jaxcam.jaxprs.dependence import Dependence, constant_axes, dependence
from jaxcam.jaxprs.interpret import body, has_references


class Structure(NamedTuple):
    """What was proved of one score ``u(a, *context)`` and its gradient along ``a``.

    score: how ``u`` depends on ``a``. gradient: how the gradient depends on ``a``; on_context:
    on the rest (the network's input). pooled: the gradient is the same at every position, so that
    the higher derivatives are too (u depends on sums over positions alone).
    error: why the gradient could not be traced, in which case nothing is proved.
    """

    score: Dependence = Dependence.VARYING
    gradient: Dependence = Dependence.VARYING
    on_context: Dependence = Dependence.VARYING
    pooled: bool = False
    error: str | None = None


def analyse(traced: Traced) -> Structure:
    """Say what a score ``u(a, *context)`` and its gradient along ``a`` show."""
    none, varying = Dependence.NONE, Dependence.VARYING
    forward = body(traced.closed)
    others = [none] * (len(forward.invars) - 1)
    if has_references(forward):
        return Structure()
    of_score = dependence(forward, [varying, *others])[0]
    try:
        gradient = jax.make_jaxpr(jax.grad(lambda *arguments: traced(*arguments)[0]))
        backward = body(gradient(*traced.arguments))
    except Exception as error:  # whatever JAX, or a hand-written derivative, has against it
        return Structure(of_score, error=(str(error).splitlines() or [""])[0])
    (on_a,) = dependence(backward, [varying, *others])
    (on_context,) = dependence(backward, [none, *(varying for _ in others)])
    (axes,) = constant_axes(backward)
    pooled = axes >= frozenset(range(len(traced.a.shape) - 1)) and _is_a_gradient(forward)
    return Structure(of_score, on_a, on_context, pooled)


def _is_a_gradient(jaxpr: Any) -> bool:
    """Say whether mixed second derivatives are the same in either order.

    Then a gradient that is the same at every position changes alike with every position. Rules
    written by hand can give anything; those of one operand that works element by element, and have
    one tangent for all levels, are gradients.
    """
    return all(
        handwritten.of_one_tangent(call, moved) and handwritten.is_pointwise(call, moved)
        for call in handwritten.calls(jaxpr)
        for moved in [[jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in call.invars]]
    )
