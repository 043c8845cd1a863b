"""A score, traced once, so that what is found out about it is found out once.

Which engine serves a score is asked of several, and each needs its jaxpr, its gradient's jaxpr, its
tangents: tracing these takes longer than compiling a small network.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxcam.types import Traced


def trace(
    score: Callable[..., Any],
    *arguments: Any,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> Traced:
    """Trace a score at ``a, *context``, arrays or `jax.ShapeDtypeStruct`.

    The score gives ``u``, or ``u`` and what else its forward pass gives.
    """
    closed, shape = jax.make_jaxpr(score, return_shape=True)(*arguments)
    more = jax.tree.structure(shape[1] if isinstance(shape, tuple) else None)
    abstract = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in closed.in_avals)
    return Traced(closed, more, abstract, chunk_size, axis, {})
