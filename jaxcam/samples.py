"""Noisy samples: how many go together, what each adds, and when they are enough.

`chunks` deals the numbers of the samples, `step` takes a chunk of them, and `advance` a round of
chunks where a tolerance says how many samples are enough.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import aims, devices, maps, noise
from jaxcam import average as averages
from jaxcam.average import Average, Sample
from jaxcam.derivatives.auto import engine_named
from jaxcam.derivatives.chunks import dealt
from jaxcam.derivatives.layout import fold_in_order
from jaxcam.example import compose, differentiate, each, one_pass
from jaxcam.inputs import Inputs, picked, replaced
from jaxcam.job import Clean, Job, Settings
from jaxcam.plan import Network
from jaxcam.targets import Aim
from jaxcam.types import Derivatives, Report

# Network passes in flight when no chunk size is given: more gain nothing on a processor, and an
# accelerator wants to be filled.
IMAGES_AT_ONCE = {"cpu": 4}
IMAGES_AT_ONCE_ELSEWHERE = 128
# Samples between two looks at the error, at least; a look costs the map once for every group. It
# is fixed, and not the chunks, so that where an image stops does not depend on them.
ROUND = 32


class Run(NamedTuple):
    """Sampling up to a tolerance. ``open: [batch]``, the images that need more samples.

    ``taken: []``, how many such an image has; ``due: []``, at how many its error is looked at next.
    """

    average: Average
    taken: Array
    due: Array
    open: Array


def initial(settings: Settings, clean: Clean) -> Average:
    """Start an average of no samples for every image."""
    count, unit, dtype = settings.smoothing.num_samples, settings.unit, clean.a.dtype
    return jax.vmap(lambda like: averages.start(like, dtype, count, unit))(clean.derivatives)


def first_run(settings: Settings, clean: Clean) -> Run:
    """Start a run of no samples, with a first look when every group has its first unit."""
    open = jnp.ones(clean.a.shape[0], bool)
    zero = jnp.zeros((), jnp.int32)
    return Run(initial(settings, clean), zero, zero + round_length(settings), open)


def round_length(settings: Settings) -> int:
    """Give the samples of a round: as many units for every group of the jackknife."""
    return max(ROUND, averages.GROUPS * settings.unit)


def chunks(job: Job, settings: Settings, clean: Clean, count: int) -> Array:
    """Deal ``count`` sample numbers into chunks of equal size, ``[steps, chunk]``.

    The last may run over: samples from ``num_samples`` on are padding and weigh nothing.
    """
    batch = clean.a.shape[0]
    at_once = IMAGES_AT_ONCE.get(jax.default_backend(), IMAGES_AT_ONCE_ELSEWHERE)
    # Engines of many passes take images and samples one by one behind the layer, and fill a chunk
    # with elements of one sample; up to the layer the samples of an image go together.
    most = max(1, at_once // batch) if one_pass(clean.report) else at_once
    chunk = settings.chunk_size or most
    if not one_pass(clean.report):
        chunk = min(chunk, most)
    hands = devices.count(settings.spread and settings.spread.samples)
    return dealt(count, min(chunk, count), hands)


def step(job: Job, settings: Settings, clean: Clean, average: Average, ids: Array) -> Average:
    """Take a chunk of noisy samples of every image and add them to its average."""
    return with_samples(job, settings, clean, average, ids[None])


def with_samples(
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


def _chunk(
    job: Job, settings: Settings, clean: Clean, ids: Array, open: Array | None = None
) -> Average:
    """Average a chunk of noisy samples of every image.

    None of an image that is not ``open``, whatever its neighbours still need.
    """
    over, unit = each(clean.report), settings.unit
    groups = averages.groups_of(settings.smoothing.num_samples, unit)

    def image(x: Inputs, key: Array, *fixed: Any) -> Average:
        noisy, a = jax.vmap(lambda n: draw(job, settings, x, key, n))(ids)

        def one(n: Array, noisy: Inputs, a: Array) -> Sample:
            return measure(job, settings, clean.report, n, noisy, a, *fixed)

        return averages.of_chunk(over(one)(ids, noisy, a), ids, groups, unit)

    def image_if(open: Array, nothing: Average, *rest: Array) -> Average:
        return jax.lax.cond(open, lambda: image(*rest), lambda: nothing)

    tops = jax.vmap(partial(aims.top, job.target))(clean.scores, clean.aim)
    rest = (job.x, job.keys, clean.aim, clean.scale, tops)
    if open is None:
        return over(image)(*rest)
    return over(image_if)(open, initial(settings, clean), *rest)


def _merged(one: Average, other: Average) -> Average:
    return jax.vmap(averages.merged)(one, other)


def advance(job: Job, settings: Settings, clean: Clean, run: Run) -> Run:
    """Take a round of samples of every open image, and where it is time look at the errors.

    After a look the next one comes at a quarter more samples: looks cost time, and each is one more
    chance to stop because the error happens to look small.
    """
    most, length = settings.smoothing.num_samples, round_length(settings)

    ids = chunks(job, settings, clean, length)
    # A chunk that does not divide the round would run into the next one.
    ids = jnp.where(ids < length, run.taken + ids, most)
    average = with_samples(job, settings, clean, run.average, ids, run.open)
    taken = jnp.minimum(run.taken + length, most)

    def look() -> tuple[Array, Array]:
        _, relative = errors(job, settings, clean, average)
        above = run.open & (relative > job.tolerance) & (taken < most)
        return above, taken + jnp.maximum(taken // 4, length)

    due = (taken >= run.due) | (taken >= most)
    open, due = jax.lax.cond(due, look, lambda: (run.open, run.due))
    return Run(average, taken, due, open)


def errors(job: Job, settings: Settings, clean: Clean, average: Average) -> tuple[Array, Array]:
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


def draw(job: Job, settings: Settings, x: Inputs, key: Array, n: Array) -> tuple[Inputs, Array]:
    """Draw one noisy sample of one image, and run it up to the layer."""
    how = settings.smoothing
    clean = picked(x, how.noisy)
    noisy = replaced(x, how.noisy, noise.sample(key, n, clean, job.noise_level, how.scheme))
    return noisy, Network(job.shared.split(), job.target).features(noisy)


def measure(
    job: Job, settings: Settings, report: Report, n: Array, noisy: Inputs, a: Array,
    aim: Aim, scale: Array, top_class: Array,
) -> Sample:  # fmt: skip
    """Measure one noisy sample of one image behind the layer."""
    network = Network(job.shared.split(), job.target)
    found, (scores, u) = differentiate(network, settings, report, a, noisy, aim)
    weighted = job.target.form.exponentiated and engine_named(report.engine).scaled
    log_weight = jnp.asarray(job.temper, u.dtype) * u if weighted else jnp.zeros_like(u)
    return Sample(
        log_weight=jnp.where(n < settings.smoothing.num_samples, log_weight, -jnp.inf),
        kept=aims.top(job.target, scores, aim) == top_class,
        derivatives=compose(job.target, settings.method)(found, scale=scale),
    )
