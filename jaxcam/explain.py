"""The traced program behind every map: clean pass, noisy samples, weights, map.

`explain` is one function for one compiled call. Its three parts are functions of their own, so that
a caller who wants to show progress can run the same program chunk by chunk:
`begin` (the clean pass, and what can be proved), `step` (a chunk of samples), `finish` (the map).

Everything is written for one example and mapped over the batch, so an image's result does not
depend on its neighbours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import average as averages
from jaxcam import maps, noise, targets
from jaxcam.average import Average, Sample
from jaxcam.derivatives.auto import engine_named
from jaxcam.derivatives.bell import bell, raw, unit
from jaxcam.derivatives.layout import scan_in_order
from jaxcam.derivatives.traced import trace
from jaxcam.plan import Network, check_network, plan
from jaxcam.precision import widen
from jaxcam.targets import Target
from jaxcam.types import (
    CAM,
    Derivatives,
    Diagnostics,
    LogDerivatives,
    Method,
    Report,
    Shared,
    Smoothing,
)

# Network passes in flight when no chunk size is given: more gain nothing on a processor, and an
# accelerator wants to be filled.
IMAGES_AT_ONCE = {"cpu": 8}
IMAGES_AT_ONCE_ELSEWHERE = 32


class Job(NamedTuple):
    """The arrays of one call; everything here may change without compiling anew."""

    shared: Shared
    x: Array
    target: Target
    keys: Array | None
    noise_level: Array
    channels: Array | None = None
    neurons: Array | None = None


class Settings(NamedTuple):
    """What the program is compiled for."""

    method: Method
    engine: str
    chunk_size: int | None


class Clean(NamedTuple):
    """The clean pass. ``scale: [batch]`` is the unit of the derivatives (see `bell.unit`)."""

    a: Array
    scores: Array
    target: Array
    scale: Array
    derivatives: Derivatives
    report: Report


def explain(job: Job, settings: Settings) -> CAM:
    """Explain a batch in one traced program, noisy samples in a loop over chunks."""
    clean = begin(job, settings)
    if not clean.report.noisy:
        return finish(job, settings, clean, None)

    def body(average: Average, ids: Array) -> Average:
        return step(job, settings, clean, average, ids)

    ids = chunks(job, settings, clean)
    total = scan_in_order(body, initial(settings, clean), ids)
    return finish(job, settings, clean, total)


def begin(job: Job, settings: Settings) -> Clean:
    """Run the clean input through the network, choose the engine, and differentiate once."""
    check_network(job.shared.split(), job.x)
    network = Network(job.shared.split(), job.target)
    a = jax.vmap(network.features)(job.x)
    scores = jax.vmap(network.scores)(a, job.x)
    index = targets.resolve(job.target, scores)
    report = plan(network, a, job.x, index, settings.method, settings.engine)

    def one(a: Array, x: Array, index: Array) -> tuple[Derivatives, Array]:
        found, _ = _differentiate(network, settings, report, a, x, index)
        scale = _unit(settings.method, found)
        return _compose(job.target, settings.method)(found, scale=scale), scale

    derivatives, scale = _each(report)(one)(a, job.x, index)
    return Clean(widen(a), scores, index, scale, derivatives, report)


def initial(settings: Settings, clean: Clean) -> Average:
    """Start an average of no samples for every image."""
    count = _smoothing(settings).num_samples
    return jax.vmap(lambda like: averages.start(like, clean.a.dtype, count))(clean.derivatives)


def chunks(job: Job, settings: Settings, clean: Clean) -> Array:
    """Deal the sample numbers into chunks of equal size, ``[steps, chunk]``.

    The last may run over: samples from ``num_samples`` on are padding and weigh nothing.
    """
    count = _smoothing(settings).num_samples
    batch = job.x.shape[0]
    at_once = IMAGES_AT_ONCE.get(jax.default_backend(), IMAGES_AT_ONCE_ELSEWHERE)
    chunk = settings.chunk_size or max(1, at_once // batch)
    if not _one_pass(clean.report):
        chunk = 1  # such an engine fills a chunk with elements of one sample
    steps = -(-count // min(chunk, count))
    return jnp.arange(steps * -(-count // steps)).reshape(steps, -1)


def step(job: Job, settings: Settings, clean: Clean, average: Average, ids: Array) -> Average:
    """Take a chunk of noisy samples of every image and add them to its average."""
    each = _each(clean.report)

    def image(average: Average, x: Array, key: Array, index: Array, *fixed: Array) -> Average:
        def one(n: Array) -> Sample:
            return _sample(job, settings, clean.report, x, key, n, index, *fixed)

        return averages.add(average, each(one)(ids), ids)

    top_class = jnp.argmax(clean.scores, axis=-1)
    return each(image)(average, job.x, job.keys, clean.target, clean.scale, top_class)


def finish(job: Job, settings: Settings, clean: Clean, average: Average | None) -> CAM:
    """Turn the derivatives, averaged or clean, into weights, map and diagnostics."""
    method, a = settings.method, clean.a
    mask = maps.neuron_mask(job.channels, job.neurons, a.shape)
    d = clean.derivatives if average is None else jax.vmap(averages.mean)(average)
    weights, poles = jax.vmap(method.weigh)(d, a, clean.scale)
    signed = jax.vmap(maps.combine)(weights, a, mask)
    found = jax.nn.relu(signed)
    pixels = tuple(range(1, found.ndim))
    diagnostics = Diagnostics(
        report=clean.report,
        poles=poles,
        effective_samples=None,
        top_class_kept=None,
        standard_error=None,
        finite=jnp.isfinite(signed).all(axis=pixels),
        blank=(found == 0).all(axis=pixels),
    )
    if average is not None:
        diagnostics = diagnostics._replace(**_smoothed(settings, clean, average, mask))
    return CAM(found, signed, weights, clean.scores, clean.target, diagnostics)


def _smoothed(
    settings: Settings, clean: Clean, average: Average, mask: Array
) -> dict[str, Array | None]:
    """Report on the samples: how many counted, how many kept the class, how far the map is off."""
    count = _smoothing(settings).num_samples

    def error(average: Average, a: Array, scale: Array, mask: Array) -> Array:
        def rectified(d: Derivatives) -> Array:
            weights, _ = settings.method.weigh(d, a, scale)
            return jax.nn.relu(maps.combine(weights, a, mask))

        return averages.standard_error(average, rectified, count)

    return {
        "effective_samples": jax.vmap(averages.effective_samples)(average),
        "top_class_kept": average.kept.sum(axis=-1) / count,
        "standard_error": jax.vmap(error)(average, clean.a, clean.scale, mask)
        if count > 1
        else None,
    }


def _sample(
    job: Job, settings: Settings, report: Report, x: Array, key: Array, n: Array,
    index: Array, scale: Array, top_class: Array,
) -> Sample:  # fmt: skip
    """Measure one noisy sample of one image."""
    network = Network(job.shared.split(), job.target)
    noisy = noise.sample(key, n, x, job.noise_level)
    a = network.features(noisy)
    found, (scores, u) = _differentiate(network, settings, report, a, noisy, index)
    smoothing = _smoothing(settings)
    weighted = smoothing.sample_weights == "exact" and engine_named(report.engine).scaled
    log_weight = u if weighted and job.target.form.exponentiated else jnp.zeros_like(u)
    return Sample(
        log_weight=jnp.where(n < smoothing.num_samples, log_weight, -jnp.inf),
        kept=jnp.argmax(scores) == top_class,
        derivatives=_compose(job.target, settings.method)(found, scale=scale),
    )


def _differentiate(
    network: Network, settings: Settings, report: Report, a: Array, x: Array, index: Array
) -> tuple[LogDerivatives, tuple[Array, Array]]:
    """Differentiate the score of one example, and give the scores and ``u`` on the way."""

    def score(wide: Array, x: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
        scores = network.scores(wide.astype(a.dtype), x)
        u = widen(network.target.log_score(scores, index))
        return u, (scores, u)

    arguments = (widen(a), x, index)
    traced = trace(score, *arguments, chunk_size=settings.chunk_size)
    return engine_named(report.engine).derive(traced, *arguments)


def _unit(method: Method, found: LogDerivatives) -> Array:
    # Those of Y hold powers of u1, and need a unit; for those of u it could be the wrong one, since
    # they all grow with u alike.
    return unit(found) if method.scalar == "Y" else jnp.ones((), found.u1.dtype)


def _compose(target: Target, method: Method) -> Callable[..., Derivatives]:
    return bell if target.form.exponentiated and method.scalar == "Y" else raw


def _each(report: Report) -> Callable:
    """Map over samples and images: at once, or one by one where the engine fills a chunk itself."""
    if _one_pass(report):
        return jax.vmap
    return lambda function: lambda *args: jax.lax.map(lambda packed: function(*packed), args)


def _one_pass(report: Report) -> bool:
    return engine_named(report.engine).single


def _smoothing(settings: Settings) -> Smoothing:
    smoothing = settings.method.smoothing
    if smoothing is None:
        raise TypeError(f"{settings.method.name} is not smoothed")
    return smoothing
