"""Engines run in float64, and how far they are from the truth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

QUICK = {"xla_backend_optimization_level": 0}  # compiles faster; what is computed is the same


def derive(u, a, *, engine="adjoint", how="jit", **options):
    """Run an engine in float64."""
    call = functools.partial(jaxcam.log_derivatives, u, engine=engine, **options)
    with jax.enable_x64(True):
        run = jax.jit(call, compiler_options=QUICK) if how == "jit" else call
        return [np.asarray(v) for v in run(jnp.asarray(a))]


def relative_error(ours, truth) -> float:
    """``max |ours - truth| / max |truth|``; ``max |ours|`` where that is zero. NaN is infinite."""
    size = abs(truth).max()
    error = abs(np.asarray(ours) - truth).max() / (size if size > 0 else 1)
    return float(np.nan_to_num(error, nan=np.inf))
