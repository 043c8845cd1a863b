"""The traced program behind every map: clean pass, noisy samples, weights, map.

`explain` is one function for one compiled call. Its parts are functions of their own, so that a
caller who wants to show progress can run the same program chunk by chunk: `begin` (the clean pass,
and what can be proved), the samples (samples.py), `finish` (the map).

Everything is written for one example and mapped over the batch, so an image's result does not
depend on its neighbours.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import devices, maps
from jaxcam.arrays import meshes
from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Game, Path, Queries
from jaxcam.jaxprs.logarithms.rewriting import exactly
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline import average as averages
from jaxcam.pipeline import batches, blank, games, points, queries
from jaxcam.pipeline.average import Average
from jaxcam.pipeline.blank import Seen
from jaxcam.pipeline.differentiate import compose, differentiate, each, unit_of_derivatives
from jaxcam.pipeline.job import Begun, Clean, Job, Settings
from jaxcam.pipeline.network import check_network, through
from jaxcam.pipeline.plan import plan
from jaxcam.pipeline.samples import (
    Run,
    advance,
    changes,
    chunks,
    errors,
    first_run,
    initial,
    with_points,
)
from jaxcam.targets import Aim
from jaxcam.types import CAM, Derivatives, Diagnostics


def explain(job: Job, settings: Settings) -> CAM:
    """Explain a batch in one traced program, on one device or spread over several."""
    if settings.spread is None:
        return meshes.automatically(
            lambda job: _in_chunks(job, settings), job, spec=meshes.rows_of(job.x)
        )
    return devices.on_each(
        lambda job: _in_chunks(job, settings), settings.spread, job, batches.per_image(job)
    )


def _in_chunks(job: Job, settings: Settings) -> CAM:
    """Explain the images that one device has, as many at once as there is room for."""
    if meshes.inside_shard_map():
        check_network(job.shared.split(), job.x)
        job = meshes.alike(job, meshes.axes_through(partial(through, job.shared.split()), job.x))
    return batches.in_chunks(lambda job: _together(job, settings), settings, job)


def _together(job: Job, settings: Settings) -> CAM:
    """Explain images together by a method of either kind, points in a loop over chunks."""
    if isinstance(settings.method, Queries):
        return queries.answer(job, settings, settings.method)
    if isinstance(settings.method, Game):
        return games.answer(job, settings, settings.method)
    if isinstance(settings.gradient.points, Path) and settings.gradient.points.several:
        return _from_several(job, settings, settings.gradient.points)
    clean = begin(job, settings)
    if not clean.report.averaged:
        return finish(job, settings, clean, None)

    if settings.points.adaptive:
        run = _until(job, settings, clean)
        return finish(job, settings, clean, run.average, run.before)

    begun = Begun(job, settings, clean)
    ids = chunks(begun, settings.points.num_points)
    total = with_points(begun, initial(begun), ids)
    return finish(job, settings, clean, total)


def _from_several(job: Job, settings: Settings, path: Path) -> CAM:
    """Average the maps of one path from each of several baselines, one baseline after the other."""
    one = settings._replace(method=settings.gradient._replace(points=path._replace(several=False)))

    def from_one(baseline: Array) -> CAM:
        numbers = job.numbers._replace(baseline=baseline)
        return _together(job._replace(numbers=numbers), one)

    each = jax.lax.map(from_one, jnp.moveaxis(job.numbers.baseline, 1, 0))
    d, signed = each.diagnostics, each.signed.mean(axis=0)
    total, finite = d.total.mean(axis=0), d.finite.all(axis=0)
    shown = settings.shown(signed)
    # What paths of no length hold is nothing, whatever its share of nothing is.
    whole = jnp.where(d.total == 0, 0, d.completeness * d.total).mean(axis=0)
    share = whole / total
    error = d.standard_error
    if error is not None:
        error = error.mean(axis=0)
        worst, top = (jnp.abs(v).reshape(len(v), -1).max(axis=1) for v in (error, shown))
        relative = jnp.where(worst > 0, worst / top, worst)
    else:
        relative = None
    # What was seen anywhere, but for the signs, which are those of the mean.
    signs = Seen.POSITIVE | Seen.NEGATIVE
    seen = jax.lax.reduce_or(d.seen & ~jnp.int32(signs), (0,))
    found = {Seen.POSITIVE: signed > 0, Seen.NEGATIVE: signed < 0}
    seen = seen | jax.vmap(blank.anywhere)(found)
    diagnostics = d._replace(
        num_samples=None if d.num_samples is None else d.num_samples.sum(axis=0),
        standard_error=error, relative_error=relative, finite=finite,
        blank=finite & ~blank.has(seen, settings.visible), seen=seen, doubtful=None,
        total=total, completeness=share, gap=jnp.abs(1 - share),
    )  # fmt: skip
    return CAM(
        shown, signed, each.weights.mean(axis=0), each.scores[0], each.target[0], diagnostics
    )


def _until(job: Job, settings: Settings, clean: Clean) -> Run:
    """Take rounds until every image is below the tolerance, or has the most samples it may."""
    return jax.lax.while_loop(
        lambda run: run.open.any(),
        lambda run: advance(job, settings, clean, run),
        first_run(Begun(job, settings, clean)),
    )


def begin(job: Job, settings: Settings) -> Clean:
    """Run the clean input through the network, choose the engine, and differentiate once."""
    check_network(job.shared.split(), job.x)
    network = job.network
    a = jax.vmap(network.features)(job.x)
    own = a if job.change is None else jax.vmap(job.plain.features)(job.x)
    scores = jax.vmap(exactly(job.plain.scores))(own, job.x)
    aim = aims.resolve(job.target, scores)
    method = settings.gradient
    report = plan(network, a, job.x, aim, method, settings.engine)

    def one(a: Array, x: Inputs, aim: Aim) -> tuple[Derivatives, Array, Array]:
        log_derivatives, (_, u) = differentiate(network, settings, report, a, x, aim)
        scale = unit_of_derivatives(method, log_derivatives)
        return compose(job.target, method)(log_derivatives, scale=scale), scale, u

    derivatives, scale, u = each(report)(one)(a, job.x, aim)
    least = jax.vmap(partial(blank.least, a.dtype))(scores)
    start, total = points.ends(job, settings, a, aim, u)
    return Clean(widen(a), scores, aim, u, scale, derivatives, report, least, start, total)


def finish(
    job: Job,
    settings: Settings,
    clean: Clean,
    average: Average | None,
    before: Average | None = None,
) -> CAM:
    """Turn the derivatives, averaged or clean, into weights, map and diagnostics.

    before: on a path up to a tolerance, their averages at the level before.
    """
    method, a = settings.gradient, clean.a
    if clean.start is not None:
        a = a - widen(clean.start)
    mask = maps.neuron_mask(job.channels, job.neurons, a.shape)
    d = clean.derivatives if average is None else jax.vmap(averages.mean)(average)
    weights, poles = jax.vmap(method.weigh)(d, a, clean.scale)
    signed = jax.vmap(method.draw)(weights, a, mask)
    seen = jax.vmap(blank.seen)(d, a, weights, signed, mask)
    if method.order == 0:
        seen = seen | jnp.int32(Seen.ALONE)
    finite, visible, real = (
        ~blank.has(seen, Seen.NOT_FINITE) & jnp.isfinite(clean.u),
        blank.has(seen, settings.visible),
        blank.has(seen, Seen.ACTIVE) & blank.has(seen, Seen.MOVES),
    )
    chosen = jnp.where(mask, a, 0)
    small = jax.vmap(blank.doubtful)(d, chosen, signed, clean.scale, clean.least)
    diagnostics = Diagnostics(
        report=clean.report,
        poles=poles,
        num_samples=None,
        effective_samples=None,
        top_class_kept=None,
        standard_error=None,
        relative_error=None,
        finite=finite,
        blank=finite & ~visible,
        seen=seen,
        doubtful=finite & real & small,
    )
    if clean.total is not None:
        whole = jax.vmap(method.draw)(weights, a).sum(axis=tuple(range(1, signed.ndim)))
        share = whole / clean.total
        diagnostics = diagnostics._replace(
            total=clean.total, completeness=share, gap=jnp.abs(1 - share)
        )
    if average is not None:
        diagnostics = diagnostics._replace(**_smoothed(job, settings, clean, average, before))
    return CAM(
        settings.shown(signed), signed, weights, clean.scores, clean.aim.class_index, diagnostics
    )


def _smoothed(
    job: Job, settings: Settings, clean: Clean, average: Average, before: Average | None
) -> dict[str, Array | None]:
    """Report on the samples: how many counted, how many kept the class, how far the map is off."""
    taken = jax.vmap(averages.num_samples)(average)
    if isinstance(settings.points, Path):
        told: dict[str, Array | None] = {"num_samples": taken.astype(jnp.int32)}
        if before is not None:
            error, relative, _ = changes(Begun(job, settings, clean), average, before)
            told |= {"standard_error": error, "relative_error": relative}
        return told
    classed = aims.has_classes(job.target, clean.scores.ndim)
    groups = average.taken.shape[-1]
    stated = errors(Begun(job, settings, clean), average) if groups > 1 else (None, None)
    return {
        "num_samples": taken.astype(jnp.int32),
        "effective_samples": jax.vmap(averages.effective_samples)(average),
        "top_class_kept": average.kept.sum(axis=-1) / taken if classed else None,
        "standard_error": stated[0],
        "relative_error": stated[1],
    }
