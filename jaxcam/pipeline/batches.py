"""A batch in chunks of images, so that what is in flight at once fits the memory.

Images do not depend on each other, so a call on some of them is a call: here it is made in a loop,
chunk by chunk, on as many images as `at_once` says. What a chunk needs on its way is needed once,
whatever the batch, in reverse mode too (loops.py).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.extend import core

from jaxcam.arrays import memory
from jaxcam.arrays.inputs import Inputs
from jaxcam.contracts import Gradient
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.loops import map_in_order, repeating
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline.job import Job, Numbers, Settings
from jaxcam.pipeline.network import check_network, through
from jaxcam.types import Shared


def per_image(job: Job) -> Any:
    """Say of each array of a job whether it has a row for every image."""
    # Not the arrays themselves: these lie on a mesh, of which the network may not know.
    shared, x = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (job.shared, job.x))

    def ranks(shared: Shared, x: Inputs) -> tuple[Any, Any]:
        check_network(shared.split(), x)
        return through(shared.split(), x)

    a, scores = jax.eval_shape(ranks, shared, x)
    return jax.tree.map(lambda _: False, job)._replace(
        x=jax.tree.map(lambda _: True, job.x),
        numbers=_numbers_per_image(job.numbers, a.ndim),
        target=aims.per_image(job.target, scores.ndim),
        neurons=None if job.neurons is None else job.neurons.ndim == a.ndim,
    )


def _numbers_per_image(numbers: Numbers, rank: int) -> Any:
    """Keys and baselines are; activations to start from where they have the layer's axes."""
    start = numbers.start
    return jax.tree.map(lambda _: False, numbers)._replace(
        keys=None if numbers.keys is None else True,
        baseline=jax.tree.map(lambda _: True, numbers.baseline),
        start=None if start is None else start.ndim == rank,
    )


def at_once(settings: Settings) -> int | None:
    """Give how many images may be in flight at once, None for as many as fit the memory.

    With points, those of an image go together first.
    """
    chunk = settings.chunk_size
    points = settings.method.points if isinstance(settings.method, Gradient) else None
    return chunk if points is None or chunk is None else max(1, chunk // points.num_points)


def picked(job: Job, sliced: Any, images: Array) -> Job:
    """Pick images of a job by number; sliced: as from `per_image`."""
    return jax.tree.map(lambda v, own: v[images] if own else v, job, sliced)


def rows(job: Job, settings: Settings) -> Array:
    """Deal the numbers of the images into chunks, ``[steps, images]``; the last may repeat some."""
    batch = size(job)
    return repeating(batch, min(batch, at_once(settings) or batch))


def size(job: Job) -> int:
    """Give the number of images."""
    return jax.tree.leaves(job.x)[0].shape[0]


def joined(values: Any, job: Job) -> Any:
    """Join the results of all chunks, ``[steps, images, ...]``."""
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[: size(job)], values)


def in_chunks(
    function: Callable[..., Any], settings: Settings, job: Job, *more: Array
) -> Any:  # fmt: skip
    """Give ``function(job, *more)``, computed in chunks of images.

    more: further arrays ``[batch, ...]``. All leaves of the result are ``[batch, ...]`` too.
    """
    dealt = rows(job, settings)
    if at_once(settings) is None and size(job) > 1:
        sliced = per_image(job)
        whole, shape = _of_images(function, job, sliced, more)
        fit = size(job) * memory.budget() // max(1, needs(whole).bytes)
        if fit >= size(job):
            outputs = core.jaxpr_as_fun(whole)(*_images(job, sliced), *more)
            return jax.tree.unflatten(jax.tree.structure(shape), outputs)
        dealt = repeating(size(job), max(1, fit))
    if len(dealt) == 1:
        return function(job, *more)
    sliced = per_image(job)

    def part(images: Array) -> Any:
        return function(picked(job, sliced, images), *(v[images] for v in more))

    return joined(map_in_order(part, dealt), job)


def _images(job: Job, sliced: Any) -> list[Any]:
    """List the arrays of a job that have a row for every image."""
    pairs = zip(jax.tree.leaves(job), jax.tree.leaves(sliced), strict=True)
    return [value for value, own in pairs if own]


def _of_images(
    function: Callable[..., Any], job: Job, sliced: Any, more: tuple[Array, ...]
) -> tuple[core.ClosedJaxpr, Any]:
    """Trace a function as one of the images alone: what they share is there once for any number."""
    leaves, structure = jax.tree.flatten(job)

    def of_images(*given: Any) -> Any:
        rows = iter(given)
        own = jax.tree.leaves(sliced)
        values = [next(rows) if one else v for v, one in zip(leaves, own, strict=True)]
        return function(jax.tree.unflatten(structure, values), *rows)

    return jax.make_jaxpr(of_images, return_shape=True)(*_images(job, sliced), *more)
