"""What may go into a call and what may come out of one, where values are known."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcam.errors import JaxcamWarning, fail
from jaxcam.inputs import Inputs, batch_of, is_several
from jaxcam.types import CAM, Diagnostics, Method, Smoothing

FEW = 0.25  # of the samples: where fewer carry the weight, the user is told


def check_input(x: Any, call: str) -> Inputs:
    """Refuse what is no batch of finite inputs, for a call of that name."""
    if not is_several(x):
        return _checked(x, call)
    # Not jax.tree.map: an input that is None, or several itself, is to be refused.
    several = dict(enumerate(x)) if isinstance(x, tuple) else x
    values = {key: _one_of(value, f"{call}: x[{key!r}]") for key, value in several.items()}
    if not any(jnp.issubdtype(value.dtype, jnp.floating) for value in values.values()):
        got = ", ".join(str(value.dtype) for value in values.values()) or "none"
        fail(call, needs="a floating input among x", got=got, remedy="Convert as in training.")
    if batch_of(values) is None:
        got = ", ".join(f"{key!r}: {value.shape}" for key, value in values.items())
        remedy = "Give each input the batch axis first, and as many examples."
        fail(call, needs="inputs of one batch", got=got, remedy=remedy)
    return tuple(values.values()) if isinstance(x, tuple) else values


def _checked(x: Any, call: str) -> Array:
    x = x if isinstance(x, Array) else np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        fail(
            call,
            needs="floating input",
            got=x.dtype,
            remedy="Convert as in training, for example x.astype('float32') / 255.",
        )
    if x.ndim < 3 or math.prod(x.shape) == 0:
        fail(
            call,
            needs="x of shape [batch, *spatial, channel]",
            got=f"shape {x.shape}",
            remedy="Add the batch axis: x[None].",
        )
    return _finite(jnp.asarray(x), call)


def _one_of(value: Any, call: str) -> Array:
    """One of several inputs: any array with a batch axis, which need not be floating."""
    value = value if isinstance(value, Array) else np.asarray(value)
    numeric = value.dtype == bool or jnp.issubdtype(value.dtype, jnp.number)
    if not numeric or math.prod(value.shape) == 0 or not value.ndim:
        got = f"{value.dtype} of shape {value.shape}"
        fail(call, needs="an array [batch, ...]", got=got, remedy="Give it the batch axis.")
    return _finite(jnp.asarray(value), call)


def _finite(x: Array, call: str) -> Array:
    if not isinstance(x, Tracer) and not bool(_all_finite(x)):
        fail(call, needs="finite input", got="NaN or infinity in x", remedy="Clean the input.")
    return x


@jax.jit
def _all_finite(x: Array) -> Array:
    return jnp.isfinite(x).all()


def check_result(result: CAM, method: Method) -> CAM:
    """Let nothing non-finite and nothing blank leave silently, where values are known."""
    d = result.diagnostics
    if isinstance(d.finite, Tracer):
        return result
    d = jax.device_get(d)
    if not d.finite.all():
        fail(
            method.name,
            needs="finite maps",
            got=f"NaN or infinity in image {_where(~d.finite)}",
            remedy="Are the weights and scores finite? With poles='raw', alpha may be at a pole: "
            "use poles='bounded'.",
        )
    for words in _complaints(d, method.smoothing):
        warnings.warn(f"{method.name}: {words}", JaxcamWarning, stacklevel=3)
    return result


def _complaints(d: Diagnostics, smoothing: Smoothing | None) -> Iterator[str]:
    """Word what is correct and probably not wanted. ``d``: on the host."""
    if d.blank.any():
        yield (
            f"the map of image {_where(d.blank)} is blank: no feature map that is active in this "
            "layer has a positive weight for this class."
        )
    if smoothing is None or d.num_samples is None or d.effective_samples is None:
        return
    few = d.effective_samples < FEW * d.num_samples
    if few.any():
        least = (d.effective_samples / d.num_samples).argmin()
        yield (
            f"{d.effective_samples[least]:.1f} effective samples of {d.num_samples[least]} carry "
            f"the map of image {_where(few)}: the score differs so much from sample to sample that "
            "few of them hold its mean. Take more samples, or temper their weights: "
            "sample_weights=t, from 1 (exact) down to 0 (uniform)."
        )
    tolerance = smoothing.tolerance
    if d.relative_error is None or not smoothing.adaptive or isinstance(tolerance, Tracer):
        return
    late = d.relative_error > np.asarray(tolerance, d.relative_error.dtype)
    if late.any():
        yield (
            f"max_samples={smoothing.num_samples} left the standard error of image {_where(late)} "
            f"at {d.relative_error.max():.2g} of the map's largest value, above the tolerance of "
            f"{float(tolerance):.2g}. Allow more samples."
        )


def _where(chosen: Any) -> list[int]:
    return np.flatnonzero(chosen).tolist()
