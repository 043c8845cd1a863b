"""CAM methods, one file each: how derivatives become weights. `peers`: as others compute them."""

from jaxcam.methods import peers
from jaxcam.methods.grad_cam import grad_cam
from jaxcam.methods.grad_cam_pp import grad_cam_pp
from jaxcam.methods.taylor_cam import taylor_cam

__all__ = ["grad_cam", "grad_cam_pp", "peers", "taylor_cam"]
