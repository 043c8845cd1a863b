"""What a network gives: any structure of arrays in words, and what activations and scores must be.

Asked of every network, whoever cut it: of one that `jaxcam.split` cuts while it runs, of a pair of
functions once before it does (`jaxcam.pipeline.network`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.arrays.inputs import Inputs, batch_of
from jaxcam.errors import fail

ACTIVATIONS = (
    "activations [batch, *spatial, k] with the batch axis of x first and at least one spatial axis"
)
SCORES = "scores [batch, classes] (or [batch, *spatial, classes]) with the batch axis of x first"


def is_array(value: Any) -> bool:
    """Whether JAX would trace it, concrete or abstract; Python scalars stay Python."""
    return isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def describe(tree: Any) -> str:
    """The structure with ``float32[2,8,8,4]`` for each array, cut where it gets long."""
    if is_array(tree):
        return f"{tree.dtype}[{','.join(map(str, tree.shape))}]"
    if isinstance(tree, Mapping):
        inner = ", ".join(f"{key!r}: {describe(value)}" for key, value in tree.items())
        text = f"{{{inner}}}"
    elif isinstance(tree, list | tuple):
        text = f"{type(tree).__name__}({', '.join(map(describe, tree))})"
    else:
        text = type(tree).__name__ if tree is not None else "None"
    return text if len(text) < 300 else text[:297] + "..."


def check_activations(call: str, a: Any, x: Inputs) -> None:
    """Refuse what is not ``[batch, *spatial, k]``, floating, for a call of that name.

    The batch is that of ``x``, and there is at least one spatial axis.
    """
    _check_floating(call, a, ACTIVATIONS, "Take a layer behind this one.")
    if a.ndim == 2:
        fail(
            call,
            needs=ACTIVATIONS,
            got=f"{describe(a)} for x {describe(x)}, which has no spatial axis to draw a map over",
            remedy="Take a layer before the pooling or the flattening, such as a convolution.",
        )
    if a.ndim < 3 or a.shape[0] != batch_of(x):
        fail(
            call,
            needs=ACTIVATIONS,
            got=f"{describe(a)} for x {describe(x)}",
            remedy="Pass x with its batch axis (x[None] for one example), or take another layer.",
        )


def check_scores(call: str, scores: Any, x: Inputs) -> None:
    """Refuse what are no floating scores of the batch of ``x``, for a call of that name."""
    _check_floating(call, scores, SCORES, "Give scores as they are before they are compared.")
    if scores.ndim < 2 or scores.shape[0] != batch_of(x):
        fail(
            call,
            needs=SCORES,
            got=f"{describe(scores)} for x {describe(x)}",
            remedy="Pass x with its batch axis, and return scores for each example: logits= of "
            "jaxcam.split says what they are, an index, a key or a function of the model's output.",
        )


def _check_floating(call: str, value: Any, needs: str, remedy: str) -> None:
    if not is_array(value):
        fail(call, needs=f"one array, {needs}", got=describe(value), remedy="Pick one array.")
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        remedy = "Take its real part or its modulus, whichever is meant."
    if not jnp.issubdtype(value.dtype, jnp.floating):
        fail(call, needs=f"floating {needs}", got=describe(value), remedy=remedy)
