"""Queries: the scores of changed activations or inputs, in chunks.

The ``n``-th change depends on ``n`` alone, so that the changes of an image may run in chunks of any
size. Behind a layer only the head of the network runs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.inputs import Inputs, first
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Queries
from jaxcam.errors import fail
from jaxcam.jaxprs.dependence import Dependence, dependence
from jaxcam.jaxprs.interpret import body
from jaxcam.jaxprs.logarithms.rewriting import exactly
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline import blank
from jaxcam.pipeline.blank import Seen
from jaxcam.pipeline.job import Job, Settings
from jaxcam.pipeline.network import Network, check_network
from jaxcam.pipeline.plan import refuse_unconnected
from jaxcam.targets import Aim
from jaxcam.types import CAM, Diagnostics, Report

NUMBERS_AT_ONCE = 1 << 20  # of changed values in flight when no chunk size is given


def asked(
    outcome: Callable[[Array], Array], change: Callable[[Array, Array], Array], value: Array,
    numbers: Array, *, chunk_size: int | None,
) -> Array:  # fmt: skip
    """Give ``outcome(change(value, n))`` for each of the ``numbers: [m]``, in chunks."""
    chunk = min(chunk_size or max(1, NUMBERS_AT_ONCE // value.size), numbers.size)
    return jax.lax.map(lambda n: outcome(change(value, n)), numbers, batch_size=chunk)


def answer(job: Job, settings: Settings, method: Queries) -> CAM:
    """Explain images by the scores of their changes."""
    check_network(job.shared.split(), job.x)
    network = job.network
    a = jax.vmap(network.features)(job.x)
    if method.at == "layer":
        _check_layer(method, network, a, job.x)
    scores = jax.vmap(exactly(network.scores))(a, job.x)
    aim = aims.resolve(job.target, scores)
    value = a if method.at == "layer" else _one_array(method, job.x)
    count = method.how_many(value.shape[1:])
    mask = maps.neuron_mask(job.channels, job.neurons, a.shape)

    def outcome(x: Inputs, aim: Aim, a: Array) -> Array:
        scores = exactly(network.scores)(a, x)
        u = network.target.log_score(scores, aim)
        return method.outcome(widen(u), widen(scores), aim.class_index)

    def image(x: Inputs, aim: Aim, a: Array) -> tuple[Array | None, Array]:
        if method.at == "layer":
            of, value = partial(outcome, x, aim), a
        else:
            of, value = lambda x: outcome(x, aim, network.features(x)), x
        numbers = jnp.arange(count, dtype=jnp.int32)
        outcomes = asked(of, method.change, value, numbers, chunk_size=settings.chunk_size)
        return method.weigh(outcomes, of(value), widen(a))

    weights, signed = jax.lax.map(lambda packed: image(*packed), (job.x, aim, a))
    if weights is None and not (job.channels is None and job.neurons is None):
        remedy = "Leave channels= and neurons= None, or take a method that weighs feature maps."
        got = "a subset of its feature maps"
        fail(method.name, needs="the whole layer: it weighs positions", got=got, remedy=remedy)
    if weights is not None:
        signed = jax.vmap(maps.combine)(weights, widen(a), mask)
    seen = jax.vmap(_seen)(signed)
    finite = ~blank.has(seen, Seen.NOT_FINITE)
    part = "head" if method.at == "layer" else "network"
    words = f"{count} forward passes of the {part} for each image, and no derivative"
    diagnostics = Diagnostics(
        report=Report("queries", True, words), poles=None, num_samples=None,
        effective_samples=None, top_class_kept=None, standard_error=None, relative_error=None,
        finite=finite, blank=finite & ~blank.has(seen, settings.visible), seen=seen,
    )  # fmt: skip
    return CAM(settings.shown(signed), signed, weights, scores, aim.class_index, diagnostics)


def _check_layer(method: Queries, network: Network, a: Array, x: Inputs) -> None:
    """Refuse a layer of which nothing reaches the scores: whatever is changed, they stay."""
    closed = jax.make_jaxpr(partial(network.scores, x=first(x)))(first(a))
    if dependence(body(closed), [Dependence.VARYING])[0] is Dependence.NONE:
        refuse_unconnected(method.name, Dependence.NONE)


def _one_array(method: Queries, x: Inputs) -> Array:
    if not isinstance(x, jax.Array):
        fail(
            method.name,
            needs="a network of one input, which it changes",
            got=f"{len(x)} inputs",
            remedy="Close over the others: jaxcam.Split(lambda x: ..., lambda a, x: ...).",
        )
    return x


def _seen(signed: Array) -> Array:
    return blank.anywhere(
        {
            Seen.NOT_FINITE: ~jnp.isfinite(signed),
            Seen.POSITIVE: signed > 0,
            Seen.NEGATIVE: signed < 0,
            Seen.ASKED: jnp.ones_like(signed, bool),
        }
    )
