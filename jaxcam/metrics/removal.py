"""Activations removed, one forward pass each, and how near Taylor's effects are to that."""

import functools
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.keys import threefry
from jaxcam.arrays.meshes import undivided
from jaxcam.arrays.precision import widen
from jaxcam.errors import JaxcamWarning, fail
from jaxcam.jaxprs import loops as chunks
from jaxcam.jaxprs.logarithms.rewriting import exactly
from jaxcam.methods import taylor_cam
from jaxcam.pipeline import batches
from jaxcam.pipeline import program as explain
from jaxcam.pipeline.checks import check_input, where
from jaxcam.pipeline.compiled import of_network
from jaxcam.pipeline.job import Job, Settings
from jaxcam.pipeline.network import Network
from jaxcam.pipeline.queries import asked
from jaxcam.targets import Aim, as_target, check_class
from jaxcam.types import ChunkSize, Derivatives, Report, Split, shared


class RemovalCheck(NamedTuple):
    """How near Taylor's effects are to true removals, image by image.

    With ``t_i`` the effect of removing element ``i`` by Taylor's series up to an order and ``r_i``
    the true one, over the elements that were drawn and are not zero already:

    l2_error: ``|t - r| / |r|`` in the Euclidean norm, which large effects decide.
    median_error: ``median |t_i - r_i| / median |r_i|``, the error of a typical element in units of
    a typical effect. (The median of ``|t_i - r_i| / |r_i|`` would be decided by elements whose
    effect is nearly zero.) Both are absolute where the divisor is zero.
    correlation: Pearson's, of ``t`` with ``r``; NaN where one of them is constant.

    These are ``[batch, order]``, first order first. elements: ``[batch, samples]``, the flat
    indices into ``[*spatial, k]`` that were drawn. taylor: ``t``, ``[batch, order, samples]``.
    removal: ``r``, ``[batch, samples]``. engine, proof: how the derivatives were taken, and why so.
    """

    l2_error: NDArray
    median_error: NDArray
    correlation: NDArray
    elements: NDArray
    taylor: NDArray
    removal: NDArray
    engine: str
    proof: str


def check_removal(
    split: Split,
    x: Any,
    target: Any = None,
    *,
    order: int = 3,
    engine: str = "auto",
    samples: int = 256,
    seed: int = 0,
    chunk_size: ChunkSize = "auto",
) -> RemovalCheck:
    """Compare `jaxcam.methods.taylor_cam` with the removals that it stands for.

    For elements ``a = A_ij^k`` of each image, drawn without repetition, at every order up to
    ``order``::

        t = u1 a - u2 a^2 / 2 + u3 a^3 / 6        r = u(A) - u(A with a = 0)

    ``r`` is the difference of two forward passes and shares nothing with the derivatives. It is
    rounded as ``u`` is: in float32 by about 1e-7 ``|u|``, whatever its own size; for errors below
    that use float64 weights and input inside ``with jax.enable_x64(True):``.

    The derivatives are taken as for the whole map, of all elements; forward passes are made for
    those of the draw alone. Elements that are zero already come last in the draw, since removing
    them changes nothing, and are left out of the errors.

    Args:
        split, x, target, engine: as in `jaxcam.cam`.
        order: how many orders to compare, 1 to 3.
        samples: how many elements of each image; all of them if the layer has no more.
        seed: which ones.
        chunk_size: how many elements are removed (and, for some engines, differentiated) at once.

    Returns:
        `RemovalCheck`, in the host's memory.

    Raises:
        JaxcamError: as `jaxcam.cam`, or ``samples`` below one, or effects that are not finite.

    Warns:
        JaxcamWarning: nothing that was drawn is active, or no removal changes the score.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> cubes = jaxcam.Split(features=lambda x: x, scores=lambda a, x: (a**3).sum(1))
    >>> check = jaxcam.check_removal(cubes, jnp.array([[[1.0], [2.0], [3.0]]]))
    >>> print(check.l2_error.round(2))  # 3 a^3 at first order, 0 at second, a^3 at third
    [[2. 1. 0.]]
    """
    x = check_input(x, "check_removal")
    chunk = chunks.checked(chunk_size)
    if not isinstance(samples, int) or samples < 1:
        fail("check_removal", needs="samples of at least 1", got=samples, remedy="Default: 256.")
    target, method = as_target(target), taylor_cam(order=order)
    job = Job(shared(split), x, target)
    settings = Settings(method, engine, chunk)
    key = threefry(jax.random.key(seed))
    compared = jax.device_get(_compare(undivided(job), settings, key, samples))
    check_class(target, compared.scores.shape[-1])
    if not (np.isfinite(compared.taylor).all() and np.isfinite(compared.removal).all()):
        got = "NaN or infinity"
        remedy = "Are the weights and scores finite, with and without each activation?"
        fail("check_removal", needs="finite effects", got=got, remedy=remedy)
    for words in _complaints(compared):
        warnings.warn(f"check_removal: {words}", JaxcamWarning, stacklevel=2)
    near = _nearness(compared.a, compared.taylor, compared.removal)
    decided = compared.report.engine, compared.report.proof
    return RemovalCheck(*near, compared.elements, compared.taylor, compared.removal, *decided)


def _complaints(compared: "_Compared") -> Iterator[str]:
    """Word what leaves nothing to compare. ``found``: on the host."""
    there = compared.a != 0
    idle = ~there.any(axis=1)
    if idle.any():
        yield f"every activation of image {where(idle)} that was drawn is zero: nothing to remove."
    still = ~idle & (compared.removal == 0).all(axis=1)
    moved = (compared.taylor != 0).any(axis=(1, 2))
    for which, words in ((still & ~moved, ""), (still & moved, ", although its derivatives do")):
        if which.any():
            yield (
                f"no removal changes the score of image {where(which)}{words}: near this input it "
                "does not depend on what was drawn, or by less than its rounding."
            )


def removed(
    network: Network, a: Array, x: Inputs, aim: Aim, elements: Array, *, chunk_size: int | None
) -> Array:
    """Remove elements of one example's ``a: [*spatial, k]``, one forward pass each, in chunks.

    Gives ``u(A) - u(A without element)``, shaped like ``elements``.
    """
    log_score = exactly(network.log_score)
    whole = widen(log_score(a, x, aim))

    def effect(without: Array) -> Array:
        return whole - widen(log_score(without, x, aim))

    return asked(effect, _without, a, elements, chunk_size=chunk_size)


def _without(a: Array, element: Array) -> Array:
    return a.reshape(-1).at[element].set(0).reshape(a.shape)


def signed_map(elements: NDArray, effects: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Sum one image's effects over feature maps: ``[*spatial]`` of ``shape: [*spatial, k]``.

    Of all elements' removals this is the map that `jaxcam.methods.taylor_cam` approximates, before
    the ReLU; elements that are not among ``elements`` count as zero.
    """
    whole = np.zeros(math.prod(shape))
    whole[elements] = effects
    return whole.reshape(shape).sum(axis=-1)


class _Compared(NamedTuple):
    """One call's arrays, with the activations at the drawn elements and the scores."""

    elements: Array
    a: Array
    taylor: Array
    removal: Array
    scores: Array
    report: Report


@functools.partial(of_network, static=("settings", "samples"))
def _compare(job: Job, settings: Settings, key: Array, samples: int) -> _Compared:
    """Run both ways to the same effects, on as many images at once as there is room for."""
    keys = jax.random.split(key, jax.tree.leaves(job.x)[0].shape[0])
    run = functools.partial(_both_ways, settings=settings, samples=samples)
    return batches.in_chunks(run, settings, job, keys)


def _both_ways(job: Job, keys: Array, *, settings: Settings, samples: int) -> _Compared:
    """Derive the effects of all images, and remove elements image by image."""
    clean = explain.begin(job, settings)
    network = job.network
    count = min(samples, clean.a[0].size)
    orders = range(1, settings.gradient.order + 1)

    def image(
        x: Inputs, aim: Aim, wide: Array, scale: Array, derivatives: Derivatives, key: Array
    ) -> tuple[Array, Array, Array, Array]:
        flat = wide.reshape(-1)
        late = (flat == 0).astype(flat.dtype)
        elements = jnp.argsort(late + jax.random.uniform(key, flat.shape, flat.dtype))[:count]
        # The weights are those of the maps themselves: what is checked is what is drawn.
        weights = (taylor_cam(order=k).weigh(derivatives, wide, scale)[0] for k in orders)
        taylor = jnp.stack([(w * wide).reshape(-1)[elements] for w in weights])
        a = network.features(x)
        losses = removed(network, a, x, aim, elements, chunk_size=settings.chunk_size)
        return elements, flat[elements], taylor, losses

    packed = (job.x, clean.aim, clean.a, clean.scale, clean.derivatives, keys)
    elements, a, taylor, removal = jax.lax.map(lambda one: image(*one), packed)
    return _Compared(elements, a, taylor, removal, clean.scores, clean.report)


def _nearness(a: Any, taylor: Any, removal: Any) -> tuple[NDArray, NDArray, NDArray]:
    """Give the three measures of `RemovalCheck`, each ``[batch, order]``, in float64."""
    rows = []
    for there, effects, truth in zip(np.asarray(a) != 0, taylor, removal, strict=True):
        wide = np.asarray(truth, np.float64)[there]
        rows.append([_measures(np.asarray(t, np.float64)[there], wide) for t in effects])
    l2, median, correlation = np.moveaxis(np.array(rows), -1, 0)
    return l2, median, correlation


def _measures(taylor: NDArray, truth: NDArray) -> tuple[float, float, float]:
    if not truth.size:
        return 0.0, 0.0, float("nan")
    apart = taylor - truth
    alike = float("nan")
    if np.ptp(taylor) > 0 and np.ptp(truth) > 0:
        alike = float(np.corrcoef(taylor, truth)[0, 1])
    l2 = _over(np.linalg.norm(apart), np.linalg.norm(truth))
    return l2, _over(np.median(abs(apart)), np.median(abs(truth))), alike


def _over(error: Any, size: Any) -> float:
    return float(error / size) if size > 0 else float(error)
