"""Derivatives of a log-score along every element of one example's activations."""

from jaxcam.derivatives.auto import Decision, explain_engine
from jaxcam.derivatives.check import DerivativeCheck, check_derivatives
from jaxcam.derivatives.derive import derivatives, log_derivatives
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
