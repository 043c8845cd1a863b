"""The traced program behind every map: clean pass, noisy samples, weights, map.

`explain` is one function for one compiled call. Its three parts are functions of their own, so that
a caller who wants to show progress can run the same program chunk by chunk:
`begin` (the clean pass, and what can be proved), `step` (a chunk of samples), `finish` (the map).
Where a tolerance says how many samples are enough, `advance` takes a round of chunks at a time.

Everything is written for one example and mapped over the batch, so an image's result does not
depend on its neighbours.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import average as averages
from jaxcam import devices, maps, noise, targets
from jaxcam.average import Average, Sample
from jaxcam.derivatives.auto import engine_named
from jaxcam.derivatives.bell import bell, raw, unit
from jaxcam.derivatives.chunks import dealt
from jaxcam.derivatives.layout import fold_in_order
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
    Spread,
)

# Network passes in flight when no chunk size is given: more gain nothing on a processor, and an
# accelerator wants to be filled.
IMAGES_AT_ONCE = {"cpu": 4}
IMAGES_AT_ONCE_ELSEWHERE = 128
# Samples between two looks at the error, at least; a look costs the map once for every group. It
# is fixed, and not the chunks, so that where an image stops does not depend on them.
ROUND = 32


class Job(NamedTuple):
    """The arrays of one call; everything here may change without compiling anew."""

    shared: Shared
    x: Array
    target: Target
    keys: Array | None
    noise_level: Array
    temper: Array | float = 0.0
    tolerance: Array | float = 0.0
    channels: Array | None = None
    neurons: Array | None = None


class Settings(NamedTuple):
    """What the program is compiled for."""

    method: Method
    engine: str
    chunk_size: int | None
    spread: Spread | None = None


class Run(NamedTuple):
    """Sampling up to a tolerance. ``open: [batch]``, the images that need more samples.

    ``taken: []``, how many such an image has; ``due: []``, at how many its error is looked at next.
    """

    average: Average
    taken: Array
    due: Array
    open: Array


class Clean(NamedTuple):
    """The clean pass. ``scale: [batch]`` is the unit of the derivatives (see `bell.unit`)."""

    a: Array
    scores: Array
    target: Array
    scale: Array
    derivatives: Derivatives
    report: Report


def explain(job: Job, settings: Settings) -> CAM:
    """Explain a batch in one traced program, on one device or spread over several."""
    if settings.spread is None:
        return _explained(job, settings)
    return devices.on_each(
        lambda job: _explained(job, settings), settings.spread, job, per_image(job)
    )


def per_image(job: Job) -> Any:
    """Say of each array of a job whether it has a row for every image."""
    images, rank = len(job.x), len(jax.eval_shape(job.shared.split().features, job.x).shape)
    return jax.tree.map(lambda _: False, job)._replace(
        x=True,
        keys=None if job.keys is None else True,
        target=jax.tree.map(lambda v: jnp.shape(v)[:1] == (images,), job.target),
        neurons=None if job.neurons is None else job.neurons.ndim == rank,
    )


def _explained(job: Job, settings: Settings) -> CAM:
    """Explain the images that one device has, noisy samples in a loop over chunks."""
    clean = begin(job, settings)
    if not clean.report.noisy:
        return finish(job, settings, clean, None)

    if _smoothing(settings).adaptive:
        return finish(job, settings, clean, _until(job, settings, clean).average)

    ids = chunks(job, settings, clean, _smoothing(settings).num_samples)
    total = _with_samples(job, settings, clean, initial(settings, clean), ids)
    return finish(job, settings, clean, total)


def _with_samples(
    job: Job, settings: Settings, clean: Clean, average: Average, ids: Array,
    open: Array | None = None,
) -> Average:  # fmt: skip
    """Add chunks of samples to the averages of all images; each device takes its own of them."""

    def part(ids: Array) -> Average:
        return _chunk(job, settings, clean, ids, open)

    fold = partial(fold_in_order, fit=settings.chunk_size is None)
    axis = settings.spread and settings.spread.samples
    if axis is None:
        return fold(part, _merged, average, ids)
    own = fold(part, _merged, initial(settings, clean), devices.mine(ids, axis))
    return _merged(average, averages.across(own, axis))


def _until(job: Job, settings: Settings, clean: Clean) -> Run:
    """Take rounds until every image is below the tolerance, or has the most samples it may."""
    return jax.lax.while_loop(
        lambda run: run.open.any(),
        lambda run: advance(job, settings, clean, run),
        first_run(settings, clean),
    )


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
    count, unit, dtype = _smoothing(settings).num_samples, _unit_of(settings), clean.a.dtype
    return jax.vmap(lambda like: averages.start(like, dtype, count, unit))(clean.derivatives)


def first_run(settings: Settings, clean: Clean) -> Run:
    """Start a run of no samples, with a first look when every group has its first unit."""
    open = jnp.ones(clean.a.shape[0], bool)
    zero = jnp.zeros((), jnp.int32)
    return Run(initial(settings, clean), zero, zero + round_length(settings), open)


def most_samples(settings: Settings) -> int:
    """Give the number of samples, or where a tolerance decides the most there may be."""
    return _smoothing(settings).num_samples


def round_length(settings: Settings) -> int:
    """Give the samples of a round: as many units for every group of the jackknife."""
    return max(ROUND, averages.GROUPS * _unit_of(settings))


def chunks(job: Job, settings: Settings, clean: Clean, count: int) -> Array:
    """Deal ``count`` sample numbers into chunks of equal size, ``[steps, chunk]``.

    The last may run over: samples from ``num_samples`` on are padding and weigh nothing.
    """
    batch = job.x.shape[0]
    at_once = IMAGES_AT_ONCE.get(jax.default_backend(), IMAGES_AT_ONCE_ELSEWHERE)
    # Engines of many passes take images and samples one by one behind the layer, and fill a chunk
    # with elements of one sample; up to the layer the samples of an image go together.
    images = batch if _one_pass(clean.report) else 1
    chunk = settings.chunk_size or max(1, at_once // images)
    if not _one_pass(clean.report):
        chunk = min(chunk, at_once)
    hands = devices.count(settings.spread and settings.spread.samples)
    return dealt(count, min(chunk, count), hands)


def step(job: Job, settings: Settings, clean: Clean, average: Average, ids: Array) -> Average:
    """Take a chunk of noisy samples of every image and add them to its average."""
    return _with_samples(job, settings, clean, average, ids[None])


def _chunk(
    job: Job, settings: Settings, clean: Clean, ids: Array, open: Array | None = None
) -> Average:
    """Average a chunk of noisy samples of every image.

    None of an image that is not ``open``, whatever its neighbours still need.
    """
    each, unit = _each(clean.report), _unit_of(settings)
    groups = averages.groups_of(_smoothing(settings).num_samples, unit)

    def image(x: Array, key: Array, *fixed: Array) -> Average:
        noisy, a = jax.vmap(lambda n: draw(job, settings, x, key, n))(ids)

        def one(n: Array, noisy: Array, a: Array) -> Sample:
            return measure(job, settings, clean.report, n, noisy, a, *fixed)

        return averages.of_chunk(each(one)(ids, noisy, a), ids, groups, unit)

    def image_if(open: Array, nothing: Average, *rest: Array) -> Average:
        return jax.lax.cond(open, lambda: image(*rest), lambda: nothing)

    top_class = jnp.argmax(clean.scores, axis=-1)
    rest = (job.x, job.keys, clean.target, clean.scale, top_class)
    if open is None:
        return each(image)(*rest)
    return each(image_if)(open, initial(settings, clean), *rest)


def _merged(one: Average, other: Average) -> Average:
    return jax.vmap(averages.merged)(one, other)


def advance(job: Job, settings: Settings, clean: Clean, run: Run) -> Run:
    """Take a round of samples of every open image, and where it is time look at the errors.

    After a look the next one comes at a quarter more samples: looks cost time, and each is one more
    chance to stop because the error happens to look small.
    """
    most, length = _smoothing(settings).num_samples, round_length(settings)

    ids = chunks(job, settings, clean, length)
    # A chunk that does not divide the round would run into the next one.
    ids = jnp.where(ids < length, run.taken + ids, most)
    average = _with_samples(job, settings, clean, run.average, ids, run.open)
    taken = jnp.minimum(run.taken + length, most)

    def look() -> tuple[Array, Array]:
        _, relative = _errors(job, settings, clean, average)
        above = run.open & (relative > job.tolerance) & (taken < most)
        return above, taken + jnp.maximum(taken // 4, length)

    due = (taken >= run.due) | (taken >= most)
    open, due = jax.lax.cond(due, look, lambda: (run.open, run.due))
    return Run(average, taken, due, open)


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
        num_samples=None,
        effective_samples=None,
        top_class_kept=None,
        standard_error=None,
        relative_error=None,
        finite=jnp.isfinite(signed).all(axis=pixels),
        blank=(found == 0).all(axis=pixels),
    )
    if average is not None:
        diagnostics = diagnostics._replace(**_smoothed(job, settings, clean, average))
    return CAM(found, signed, weights, clean.scores, clean.target, diagnostics)


def _smoothed(
    job: Job, settings: Settings, clean: Clean, average: Average
) -> dict[str, Array | None]:
    """Report on the samples: how many counted, how many kept the class, how far the map is off."""
    taken = jax.vmap(averages.num_samples)(average)
    groups = average.taken.shape[-1]
    errors = _errors(job, settings, clean, average) if groups > 1 else (None, None)
    return {
        "num_samples": taken.astype(jnp.int32),
        "effective_samples": jax.vmap(averages.effective_samples)(average),
        "top_class_kept": average.kept.sum(axis=-1) / taken,
        "standard_error": errors[0],
        "relative_error": errors[1],
    }


def _errors(job: Job, settings: Settings, clean: Clean, average: Average) -> tuple[Array, Array]:
    """Estimate the standard error of every map, and its largest as a share of the map's largest.

    A map that is blank in every group has the error 0, relative to nothing too.
    """
    mask = maps.neuron_mask(job.channels, job.neurons, clean.a.shape)

    def one(average: Average, a: Array, scale: Array, mask: Array) -> tuple[Array, Array]:
        def rectified(d: Derivatives) -> Array:
            weights, _ = settings.method.weigh(d, a, scale)
            return jax.nn.relu(maps.combine(weights, a, mask))

        error = averages.standard_error(average, rectified)
        worst = error.max()
        top = rectified(averages.mean(average)).max()
        return error, jnp.where(worst > 0, worst / top, worst)

    return jax.vmap(one)(average, clean.a, clean.scale, mask)


def draw(job: Job, settings: Settings, x: Array, key: Array, n: Array) -> tuple[Array, Array]:
    """Draw one noisy sample of one image, and run it up to the layer."""
    noisy = noise.sample(key, n, x, job.noise_level, _smoothing(settings).scheme)
    return noisy, Network(job.shared.split(), job.target).features(noisy)


def measure(
    job: Job, settings: Settings, report: Report, n: Array, noisy: Array, a: Array,
    index: Array, scale: Array, top_class: Array,
) -> Sample:  # fmt: skip
    """Measure one noisy sample of one image behind the layer."""
    network = Network(job.shared.split(), job.target)
    found, (scores, u) = _differentiate(network, settings, report, a, noisy, index)
    weighted = job.target.form.exponentiated and engine_named(report.engine).scaled
    log_weight = jnp.asarray(job.temper, u.dtype) * u if weighted else jnp.zeros_like(u)
    return Sample(
        log_weight=jnp.where(n < _smoothing(settings).num_samples, log_weight, -jnp.inf),
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
    axis = settings.spread and settings.spread.elements
    traced = trace(score, *arguments, chunk_size=settings.chunk_size, axis=axis)
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


def _unit_of(settings: Settings) -> int:
    return noise.SCHEMES[_smoothing(settings).scheme].unit


def _smoothing(settings: Settings) -> Smoothing:
    smoothing = settings.method.smoothing
    if smoothing is None:
        raise TypeError(f"{settings.method.name} is not smoothed")
    return smoothing
