"""Derivatives of the gradient along the activations themselves, for the Taylor game (ShapleyCAM).

With ``H`` the Hessian of the score and ``T`` its third derivatives, a step along ``a`` changes the
gradient by what `jax.jvp` of the gradient gives, whatever the size of the layer::

    (H a)_i = sum_j H_ij a_j        T[a, a]_i = sum_jk T_ijk a_j a_k

The third order of the game also needs sums over pairs of elements, which are a derivative of the
exact ``u2`` along ``a``, and a gradient through it, by whichever engine has it::

    p_i = sum_j T_iij a_j           q_i = sum_j T_ijj a_j^2
"""

import functools
from typing import Any, cast

import jax
from jax import Array

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines.gradient import gradient
from jaxcam.types import LogDerivatives

PREFIX = "along:"
WORDS = "one gradient, and its derivative along the activations: a Hessian-vector product"


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything that has a gradient with a derivative."""
    del traced, name
    return Proof(True, WORDS)


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Give the gradient and ``H a`` in place of ``u2``; nothing in that of ``u3``."""
    a, *context = arguments
    u1, along, more = jax.jvp(
        lambda a: gradient(traced, a, *context), (a,), (a,), has_aux=True
    )  # fmt: skip
    return LogDerivatives(u1, along, cast(Array, None)), more


ENGINE = Engine("along", exact=True, prove=prove, derive=derive, single=True)


@functools.cache
def third(exact: Engine) -> Engine:
    """Give the engine of the third order that takes ``u2`` from an exact one.

    In place of ``u3`` it gives ``T[a, a] + (q - a p) / 2``.
    """

    def prove(traced: Traced, name: str = "") -> Proof:
        words = exact.prove(traced, exact.name).words
        return Proof(True, f"{WORDS}; third order through the exact u2 ({words})")

    def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
        a, *context = arguments

        def slope(a: Array) -> tuple[Array, Any]:
            return gradient(traced, a, *context)

        def moved(at: Array) -> tuple[Array, Array]:
            return jax.jvp(lambda at: slope(at)[0], (at,), (a,))

        def second(a: Array) -> Array:
            return exact.derive(traced, a, *context)[0].u2

        (u1, along), (_, twice) = jax.jvp(moved, (a,), (a,))
        (_, p), back = jax.jvp(second, (a,), (a,)), jax.vjp(second, a)[1]
        (q,) = back(a**2)
        return LogDerivatives(u1, along, twice + (q - a * p) / 2), slope(a)[1]

    return Engine(PREFIX + exact.name, exact=True, prove=prove, derive=derive)
