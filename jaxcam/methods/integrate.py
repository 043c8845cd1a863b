"""Derivatives averaged along a path from a baseline, and the certificate that goes with it."""

import math
from typing import Any, Literal

from jaxcam.contracts import Gradient, Method, Path
from jaxcam.errors import fail
from jaxcam.methods.averaged import averaged
from jaxcam.methods.options import check_count, checked_number
from jaxcam.pipeline.baselines import told_apart
from jaxcam.pipeline.path import FINER, FIRST, RULES

PLACES = ("layer", "input")


def integrate(
    method: Method,
    *,
    baseline: Any = None,
    num_nodes: int = 16,
    rule: str = "auto",
    at: Literal["layer", "input"] = "layer",
    tolerance: Any = None,
    max_nodes: int = 128,
) -> Gradient:
    """Average a gradient method over a straight path from a baseline B to the activations A.

    With ``A_t = B + t (A - B)``, nodes ``t_n`` of weight ``w_n`` (`jaxcam.pipeline.path`), and
    ``A - B`` in place of ``A`` in weights and map::

        mean u1 = sum_n w_n u1(A_{t_n})

    ``integrate(hires_cam())`` is Integrated Gradients (arXiv 1703.01365) at a layer; at the input
    (``jaxcam.split(model, "input")``) it is Integrated Gradients itself. Its signed map divides
    ``u(A) - u(B)`` among the positions: `Diagnostics` hold that difference, ``total``, the share of
    it in the map, ``completeness``, and the ``gap`` between the two, which costs two forward passes
    and says whether the nodes were enough. A gap that is small by luck proves nothing about single
    positions. ``integrate(grad_cam(), at="input")`` is Integrated Grad-CAM (arXiv 2102.07805; its
    formula is from memory) but for the order of the mean and the ReLU: weights are averaged first.

    Behind smooth tails derivatives at the picture itself, of any order, say little of what the
    network uses; a path of eight gradients does. Behind piecewise affine ones where the gradient is
    proved constant, one gradient is the path, and no nodes are run.

    Args:
        method: one of `jaxcam.methods` of order one. Derivatives are those of the log-score ``u``.
        baseline: where the path starts. None: an input of zeros (black, or the mean colour where
            inputs are centred); an input, or one for each image, as the model takes it;
            ``("activations", array)``: activations of the layer, ``[*spatial, k]``, ``[k]`` (the
            data's mean, say) or one for each image; ``("several", array)``: several inputs ``[m,
            ...]``, from each of which a path leads to every image, and the map is the mean of all
            ``m`` maps (expected gradients, arXiv 1906.10670, over all given baselines and not over
            drawn ones): ``m`` times the work, weights are means too, and the map is not their
            product. Zero activations before a normalisation are a
            point where the score jumps, and the gap stays.
        num_nodes: how many gradients, at least 1. Not used with a tolerance.
        rule: ``gauss``, ``midpoint``, or ``auto``: midpoints where a kink (ReLU, maximum, clip) is
            found on the way, else Gauss and Legendre's nodes.
        at: ``layer``, a path of activations with the input as it is; or ``input``, a path of
            inputs, whose activations are passed through the layer (not complete).
        tolerance: add nodes, level by level (`jaxcam.pipeline.path`), until the last level has
            changed no position of the signed map by more than this share of the map's largest
            value (``diagnostics.relative_error``), and the gap of a complete map is at most this
            too, image by image: an image's result depends neither on its neighbours nor on
            ``chunk_size``. Levels are of 4, 8, 16 ... nodes by Gauss, together at most twice the
            last, and of 4, 12, 36 ... midpoints, which nest. As with `jaxcam.smooth`, JAX cannot
            differentiate the loop in reverse mode: `jax.grad` needs ``tolerance=None``.
        max_nodes: where to stop in any case, at least 12: no level has more. Used with a tolerance
            alone.

    Raises:
        JaxcamError: a method of higher order, averaged already, or without derivatives; a baseline
            of another shape; another word.

    Warns:
        JaxcamWarning: the score is the same at both ends; the gap of a complete map is above
            0.05, or the tolerance; or ``max_nodes`` were not enough for the tolerance.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> cubes = jaxcam.Split(features=lambda x: x, scores=lambda a, x: (a**3).sum(1))
    >>> method = jaxcam.integrate(jaxcam.methods.hires_cam(), num_nodes=2)
    >>> result = jaxcam.cam(cubes, jnp.array([[[1.0], [2.0], [3.0]]]), method)
    >>> print(result.map, result.diagnostics.total)  # without a, the sum of a^3 is smaller by a^3
    [[ 1.  8. 27.]] [36.]
    """
    order = getattr(method, "order", 1)
    if order != 1:
        fail(
            "integrate",
            needs="a method of order one: it averages first derivatives",
            got=f"{method.name} of order {order}",
            remedy="jaxcam.methods.hires_cam() is complete on a path; grad_cam() is smoother.",
        )
    if getattr(method, "scalar", "u") == "u1^k":
        needs, remedy = "a method of gradients, not of their squares", "Average it by smooth_grad."
        fail("integrate", needs=needs, got=method.name, remedy=remedy)
    check_count("integrate", "num_nodes", num_nodes, 1, "Default: 16.")
    adaptive = tolerance is not None
    if adaptive:
        least = FIRST * max(FINER.values())
        check_count("integrate", "max_nodes", max_nodes, least, "An error needs two levels.")
        tolerance = checked_number("integrate", "tolerance", tolerance, 0, math.inf, "Try 0.01.")
    _check("rule", rule, ("auto", *RULES))
    _check("at", at, PLACES)
    several = isinstance(baseline, tuple) and len(baseline) == 2 and _is(baseline[0], "several")
    baseline = baseline[1] if several else baseline
    given, baseline = told_apart("integrate", baseline, at=at)
    count = int(max_nodes if adaptive else num_nodes)
    path = Path(count, rule, at, baseline, given, tolerance, adaptive, several)
    return averaged("integrate", method, path)._replace(scalar="u")


def _is(word: Any, name: str) -> bool:
    return isinstance(word, str) and word == name


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        needs = f"{name} {' or '.join(map(repr, allowed))}"
        fail("integrate", needs=needs, got=repr(value), remedy="See its docstring.")
