"""Brute force on a sample of elements, for users to trust what they publish."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.door import as_array
from jaxcam.arrays.meshes import undivided
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.calls import in_single_precision
from jaxcam.derivatives.traced import check_score, trace
from jaxcam.errors import fail
from jaxcam.types import LogDerivatives, LogScore


class DerivativeCheck(NamedTuple):
    """How far an engine is from brute force.

    errors: largest difference of u1, u2, u3, each relative to the largest value of brute force
    (absolute where that is zero). elements: the flat indices that were compared. engine, proof:
    which engine ran and why it applied.
    """

    errors: tuple[float, float, float]
    elements: Array
    engine: str
    proof: str


def check_derivatives(
    log_score: LogScore, a: Array, *, engine: str = "auto", samples: int = 32, seed: int = 0
) -> DerivativeCheck:
    """Compare an engine with brute force on elements of ``a`` drawn without repetition.

    Brute force is three nested `jax.grad` of ``t -> u(a + t e_i)``, one element at a time, which
    shares nothing with the engines. Its own rounding is that of the dtype of ``a``: about 1e-6 in
    float32; inside ``with jax.enable_x64(True):`` with float64 activations, about 1e-15.

    Args:
        log_score, a, engine: as in `jaxcam.log_derivatives`.
        samples: how many elements to compare. seed: which ones.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> check = jaxcam.check_derivatives(lambda a: jnp.sum(jnp.tanh(a)), jnp.ones((4, 4, 2)))
    >>> check.engine, all(error < 1e-5 for error in check.errors)
    ('powered', True)
    """
    a = undivided(as_array(a, "check_derivatives"))
    check_score("check_derivatives", log_score, a)
    if not isinstance(samples, int) or samples < 1:
        fail("samples", needs="an integer of at least 1", got=repr(samples), remedy="Use 32.")
    log_score, a = in_single_precision(log_score, a)
    choice = choose(engine, trace(log_score, a))
    derive = jax.jit(lambda a: choice.derive(a)[0])
    chosen = jax.random.choice(jax.random.key(seed), a.size, (min(samples, a.size),), replace=False)
    truth = jax.lax.map(jax.jit(lambda i: brute_force(log_score, a, i)), chosen)
    errors = [
        _largest_error(ours.reshape(-1)[chosen], theirs)
        for ours, theirs in zip(derive(a), truth, strict=True)
    ]
    return DerivativeCheck(
        (errors[0], errors[1], errors[2]), chosen, choice.name, choice.proof.words
    )


def brute_force(log_score: LogScore, a: Array, index: Array) -> LogDerivatives:
    """Differentiate along one element by three nested gradients."""

    def moved(t: Array) -> Array:
        return log_score(a.reshape(-1).at[index].add(t).reshape(a.shape))

    first = jax.grad(moved)
    second = jax.grad(first)
    third = jax.grad(second)
    zero = jnp.zeros_like(a, shape=())
    return LogDerivatives(first(zero), second(zero), third(zero))


def _largest_error(ours: Array, truth: Array) -> float:
    size = jnp.abs(truth).max()
    return float(jnp.abs(ours - truth).max() / jnp.where(size > 0, size, jnp.ones_like(size)))
