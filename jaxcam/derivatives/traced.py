"""A score, traced once, so that what is found out about it is found out once.

Which engine serves a score is asked of several, and each needs its jaxpr, its gradient's jaxpr, its
tangents: tracing these takes longer than compiling a small network.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxcam.contracts import Traced
from jaxcam.jaxprs.logarithms.rewriting import exact_logarithms
from jaxcam.jaxprs.starts import with_known_starts


def trace(
    score: Callable[..., Any],
    *arguments: Any,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> Traced:
    """Trace a score at ``a, *context``, arrays or `jax.ShapeDtypeStruct`.

    Logarithms of probabilities are put so that they keep their digits (jaxprs/logarithms). The
    score gives ``u``, or ``u`` and what else its forward pass gives.
    """
    closed, shape = jax.make_jaxpr(score, return_shape=True)(*arguments)
    closed = exact_logarithms(with_known_starts(closed))
    more = jax.tree.structure(shape[1] if isinstance(shape, tuple) else None)
    return Traced(closed, more, tuple(closed.in_avals), chunk_size, axis, {})
