"""Methods, one file each, a row each in the catalogue; and what they are averaged over.

Weights from derivatives at a layer: grad_cam, grad_cam_pp, hires_cam, layer_cam, taylor_cam. At the
input: sensitivity_map. From queries: recipro_cam. Wrappers: smooth, integrate. peers: as others
compute them.
"""

from jaxcam.methods import peers
from jaxcam.methods.catalogue import make, names
from jaxcam.methods.grad_cam import grad_cam
from jaxcam.methods.grad_cam_pp import grad_cam_pp
from jaxcam.methods.hires_cam import hires_cam
from jaxcam.methods.layer_cam import layer_cam
from jaxcam.methods.recipro_cam import recipro_cam
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.methods.taylor_cam import taylor_cam

__all__ = [
    "grad_cam",
    "grad_cam_pp",
    "hires_cam",
    "layer_cam",
    "make",
    "names",
    "peers",
    "recipro_cam",
    "sensitivity_map",
    "taylor_cam",
]
