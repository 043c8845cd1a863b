"""Queries: the scores of changed activations or inputs, in chunks.

The ``n``-th change depends on ``n`` alone, so that the changes of an image may run in chunks of any
size. Behind a layer only the head of the network runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam import maps
from jaxcam.arrays.inputs import Inputs, first
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example, Queries
from jaxcam.derivatives.engines.gradient import gradient
from jaxcam.derivatives.traced import trace
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

    # In reverse mode a chunk is computed again: what it kept on the way does not add up.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(n: Array) -> Array:
        return outcome(change(value, n))

    return jax.lax.map(one, numbers, batch_size=chunk)


def answer(job: Job, settings: Settings, method: Queries) -> CAM:
    """Explain images by the scores of their changes."""
    check_network(job.shared.split(), job.x)
    network = job.network
    a = jax.vmap(network.features)(job.x)
    if method.at == "layer":
        check_layer(method.name, network, a, job.x)
    else:
        _check_input(method, job.x)
    scores = jax.vmap(exactly(network.scores))(a, job.x)
    aim = aims.resolve(job.target, scores)
    count = method.how_many(a.shape[1:])
    mask = maps.neuron_mask(job.channels, job.neurons, a.shape)

    def outcome(x: Inputs, aim: Aim, a: Array) -> Array:
        scores = exactly(network.scores)(a, x)
        u = network.target.log_score(scores, aim)
        index = aim.class_index if job.target.form.plain else None
        return method.outcome(widen(u), widen(scores), index)

    def prepared(x: Inputs, aim: Aim, a: Array, key: Array | None) -> tuple[Any, ...]:
        if method.prepare is None:
            return ()
        u1 = _gradient(network, a, x, aim) if method.gradient else None
        return (method.prepare(Example(a, x, u1, key)),)

    def image(
        x: Inputs, aim: Aim, a: Array, key: Array | None
    ) -> tuple[Array | None, Array]:  # fmt: skip
        given = prepared(x, aim, a, key)
        if method.at == "layer":
            of, value = partial(outcome, x, aim), a
        else:
            of, value = lambda x: outcome(x, aim, network.features(x)), x
        numbers = jnp.arange(count, dtype=jnp.int32)

        def change(value: Array, n: Array) -> Array:
            return method.change(value, n, *given)

        outcomes = asked(of, change, value, numbers, chunk_size=settings.chunk_size)
        return method.weigh(outcomes, of(value), widen(a), *given)

    packed = (job.x, aim, a, job.numbers.keys)
    weights, signed = jax.lax.map(lambda one: image(*one), packed)
    if weights is None:
        check_whole(method.name, job, "it weighs positions")
    else:
        signed = jax.vmap(maps.combine)(weights, widen(a), mask)
    was_seen = jax.vmap(seen)(signed)
    finite = ~blank.has(was_seen, Seen.NOT_FINITE)
    part = "head" if method.at == "layer" else "network"
    taken = "one gradient" if method.gradient else "no derivative"
    words = f"{count} forward passes of the {part} for each image, and {taken}"
    diagnostics = Diagnostics(
        report=Report("queries", True, words), poles=None, num_samples=None,
        effective_samples=None, top_class_kept=None, standard_error=None, relative_error=None,
        finite=finite, blank=finite & ~blank.has(was_seen, settings.visible), seen=was_seen,
    )  # fmt: skip
    return CAM(settings.shown(signed), signed, weights, scores, aim.class_index, diagnostics)


def _gradient(network: Network, a: Array, x: Inputs, aim: Aim) -> Array:
    """Give ``du/da`` of one clean example, in the precision that derivatives are taken in."""

    def score(wide: Array, x: Inputs, aim: Aim) -> Array:
        return network.log_score(wide.astype(a.dtype), x, aim).astype(wide.dtype)

    arguments = (widen(a), x, aim)
    return gradient(trace(score, *arguments), *jax.tree.leaves(arguments))[0]


def check_layer(call: str, network: Network, a: Array, x: Inputs) -> None:
    """Refuse a layer of which nothing reaches the scores: whatever is changed, they stay."""
    closed = jax.make_jaxpr(partial(network.scores, x=first(x)))(first(a))
    if dependence(body(closed), [Dependence.VARYING])[0] is Dependence.NONE:
        refuse_unconnected(call, Dependence.NONE)


def check_whole(call: str, job: Job, reason: str) -> None:
    """Refuse a subset of feature maps or neurons, of a method that has no use for one."""
    if job.channels is None and job.neurons is None:
        return
    fail(
        call,
        needs=f"the whole layer: {reason}",
        got="a subset of its feature maps",
        remedy="Leave channels= and neurons= None, or take a method that weighs feature maps.",
    )


def _check_input(method: Queries, x: Inputs) -> None:
    """Refuse what is not one array of numbers that can be changed a little."""
    if not isinstance(x, jax.Array):
        fail(
            method.name,
            needs="a network of one input, which it changes",
            got=f"{len(x)} inputs",
            remedy="Close over the others: jaxcam.Split(lambda x: ..., lambda a, x: ...).",
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        remedy = "Convert x as in training, or take a method that changes the layer."
        fail(method.name, needs="a floating input, which it changes", got=x.dtype, remedy=remedy)


def seen(signed: Array) -> Array:
    """Say what is seen of one example's signed map, as an integer: see `Seen`."""
    return blank.anywhere(
        {
            Seen.NOT_FINITE: ~jnp.isfinite(signed),
            Seen.POSITIVE: signed > 0,
            Seen.NEGATIVE: signed < 0,
            Seen.ASKED: jnp.ones_like(signed, bool),
        }
    )
