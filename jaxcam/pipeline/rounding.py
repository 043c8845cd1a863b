"""Is a map more than rounding? A second look at maps that are suspiciously small.

A score may depend on a layer in its program and not in its value: behind an InstanceNorm that is
averaged over the same positions, or a sum of probabilities. Its derivatives are zero in exact
arithmetic, and in floating point the last digits of terms that cancel: 1e-10, and a picture of full
contrast once it is stretched to a range. No size tells them from the derivatives of a network that
is sure of itself, or has small weights. But they do not survive another rounding (shaken.py)::

    rounding:  rms_s |v_s - v| >= |v|        v_s: every operation's last digit moved

A map is rounding alone if it is so itself, or is zero once the derivatives that are so are set to
zero: sums of many positive parts of rounding, Grad-CAM++'s weights, are steady.

`doubtful` costs nothing and picks the maps at which `look` takes that second look.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxcam import devices, maps
from jaxcam.arrays import meshes
from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import widen
from jaxcam.jaxprs.shaken import shaken
from jaxcam.pipeline import batches, points
from jaxcam.pipeline import program as explain
from jaxcam.pipeline.blank import Seen
from jaxcam.pipeline.differentiate import compose, differentiate
from jaxcam.pipeline.job import Begun, Job, Settings
from jaxcam.targets import Aim
from jaxcam.types import CAM, Derivatives

DRAWS = 2
DIGITS = 4.0  # in units of the last: of a result with a quarter of its size in it little is left


def settled(result: CAM, second_look: Callable[[Array], Array]) -> CAM:
    """Set maps that are rounding alone to zero, where values are known."""
    doubtful = result.diagnostics.doubtful
    if doubtful is None or isinstance(doubtful, Tracer) or not bool(doubtful.any()):
        return result
    noise = second_look(doubtful)
    if not bool(noise.any()):
        return result._replace(diagnostics=result.diagnostics._replace(doubtful=noise))

    def without(values: Array) -> Array:
        return jnp.where(noise.reshape(-1, *(1,) * (values.ndim - 1)), 0, values)

    d = result.diagnostics
    return result._replace(
        map=without(result.map),
        signed=without(result.signed),
        weights=without(result.weights),
        diagnostics=d._replace(
            blank=d.blank | noise,
            seen=jnp.where(noise, jnp.int32(Seen.ROUNDING), 0 if d.seen is None else d.seen),
            doubtful=noise,
        ),
    )


def look(job: Job, settings: Settings, doubtful: Array) -> Array:
    """Say of each image that is ``doubtful: [batch]`` whether its map is rounding alone.

    Where noise was added, its first sample is looked at: a score that cannot move moves nowhere.
    """
    if settings.spread is None:
        return meshes.automatically(
            lambda job, doubtful: _in_chunks((job, doubtful), settings), job, doubtful,
            spec=meshes.rows_of(job.x),
        )  # fmt: skip
    return devices.on_each(
        lambda given: _in_chunks(given, settings), settings.spread, (job, doubtful),
        (batches.per_image(job), True),
    )  # fmt: skip


def _in_chunks(given: tuple[Job, Array], settings: Settings) -> Array:
    return batches.in_chunks(partial(_looked, settings=settings), settings, *given)


def _looked(job: Job, doubtful: Array, *, settings: Settings) -> Array:
    clean, method = explain.begin(job, settings), settings.gradient
    begun = Begun(job, settings, clean)
    mask = maps.neuron_mask(job.channels, job.neurons, clean.a.shape)

    value = clean.a if clean.start is None else clean.a - widen(clean.start)

    def image(
        x: Inputs, own: points.Own, aim: Aim, scale: Array, wide: Array, mask: Array
    ) -> Array:
        network = job.network
        if clean.report.averaged:
            x, a = points.visit(begun, x, own, jnp.int32(0))
        else:
            a = network.features(x)

        def derivatives(a: Array) -> Derivatives:
            log_derivatives, _ = differentiate(network, settings, clean.report, a, x, aim)
            return compose(job.target, method)(log_derivatives, scale=scale)

        def signed(d: Derivatives) -> Array:
            return method.draw(method.weigh(d, wide, scale)[0], wide, mask)

        def whole(a: Array) -> tuple[Derivatives, Array]:
            d = derivatives(a)
            return d, signed(d)

        moved = shaken(whole, a)
        numbers = jnp.arange(DRAWS + 1, dtype=jnp.int32)
        d, drawn = jax.lax.map(lambda n: moved(n, jnp.where(n > 0, DIGITS, 0.0)), numbers)
        used = mask.any(axis=tuple(range(mask.ndim - 1)), keepdims=True)
        real = jax.tree.map(
            lambda v: jnp.where(_by_own_size(jnp.where(used[None], v, 0)), 0, v[0]), d
        )
        none = jnp.stack([(v == 0).all() for v in jax.tree.leaves(real)]).all()
        gone = _by_own_size(drawn) | (signed(real) == 0).all()
        return jnp.where((drawn[0] == 0).all(), none, gone)

    def one(packed: Any) -> Array:
        doubtful, *rest = packed
        return jax.lax.cond(doubtful, lambda: image(*rest), lambda: jnp.zeros((), bool))

    own = points.own(begun) if clean.report.averaged else points.Own(None, None, None)
    rest = (job.x, own, clean.aim, clean.scale, value, mask)
    return jax.lax.map(one, (doubtful, *rest))


def _by_own_size(values: Array) -> Array:
    """Say whether the rest of ``[n, ...]`` are as far from the first as that is from zero."""
    size = jnp.abs(values[0]).max()
    unit = values / jnp.where(size > 0, size, 1)
    return ((unit[1:] - unit[:1]) ** 2).sum() / DRAWS >= (unit[0] ** 2).sum()
