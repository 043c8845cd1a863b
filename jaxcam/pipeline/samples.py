"""Points of all images: how many go together, what each adds, and when they are enough.

`chunks` deals the numbers of the points, `step` takes a chunk of them, and `advance` a round of
chunks where a tolerance says how many samples are enough.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import devices, maps
from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Path
from jaxcam.jaxprs.loops import dealt, fold_in_order
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline import average as averages
from jaxcam.pipeline import path, points
from jaxcam.pipeline.average import Average, Sample
from jaxcam.pipeline.differentiate import compose, differentiate, each, one_pass
from jaxcam.pipeline.job import Begun, Clean, Job, Settings
from jaxcam.targets import Aim
from jaxcam.types import Derivatives

# Network passes in flight when no chunk size is given: more gain nothing on a processor, and an
# accelerator wants to be filled.
IMAGES_AT_ONCE = {"cpu": 4}
IMAGES_AT_ONCE_ELSEWHERE = 128
# Samples between two looks at the error, at least; a look costs the map once for every half. It
# is fixed, and not the chunks, so that where an image stops does not depend on them.
ROUND = 32


class Run(NamedTuple):
    """Sampling up to a tolerance. ``open: [batch]``, the images that need more samples.

    ``taken: []``, how many such an image has; ``due: []``, at how many its error is looked at next.
    ``before``: on a path, the averages of the level before.
    """

    average: Average
    taken: Array
    due: Array
    open: Array
    before: Average | None = None


class Known(NamedTuple):
    """What is known of one image from its clean pass, and the same at all of its points."""

    aim: Aim
    scale: Array
    top_class: Array


def passes_at_once() -> int:
    """Give how many network passes should be in flight at once."""
    return IMAGES_AT_ONCE.get(jax.default_backend(), IMAGES_AT_ONCE_ELSEWHERE)


def initial(begun: Begun) -> Average:
    """Start an average of no points for every image."""
    count, unit = begun.points.num_points, points.unit(begun.points)
    like, dtype = begun.clean.derivatives, begun.clean.a.dtype
    return jax.vmap(lambda like: averages.start(like, dtype, count, unit))(like)


def first_run(begun: Begun) -> Run:
    """Start a run of no points, with a first look when every group has its first unit."""
    a = begun.clean.a
    open = jnp.ones_like(a, bool, shape=a.shape[:1])
    zero = jnp.zeros_like(a, jnp.int32, shape=())
    run = Run(initial(begun), zero, zero + round_length(begun), open)
    return run._replace(before=initial(begun)) if isinstance(begun.points, Path) else run


def round_length(begun: Begun) -> int:
    """Give the points of a round: as many units for every group, or what path's levels are of."""
    if isinstance(begun.points, Path):
        return path.FIRST
    return max(ROUND, averages.GROUPS * points.unit(begun.points))


def chunks(begun: Begun, count: int) -> Array:
    """Deal the numbers of ``count`` points into chunks of equal size, ``[steps, chunk]``.

    The last may run over: points from ``num_points`` on are padding and weigh nothing.
    """
    batch, at_once = begun.clean.a.shape[0], passes_at_once()
    # Engines of many passes take images and samples one by one behind the layer, and fill a chunk
    # with elements of one sample; up to the layer the samples of an image go together.
    most = max(1, at_once // batch) if one_pass(begun.report) else at_once
    chunk = begun.settings.chunk_size or most
    if not one_pass(begun.report):
        chunk = min(chunk, most)
    hands = devices.count(_axis(begun))
    return dealt(count, min(chunk, count), hands)


def step(job: Job, settings: Settings, clean: Clean, average: Average, ids: Array) -> Average:
    """Take a chunk of points of every image and add them to its average."""
    return with_points(Begun(job, settings, clean), average, ids[None])


def with_points(
    begun: Begun, average: Average, ids: Array, open: Array | None = None
) -> Average:  # fmt: skip
    """Add chunks of points to the averages of all images; each device takes its own of them."""

    def part(ids: Array) -> Average:
        return _chunk(begun, ids, open)

    fold = partial(fold_in_order, fit=begun.settings.chunk_size is None)
    axis = _axis(begun)
    if axis is None:
        return fold(part, _merged, average, ids)
    own = fold(part, _merged, initial(begun), devices.mine(ids, axis))
    return _merged(average, averages.across(own, axis))


def _axis(begun: Begun) -> str | None:
    """Along which axis of a mesh the points are spread."""
    spread = begun.settings.spread
    return spread and spread.samples


def _chunk(begun: Begun, ids: Array, open: Array | None = None) -> Average:
    """Average a chunk of points of every image.

    None of an image that is not ``open``, whatever its neighbours still need.
    """
    job, clean = begun.job, begun.clean
    over, unit = each(begun.report), points.unit(begun.points)
    groups = averages.groups_of(begun.points.num_points, unit)

    def image(x: Inputs, own: points.Own, known: Known) -> Average:
        there, a = jax.vmap(lambda n: points.visit(begun, x, own, n))(ids)

        def one(n: Array, x: Inputs, a: Array) -> Sample:
            return measure(begun, known, n, x, a)

        return averages.of_chunk(over(one)(ids, there, a), ids, groups, unit)

    def image_if(open: Array, nothing: Average, *rest: Any) -> Average:
        if one_pass(begun.report):  # all images at once: there is no branch to leave out
            return jax.tree.map(partial(jnp.where, open), image(*rest), nothing)
        return jax.lax.cond(open, lambda: image(*rest), lambda: nothing)

    tops = jax.vmap(partial(aims.top, job.target))(clean.scores, clean.aim)
    rest = (job.x, points.own(begun), Known(clean.aim, clean.scale, tops))
    if open is None:
        return over(image)(*rest)
    return over(image_if)(open, initial(begun), *rest)


def _merged(one: Average, other: Average) -> Average:
    return jax.vmap(averages.merged)(one, other)


def advance(job: Job, settings: Settings, clean: Clean, run: Run) -> Run:
    """Take a round of samples of every open image, and where it is time look at the errors.

    After a look the next one comes at a quarter more samples: looks cost time, and each is one more
    chance to stop because the error happens to look small.
    """
    begun = Begun(job, settings, clean)
    most, length = points.most(begun), round_length(begun)

    ids = chunks(begun, length)
    # A chunk that does not divide the round would run into the next one.
    ids = jnp.where(ids < length, run.taken + ids, most)
    average = with_points(begun, run.average, ids, run.open)
    taken = jnp.minimum(run.taken + length, most)

    if run.before is not None:
        return _at_levels(begun, run._replace(average=average, taken=taken), run.before)

    def look() -> tuple[Array, Array]:
        _, relative = errors(begun, average)
        above = run.open & (relative > job.numbers.tolerance) & (taken < most)
        return above, taken + jnp.maximum(taken // 4, length)

    due = (taken >= run.due) | (taken >= most)
    open, due = jax.lax.cond(due, look, lambda: (run.open, run.due))
    return Run(average, taken, due, open)


def _at_levels(begun: Begun, run: Run, before: Average) -> Run:
    """At the end of a level look at what it has changed, and begin the next one."""
    nodes, rule = points.nodes_of(begun), begun.report.rule
    ends = jnp.asarray(nodes.ends, run.taken.dtype)

    def look() -> Run:
        first = run.taken <= ends[0]
        earlier = jax.tree.map(partial(jnp.where, first), run.average, before)
        _, relative, gap = changes(begun, run.average, earlier)
        tolerance = begun.job.numbers.tolerance
        above = first | (relative > tolerance) | (gap > tolerance)
        open = run.open & above & (run.taken < ends[-1])

        def next(new: Average, old: Average) -> Average:
            return jax.vmap(lambda open, *one: jax.tree.map(partial(jnp.where, open), *one))(
                open, new, old
            )

        anew = run.average if rule == path.MIDPOINT else next(initial(begun), run.average)
        due = ends[jnp.minimum(jnp.searchsorted(ends, run.taken, side="right"), len(ends) - 1)]
        return Run(anew, run.taken, due, open, next(run.average, earlier))

    return jax.lax.cond(run.taken >= run.due, look, lambda: run)


def changes(begun: Begun, average: Average, before: Average) -> tuple[Array, Array, Array]:
    """Give what a level changes: in the signed map; the largest, as a share of the map; the gap.

    Where the map is blank, a share of the signed one. A gap that says nothing is zero: of a map
    that is not additive, or one that has nothing to divide.
    """
    job, clean, method = begun.job, begun.clean, begun.method
    mask = maps.neuron_mask(job.channels, job.neurons, clean.a.shape)
    certain = points.complete(method)
    ends: Any = (clean.a, clean.start, clean.total)

    def one(
        average: Average, before: Average, ends: tuple[Array, Array, Array], scale: Array,
        mask: Array,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        end, start, total = ends
        a = end - widen(start)
        weights = [method.weigh(averages.mean(one), a, scale)[0] for one in (average, before)]
        now, then = (method.draw(one, a, mask) for one in weights)
        error = jnp.abs(now - then)
        worst, top = error.max(), now.max()
        size = jnp.where(top > 0, top, jnp.abs(now).max())
        relative = jnp.where(worst > 0, worst / size, worst)
        level = jnp.abs(total) < path.LEVEL
        if not certain:
            return error, relative, jnp.zeros_like(relative)
        left = jnp.abs(1 - method.draw(weights[0], a).sum() / jnp.where(level, 1, total))
        return error, relative, jnp.where(level, 0, left)

    return jax.vmap(one)(average, before, ends, clean.scale, mask)


def errors(begun: Begun, average: Average) -> tuple[Array, Array]:
    """Estimate the standard error of every map, and its largest as a share of the map's largest.

    A map that is blank in every half has the error 0, relative to nothing too.
    """
    job, clean, method = begun.job, begun.clean, begun.method
    mask = maps.neuron_mask(job.channels, job.neurons, clean.a.shape)

    def one(average: Average, a: Array, scale: Array, mask: Array) -> tuple[Array, Array]:
        def shown(d: Derivatives) -> Array:
            weights, _ = method.weigh(d, a, scale)
            return begun.settings.shown(method.draw(weights, a, mask))

        error = averages.standard_error(average, shown)
        worst = error.max()
        top = jnp.abs(shown(averages.mean(average))).max()
        return error, jnp.where(worst > 0, worst / top, worst)

    return jax.vmap(one)(average, clean.a, clean.scale, mask)


def measure(begun: Begun, known: Known, n: Array, x: Inputs, a: Array) -> Sample:
    """Measure the ``n``-th point of one image behind the layer."""
    target = begun.job.target
    derivatives, (scores, u) = differentiate(
        begun.network, begun.settings, begun.report, a, x, known.aim
    )
    return Sample(
        log_weight=points.log_weight(begun, n, u),
        kept=aims.top(target, scores, known.aim) == known.top_class,
        derivatives=compose(target, begun.method)(derivatives, scale=known.scale),
    )
