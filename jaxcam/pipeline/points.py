"""The points of one example at which derivatives are taken, whatever they are.

`samples` knows them by number alone. What differs between noisy inputs and the nodes of a path is
here: which arrays a call brings along, where the ``n``-th point is, and how much it counts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays import inputs
from jaxcam.arrays.door import as_array
from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.precision import wide_dtype
from jaxcam.contracts import Game, Gradient, Method, Path, Points, Queries, Smoothing
from jaxcam.derivatives.auto import engine_named
from jaxcam.errors import fail
from jaxcam.jaxprs.logarithms.rewriting import exactly
from jaxcam.pipeline import baselines, noise, path
from jaxcam.pipeline.job import Begun, Job, Numbers, Settings
from jaxcam.targets import Aim


class Own(NamedTuple):
    """What an image's points are made from: its key, or both ends of its path."""

    key: Any
    start: Any
    end: Any


def own(begun: Begun) -> Own:
    """Give what the points of each image are made from; leading axis ``[batch]``."""
    job, clean, points = begun.job, begun.clean, begun.points
    if isinstance(points, Smoothing):
        return Own(job.numbers.keys, None, None)
    if points.at == "input":
        return Own(None, job.numbers.baseline, job.x)
    return Own(None, clean.start, clean.a)


def numbers_of(method: Method, key: Array | None, x: Inputs, batch: int) -> tuple[Numbers, Method]:
    """Take the numbers out of a method, and leave what the program is compiled for."""
    wide = wide_dtype(inputs.dtype_of(x))
    zero = jnp.zeros((), wide)
    if isinstance(method, Game):
        given, bare = method.baseline, method._replace(baseline=None, tolerance=None)
        tolerance = jnp.asarray(method.tolerance if method.adaptive else 0.0, wide)
        begun = Numbers(_keys(method, key, batch), zero, zero, tolerance)
        if method.given == "activations":
            start = as_array(given, f"{method.name}: baseline")
            return begun._replace(start=start), bare
        return begun._replace(baseline=baselines.inputs_of(method.name, given, x)), bare
    points = method.points if isinstance(method, Gradient) else None
    drawn = isinstance(method, Queries) and method.random
    if points is None:
        keys = _keys(method, key, batch) if drawn else None
        return Numbers(keys, zero, zero, zero), method
    if isinstance(points, Path):
        bare = method._replace(points=points._replace(baseline=None, tolerance=None))
        tolerance = jnp.asarray(points.tolerance if points.adaptive else 0.0, wide)
        begun = Numbers(None, zero, zero, tolerance)
        if points.given == "activations":
            start = as_array(points.baseline, "integrate: baseline")
            return begun._replace(start=start), bare
        given = baselines.several_of if points.several else baselines.inputs_of
        return begun._replace(baseline=given("integrate", points.baseline, x)), bare
    tolerance = points.tolerance if points.adaptive else 0.0
    noisy = inputs.noisy_key(method.name, x, points.noisy)
    bare = points._replace(noise_level=None, temper=None, tolerance=None, noisy=noisy)
    keys = _keys(method, key, batch)
    given = (points.noise_level, points.temper, tolerance)
    arrays = (jnp.asarray(value, wide) for value in given)
    return Numbers(keys, *arrays), method._replace(points=bare)


def _keys(method: Method, key: Array | None, batch: int) -> Array:
    """Give each image its key, or refuse to draw without one."""
    if key is None:
        fail(method.name, needs="a key", got="none", remedy="Pass key=jax.random.key(0).")
    return noise.keys_of(key, batch)


def unit(points: Points) -> int:
    """Give how many points depend on each other: the nodes of a path all do."""
    if isinstance(points, Path):
        return points.num_points
    return noise.SCHEMES[points.scheme].unit


def nodes_of(begun: Begun) -> path.Nodes:
    """Give the nodes of a path by their numbers."""
    points = begun.points
    return path.numbered(begun.report.rule, points.num_points, points.adaptive)


def complete(method: Gradient) -> bool:
    """Say whether nodes enough make a map that sums to the whole difference.

    A path of inputs does not lead through the layer on a straight line.
    """
    return method.additive and isinstance(method.points, Path) and method.points.at == "layer"


def most(begun: Begun) -> int:
    """Give how many points there may be: numbers from there on are padding."""
    return len(nodes_of(begun).where) if isinstance(begun.points, Path) else begun.points.num_points


def ends(job: Job, settings: Settings, a: Array, aim: Aim, u: Array) -> tuple[Any, Any]:
    """Give ``start`` and ``total`` of `Clean` for a path, None for noise.

    An additive method without points divides what the layer's activations are worth beside zeros.
    """
    network, points = job.network, settings.gradient.points
    if points is None and settings.gradient.additive:
        nothing = jax.vmap(exactly(network.log_score))(jnp.zeros_like(a), job.x, aim)
        return None, u - nothing.astype(u.dtype)
    if not isinstance(points, Path):
        return None, None
    if job.numbers.start is not None:
        start, there = baselines.activations_of("integrate", job.numbers.start, a), job.x
    else:
        start = jax.vmap(network.features)(job.numbers.baseline)
        there = job.x if points.at == "layer" else job.numbers.baseline
    before = jax.vmap(exactly(network.log_score))(start, there, aim)
    return start, u - before.astype(u.dtype)


def visit(begun: Begun, x: Inputs, own: Own, n: Array) -> tuple[Inputs, Array]:
    """Give the ``n``-th point of an example: the input there, and the activations."""
    network, points, level = begun.network, begun.points, begun.job.numbers.noise_level
    if isinstance(points, Smoothing):
        clean = inputs.picked(x, points.noisy)
        drawn = noise.sample(own.key, n, clean, level, points.scheme)
        noisy = inputs.replaced(x, points.noisy, drawn)
        return noisy, network.features(noisy)
    where = nodes_of(begun).where.astype(begun.clean.a.dtype)
    share = jnp.asarray(where)[jnp.minimum(n, len(where) - 1)]
    if points.at == "layer":
        return x, path.between(own.start, own.end, share)
    there = jax.tree.map(lambda start, end: path.between(start, end, share), own.start, own.end)
    return there, network.features(there)


def log_weight(begun: Begun, n: Array, u: Array) -> Array:
    """Give the logarithm of what the ``n``-th point counts, ``-inf`` for padding."""
    job, points = begun.job, begun.points
    if isinstance(points, Path):
        logarithms = np.log(nodes_of(begun).weights).astype(u.dtype)
        logarithm = jnp.asarray(logarithms)[jnp.minimum(n, len(logarithms) - 1)]
    else:
        weighted = job.target.form.exponentiated and engine_named(begun.report.engine).scaled
        logarithm = jnp.asarray(job.numbers.temper, u.dtype) * u if weighted else jnp.zeros_like(u)
    return jnp.where(n < most(begun), logarithm, -jnp.inf)
