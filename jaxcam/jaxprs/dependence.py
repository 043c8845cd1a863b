"""What a jaxpr proves about a score, without computing anything.

Two questions are asked of the gradient of ``u``, traced once. How does it depend on ``A``
(`Dependence`)? If through comparisons and selections alone, ``u`` is piecewise affine and
``u2 = u3 = 0``. And along which axes is it constant (`constant_axes`)?

Soundness: an operation without a rule passes on the strongest dependence of its inputs and no
constant axis, so an unfamiliar one can only refuse a proof, never grant one. In particular
``custom_jvp`` and ``custom_vjp`` calls are never looked into: their derivative is what their author
wrote, not what their body shows.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import jax.numpy as jnp

from jaxcam.jaxprs.interpret import interpret
from jaxcam.jaxprs.primitives import Fact, known_as


class Dependence(IntEnum):
    """How a value depends on the activations, from not at all to differentiably."""

    NONE = 0
    FLAT = 1  # changes, but its derivative is zero wherever it exists: comparisons, rounding
    VARYING = 2


# Comparisons are not among them: their result is boolean (_flat).
FLAT = known_as(Fact.FLAT)
POINTWISE = known_as(Fact.POINTWISE)
PARTS = known_as(Fact.PART)

# Operations of which only some operands carry a derivative; the others select.
CARRYING_OPERANDS = {
    "select_n": slice(1, None),
    "select_and_scatter_add": slice(0, 1),
    "select_and_gather_add": slice(0, 1),
}


def _flat(level: Dependence) -> Dependence:
    return min(level, Dependence.FLAT)


def dependence_rule(equation: Any, levels: Sequence[Dependence]) -> list[Dependence]:
    """Follow the dependence through one operation."""
    name = equation.primitive.name
    strongest = max(levels, default=Dependence.NONE)
    if name in FLAT:
        return [_flat(strongest)]
    if name in CARRYING_OPERANDS:
        carried = max(levels[CARRYING_OPERANDS[name]])
        return [max(carried, _flat(strongest))]
    # Integers and booleans carry no derivative, except where their bits are read as a float again.
    discrete = name != "bitcast_convert_type"
    return [
        _flat(strongest)
        if discrete and not jnp.issubdtype(out.aval.dtype, jnp.inexact)
        else strongest
        for out in equation.outvars
    ]


def dependence(jaxpr: Any, inputs: Sequence[Dependence]) -> list[Dependence]:
    """Say how each output depends on the activations, given how each input does."""
    return interpret(jaxpr, inputs, dependence_rule, lambda _: Dependence.NONE)


def constant_rule(equation: Any, axes: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Follow the axes along which a value is constant through one operation."""
    if not equation.outvars:  # printing, for one
        return []
    name, params = equation.primitive.name, equation.params
    shape = equation.outvars[0].aval.shape
    if name == "broadcast_in_dim":
        placed = params["broadcast_dimensions"]
        kept = {placed[axis] for axis in axes[0]}
        old = equation.invars[0].aval.shape
        stretched = {placed[i] for i, size in enumerate(old) if size != shape[placed[i]]}
        return [frozenset(kept | stretched | (set(range(len(shape))) - set(placed)))]
    if name in POINTWISE:
        # A scalar is constant along every axis of the others, an axis of size one along that one.
        ranked = [
            known | single_places(atom.aval.shape) if atom.aval.shape else set(range(len(shape)))
            for atom, known in zip(equation.invars, axes, strict=True)
        ]
        return [frozenset(range(len(shape))).intersection(*ranked)]
    if name == "reduce_sum":
        left = [
            axis for axis in range(len(equation.invars[0].aval.shape)) if axis not in params["axes"]
        ]
        return [frozenset(i for i, axis in enumerate(left) if axis in axes[0])]
    if name == "transpose":
        return [frozenset(i for i, axis in enumerate(params["permutation"]) if axis in axes[0])]
    if name in PARTS:
        return [axes[0] for _ in equation.outvars]
    if name in ("reshape", "squeeze", "expand_dims") and params.get("dimensions") is None:
        return [_same_axes(equation.invars[0].aval.shape, shape, axes[0])]
    return [frozenset() for _ in equation.outvars]


def _same_axes(old: tuple[int, ...], new: tuple[int, ...], axes: frozenset[int]) -> frozenset[int]:
    """Carry constant axes over a reshape that only adds or drops axes of size one."""
    long_old = [i for i, size in enumerate(old) if size != 1]
    long_new = [i for i, size in enumerate(new) if size != 1]
    if [old[i] for i in long_old] != [new[i] for i in long_new]:
        return frozenset()
    moved = {b for a, b in zip(long_old, long_new, strict=True) if a in axes}
    return frozenset(moved | {i for i, size in enumerate(new) if size == 1})


def single_places(shape: Sequence[int]) -> frozenset[int]:
    """Give the axes along which any value of a shape is constant: those of size one."""
    return frozenset(i for i, size in enumerate(shape) if size == 1)


def constant_axes(
    jaxpr: Any, inputs: Sequence[frozenset[int]] | None = None
) -> list[frozenset[int]]:
    """Give for each output the axes along which it is constant, given those of the inputs."""

    def unknown(atom: Any) -> frozenset[int]:
        return single_places(atom.aval.shape)

    known = [unknown(var) for var in jaxpr.invars] if inputs is None else inputs
    return interpret(jaxpr, known, constant_rule, unknown)
