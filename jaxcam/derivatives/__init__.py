"""Derivatives of a log-score along every element of one example's activations.

In the order in which a call passes through them:

- calls: the public calls; what goes in is checked, and half precision widened.
- traced: the score, traced once.
- auto: the engine that serves it, by name, or the cheapest one that is proved.
- proof: what a score and its gradient prove of themselves.
- reasons: in words, which operation stops a proof.
- engines: the ways to the derivatives, one file each.
- graph: the score as a graph, at one point, and what is carried through it.
- tangents: the derivative of a value along one element, and what operations do to it.
- bell: from the derivatives of ``u`` to those of ``Y``.

Beside them:

- check: an engine against brute force.
- stochastic: unbiased estimates from random probes.
"""

from jaxcam.derivatives.auto import Decision, explain_engine
from jaxcam.derivatives.calls import derivatives, log_derivatives
from jaxcam.derivatives.check import DerivativeCheck, check_derivatives
from jaxcam.derivatives.stochastic import Estimate, stochastic_derivatives

__all__ = [
    "Decision",
    "DerivativeCheck",
    "Estimate",
    "check_derivatives",
    "derivatives",
    "explain_engine",
    "log_derivatives",
    "stochastic_derivatives",
]
