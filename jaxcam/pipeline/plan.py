"""What is decided about a network before anything is computed: does the question make sense, which
engine answers it, and what can be said of the answer without computing it.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import NoReturn

import jax
from jax import Array

from jaxcam.arrays.inputs import Inputs, first
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Gradient, Path, Smoothing, Traced
from jaxcam.derivatives.auto import Choice, choose, choose_along
from jaxcam.derivatives.proof import Structure, analyse
from jaxcam.derivatives.reasons import first_nonlinear, has_kinks
from jaxcam.derivatives.traced import trace
from jaxcam.errors import fail
from jaxcam.jaxprs.dependence import Dependence
from jaxcam.pipeline.network import Network
from jaxcam.pipeline.path import GAUSS, MIDPOINT
from jaxcam.targets import Aim, Target
from jaxcam.types import Report

NO_NOISE = (
    "noise cannot change this map: the gradient depends neither on the activations nor on the "
    "input, so every sample has the same derivatives"
)
ONE_NODE = (
    "the gradient is the same on the whole path: one is enough, and what it divides is complete"
)
NOT_BENT = (
    "the second order and all above it are zero, which is proved: the map is that of the gradient "
    "alone, Grad-CAM's, or HiResCAM's element by element"
)
POOLED = (
    "alpha is constant over positions: the score sees the layer only through sums over positions "
    "(global pooling), so alpha's spatial weighting does nothing here"
)

UNCONNECTED = {
    Dependence.NONE: "does not depend on this layer",
    Dependence.FLAT: "does not depend on this layer except through comparisons",
}


def plan(network: Network, a: Array, x: Inputs, aim: Aim, method: Gradient, engine: str) -> Report:
    """Choose the engine for ``a: [batch, ...]`` and say what is proved, or refuse."""
    traced = traced_score(network, a, x, aim)
    structure = traced.once(analyse)
    if method.scalar == "u along a":
        choice = choose_along(traced, order=method.order)
    else:
        choice = choose(engine, traced, order=method.order)
    _check_question(traced, structure, choice, network.target, method)
    still = _is_still(structure, method)
    averaged = method.points is not None and not still
    return Report(
        engine=choice.name,
        exact=choice.engine.exact,
        proof=choice.proof.words,
        averaged=averaged,
        rule=_rule(network, structure, method, a, x) if averaged else "",
        notes=tuple(_notes(structure, choice, method, math.prod(a.shape[1:]), still=still)),
    )


def _is_still(structure: Structure, method: Gradient) -> bool:
    """Say whether the derivatives are proved to be the same at all points of a method."""
    along_layer = isinstance(method.points, Path) and method.points.at == "layer"
    moved = (structure.gradient,) if along_layer else (structure.gradient, structure.on_context)
    return all(level is Dependence.NONE for level in moved)


def _rule(network: Network, structure: Structure, method: Gradient, a: Array, x: Inputs) -> str:
    """Choose the nodes of a path: by smoothness, unless a kink lies on the way to the scores."""
    points = method.points
    if not isinstance(points, Path):
        return ""
    if points.rule != "auto":
        return points.rule
    if structure.gradient is Dependence.FLAT:
        return MIDPOINT
    if points.at == "layer":
        ways = jax.make_jaxpr(partial(network.scores, x=first(x)))(first(a))
    else:
        ways = jax.make_jaxpr(lambda x: network.scores(network.features(x), x))(first(x))
    return MIDPOINT if has_kinks(ways) else GAUSS


def traced_score(network: Network, a: Array, x: Inputs, aim: Aim) -> Traced:
    """Trace the explained scalar of one image, in the precision that derivatives are taken in."""

    def score(wide: Array, x: Inputs) -> Array:
        return network.log_score(wide.astype(a.dtype), x, first(aim)).astype(wide.dtype)

    return trace(score, widen(first(a)), first(x))


def _notes(
    structure: Structure, choice: Choice, method: Gradient, elements: int, *, still: bool
) -> Iterator[str]:
    yield from (f"auto passed over {refusal}" for refusal in choice.refused)
    if not choice.engine.single:
        points = method.points if not still else None
        # Levels of a path's nodes together are at most twice the last (path.py).
        twice = 2 if isinstance(points, Path) and points.adaptive else 1
        inputs = f"{1 + (twice * points.num_points if points else 0)} inputs"
        most = "at most " if points and points.adaptive else ""
        yield f"derivatives along {elements} elements, for each of {most}{inputs}"
    if method.scalar == "u along a" and structure.gradient is not Dependence.VARYING:
        yield NOT_BENT
    if still and isinstance(method.points, Smoothing):
        yield f"{NO_NOISE}; the noisy passes were skipped"
    if still and isinstance(method.points, Path):
        yield ONE_NODE
    if structure.pooled and _has_alpha(method):
        yield POOLED


def refuse_unconnected(call: str, level: Dependence) -> NoReturn:
    """Refuse a layer from which no way leads to the score."""
    fail(
        call,
        needs="a layer on whose values the score depends",
        got=f"a score that {UNCONNECTED[level]}",
        remedy="Choose a layer on the way to the scores: see jaxcam.layers.",
    )


def _refuse_more_than_pooling(method: Gradient, traced: Traced, structure: Structure) -> NoReturn:
    """Say what lies behind the layer beside global average pooling and one dense layer."""
    if structure.gradient is Dependence.NONE:
        got = "a gradient that is not proved to be the same at every position"
    elif structure.gradient is Dependence.FLAT:
        got = "one that is linear only piece by piece: a ReLU or a maximum lies behind the layer"
    elif structure.pooled:
        got = f"more behind the pooling than that: {first_nonlinear(traced.closed)}"
    else:
        got = f"a score that bends with the activations: {first_nonlinear(traced.closed)}"
    fail(
        method.name,
        needs="a score that is one dense layer behind global average pooling",
        got=got,
        remedy="Explain the last layer before the pooling, with jaxcam.targets.exp_logit, or take "
        "grad_cam or hires_cam, which are the same map there and defined at every layer.",
    )


def _check_question(
    traced: Traced, structure: Structure, choice: Choice, target: Target, method: Gradient
) -> None:
    if structure.score is not Dependence.VARYING:
        refuse_unconnected(method.name, structure.score)
    if method.linear and not (structure.pooled and structure.gradient is Dependence.NONE):
        _refuse_more_than_pooling(method, traced, structure)
    if target.form.exponentiated or not _has_alpha(method):
        return
    flat = structure.gradient is not Dependence.VARYING
    if flat or not choice.engine.exact:
        fail(
            f"{method.name} with target {target.form.name!r}",
            needs="second and third derivatives of the raw score",
            got=choice.proof.words + ", so D2 = D3 = 0 and alpha is 0/0",
            remedy="Use jaxcam.targets.exp_logit, the paper's scalar.",
        )


def _has_alpha(method: Gradient) -> bool:
    return method.order > 1 and method.scalar == "Y"
