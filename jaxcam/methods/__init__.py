"""Methods, one file each, a row each in the catalogue; and what they are averaged over.

Weights from derivatives at a layer: cam, grad_cam, grad_cam_plus, grad_cam_pp, xgrad_cam,
hires_cam, grad_cam_elementwise, layer_cam, eigen_grad_cam, taylor_cam, shapley_cam,
integrated_grad_cam; from
activations alone: eigen_cam, kpca_cam, fem. At the input: sensitivity_map, gradient_x_input,
smooth_grad, smooth_grad_squared, var_grad, guided_backprop, deconvolution, class_gradient; at
both: guided_grad_cam. From queries: recipro_cam, ablation_cam, score_cam, ss_cam, is_cam,
occlusion, rise; from queries and a gradient: abs_cam, fd_cam; shapley, a game. Wrappers: smooth,
integrate. peers: as others compute them.
"""

from jaxcam.methods import peers
from jaxcam.methods.ablation_cam import ablation_cam
from jaxcam.methods.abs_cam import abs_cam
from jaxcam.methods.cam import cam
from jaxcam.methods.catalogue import make, names
from jaxcam.methods.class_gradient import class_gradient
from jaxcam.methods.deconvolution import deconvolution
from jaxcam.methods.eigen_cam import eigen_cam
from jaxcam.methods.eigen_grad_cam import eigen_grad_cam
from jaxcam.methods.fd_cam import fd_cam
from jaxcam.methods.fem import fem
from jaxcam.methods.grad_cam import grad_cam
from jaxcam.methods.grad_cam_elementwise import grad_cam_elementwise
from jaxcam.methods.grad_cam_plus import grad_cam_plus
from jaxcam.methods.grad_cam_pp import grad_cam_pp
from jaxcam.methods.gradient_x_input import gradient_x_input
from jaxcam.methods.guided_backprop import guided_backprop
from jaxcam.methods.guided_grad_cam import guided_grad_cam
from jaxcam.methods.hires_cam import hires_cam
from jaxcam.methods.integrated_grad_cam import integrated_grad_cam
from jaxcam.methods.is_cam import is_cam
from jaxcam.methods.kpca_cam import kpca_cam
from jaxcam.methods.layer_cam import layer_cam
from jaxcam.methods.occlusion import occlusion
from jaxcam.methods.recipro_cam import recipro_cam
from jaxcam.methods.rise import rise
from jaxcam.methods.score_cam import score_cam
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.methods.shapley import shapley
from jaxcam.methods.shapley_cam import shapley_cam
from jaxcam.methods.smooth_grad import smooth_grad
from jaxcam.methods.smooth_grad_squared import smooth_grad_squared
from jaxcam.methods.ss_cam import ss_cam
from jaxcam.methods.taylor_cam import taylor_cam
from jaxcam.methods.var_grad import var_grad
from jaxcam.methods.xgrad_cam import xgrad_cam

__all__ = [
    "ablation_cam",
    "abs_cam",
    "cam",
    "class_gradient",
    "deconvolution",
    "eigen_cam",
    "eigen_grad_cam",
    "fd_cam",
    "fem",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_plus",
    "grad_cam_pp",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "hires_cam",
    "integrated_grad_cam",
    "is_cam",
    "kpca_cam",
    "layer_cam",
    "make",
    "names",
    "occlusion",
    "peers",
    "recipro_cam",
    "rise",
    "score_cam",
    "sensitivity_map",
    "shapley",
    "shapley_cam",
    "smooth_grad",
    "smooth_grad_squared",
    "ss_cam",
    "taylor_cam",
    "var_grad",
    "xgrad_cam",
]
