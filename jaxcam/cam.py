"""The public calls: explain a batch of inputs once, or averaged over noise."""

import math
import numbers
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcam import devices, explain, maps, noise
from jaxcam.derivatives.derive import check_chunk_size
from jaxcam.errors import JaxcamWarning, fail
from jaxcam.methods import grad_cam_pp
from jaxcam.precision import wide_dtype
from jaxcam.targets import as_target, check_class
from jaxcam.types import CAM, Diagnostics, Method, Smoothing, Split, Spread, shared

Progress = Callable[[int, int], None]
SAMPLE_WEIGHTS = {"exact": 1.0, "uniform": 0.0}
FEW = 0.25  # of the samples: where fewer carry the weight, the user is told

_explain = jax.jit(explain.explain, static_argnames="settings")
_begin = jax.jit(explain.begin, static_argnames="settings")
_step = jax.jit(explain.step, static_argnames="settings", donate_argnames="average")
_advance = jax.jit(explain.advance, static_argnames="settings", donate_argnames="run")
_finish = jax.jit(explain.finish, static_argnames="settings")


def smooth(
    method: Method,
    *,
    num_samples: int = 25,
    noise_level: Any = 0.15,
    sample_weights: Any = "exact",
    scheme: str = "independent",
    tolerance: Any = None,
    max_samples: int = 1024,
) -> Method:
    """Average a gradient method over noisy inputs ``x_n = x + sigma eps_n``, ``eps_n ~ N(0, I)``.

    ``sigma = noise_level (max x - min x)`` per image. ``D1``, ``D2``, ``D3`` are averaged over the
    samples, each on its own; the activations in alpha and in the map are the clean ones::

        mean D_k = sum_n w_n B_k,n / sum_n w_n        w_n = Y_n^t = e^{t u_n}

    Every scheme is unbiased: each ``eps_n`` alone is ``N(0, I)`` (`jaxcam.noise`). The standard
    errors in the diagnostics are those of the scheme, from independent groups of samples that
    depend on each other (`jaxcam.average`).

    Args:
        method: one of `jaxcam.methods`.
        num_samples: n, at least 1. Not used with a tolerance.
        noise_level: the deviation of the noise as a share of the image's range, at least 0.
        sample_weights: ``exact``, t = 1, weighs sample ``n`` by ``Y_n``, which is what the mean of
            ``D_k`` is; ``uniform``, t = 0, sets every ``Y_n`` to one, as public implementations do.
            A number from 0 to 1 is ``t`` itself: where scores differ much from sample to sample, a
            few of them carry the exact mean (``diagnostics.effective_samples``), and stated errors
            are then too small: of samples that were not met nothing is known. A smaller ``t`` gives
            a steadier map of a question between the two.
        scheme: ``independent``; ``antithetic``, pairs ``eps`` and ``-eps``; ``orthogonal``, such
            pairs along directions at right angles, four at a time. An error needs two units of
            1, 2 or 8 samples, and is good from sixteen on.
        tolerance: take as many samples as it takes until the largest standard error of a map is at
            most this share of its largest value (``diagnostics.relative_error``), image by image.
            Looked at after 32 samples (``orthogonal``: 128), and then at every quarter more, so
            that an image's result depends neither on its neighbours nor on ``chunk_size``. Then
            the number of turns is not known in advance, and JAX cannot differentiate in reverse
            mode: `jax.grad` needs ``tolerance=None``.
        max_samples: where to stop in any case; used with a tolerance alone.

    Raises:
        JaxcamError: one of them is not what it should be.

    >>> import jaxcam
    >>> method = jaxcam.smooth(jaxcam.methods.grad_cam(), num_samples=50)
    >>> method = jaxcam.smooth(jaxcam.methods.grad_cam(), scheme="antithetic", tolerance=0.05)
    """
    if scheme not in noise.SCHEMES:
        fail(
            "smooth",
            needs=f"a scheme of {', '.join(noise.SCHEMES)}",
            got=repr(scheme),
            remedy="See its docstring.",
        )
    _check_count("num_samples", num_samples, 1, "Default: 25.")
    adaptive = tolerance is not None
    if adaptive:
        least = 2 * noise.SCHEMES[scheme].unit
        _check_count("max_samples", max_samples, least, "An error needs two units of the scheme.")
        _check_number("tolerance", tolerance, 0, math.inf, "Try 0.05.")
    _check_number("noise_level", noise_level, 0, math.inf, "Default: 0.15.")
    return method._replace(
        smoothing=Smoothing(
            int(max_samples if adaptive else num_samples), noise_level, _temper(sample_weights),
            scheme, tolerance, adaptive,
        )
    )  # fmt: skip


def smooth_grad_cam_pp(
    split: Split,
    x: Any,
    target: Any = None,
    *,
    key: Array,
    num_samples: int = 25,
    noise_level: Any = 0.15,
    engine: str = "auto",
    channels: Any = None,
    neurons: Any = None,
    numerator: str = "d2",
    poles: str = "bounded",
    sample_weights: Any = "exact",
    scheme: str = "independent",
    tolerance: Any = None,
    max_samples: int = 1024,
    chunk_size: int | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> CAM:
    """Explain images by Smooth Grad-CAM++ (arXiv 1908.01224), with exact derivatives.

    With ``D_k`` the k-th derivatives of ``Y = e^u`` along each activation, averaged over noisy
    inputs (`smooth`), and ``A`` the clean activations::

        alpha = D2 / (2 D2 + (sum A) D3)    w_k = sum alpha ReLU(D1)    map = ReLU(sum_k w_k A^k)

    Args:
        numerator: ``d2`` (Grad-CAM++ at one noiseless sample) or ``d1`` (the paper as printed).
        poles: ``bounded`` or ``raw``, see `jaxcam.alphas.alphas`.
        split, x, target, key, engine, channels, neurons, chunk_size, spread, progress: as in `cam`.
        num_samples, noise_level, sample_weights, scheme, tolerance, max_samples: as in `smooth`.

    Deviations from the paper: the numerator is D2 by default, and poles are bounded. Both are
    options.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> weights = jnp.array([[1.0, -1.0], [0.5, 2.0]])
    >>> split = jaxcam.Split(
    ...     features=lambda x: jnp.tanh(x),
    ...     scores=lambda a, x: jax.nn.silu(a.mean(axis=(1, 2)) @ weights),
    ... )
    >>> x = jnp.linspace(0.0, 1.0, 32).reshape(1, 4, 4, 2)
    >>> result = jaxcam.smooth_grad_cam_pp(split, x, key=jax.random.key(0))
    >>> result.map.shape, result.diagnostics.report.engine
    ((1, 4, 4), 'peeled')
    """
    method = smooth(
        grad_cam_pp(numerator=numerator, poles=poles),
        num_samples=num_samples,
        noise_level=noise_level,
        sample_weights=sample_weights,
        scheme=scheme,
        tolerance=tolerance,
        max_samples=max_samples,
    )
    return cam(
        split, x, method, target, key=key, engine=engine, channels=channels, neurons=neurons,
        chunk_size=chunk_size, spread=spread, progress=progress,
    )  # fmt: skip


def cam(
    split: Split,
    x: Any,
    method: Method,
    target: Any = None,
    *,
    key: Array | None = None,
    engine: str = "auto",
    channels: Any = None,
    neurons: Any = None,
    chunk_size: int | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> CAM:
    """Explain images by any method of `jaxcam.methods`, smoothed (`smooth`) or not.

    One compiled program does head, noise, derivatives, weights and map for the batch. It is
    compiled once for its shapes and options: a new image, key, class, noise level, tolerance, other
    sample weights or weights of the network reuse it.
    Inside your own ``jit``, ``vmap`` or ``grad`` it is traced along; the checks of values below are
    then left to you, in ``result.diagnostics.finite`` and ``.blank``.

    Args:
        split: a network cut at the layer to explain, from `jaxcam.split` or a pair of functions.
        x: inputs ``[batch, *spatial, channel]``, floating.
        method: what turns derivatives into weights.
        target: from `jaxcam.targets`; a class index, or one per image, means ``exp_logit`` of it;
            None the top class of each image.
        key: a JAX random key, or one per image; needed by smoothed methods. One key draws the same
            noise for every image of the batch.
        engine: ``auto``, or a name as in `jaxcam.log_derivatives`.
        channels: a subset of feature maps, as indices or booleans ``[k]``.
        neurons: a subset of neurons, as booleans ``[*spatial, k]``, or one mask per image. Weights
            come from all neurons, and the map from those of the subset.
        chunk_size: how many noisy samples are in flight at once per image or, where one gradient
            is not enough, how many elements; it bounds the memory and changes nothing else beyond
            rounding.
        spread: several devices, from `jaxcam.spread`; the same result, to rounding.
        progress: called as ``progress(done, total)`` after each chunk of samples, which are then
            run from Python; for programs with a person waiting. With a tolerance after each round
            of chunks; ``total`` is then the most there can be, and ``done`` in the last call.

    Returns:
        `CAM`: map, signed map, weights, scores, target and diagnostics, all on the device.

    Raises:
        JaxcamError: what was asked cannot be answered; the message says why and what to do.
        NotProved: an engine asked for by name does not apply.

    Warns:
        JaxcamWarning: a map is blank, with the likely reason; fewer than a quarter of the samples
            carry it; or ``max_samples`` were not enough for the tolerance.
    """
    x = check_input(x, method.name)
    check_chunk_size(chunk_size)
    devices.check(spread, len(x), shown=progress is not None)
    target, (channels, neurons) = as_target(target), maps.check_subset(channels, neurons)
    numbers, compiled = _noise(method, key, x)
    job = explain.Job(shared(split), x, target, *numbers, channels, neurons)
    settings = explain.Settings(compiled, engine, chunk_size, spread)
    if spread is not None:
        job = devices.placed(job, spread, explain.per_image(job))
    result = _explain(job, settings) if progress is None else _shown(job, settings, progress)
    maps.check_channels(channels, result.weights.shape[-1])
    check_class(target, result.scores.shape[-1])
    return _checked(result, method)


class _Numbers(NamedTuple):
    """The numbers of a smoothing: arrays, so that new ones compile nothing."""

    keys: Array | None
    noise_level: Array
    temper: Array
    tolerance: Array


def _noise(method: Method, key: Array | None, x: Array) -> tuple[_Numbers, Method]:
    """Take the numbers out of the method, and leave what the program is compiled for."""
    wide = wide_dtype(x.dtype)
    smoothing = method.smoothing
    if smoothing is None:
        zero = jnp.zeros((), wide)
        return _Numbers(None, zero, zero, zero), method
    if key is None:
        fail(method.name, needs="a key", got="none", remedy="Pass key=jax.random.key(0).")
    tolerance = smoothing.tolerance if smoothing.adaptive else 0.0
    given = (smoothing.noise_level, smoothing.temper, tolerance)
    bare = smoothing._replace(noise_level=None, temper=None, tolerance=None)
    keys = noise.keys_of(key, len(x))
    arrays = (jnp.asarray(value, wide) for value in given)
    return _Numbers(keys, *arrays), method._replace(smoothing=bare)


def _shown(job: explain.Job, settings: explain.Settings, progress: Progress) -> CAM:
    """Run the program's parts from Python, so that somebody can watch."""
    clean, smoothing = _begin(job, settings), settings.method.smoothing
    if not clean.report.noisy or smoothing is None:
        return _finish(job, settings, clean, None)
    if smoothing.adaptive:
        return _shown_until(job, settings, clean, progress)
    average = explain.initial(settings, clean)
    ids = explain.chunks(job, settings, clean, smoothing.num_samples)
    progress(0, len(ids))
    for done, chunk in enumerate(ids, start=1):
        average = jax.block_until_ready(_step(job, settings, clean, average, chunk))
        progress(done, len(ids))
    return _finish(job, settings, clean, average)


def _shown_until(
    job: explain.Job, settings: explain.Settings, clean: explain.Clean, progress: Progress
) -> CAM:
    """Run a round at a time until no image needs more."""
    run, done = explain.first_run(settings, clean), 0
    total = -(-explain.most_samples(settings) // explain.round_length(settings))
    progress(done, total)
    while run.open.any():
        run, done = _advance(job, settings, clean, run), done + 1
        progress(done, total if run.open.any() else done)
    return _finish(job, settings, clean, run.average)


def _checked(result: CAM, method: Method) -> CAM:
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
    if d.relative_error is None or not smoothing.adaptive or _is_traced(smoothing.tolerance):
        return
    late = d.relative_error > np.asarray(smoothing.tolerance, d.relative_error.dtype)
    if late.any():
        yield (
            f"max_samples={smoothing.num_samples} left the standard error of image {_where(late)} "
            f"at {d.relative_error.max():.2g} of the map's largest value, above the tolerance of "
            f"{float(smoothing.tolerance):.2g}. Allow more samples."
        )


def _where(chosen: Any) -> list[int]:
    return np.flatnonzero(chosen).tolist()


def _is_traced(value: Any) -> bool:
    return isinstance(value, Tracer)


def check_input(x: Any, call: str) -> Array:
    """Refuse what is no batch of finite inputs, for a call of that name."""
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
    x = jnp.asarray(x)
    if not isinstance(x, Tracer) and not bool(_all_finite(x)):
        fail(call, needs="finite input", got="NaN or infinity in x", remedy="Clean the input.")
    return x


@jax.jit
def _all_finite(x: Array) -> Array:
    return jnp.isfinite(x).all()


def _temper(sample_weights: Any) -> Any:
    """Give ``t`` of ``w_n = e^{t u_n}``."""
    if isinstance(sample_weights, str) and sample_weights in SAMPLE_WEIGHTS:
        return SAMPLE_WEIGHTS[sample_weights]
    names = " or ".join(SAMPLE_WEIGHTS)
    if isinstance(sample_weights, str):
        fail(
            "smooth",
            needs=f"sample_weights {names}, or a number from 0 to 1",
            got=repr(sample_weights),
            remedy="See its docstring.",
        )
    _check_number("sample_weights", sample_weights, 0, 1, f"Or by name: {names}.")
    return sample_weights


def _check_count(name: str, count: Any, least: int, remedy: str) -> None:
    if not isinstance(count, numbers.Integral) or count < least:
        fail("smooth", needs=f"{name} of at least {least}", got=count, remedy=remedy)


def _check_number(name: str, number: Any, least: float, most: float, remedy: str) -> None:
    if isinstance(number, Tracer):
        return
    value = np.asarray(number)
    numeric = value.shape == () and np.issubdtype(value.dtype, np.number)
    if not numeric or not np.isfinite(value) or not least <= value <= most:
        needs = f"a {name} from {least} to {most}" if most < math.inf else f"a {name} of 0 or more"
        fail("smooth", needs=needs, got=number, remedy=remedy)
