"""Smooth Grad-CAM++ for Flax networks as pure functions, with exact derivatives."""

__version__ = "0.1.0"

from jaxcam import methods, targets
from jaxcam.cam import cam, shapley, smooth_grad_cam_pp
from jaxcam.derivatives import (
    Decision,
    DerivativeCheck,
    Estimate,
    check_derivatives,
    derivatives,
    explain_engine,
    log_derivatives,
    stochastic_derivatives,
)
from jaxcam.devices import spread
from jaxcam.errors import JaxcamError, JaxcamWarning, NotProved
from jaxcam.layer_costs import LayerCost, explain_layers
from jaxcam.maps import fuse, normalize, upsample
from jaxcam.methods.integrate import integrate
from jaxcam.methods.smooth import smooth
from jaxcam.metrics.removal import RemovalCheck, check_removal
from jaxcam.plot import overlay
from jaxcam.split import last_layer, layers, split, tokens
from jaxcam.split.half_precision import half_precision
from jaxcam.types import CAM, Derivatives, Diagnostics, LogDerivatives, Split, Spread

__all__ = [
    "CAM",
    "Decision",
    "DerivativeCheck",
    "Derivatives",
    "Diagnostics",
    "Estimate",
    "JaxcamError",
    "JaxcamWarning",
    "LayerCost",
    "LogDerivatives",
    "NotProved",
    "RemovalCheck",
    "Split",
    "Spread",
    "cam",
    "check_derivatives",
    "check_removal",
    "derivatives",
    "explain_engine",
    "explain_layers",
    "fuse",
    "half_precision",
    "integrate",
    "last_layer",
    "layers",
    "log_derivatives",
    "methods",
    "normalize",
    "overlay",
    "shapley",
    "smooth",
    "smooth_grad_cam_pp",
    "split",
    "spread",
    "stochastic_derivatives",
    "targets",
    "tokens",
    "upsample",
]
