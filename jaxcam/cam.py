"""The public calls: explain a batch of inputs once, or averaged over noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import devices, explain, inputs, maps, noise, samples
from jaxcam.checks import check_input, check_result
from jaxcam.derivatives import chunks
from jaxcam.errors import fail
from jaxcam.inputs import Inputs, Key
from jaxcam.job import Clean, Job, Settings
from jaxcam.methods import grad_cam_pp
from jaxcam.precision import wide_dtype
from jaxcam.smoothing import smooth
from jaxcam.targets import as_target, check_class
from jaxcam.types import CAM, ChunkSize, Method, Split, Spread, shared

Progress = Callable[[int, int], None]

_explain = jax.jit(explain.explain, static_argnames="settings")
_begin = jax.jit(explain.begin, static_argnames="settings")
_step = jax.jit(samples.step, static_argnames="settings", donate_argnames="average")
_advance = jax.jit(samples.advance, static_argnames="settings", donate_argnames="run")
_finish = jax.jit(explain.finish, static_argnames="settings")


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
    noisy: Key = None,
    chunk_size: ChunkSize = "auto",
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
        num_samples, noise_level, sample_weights, scheme, tolerance, max_samples, noisy: as in
            `smooth`.

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
        noisy=noisy,
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
    chunk_size: ChunkSize = "auto",
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
        x: inputs ``[batch, *spatial, channel]``, floating; or a tuple or dict of several inputs,
            which the split's functions take as they are.
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
            rounding. ``auto``: as many as are fast, and fit the device.
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
    chunk = chunks.checked(chunk_size)
    batch = inputs.batch_of(x) or 0
    devices.check(spread, batch, shown=progress is not None)
    target, (channels, neurons) = as_target(target), maps.check_subset(channels, neurons)
    numbers, compiled = _noise(method, key, x, batch)
    job = Job(shared(split), x, target, *numbers, channels, neurons)
    settings = Settings(compiled, engine, chunk, spread)
    if spread is not None:
        job = devices.placed(job, spread, explain.per_image(job))
    result = _explain(job, settings) if progress is None else _shown(job, settings, progress)
    maps.check_channels(channels, result.weights.shape[-1])
    check_class(target, result.scores.shape[-1])
    return check_result(result, method)


class _Numbers(NamedTuple):
    """The numbers of a smoothing: arrays, so that new ones compile nothing."""

    keys: Array | None
    noise_level: Array
    temper: Array
    tolerance: Array


def _noise(method: Method, key: Array | None, x: Inputs, batch: int) -> tuple[_Numbers, Method]:
    """Take the numbers out of the method, and leave what the program is compiled for."""
    wide = wide_dtype(inputs.dtype_of(x))
    smoothing = method.smoothing
    if smoothing is None:
        zero = jnp.zeros((), wide)
        return _Numbers(None, zero, zero, zero), method
    if key is None:
        fail(method.name, needs="a key", got="none", remedy="Pass key=jax.random.key(0).")
    tolerance = smoothing.tolerance if smoothing.adaptive else 0.0
    given = (smoothing.noise_level, smoothing.temper, tolerance)
    noisy = inputs.noisy_key(method.name, x, smoothing.noisy)
    bare = smoothing._replace(noise_level=None, temper=None, tolerance=None, noisy=noisy)
    keys = noise.keys_of(key, batch)
    arrays = (jnp.asarray(value, wide) for value in given)
    return _Numbers(keys, *arrays), method._replace(smoothing=bare)


def _shown(job: Job, settings: Settings, progress: Progress) -> CAM:
    """Run the program's parts from Python, so that somebody can watch."""
    clean, smoothing = _begin(job, settings), settings.method.smoothing
    if not clean.report.noisy or smoothing is None:
        return _finish(job, settings, clean, None)
    if smoothing.adaptive:
        return _shown_until(job, settings, clean, progress)
    average = samples.initial(settings, clean)
    ids = samples.chunks(job, settings, clean, smoothing.num_samples)
    progress(0, len(ids))
    for done, chunk in enumerate(ids, start=1):
        average = jax.block_until_ready(_step(job, settings, clean, average, chunk))
        progress(done, len(ids))
    return _finish(job, settings, clean, average)


def _shown_until(job: Job, settings: Settings, clean: Clean, progress: Progress) -> CAM:
    """Run a round at a time until no image needs more."""
    run, done = samples.first_run(settings, clean), 0
    total = -(-settings.smoothing.num_samples // samples.round_length(settings))
    progress(done, total)
    while run.open.any():
        run, done = _advance(job, settings, clean, run), done + 1
        progress(done, total if run.open.any() else done)
    return _finish(job, settings, clean, run.average)
