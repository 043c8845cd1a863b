"""Where a path starts, and what stands for absent positions: inputs or activations."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.door import as_array
from jaxcam.arrays.inputs import Inputs
from jaxcam.errors import fail

Given = Literal["input", "activations"]


def told_apart(call: str, baseline: Any, *, at: str = "layer") -> tuple[Given, Any]:
    """Tell an input from ``("activations", array)``, as the ``baseline=`` of a method."""
    if not (isinstance(baseline, tuple) and baseline[:1] == ("activations",)):
        return "input", baseline
    if len(baseline) != 2 or at == "input":
        fail(
            call,
            needs="baseline=('activations', array) with at='layer'",
            got=f"{len(baseline)} entries with at={at!r}",
            remedy="A path of inputs starts at an input.",
        )
    return "activations", baseline[1]


def inputs_of(call: str, baseline: Any, x: Inputs) -> Any:
    """Give the inputs to start from, like ``x``: zeros by default."""
    if baseline is None:
        return jax.tree.map(_zeros, x)
    given = jax.tree.map(lambda leaf: as_array(leaf, f"{call}: baseline"), baseline)
    if jax.tree.structure(given) != jax.tree.structure(x):
        _misfit(call, "as many arrays as x has, in the same order", jax.tree.structure(given))
    return jax.tree.map(lambda given, x: _like(call, given, x), given, x)


def several_of(call: str, baseline: Any, x: Array) -> Array:
    """Give several inputs to start from, for each image all of them: ``[batch, m, ...]``."""
    if not isinstance(x, jax.Array):
        _misfit(call, "one input: several baselines go with one array", "several inputs")
    given = as_array(baseline, f"{call}: baseline")
    if given.shape[1:] != x.shape[1:] or not len(given):
        _misfit(call, f"several inputs of shape {x.shape[1:]}: [m, ...]", given.shape)
    return jnp.broadcast_to(given.astype(x.dtype), (len(x), *given.shape))


def activations_of(call: str, start: Array, a: Array) -> Array:
    """Give activations to start from, for a batch: shaped like ``a: [batch, *spatial, k]``."""
    if start.shape not in (a.shape, a.shape[1:], a.shape[-1:]):
        needs = f"activations of shape {a.shape[1:]}, {a.shape[-1:]} or {a.shape}"
        _misfit(call, needs, start.shape)
    return jnp.broadcast_to(start.astype(a.dtype), a.shape)


def _zeros(x: Array) -> Array:
    """No light; names and numbers of things (integers) have no zero, and stay."""
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _like(call: str, given: Array, x: Array) -> Array:
    if given.shape not in (x.shape, x.shape[1:]):
        needs = f"an input of shape {x.shape[1:]}, or one for each: {x.shape}"
        _misfit(call, needs, given.shape)
    return jnp.broadcast_to(given.astype(x.dtype), x.shape)


def _misfit(call: str, needs: str, got: Any) -> None:
    remedy = (
        "baseline=None is an input of zeros; one input, or a batch of them, starts there; "
        "('activations', array) starts at activations of the layer, ('several', array [m, ...]) at "
        "each of several inputs."
    )
    fail(call, needs=f"a baseline: {needs}", got=got, remedy=remedy)
