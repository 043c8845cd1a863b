"""The public calls: explain a batch of inputs once, or averaged over noise."""

import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcam import explain, maps, noise
from jaxcam.derivatives.derive import check_chunk_size
from jaxcam.errors import JaxcamWarning, fail
from jaxcam.methods import grad_cam_pp
from jaxcam.precision import wide_dtype
from jaxcam.targets import as_target, check_class
from jaxcam.types import CAM, Method, Smoothing, Split, shared

Progress = Callable[[int, int], None]
SAMPLE_WEIGHTS = ("exact", "uniform")

_explain = jax.jit(explain.explain, static_argnames="settings")
_begin = jax.jit(explain.begin, static_argnames="settings")
_step = jax.jit(explain.step, static_argnames="settings", donate_argnames="average")
_finish = jax.jit(explain.finish, static_argnames="settings")


def smooth(
    method: Method,
    *,
    num_samples: int = 25,
    noise_level: Any = 0.15,
    sample_weights: str = "exact",
) -> Method:
    """Average a gradient method over noisy inputs ``x_n = x + sigma eps_n``, ``eps_n ~ N(0, 1)``.

    ``sigma = noise_level (max x - min x)`` per image. ``D1``, ``D2``, ``D3`` are averaged over the
    samples, each on its own; the activations in alpha and in the map are the clean ones::

        mean D_k = sum_n w_n B_k,n / sum_n w_n        w_n = Y_n = e^{u_n}

    Args:
        method: one of `jaxcam.methods`.
        num_samples: n, at least 1.
        noise_level: the deviation of the noise as a share of the image's range, at least 0.
        sample_weights: ``exact`` weighs sample ``n`` by ``Y_n``, which is what the mean of ``D_k``
            is; ``uniform`` sets every ``Y_n`` to one, as public implementations do.

    >>> import jaxcam
    >>> method = jaxcam.smooth(jaxcam.methods.grad_cam(), num_samples=50)
    """
    if not isinstance(num_samples, numbers.Integral) or num_samples < 1:
        fail("smooth", needs="num_samples of at least 1", got=num_samples, remedy="Default: 25.")
    _check_noise_level(noise_level)
    if sample_weights not in SAMPLE_WEIGHTS:
        fail(
            "smooth",
            needs=f"sample_weights {' or '.join(SAMPLE_WEIGHTS)}",
            got=repr(sample_weights),
            remedy="See its docstring.",
        )
    return method._replace(smoothing=Smoothing(int(num_samples), noise_level, sample_weights))


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
    sample_weights: str = "exact",
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> CAM:
    """Explain images by Smooth Grad-CAM++ (arXiv 1908.01224), with exact derivatives.

    With ``D_k`` the k-th derivatives of ``Y = e^u`` along each activation, averaged over noisy
    inputs (`smooth`), and ``A`` the clean activations::

        alpha = D2 / (2 D2 + (sum A) D3)    w_k = sum alpha ReLU(D1)    map = ReLU(sum_k w_k A^k)

    Args:
        numerator: ``d2`` (Grad-CAM++ at one noiseless sample) or ``d1`` (the paper as printed).
        poles: ``bounded`` or ``raw``, see `jaxcam.alphas.alphas`.
        split, x, target, key, engine, channels, neurons, chunk_size, progress: as in `cam`.
        num_samples, noise_level, sample_weights: as in `smooth`.

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
    )
    return cam(
        split, x, method, target, key=key, engine=engine, channels=channels, neurons=neurons,
        chunk_size=chunk_size, progress=progress,
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
    progress: Progress | None = None,
) -> CAM:
    """Explain images by any method of `jaxcam.methods`, smoothed (`smooth`) or not.

    One compiled program does head, noise, derivatives, weights and map for the batch. It is
    compiled once for its shapes and options: a new image, key, class, noise level or new weights
    reuse it.
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
        progress: called as ``progress(done, total)`` after each chunk of samples, which are then
            run from Python; for programs with a person waiting.

    Returns:
        `CAM`: map, signed map, weights, scores, target and diagnostics, all on the device.

    Raises:
        JaxcamError: what was asked cannot be answered; the message says why and what to do.
        NotProved: an engine asked for by name does not apply.

    Warns:
        JaxcamWarning: a map is blank, with the likely reason.
    """
    x = check_input(x, method.name)
    check_chunk_size(chunk_size)
    target, (channels, neurons) = as_target(target), maps.check_subset(channels, neurons)
    keys, level, compiled = _noise(method, key, x)
    job = explain.Job(shared(split), x, target, keys, level, channels, neurons)
    settings = explain.Settings(compiled, engine, chunk_size)
    result = _explain(job, settings) if progress is None else _shown(job, settings, progress)
    maps.check_channels(channels, result.weights.shape[-1])
    check_class(target, result.scores.shape[-1])
    return _checked(result, method)


def _noise(method: Method, key: Array | None, x: Array) -> tuple[Array | None, Array, Method]:
    """Take the noise level out of the method: it is an array, and a new one compiles nothing."""
    wide = wide_dtype(x.dtype)
    smoothing = method.smoothing
    if smoothing is None:
        return None, jnp.zeros((), wide), method
    if key is None:
        fail(method.name, needs="a key", got="none", remedy="Pass key=jax.random.key(0).")
    level = jnp.asarray(smoothing.noise_level, wide)
    bare = method._replace(smoothing=smoothing._replace(noise_level=None))
    return noise.keys_of(key, len(x)), level, bare


def _shown(job: explain.Job, settings: explain.Settings, progress: Progress) -> CAM:
    """Run the program's parts from Python, so that somebody can watch."""
    clean = _begin(job, settings)
    if not clean.report.noisy:
        return _finish(job, settings, clean, None)
    average = explain.initial(settings, clean)
    ids = explain.chunks(job, settings, clean)
    progress(0, len(ids))
    for done, chunk in enumerate(ids, start=1):
        average = jax.block_until_ready(_step(job, settings, clean, average, chunk))
        progress(done, len(ids))
    return _finish(job, settings, clean, average)


def _checked(result: CAM, method: Method) -> CAM:
    """Let nothing non-finite and nothing blank leave silently, where values are known."""
    d = result.diagnostics
    if isinstance(d.finite, Tracer):
        return result
    finite, blank = jax.device_get((d.finite, d.blank))
    if not finite.all():
        fail(
            method.name,
            needs="finite maps",
            got=f"NaN or infinity in image {np.flatnonzero(~finite).tolist()}",
            remedy="Are the weights and scores finite? With poles='raw', alpha may be at a pole: "
            "use poles='bounded'.",
        )
    if blank.any():
        warnings.warn(
            f"{method.name}: the map of image {np.flatnonzero(blank).tolist()} is blank: no "
            "feature map that is active in this layer has a positive weight for this class.",
            JaxcamWarning,
            stacklevel=3,
        )
    return result


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


def _check_noise_level(noise_level: Any) -> None:
    if isinstance(noise_level, Tracer):
        return
    level = np.asarray(noise_level)
    if level.shape != () or not np.isfinite(level) or level < 0:
        fail("smooth", needs="a noise_level of 0 or more", got=noise_level, remedy="Default: 0.15.")
