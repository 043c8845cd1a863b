"""The public calls: explain a batch of inputs once, or averaged over noise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import devices, maps
from jaxcam.arrays import inputs, meshes
from jaxcam.arrays.inputs import Key
from jaxcam.contracts import Gradient, Method, Path
from jaxcam.jaxprs import loops as chunks
from jaxcam.methods import grad_cam_pp
from jaxcam.methods.shapley import shapley as methods_shapley
from jaxcam.methods.smooth import smooth
from jaxcam.pipeline import batches, points, rounding, samples
from jaxcam.pipeline import program as explain
from jaxcam.pipeline.blame import blamed
from jaxcam.pipeline.checks import (
    check_input,
    check_method,
    check_progress,
    check_result,
    check_sign,
)
from jaxcam.pipeline.compiled import of_network
from jaxcam.pipeline.job import Begun, Clean, Job, Settings
from jaxcam.targets import as_target, check_class
from jaxcam.types import CAM, ChunkSize, Split, Spread, held, shared

Progress = Callable[[int, int], None]

_explain = of_network(explain.explain)
_begin = of_network(explain.begin)
_step = of_network(samples.step, donate=["average"])
_advance = of_network(samples.advance, donate=["run"])
_finish = of_network(explain.finish)
_look = of_network(rounding.look)


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
        poles: ``bounded`` or ``raw``, see `jaxcam.methods.alphas.alphas`.
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


def shapley(
    split: Split,
    x: Any,
    target: Any = None,
    *,
    key: Array,
    num_permutations: int = 64,
    tolerance: Any = None,
    max_permutations: int = 4096,
    baseline: Any = None,
    players: Any = None,
    chunk_size: ChunkSize = "auto",
    spread: Spread | None = None,
) -> CAM:
    """Divide what the score gains from a baseline among positions by their Shapley values.

    With ``v(S) = u(A at the positions of S, B elsewhere)``, positions as players, sampled by
    antithetic permutations, with standard errors (`jaxcam.methods.shapley`, which makes the method
    of `cam` that this is)::

        map_ij = mean over orders of  v(those before ij, and ij) - v(those before ij)

    Args:
        num_permutations, tolerance, max_permutations, baseline, players: as in
            `jaxcam.methods.shapley`.
        split, x, target, key, chunk_size, spread: as in `cam`. Devices share the images alone.

    Returns:
        `CAM`: ``signed`` sums to `Diagnostics.total`, ``u(A) - u(B)``; ``map`` is its positive
        part; `Diagnostics.standard_error` is that of each position.

    >>> import jax, jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(jnp.tanh, lambda a, x: jax.nn.silu(a.sum(axis=1)))
    >>> x = jnp.linspace(0.0, 1.0, 6).reshape(1, 6, 1)
    >>> result = jaxcam.shapley(split, x, key=jax.random.key(0), tolerance=0.01)
    >>> bool(result.diagnostics.relative_error[0] <= 0.01)
    True
    """
    method = methods_shapley(
        num_permutations=num_permutations, tolerance=tolerance, max_permutations=max_permutations,
        baseline=baseline, players=players,
    )  # fmt: skip
    return cam(split, x, method, target, key=key, chunk_size=chunk_size, spread=spread)


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
    signed: bool = False,
    chunk_size: ChunkSize = "auto",
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> CAM:
    """Explain images by any method of `jaxcam.methods`, as it is or averaged over points.

    Wrappers average a method's derivatives: `jaxcam.smooth` over noisy inputs, `jaxcam.integrate`
    over the nodes of a path.

    One compiled program does head, noise, derivatives, weights and map for the batch. It is
    compiled once for its shapes and options: a new image, key, class, noise level, tolerance, other
    sample weights or weights of the network reuse it.
    Inside your own ``jit``, ``vmap`` or ``grad`` it is traced along; the checks of values below are
    then left to you, in ``result.diagnostics.finite`` and ``.blank``.

    Args:
        split: a network cut at the layer to explain, from `jaxcam.split` or a pair of functions.
        x: inputs ``[batch, *spatial, channel]``, floating, or integers (token ids ``[batch,
            length]``, raw pixels) where no noise is added; or a tuple, list or dict of several,
            which the split's functions take as a tuple or dict. Any array of numbers will do,
            NumPy's, another library's or a nested list.
        method: what makes a map, from `jaxcam.methods`.
        target: from `jaxcam.targets`; a class index, or one per image, means ``exp_logit`` of it;
            None the top class of each image.
        key: a JAX random key, or one per image; needed by smoothed methods. One key draws the same
            noise for every image of the batch.
        engine: ``auto``, or a name as in `jaxcam.log_derivatives`.
        channels: a subset of feature maps, as indices or booleans ``[k]``.
        neurons: a subset of neurons, as booleans ``[*spatial, k]``, or one mask per image. Weights
            come from all neurons, and the map from those of the subset.
        signed: let the map keep what speaks against what is explained, as negative values: ``map``
            is then ``result.signed``, and standard errors and blank maps are of it. For methods
            whose sign has that meaning (`jaxcam.contracts.Gradient`); others refuse.
        chunk_size: how many inputs are in flight at once, images of the batch and noisy samples of
            them, and, where one gradient is not enough, how many elements of the layer. It bounds
            the memory, whatever the batch and the number of samples, and changes nothing else
            beyond rounding. ``auto``: as many as are fast, and fit the device.
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
        JaxcamWarning: a map is blank, with the reason; fewer than a quarter of the samples carry
            it; or ``max_samples`` were not enough for the tolerance.
    """
    check_method(method)
    check_progress(progress)
    x = check_input(x, method.name)
    check_sign(method, signed=signed)
    chunk = chunks.checked(chunk_size)
    batch = inputs.batch_of(x) or 0
    devices.check(spread, batch, shown=progress is not None)
    target, (channels, neurons) = as_target(target), maps.check_subset(channels, neurons)
    numbers, compiled = points.numbers_of(method, key, x, batch)
    change = method.change if isinstance(method, Gradient) else None
    change = None if change is None else held(change)
    job = Job(shared(split), x, target, numbers, channels, neurons, change)
    settings = Settings(compiled, engine, chunk, spread, bool(signed))
    if spread is not None:
        job = devices.placed(job, spread, batches.per_image(job))
    result = _explain(job, settings) if progress is None else _shown(job, settings, progress)
    if result.weights is not None:
        maps.check_channels(channels, result.weights.shape[-1])
    check_class(target, result.scores.shape[-1], result.target)
    result = rounding.settled(result, lambda doubtful: _look(job, settings, doubtful))
    subset = channels is not None or neurons is not None
    order = method.order if isinstance(method, Gradient) else 0
    why = partial(blamed, job, order)
    return check_result(result, method, target, why, subset=subset)


def _shown(job: Job, settings: Settings, progress: Progress) -> CAM:
    """Run the program's parts from Python, so that somebody can watch, chunk by chunk of images."""
    points = settings.method.points if isinstance(settings.method, Gradient) else None
    if points is None or (isinstance(points, Path) and points.several):
        return _explain(job, settings)
    job = meshes.undivided(job)
    rows = batches.rows(job, settings)
    if len(rows) == 1:
        return _shown_together(job, settings, progress)[0]
    sliced, results, before = batches.per_image(job), [], 0
    for images in rows:
        told = partial(_told, progress, before, len(rows) - len(results))
        result, done = _shown_together(batches.picked(job, sliced, images), settings, told)
        results.append(result)
        before += done
    return batches.joined(jax.tree.map(lambda *parts: jnp.stack(parts), *results), job)


def _told(progress: Progress, before: int, left: int, done: int, total: int) -> None:
    """Tell of one chunk of images; ``before``: steps of those that are ready, ``left``: chunks."""
    progress(before + done, before + left * total)


def _shown_together(job: Job, settings: Settings, progress: Progress) -> tuple[CAM, int]:
    """Run the program's parts for images that are explained together, and count the steps."""
    clean, over = _begin(job, settings), settings.points
    if not clean.report.averaged:
        return _finish(job, settings, clean, None), 0
    if over.adaptive:
        return _shown_until(job, settings, clean, progress)
    begun = Begun(job, settings, clean)
    average = samples.initial(begun)
    ids = samples.chunks(begun, over.num_points)
    progress(0, len(ids))
    for done, chunk in enumerate(ids, start=1):
        average = jax.block_until_ready(_step(job, settings, clean, average, chunk))
        progress(done, len(ids))
    return _finish(job, settings, clean, average), len(ids)


def _shown_until(
    job: Job, settings: Settings, clean: Clean, progress: Progress
) -> tuple[CAM, int]:  # fmt: skip
    """Run a round at a time until no image needs more."""
    begun = Begun(job, settings, clean)
    run, done = samples.first_run(begun), 0
    total = -(-points.most(begun) // samples.round_length(begun))
    progress(done, total)
    while run.open.any():
        run, done = _advance(job, settings, clean, run), done + 1
        progress(done, total if run.open.any() else done)
    return _finish(job, settings, clean, run.average, run.before), done
