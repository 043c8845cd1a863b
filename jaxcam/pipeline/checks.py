"""What may go into a call and what may come out of one, where values are known."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.door import as_array, known
from jaxcam.arrays.inputs import Inputs, batch_of, is_several, sorted_out
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Game, Gradient, Method, Path, Smoothing
from jaxcam.errors import JaxcamWarning, fail
from jaxcam.pipeline import blank
from jaxcam.pipeline.aim import empty_regions
from jaxcam.pipeline.path import LEVEL
from jaxcam.pipeline.points import complete
from jaxcam.targets import Target
from jaxcam.types import CAM, Diagnostics

GAP = 0.05  # of the difference that a map divides: where it leaves more, the user is told
FEW = 0.25  # of the samples: where fewer carry the weight, the user is told


def check_method(method: Any) -> None:
    """Refuse what is no method, such as its name."""
    if not isinstance(method, Method):
        by_name = f"jaxcam.methods.make({method!r})" if isinstance(method, str) else ""
        called = "A method is made by a call: jaxcam.methods.grad_cam()."
        fail(
            "cam",
            needs="a method, from jaxcam.methods",
            got=repr(method) if isinstance(method, str) else f"a {type(method).__name__}",
            remedy=f"By its name: {by_name}." if by_name else called,
        )


def check_progress(progress: Any) -> None:
    """Refuse what cannot be told how far a run has come."""
    if progress is not None and not callable(progress):
        remedy = "For example progress=lambda done, total: print(done, total)."
        fail("progress", needs="a function of (done, total)", got=repr(progress), remedy=remedy)


def check_input(x: Any, call: str) -> Inputs:
    """Refuse what is no batch of finite inputs, for a call of that name."""
    x = sorted_out(x)
    if not is_several(x):
        return _finite(_one(as_array(x, call), call), call)
    # Not jax.tree.map: an input that is None, or several itself, is to be refused.
    several = dict(enumerate(x)) if isinstance(x, tuple) else x
    values = {key: _one_of(value, f"{call}: x[{key!r}]") for key, value in several.items()}
    if not values:
        fail(call, needs="an input", got="none", remedy="Pass x, as the model is called.")
    if batch_of(values) is None:
        got = ", ".join(f"{key!r}: {value.shape}" for key, value in values.items())
        remedy = "Give each input the batch axis first, and as many examples."
        fail(call, needs="inputs of one batch", got=got, remedy=remedy)
    return tuple(values.values()) if isinstance(x, tuple) else values


def _one(x: Array, call: str) -> Array:
    """The only input: integers may be names, which have no axis of channels."""
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        remedy = "Pass real and imaginary parts as two channels, as in training."
        fail(call, needs="real input", got=x.dtype, remedy=remedy)
    if x.ndim < (3 if floating else 2) or x.size == 0:
        fail(
            call,
            needs="x of shape [batch, *spatial, channel]",
            got=f"shape {x.shape}",
            remedy="Add the batch axis: x[None]."
            if x.ndim != 2
            else "Add the axis that is missing, the batch axis by x[None]; names of tokens, "
            "[batch, length], are integers.",
        )
    return x


def _one_of(value: Any, call: str) -> Array:
    """One of several inputs: any array with a batch axis, which need not be floating."""
    if isinstance(value, list | tuple | Mapping) and is_several(sorted_out(value)):
        remedy = "Give the inputs side by side, in the order in which the model takes them."
        fail(call, needs="one array", got=f"a {type(value).__name__} of several", remedy=remedy)
    array = as_array(value, call)
    if array.size == 0 or not array.ndim:
        got = f"{array.dtype} of shape {array.shape}"
        fail(call, needs="an array [batch, ...]", got=got, remedy="Give it the batch axis.")
    return _finite(array, call)


def _finite(x: Array, call: str) -> Array:
    finite = known(_all_finite(x))
    if finite is not None and not finite:
        fail(call, needs="finite input", got="NaN or infinity in x", remedy="Clean the input.")
    return x


@jax.jit
def _all_finite(x: Array) -> Array:
    return jnp.isfinite(x).all()


def check_sign(method: Method, *, signed: bool) -> None:
    """Refuse a signed map of a method whose sign says nothing."""
    if signed and not method.has_sign:
        fail(
            method.name,
            needs="a method whose sign says for or against, for signed=True",
            got="one of sizes, probabilities or rectified weights, where a negative value speaks "
            "against nothing",
            remedy="Leave signed=False, or take grad_cam, hires_cam, taylor_cam or a path "
            "(jaxcam.integrate).",
        )


def check_result(
    result: CAM,
    method: Method,
    target: Target,
    why: Callable[[int], str | None],
    *,
    subset: bool = False,
) -> CAM:
    """Let nothing non-finite and nothing blank leave silently, where values are known.

    why: names what is not finite in an image, if it finds it. subset: the map is that of chosen
    feature maps or neurons.
    """
    d = _known(result.diagnostics)
    if d.finite is None or d.blank is None:
        return result
    if not d.finite.all():
        _refuse_not_finite(result, method, where(~d.finite), why)
    empty = np.asarray(empty_regions(target, result.scores, result.target))
    sure = _too_sure(result, target)
    for words in _complaints(d, method, empty, sure, subset=subset):
        warnings.warn(f"{method.name}: {words}", JaxcamWarning, stacklevel=3)
    return result


def _known(d: Diagnostics) -> Any:
    """Bring to the host what is looked at here; None where it is not known."""
    looked_at = (
        "finite", "blank", "seen", "num_samples", "effective_samples", "relative_error", "total",
        "gap",
    )  # fmt: skip
    values = {name: getattr(d, name) for name in looked_at}
    return d._replace(**{k: None if v is None else known(v) for k, v in values.items()})


def _refuse_not_finite(
    result: CAM, method: Method, bad: list[int], why: Callable[[int], str | None]
) -> NoReturn:
    """Name the score that is infinite, or the operation that is not finite."""
    got = f"NaN or infinity in image {bad}"
    remedy = (
        "Are the weights and scores finite? With poles='raw', alpha may be at a pole: use "
        "poles='bounded'."
    )
    scores, index = np.asarray(result.scores[bad[0]]), int(result.target[bad[0]])
    infinite = np.flatnonzero(np.isinf(scores)) if scores.ndim == 1 else np.array([], int)
    if infinite.size:
        which = index if index in infinite else int(infinite[0])
        remedy = (
            f"The score of class {which} is {scores[which]}: masked out, or the logarithm of a "
            "probability of 0? Explain another class, or cut before the softmax (Keras: a last "
            "layer without activation; Flax: return the logits), with jaxcam.targets.softmax()."
        )
    elif (operation := why(bad[0])) is not None:
        got = f"{got}: {operation}"
        remedy = (
            "Keep the operation off that value in the network (under a root or a logarithm, add a "
            "small number), or explain a layer behind it."
        )
    fail(method.name, needs="finite maps", got=got, remedy=remedy)


def _too_sure(result: CAM, target: Target) -> dict[int, str]:
    """Say of images whose probability is 1, as far as numbers of its dtype go, how near it is."""
    if target.form.name != "softmax" or result.scores.ndim != 2:
        return {}
    scores, dtype = np.asarray(result.scores, np.float64), widen(result.scores).dtype
    own = np.take_along_axis(scores, np.asarray(result.target)[:, None], 1)
    others = np.where(np.arange(scores.shape[1]) == np.asarray(result.target)[:, None], -np.inf,
                      scores - own)  # fmt: skip
    rest = np.logaddexp.reduce(others, axis=1) / np.log(10)
    least = np.log10(float(jnp.finfo(dtype).tiny))
    return {
        int(i): blank.SURE.format(dtype=dtype, rest=f"1e{rest[i]:.0f}" if rest[i] > -np.inf else 0)
        for i in np.flatnonzero(rest < least)
    }


def _complaints(
    d: Any, method: Method, empty: Any, sure: dict[int, str], *, subset: bool
) -> Iterator[str]:  # fmt: skip
    """Word what is correct and probably not wanted. ``d``: on the host.

    sure: the reason of images whose probability is too near to 1.
    """
    if empty.any():
        yield (
            f"the region of image {where(empty)} is empty, and its map blank: the class is on top "
            "in no pixel. Explain one that is, or give the region by mask=."
        )
    seen = d.seen if d.seen is not None else np.zeros_like(d.blank, int)
    facts = [blank.Seen(int(one)) for one in seen]
    other = blank.Seen.MOVES | blank.Seen.NEGATIVE | blank.Seen.ASKED
    reasons = np.array([
        sure[i] if i in sure and not fact & other else blank.why(fact, subset=subset)
        for i, fact in enumerate(facts)
    ])  # fmt: skip
    unmapped = d.blank & ~empty
    for reason in dict.fromkeys(reasons[unmapped]):
        which = where(unmapped & (reasons == reason))
        yield f"the map of image {which} is blank: {reason}."
    points = method.points if isinstance(method, Gradient) else None
    if isinstance(points, Smoothing) and d.effective_samples is not None:
        yield from _few(d, points)
    if isinstance(method, Game):
        yield from _level(d)
        yield from _late(d, method.tolerance if method.adaptive else None,
                         f"max_permutations={method.num_permutations}", "permutations")  # fmt: skip
    if isinstance(points, Path) and isinstance(method, Gradient) and d.gap is not None:
        yield from _incomplete(d, points, additive=complete(method))


def _few(d: Any, smoothing: Smoothing) -> Iterator[str]:
    """Word what samples were too few for."""
    few = d.effective_samples < FEW * d.num_samples
    if few.any():
        least = (d.effective_samples / d.num_samples).argmin()
        yield (
            f"{d.effective_samples[least]:.1f} effective samples of {d.num_samples[least]} carry "
            f"the map of image {where(few)}: the score differs so much from sample to sample that "
            "few of them hold its mean. Take more samples, or temper their weights: "
            "sample_weights=t, from 1 (exact) down to 0 (uniform)."
        )
    tolerance = smoothing.tolerance if smoothing.adaptive else None
    yield from _late(d, tolerance, f"max_samples={smoothing.num_points}", "samples")


def _late(d: Any, tolerance: Any, most: str, what: str) -> Iterator[str]:
    """Word that the most there may be left an error above the tolerance."""
    tolerance = None if tolerance is None else known(tolerance)
    error = "error of the map" if what == "nodes" else "standard error"
    if d.relative_error is None or tolerance is None:
        return
    late = d.relative_error > np.asarray(tolerance, d.relative_error.dtype)
    if late.any():
        worst = d.relative_error.max()
        size = f"at {worst:.2g} of the map's largest value"
        left = size if worst < np.inf else "beside a map that is zero everywhere"
        yield (
            f"{most} left the {error} of image {where(late)} {left}, above the tolerance of "
            f"{float(tolerance):.2g}. Allow more {what}."
        )


def _level(d: Any) -> Iterator[str]:
    """Word that there is nothing to divide."""
    level = abs(d.total) < LEVEL
    if level.any():
        yield (
            f"the score of image {where(level)} is the same at the baseline, to {LEVEL:g}: there "
            "is nothing to divide. Behind global pooling the mean over positions is such a "
            "baseline. Take another one."
        )


def _incomplete(d: Any, points: Path, *, additive: bool) -> Iterator[str]:
    """Word what is wrong with a path: it goes nowhere, or its nodes do not tell where it went."""
    yield from _level(d)
    tolerance = known(points.tolerance) if points.adaptive else None
    most = f"max_nodes={points.num_points}"
    yield from _late(d, tolerance, most, "nodes")
    asked = GAP if tolerance is None else np.asarray(tolerance, d.gap.dtype)
    open = (abs(d.total) >= LEVEL) & (d.gap > asked)
    if additive and open.any():
        worst = d.gap[open].max()
        yield (
            f"{f'{points.num_points} nodes' if tolerance is None else most} "
            f"leave{'s' * (tolerance is not None)} a gap of {worst:.2g} in the map of image "
            f"{where(open)}: it does not sum to u(A) - u(B). Take more nodes, "
            f"{'num_nodes' if tolerance is None else 'max_nodes'}=. {_reason(points)}"
        )


def _reason(points: Path) -> str:
    """Say why a gap may stay, and of zero activations that they are where it starts."""
    start = known(points.baseline) if points.given == "activations" else None
    if start is not None and not np.any(start):
        return (
            "The baseline is zero activations: before a normalisation the score jumps there, and "
            "the gap stays whatever the nodes. A picture as the baseline, baseline=None, is none."
        )
    return (
        "If the gap stays, the score jumps on the path: zero activations before a normalisation "
        "are such a start, and a picture as the baseline is none."
    )


def where(chosen: Any) -> list[int]:
    """List the numbers of the images that were chosen."""
    return np.flatnonzero(chosen).tolist()
