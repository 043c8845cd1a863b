"""The compiled programs of a network, kept for those that were used last.

JAX keeps what it compiled for as long as the function lives that was jitted, and of a function of
this module that would be for ever: a network of closures made anew at every turn of a loop leaves
its programs behind at every turn. So each network has jitted functions of its own, and an older
network's are dropped with all that was compiled for them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.errors import UnexpectedTracerError

from jaxcam.arrays.running import running

NETWORKS = 128  # every layer of a large network that is explained at all of them, in turn


def of_network(
    function: Callable[..., Any],
    *,
    static: Sequence[str] = ("settings",),
    donate: Sequence[str] = (),
) -> Callable[..., Any]:
    """Jit a function whose first argument is a `Job`, for each network and target apart."""

    @functools.lru_cache(maxsize=NETWORKS)
    def jitted(structure: Any) -> Callable[..., Any]:
        del structure

        # A function of its own: JAX keeps programs by the function.
        @functools.wraps(function)
        def own(*arguments: Any, **named: Any) -> Any:
            return function(*arguments, **named)

        return jax.jit(own, static_argnames=tuple(static), donate_argnames=tuple(donate))

    @functools.wraps(function)
    def call(job: Any, *arguments: Any, **named: Any) -> Any:
        program = jitted(jax.tree.structure((job.shared, job.target)))
        try:
            return program(job, *arguments, **named)
        except UnexpectedTracerError:  # JAX does not look while it traces
            with running("split", job.x):
                raise

    return call
