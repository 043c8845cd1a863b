"""Unbiased estimates of all second and third derivatives from a few random probes.

With ``H`` and ``T`` the second and third derivatives of ``u`` and ``v`` independent cube roots of
unity, one for each element (``v_i^3 = 1``, ``E v_i = E v_i^2 = 0``)::

    u2_i = E Re(conj(v_i) (H v)_i)        u3_i = E Re(v_i T[v, v]_i)

Proof. ``E conj(v_i) v_j`` is 1 for ``j = i``, else ``E conj(v_i) E v_j = 0``: of ``sum_j H_ij``
only ``H_ii`` is left. ``E v_i v_j v_k`` is ``E v_i^3 = 1`` for ``i = j = k``; otherwise some
element occurs once or twice and no more, with a factor ``E v = 0`` or ``E v^2 = 0``: of
``sum_jk T_ijk`` only ``T_iii`` is left, without any of ``T_iij``, ``T_ijj`` or ``T_ijk``.

Networks take real numbers. So a probe is three real ones, ``r_m = Re(w^m v)`` with
``w = e^(2 pi i / 3)``, ``m = 0, 1, 2``, and::

    Re(conj(v_i) (H v)_i) = 2/3 sum_m r_mi (H r_m)_i
    Re(v_i T[v, v]_i)     = 4/3 sum_m r_mi T[r_m, r_m]_i

Proof. Write ``r_m = (w^m v + conj(w^m v)) / 2`` and multiply out. Every product carries a power of
``w^m``, and ``sum_m w^(m n)`` is 3 where 3 divides ``n``, else 0. From ``r H r`` this leaves
``3/4 (conj(v) H v + v H conj(v))``, from ``r T[r, r]`` ``3/8 (v T[v, v] + conj(v) T[conj(v),
conj(v)])``: twice the real parts.

Variance, for one probe: ``1/2 sum_j H_ij^2`` over ``j != i`` for ``u2``, half of what a Rademacher
vector has, at no pass of its own. For ``u3``, ``1/2 sum_j (T_ijj + 2 T_iij)^2 + 2 sum_{j<k}
T_ijk^2`` over ``j, k`` other than ``i``. One real probe of entries 1, -1/2, -1/2 would be unbiased
too, but its variance contains ``(sum_j T_ijj)^2``, which grows with the square of the number of
elements; the three of a probe cancel it. Antithetic probes gain nothing: ``conj(v)``, ``w v`` and
``w^2 v`` give the very same estimate, and ``-v`` is not a cube root of unity.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.arrays.door import as_array
from jaxcam.arrays.keys import numbered
from jaxcam.arrays.meshes import alike, automatically, axes_through, spec_of
from jaxcam.derivatives.calls import in_single_precision
from jaxcam.derivatives.traced import check_score
from jaxcam.errors import fail
from jaxcam.jaxprs import loops as chunks
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.merge import merged
from jaxcam.types import ChunkSize, LogDerivatives, LogScore


class Estimate(NamedTuple):
    """Estimated derivatives, and the standard error of each element; ``u1`` is exact, error 0."""

    derivatives: LogDerivatives
    errors: LogDerivatives


class _Sums(NamedTuple):
    """Probes so far: how many, their mean, and the sum of squared distances from it."""

    taken: Array
    mean: tuple[Array, Array]
    spread: tuple[Array, Array]


def stochastic_derivatives(
    log_score: LogScore, a: Array, *, key: Array, probes: int = 64, chunk_size: ChunkSize = "auto"
) -> Estimate:
    """Estimate ``u2`` and ``u3`` along every element from random probes; ``u1`` is one gradient.

    Unbiased, never exact: ``E u2_hat = u2``, ``E u3_hat = u3``, with errors that shrink with the
    square root of the number of probes and grow with what the score mixes: the derivatives *across*
    elements (the module's docstring has proof and variance). Each probe costs three passes of
    `jax.jvp` twice around a gradient, whatever the number of elements.

    It is no engine of `smooth_grad_cam_pp`: alpha divides one derivative by another, so unbiased
    derivatives would give a biased map, without bounds near the poles. ``D1, D2, D3`` of ``Y``
    (`bell.bell`) stay unbiased, since ``u1`` is exact and each of them is linear in ``u2, u3``.

    Args:
        log_score, a: as in `jaxcam.log_derivatives`.
        key: of the probes. Probe ``n`` depends on ``key`` and ``n`` alone, not on ``chunk_size``.
        probes: how many, at least 2, since the errors are estimated from their spread.
        chunk_size: how many probes are taken at once, which bounds the memory.

    Returns:
        `Estimate`: derivatives and standard errors, each shaped like ``a``.

    Raises:
        JaxcamError: fewer than two probes, or what `jaxcam.log_derivatives` refuses.

    Reference: Hutchinson 1989 for the second order, with complex probes; the third is its analogue.

    >>> import jax
    >>> import jaxcam
    >>> u = lambda a: (a**3).sum() + (a[0] * a[1]).sum()  # mixes two rows
    >>> a = jax.numpy.ones((2, 50))
    >>> estimate, errors = jaxcam.stochastic_derivatives(u, a, key=jax.random.key(0))
    >>> bool((abs(estimate.u2 - 6) <= 5 * errors.u2).all())
    True
    """
    a = as_array(a, "stochastic_derivatives")
    if not hasattr(key, "dtype"):
        remedy = "Pass key=jax.random.key(0)."
        fail("stochastic_derivatives", needs="a JAX random key", got=repr(key), remedy=remedy)
    at_once = chunks.checked(chunk_size)
    if not isinstance(probes, int) or probes < 2:
        fail("probes", needs="an integer of at least 2", got=probes, remedy="Use 64.")
    estimate = partial(_estimated, log_score, probes, at_once)
    return automatically(estimate, a, key, spec=spec_of(a))


def _estimated(
    log_score: LogScore, probes: int, at_once: int | None, a: Array, key: Array
) -> Estimate:
    check_score("stochastic_derivatives", log_score, a)
    log_score, a = in_single_precision(log_score, a)
    a, key = alike((a, key), axes_through(log_score, a))
    program = merged(products(log_score, a), a)
    chunk = min(at_once or chunks.fitting(program, probes), probes)

    def step(sums: _Sums, ids: Array) -> tuple[_Sums, None]:
        samples = jax.vmap(lambda n: one_probe(program, cube_roots(key, n, a)))(ids)
        return _added(sums, samples, ids < probes), None

    zeros = jnp.zeros_like(a)
    start = _Sums(jnp.zeros((), a.dtype), (zeros, zeros), (zeros, zeros))
    steps = math.ceil(probes / chunk)
    ids = jnp.arange(steps * chunk, dtype=jnp.int32).reshape(steps, chunk)
    sums, _ = jax.lax.scan(step, start, ids)
    u2, u3 = (jnp.sqrt(spread / (probes * (probes - 1))) for spread in sums.spread)
    return Estimate(
        LogDerivatives(jax.grad(log_score)(a), *sums.mean), LogDerivatives(zeros, u2, u3)
    )


def cube_roots(key: Array, n: Array, a: Array) -> Array:
    """Draw probe ``n`` as numbers of thirds of a turn: ``v = e^(2 pi i thirds / 3)``."""
    return jax.random.randint(numbered(key, n), a.shape, 0, 3, jnp.int32)


def one_probe(program: core.ClosedJaxpr, thirds: Array) -> tuple[Array, Array]:
    """Give the estimates of ``u2`` and ``u3`` from one probe; ``program`` maps ``r`` as above."""
    halves = jnp.array([1, -0.5, -0.5], program.in_avals[0].dtype)  # Re(w^0), Re(w^1), Re(w^2)
    directions = [halves[(thirds + m) % 3] for m in range(3)]
    products = [core.jaxpr_as_fun(program)(r) for r in directions]
    u2 = sum(r * curvature for r, (curvature, _) in zip(directions, products, strict=True))
    u3 = sum(r * third for r, (_, third) in zip(directions, products, strict=True))
    return 2 / 3 * jnp.asarray(u2), 4 / 3 * jnp.asarray(u3)


def products(log_score: LogScore, a: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Return ``r -> (H r, T[r, r])``."""
    reverse = "custom_vjp_call" in operations(jax.make_jaxpr(log_score)(a))

    def slope(function: Callable[[Array], Array], r: Array) -> Callable[[Array], Array]:
        """Differentiate along ``r`` what is itself a gradient, so that either mode serves."""
        if reverse:
            return jax.grad(lambda point: (function(point) * r).sum())
        return lambda point: jax.jvp(function, (point,), (r,))[1]

    def along(r: Array) -> tuple[Array, Array]:
        curvature = slope(jax.grad(log_score), r)
        return curvature(a), slope(curvature, r)(a)

    return along


def _added(sums: _Sums, samples: tuple[Array, Array], counts: Array) -> _Sums:
    """Add a chunk of samples, of which only some count (Chan, Golub and LeVeque 1983).

    By means and distances from them: sums of squares would cancel where the mean is large.
    """
    weights = counts.astype(sums.taken.dtype)
    more = weights.sum()
    total = sums.taken + more
    means, spreads = [], []
    for old, spread, new in zip(sums.mean, sums.spread, samples, strict=True):
        each = weights.reshape(-1, *(1,) * old.ndim)
        mean = (each * new).sum(axis=0) / more
        means.append(old + (mean - old) * (more / total))
        within = (each * (new - mean[None]) ** 2).sum(axis=0)
        spreads.append(spread + within + (mean - old) ** 2 * (sums.taken * more / total))
    return _Sums(total, (means[0], means[1]), (spreads[0], spreads[1]))
