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
from jaxcam.contracts import Game, Gradient, Method, Path, Points, Smoothing
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
    bare = Numbers(_keys(method, key, batch) if method.random else None, zero, zero, zero)
    points = method.points if isinstance(method, Gradient) else None
    if isinstance(method, Game):
        return _from_baseline(method.name, bare, method, x), method._replace(
            baseline=None, tolerance=None
        )
    if isinstance(points, Path):
        left = points._replace(baseline=None, tolerance=None)
        return _from_baseline("integrate", bare, points, x), method._replace(points=left)
    if points is None:
        return bare, method
    tolerance = points.tolerance if points.adaptive else 0.0
    noisy = inputs.noisy_key(method.name, x, points.noisy)
    left = points._replace(noise_level=None, temper=None, tolerance=None, noisy=noisy)
    given = (points.noise_level, points.temper, tolerance)
    arrays = (jnp.asarray(value, wide) for value in given)
    return Numbers(bare.keys, *arrays), method._replace(points=left)


def _from_baseline(call: str, bare: Numbers, method: Game | Path, x: Inputs) -> Numbers:
    """Add a tolerance, and what is started from: inputs, or activations of the layer."""
    if method.adaptive:
        bare = bare._replace(tolerance=jnp.asarray(method.tolerance, bare.tolerance.dtype))
    if method.given == "activations":
        return bare._replace(start=as_array(method.baseline, f"{call}: baseline"))
    several = isinstance(method, Path) and method.several
    given = baselines.several_of if several else baselines.inputs_of
    return bare._replace(baseline=given(call, method.baseline, x))


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


def start_of(call: str, job: Job, a: Array) -> Array:
    """Give the activations that a call starts from, shaped like ``a: [batch, *spatial, k]``."""
    if job.numbers.start is not None:
        return baselines.activations_of(call, job.numbers.start, a)
    return jax.vmap(job.network.features)(job.numbers.baseline)


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
    start = start_of("integrate", job, a)
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
