"""Smooth Grad-CAM++ for Flax networks as pure functions, with exact derivatives."""

__version__ = "0.1.0"

from jaxcam.derivatives import (
    DerivativeCheck,
    check_derivatives,
    derivatives,
    log_derivatives,
)

__all__ = ["DerivativeCheck", "check_derivatives", "derivatives", "log_derivatives"]
