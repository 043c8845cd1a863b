"""The catalogue: every method by its name, one row each.

It is read by `make`, by the command line, by the table in the docs and by the tests that every
method has to pass. A new method is a file beside this one and a row here.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from jaxcam.contracts import Method
from jaxcam.errors import fail
from jaxcam.methods.ablation_cam import ablation_cam
from jaxcam.methods.abs_cam import abs_cam
from jaxcam.methods.cam import cam
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
from jaxcam.methods.integrate import integrate
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
from jaxcam.methods.smooth import smooth
from jaxcam.methods.smooth_grad import smooth_grad
from jaxcam.methods.smooth_grad_squared import smooth_grad_squared
from jaxcam.methods.ss_cam import ss_cam
from jaxcam.methods.taylor_cam import taylor_cam
from jaxcam.methods.var_grad import var_grad
from jaxcam.methods.xgrad_cam import xgrad_cam


class Row(NamedTuple):
    """One method.

    name: as it is asked for. title: as it is written. makers: functions whose options are the
    method's; the first makes it, each later one wraps what is there. at: for which layer it is
    meant; ``input`` is ``jaxcam.split(model, "input")``. cost: of one image, F a forward pass of
    the network, B a backward pass, h one of the head. source: where it is defined.
    """

    name: str
    title: str
    makers: tuple[Callable[..., Any], ...]
    at: Literal["layer", "input"]
    cost: str
    source: str

    @property
    def options(self) -> dict[str, Any]:
        """Give its options and their defaults."""
        return {name: value for maker in self.makers for name, value in _options(maker)}

    def make(self, **options: Any) -> Method:
        """Make the method, with some of its options."""
        unknown = sorted(options.keys() - self.options.keys())
        if unknown:
            taken = ", ".join(self.options) or "none"
            remedy = "Leave it out, or take another method."
            fail(self.name, needs=f"options of {taken}", got=", ".join(unknown), remedy=remedy)
        method = None
        for maker in self.makers:
            own = {name: options[name] for name, _ in _options(maker) if name in options}
            method = maker(**own) if method is None else maker(method, **own)
        return method  # pyright: ignore[reportReturnType]


def _options(maker: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    parameters = inspect.signature(maker).parameters.values()
    return ((p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY)


ROWS = (
    Row(
        "smooth_grad_cam_pp", "Smooth Grad-CAM++", (grad_cam_pp, smooth), "layer",
        "1 F + n (F + derivatives)", "arXiv 1908.01224",
    ),
    Row(
        "grad_cam_pp", "Grad-CAM++", (grad_cam_pp,), "layer", "1 F + derivatives",
        "arXiv 1710.11063",
    ),
    Row("cam", "CAM", (cam,), "layer", "1 F + 1 B", "arXiv 1512.04150"),
    Row("grad_cam", "Grad-CAM", (grad_cam,), "layer", "1 F + 1 B", "arXiv 1610.02391"),
    Row(
        "grad_cam_plus", "Grad-CAM with positive gradients", (grad_cam_plus,), "layer", "1 F + 1 B",
        "arXiv 2205.10838",
    ),
    Row("xgrad_cam", "XGrad-CAM", (xgrad_cam,), "layer", "1 F + 1 B", "arXiv 2008.02312"),
    Row("hires_cam", "HiResCAM", (hires_cam,), "layer", "1 F + 1 B + h", "arXiv 2011.08891"),
    Row(
        "integrated_gradients", "Integrated Gradients", (hires_cam, integrate), "layer",
        "2 F + n (h + B)", "arXiv 1703.01365",
    ),
    Row(
        "integrated_grad_cam", "Integrated Grad-CAM", (integrated_grad_cam,), "layer",
        "3 F + n (F + B)", "arXiv 2102.07805",
    ),
    Row(
        "layer_cam", "LayerCAM", (layer_cam,), "layer", "1 F + 1 B",
        "Jiang et al., IEEE TIP 30, 2021",
    ),
    Row(
        "grad_cam_elementwise", "GradCAMElementWise", (grad_cam_elementwise,), "layer", "1 F + 1 B",
        "pytorch-grad-cam",
    ),
    Row("eigen_cam", "Eigen-CAM", (eigen_cam,), "layer", "1 F", "arXiv 2008.00299"),
    Row(
        "eigen_grad_cam", "EigenGradCAM", (eigen_grad_cam,), "layer", "1 F + 1 B",
        "pytorch-grad-cam",
    ),
    Row("kpca_cam", "KPCA-CAM", (kpca_cam,), "layer", "1 F", "arXiv 2410.00267"),
    Row("fem", "FEM", (fem,), "layer", "1 F", "Fuad et al., IPTA 2020"),
    Row("taylor_cam", "Taylor-CAM", (taylor_cam,), "layer", "1 F + derivatives + h", "jaxcam"),
    Row("shapley_cam", "ShapleyCAM", (shapley_cam,), "layer", "1 F + 3 B", "arXiv 2501.06261"),
    Row("recipro_cam", "Recipro-CAM", (recipro_cam,), "layer", "1 F + HW h", "arXiv 2209.14074"),
    Row("shapley", "Shapley values of positions", (shapley,), "layer", "2 F + 2 n HW h",
        "arXiv 2208.03608"),
    Row(
        "ablation_cam", "Ablation-CAM", (ablation_cam,), "layer", "1 F + K h",
        "Desai and Ramaswamy, WACV 2020",
    ),
    Row("score_cam", "Score-CAM", (score_cam,), "layer", "1 F + K F", "arXiv 1910.01279"),
    Row("ss_cam", "SS-CAM", (ss_cam,), "layer", "1 F + n K F", "arXiv 2006.14255"),
    Row("is_cam", "IS-CAM", (is_cam,), "layer", "1 F + n K F", "arXiv 2010.03023"),
    Row("abs_cam", "Abs-CAM", (abs_cam,), "layer", "1 F + 1 B + K F", "arXiv 2207.03648"),
    Row("fd_cam", "FD-CAM", (fd_cam,), "layer", "1 F + 1 B + 2 K h", "arXiv 2206.08792"),
    Row("occlusion", "Occlusion", (occlusion,), "input", "1 F + windows h", "arXiv 1311.2901"),
    Row("rise", "RISE", (rise,), "input", "1 F + n F", "arXiv 1806.07421"),
    Row(
        "sensitivity_map", "Sensitivity map", (sensitivity_map,), "input", "1 F + 1 B",
        "arXiv 1312.6034",
    ),
    Row(
        "gradient_x_input", "Gradient x input", (gradient_x_input,), "input", "2 F + 1 B",
        "arXiv 1605.01713",
    ),
    Row(
        "smooth_grad", "SmoothGrad", (sensitivity_map, smooth_grad), "input", "1 F + n (F + B)",
        "arXiv 1706.03825",
    ),
    Row(
        "smooth_grad_squared", "SmoothGrad squared", (smooth_grad_squared, smooth_grad), "input",
        "1 F + n (F + B)", "arXiv 1806.10758",
    ),
    Row(
        "var_grad", "VarGrad", (var_grad, smooth_grad), "input", "1 F + n (F + B)",
        "arXiv 1810.03292",
    ),
    Row(
        "guided_backprop", "Guided Backprop", (guided_backprop,), "input", "1 F + 1 B",
        "arXiv 1412.6806",
    ),
    Row(
        "deconvolution", "Deconvolution", (deconvolution,), "input", "1 F + 1 B",
        "arXiv 1311.2901",
    ),
    Row(
        "guided_grad_cam", "Guided Grad-CAM", (guided_grad_cam,), "layer", "1 F + 2 B",
        "arXiv 1610.02391",
    ),
    Row(
        "class_gradient", "Class gradient visualisation", (class_gradient,), "input", "1 F + 1 B",
        "arXiv 2009.08898",
    ),
)  # fmt: skip


@functools.cache
def rows() -> dict[str, Row]:
    """Give all methods by name."""
    return {row.name: row for row in ROWS}


def names() -> tuple[str, ...]:
    """List the methods that `make` knows.

    >>> import jaxcam
    >>> "grad_cam_pp" in jaxcam.methods.names()
    True
    """
    return tuple(rows())


def make(name: str, **options: Any) -> Method:
    """Make a method by its name, with options of its own function and of its wrapper.

    Raises:
        JaxcamError: an unknown name, with its nearest; an option that the method does not take.

    >>> import jaxcam
    >>> jaxcam.methods.make("smooth_grad_cam_pp", poles="raw", num_samples=50).name
    'grad_cam_pp'
    """
    if name not in rows():
        near = difflib.get_close_matches(str(name), rows(), n=3) or rows()
        fail(
            "methods.make",
            needs="the name of a method",
            got=repr(name),
            remedy=f"Nearest: {', '.join(near)}.",
        )
    return rows()[name].make(**options)
