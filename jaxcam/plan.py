"""What is decided about a network before anything is computed: does the question make sense, which
engine answers it, and what can be said of the answer without computing it.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives.auto import Choice, choose
from jaxcam.derivatives.structure import Dependence, Structure, analyse
from jaxcam.derivatives.traced import trace
from jaxcam.errors import JaxcamError, fail
from jaxcam.inputs import Inputs, batch_of, first
from jaxcam.precision import wide_dtype
from jaxcam.targets import Aim, Target
from jaxcam.types import Method, Report, Split, Traced


class Network(NamedTuple):
    """One example's view of a split network and its target: no batch axis anywhere."""

    split: Split
    target: Target

    def features(self, x: Inputs) -> Array:
        """Give ``a: [*spatial, k]`` of one input."""
        return self.split.features(_batched(x))[0]

    def scores(self, a: Array, x: Inputs) -> Array:
        """Give the scores ``[classes]`` of one input with the layer's output replaced by ``a``."""
        return self.split.scores(a[None], _batched(x))[0]

    def log_score(self, a: Array, x: Inputs, aim: Aim) -> Array:
        """Give the explained scalar ``u``."""
        return self.target.log_score(self.scores(a, x), aim)


def _batched(x: Inputs) -> Inputs:
    return jax.tree.map(lambda leaf: leaf[None], x)


NO_NOISE = (
    "noise cannot change this map: the gradient depends neither on the activations nor on the "
    "input, so every sample has the same derivatives"
)
POOLED = (
    "alpha is constant over positions: the score sees the layer only through sums over positions "
    "(global pooling), so alpha's spatial weighting does nothing here"
)


def plan(network: Network, a: Array, x: Inputs, aim: Aim, method: Method, engine: str) -> Report:
    """Choose the engine for ``a: [batch, ...]`` and say what is proved, or refuse."""
    traced = traced_score(network, a, x, aim)
    structure = traced.once(analyse)
    choice = choose(engine, traced, order=method.order)
    _check_question(structure, choice, network.target, method)
    still = structure.gradient is structure.on_context is Dependence.NONE
    return Report(
        engine=choice.name,
        exact=choice.engine.exact,
        proof=choice.proof.words,
        noisy=method.smoothing is not None and not still,
        notes=tuple(_notes(structure, choice, method, math.prod(a.shape[1:]), still=still)),
    )


def traced_score(network: Network, a: Array, x: Inputs, aim: Aim) -> Traced:
    """Trace the explained scalar of one image, in the precision that derivatives are taken in."""
    one = jax.ShapeDtypeStruct(a.shape[1:], wide_dtype(a.dtype))

    def score(wide: Array, x: Inputs) -> Array:
        return network.log_score(wide.astype(a.dtype), x, first(aim)).astype(wide.dtype)

    return trace(score, one, first(x))


def _notes(
    structure: Structure, choice: Choice, method: Method, elements: int, *, still: bool
) -> Iterator[str]:
    yield from (f"auto passed over {refusal}" for refusal in choice.refused)
    if not choice.engine.single:
        noisy = method.smoothing if not still else None
        inputs = f"{1 + (noisy.num_samples if noisy else 0)} inputs"
        most = "at most " if noisy and noisy.adaptive else ""
        yield f"derivatives along {elements} elements, for each of {most}{inputs}"
    if still and method.smoothing:
        yield f"{NO_NOISE}; the noisy passes were skipped"
    if structure.pooled and _has_alpha(method):
        yield POOLED


def _check_question(structure: Structure, choice: Choice, target: Target, method: Method) -> None:
    if structure.score is not Dependence.VARYING:
        fail(
            method.name,
            needs="a layer on whose values the score depends",
            got="a score that does not depend on this layer"
            + (" except through comparisons" if structure.score is Dependence.FLAT else ""),
            remedy="Choose a layer on the way to the scores: see jaxcam.layers.",
        )
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


def _has_alpha(method: Method) -> bool:
    return method.order > 1 and method.scalar == "Y"


def check_network(split: Split, x: Inputs) -> None:
    """Try the network on abstract input, and say what does not fit."""
    batch = batch_of(x)
    shape = f"x of shape {' and '.join(str(leaf.shape) for leaf in jax.tree.leaves(x))}"
    try:
        a = jax.eval_shape(split.features, x)
        scores = jax.eval_shape(split.scores, a, x)
    except JaxcamError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise JaxcamError(
            f"split: needs a network that runs on [batch, *spatial, channel]; got {shape}, on "
            f"which it raised {type(error).__name__}: {line}. Check the rank and size of x."
        ) from error
    _check_array("features(x)", a, batch, "[batch, *spatial, k] with at least one spatial axis", 3)
    _check_array("scores(a, x)", scores, batch, "[batch, classes]", 2)


def _check_array(call: str, value: Any, batch: int | None, needs: str, rank: int) -> None:
    shape = getattr(value, "shape", None)
    if shape is None:
        fail(call, needs=f"one array {needs}", got=type(value).__name__, remedy="Pick one array.")
    if len(shape) < rank or shape[0] != batch:
        fail(
            call,
            needs=f"{needs}, batch {batch}",
            got=f"shape {shape}",
            remedy="Is x batched, and has the layer a spatial extent? See jaxcam.layers.",
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        fail(call, needs="floating values", got=value.dtype, remedy="Choose another layer.")
