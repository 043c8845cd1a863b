"""The traced program behind every map: clean pass, noisy samples, weights, map.

`explain` is one function for one compiled call. Its parts are functions of their own, so that a
caller who wants to show progress can run the same program chunk by chunk: `begin` (the clean pass,
and what can be proved), the samples (samples.py), `finish` (the map).

Everything is written for one example and mapped over the batch, so an image's result does not
depend on its neighbours.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import aims, devices, maps
from jaxcam import average as averages
from jaxcam.average import Average
from jaxcam.example import compose, differentiate, each, unit_of_derivatives
from jaxcam.inputs import Inputs
from jaxcam.job import Clean, Job, Settings
from jaxcam.plan import Network, check_network, plan
from jaxcam.precision import widen
from jaxcam.samples import Run, advance, chunks, errors, first_run, initial, with_samples
from jaxcam.targets import Aim
from jaxcam.types import CAM, Derivatives, Diagnostics, Shared


def explain(job: Job, settings: Settings) -> CAM:
    """Explain a batch in one traced program, on one device or spread over several."""
    if settings.spread is None:
        return _explained(job, settings)
    return devices.on_each(
        lambda job: _explained(job, settings), settings.spread, job, per_image(job)
    )


def per_image(job: Job) -> Any:
    """Say of each array of a job whether it has a row for every image."""
    # Not the arrays themselves: these lie on a mesh, of which the network may not know.
    shared, x = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (job.shared, job.x))

    def ranks(shared: Shared, x: Inputs) -> tuple[Array, Array]:
        split = shared.split()
        a = split.features(x)
        return a, split.scores(a, x)

    a, scores = jax.eval_shape(ranks, shared, x)
    return jax.tree.map(lambda _: False, job)._replace(
        x=jax.tree.map(lambda _: True, job.x),
        keys=None if job.keys is None else True,
        target=aims.per_image(job.target, scores.ndim),
        neurons=None if job.neurons is None else job.neurons.ndim == a.ndim,
    )


def _explained(job: Job, settings: Settings) -> CAM:
    """Explain the images that one device has, noisy samples in a loop over chunks."""
    clean = begin(job, settings)
    if not clean.report.noisy:
        return finish(job, settings, clean, None)

    if settings.smoothing.adaptive:
        return finish(job, settings, clean, _until(job, settings, clean).average)

    ids = chunks(job, settings, clean, settings.smoothing.num_samples)
    total = with_samples(job, settings, clean, initial(settings, clean), ids)
    return finish(job, settings, clean, total)


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
    aim = aims.resolve(job.target, scores)
    report = plan(network, a, job.x, aim, settings.method, settings.engine)

    def one(a: Array, x: Inputs, aim: Aim) -> tuple[Derivatives, Array]:
        found, _ = differentiate(network, settings, report, a, x, aim)
        scale = unit_of_derivatives(settings.method, found)
        return compose(job.target, settings.method)(found, scale=scale), scale

    derivatives, scale = each(report)(one)(a, job.x, aim)
    return Clean(widen(a), scores, aim, scale, derivatives, report)


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
    return CAM(found, signed, weights, clean.scores, clean.aim.class_index, diagnostics)


def _smoothed(
    job: Job, settings: Settings, clean: Clean, average: Average
) -> dict[str, Array | None]:
    """Report on the samples: how many counted, how many kept the class, how far the map is off."""
    taken = jax.vmap(averages.num_samples)(average)
    classed = aims.has_classes(job.target, clean.scores.ndim)
    groups = average.taken.shape[-1]
    stated = errors(job, settings, clean, average) if groups > 1 else (None, None)
    return {
        "num_samples": taken.astype(jnp.int32),
        "effective_samples": jax.vmap(averages.effective_samples)(average),
        "top_class_kept": average.kept.sum(axis=-1) / taken if classed else None,
        "standard_error": stated[0],
        "relative_error": stated[1],
    }
