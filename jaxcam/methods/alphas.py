"""Grad-CAM++'s alpha from derivatives and activations. The 0/0 and the poles are decided here.

With ``r = 2 + (sum A) D3 / D2``, the sum over all positions of the channel::

    alpha = D2 / (2 D2 + (sum A) D3) = 1 / r

Only elements with ``D1 > 0`` enter a map. For ``A >= 0`` and the papers' closed form ``r >= 2``, so
``alpha`` is in (0, 1/2]. Exact derivatives of smooth scores break that: ``r`` reaches zero and
changes sign, and a few elements then carry the map.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxcam.types import Derivatives, Poles


class Alphas(NamedTuple):
    """``alpha`` like ``a``, and what it was made of: ``r``, ``1 / r``, and where a guard acted."""

    alpha: Array
    r: Array
    reciprocal: Array
    guarded: Array


def alphas(d: Derivatives, a: Array, *, numerator: str, poles: str) -> Alphas:
    """Compute alpha of one example, ``a: [*spatial, k]``.

    numerator: ``d2`` reduces to Grad-CAM++ for one noiseless sample; ``d1`` is Smooth Grad-CAM++
    as printed, ``alpha = D1 / (2 D2 + (sum A) D3) = (D1 / D2) / r``.
    poles: ``raw`` is the bare formula. ``bounded`` is ``1 / max(r, 1)``: one where ``r <= 0``, and
    ``1 / r`` clipped to [0, 1] elsewhere. For ``d1`` it bounds the other factor likewise,
    ``D1^2 / D2 = 1 / max(D2 / D1^2, 1)``, which by Cauchy and Schwarz is at most one for the closed
    form and has poles of its own where an exact ``D2`` is near zero.
    Where ``D2 = 0``, ``alpha = 0``; the bare ``d1`` formula is 0 only where ``D3 = 0`` too.
    """
    total = a.sum(axis=tuple(range(a.ndim - 1)), keepdims=True)
    used = d.d2 != 0
    bottom = 2 * d.d2 + total * d.d3
    r = _over(bottom, d.d2)
    low = used & (r < 1)
    bounded = poles == "bounded"
    bare = jnp.where(used, d.d2, 0) / jnp.where(used, bottom, 1)  # infinite at a pole: never hidden
    clipped = jnp.where(used & ~low, d.d2, 0) / jnp.where(used & ~low, bottom, 1)
    reciprocal = jnp.where(low, 1, clipped) if bounded else bare
    if numerator == "d2":
        return Alphas(reciprocal, r, bare, low & bounded)
    if not bounded:
        defined = used | (d.d3 != 0)
        alpha = jnp.where(defined, d.d1, 0) / jnp.where(defined, bottom, 1)
        return Alphas(alpha, r, bare, jnp.zeros_like(low))
    # alpha enters the map as alpha ReLU(D1), so only D1 > 0 matters, and there
    # alpha = (D1^2 / D2) / (D1 r).
    ratio = _over(d.d2, d.d1**2)
    alpha = jnp.where(used, _over(reciprocal, d.d1) / jnp.maximum(ratio, 1), 0)
    return Alphas(alpha, r, bare, low | (used & (ratio < 1)))


def pole_shares(alphas: Alphas, d: Derivatives) -> Poles:
    """Summarise one example: see `jaxcam.types.Poles`."""
    positive = jnp.maximum(d.d1, 0)
    weight = jnp.abs(alphas.alpha) * positive
    bare = jnp.abs(alphas.reciprocal) * positive
    return Poles(
        smallest_r=jnp.where((d.d1 > 0) & (d.d2 != 0), alphas.r, jnp.inf).min(),
        share_large=_share(bare, jnp.abs(alphas.reciprocal) > 1),
        share_guarded=_share(weight, alphas.guarded),
        share_concave=_share(weight, d.d2 < 0),
    )


def _share(weight: Array, chosen: Array) -> Array:
    return _over(jnp.where(chosen, weight, 0).sum(), weight.sum())


def _over(top: Array, bottom: Array) -> Array:
    """Divide, with 0 where the divisor is zero; differentiable there too."""
    zero = bottom == 0
    return jnp.where(zero, 0, top / jnp.where(zero, 1, bottom))
