"""Piecewise affine up to a narrow waist ``s(A)``, and a smooth function of it behind.

The k-th derivative of ``u = psi(s(A))`` along an element is that of ``psi`` along the element's
column of the Jacobian of ``s``, which there are two ways to get:

- Where positions are summed before anything bends (global pooling), the columns are the same for
  every position: one small tangent for each channel, carried forward (adjoint.py).
- Else the Jacobian of a waist of ``M`` numbers is ``M`` gradients, row by row. Log-softmax over
  the logits of a ReLU network is the common case: ``u2 = -Var_p J``, ``u3 = -kappa3_p J``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives import adjoint
from jaxcam.derivatives.bends import Bends, Point, at_point, bends
from jaxcam.derivatives.chunks import fitting, in_chunks
from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.derivatives.program import evaluate
from jaxcam.derivatives.sweep import divide, sweep
from jaxcam.derivatives.tangents import Element
from jaxcam.types import Engine, LogDerivatives, Proof, Traced

LARGEST_JACOBIAN = 1 << 27  # numbers; the Jacobian of the waist is held whole


def waist(found: Bends) -> int | None:
    """Find the narrowest value that is on every way from ``a`` to a bend, itself without one."""
    nodes, program = found.graph.nodes, found.graph.program
    bending = set(found.bending)
    if not bending:
        return None
    straight = {program.source}
    for number, node in nodes.items():
        if number not in bending and straight.issuperset(node.operands):
            straight.add(number)
    candidates = [n for n in straight - {program.source} if _separates(found, n, bending)]
    return min(candidates, key=lambda n: (math.prod(program.shapes[n].shape), -n), default=None)


def _separates(found: Bends, number: int, bending: set[int]) -> bool:
    """Say whether no bend depends on ``a`` except through one value."""
    moved = {found.graph.program.source}
    for result, node in found.graph.nodes.items():
        if result != number and moved.intersection(node.operands):
            moved.add(result)
    return not moved & bending


def prove(traced: Traced, name: str = "peeled") -> Proof:
    """Find the waist, or show that the derivatives do not depend on the position."""
    del name
    looks = traced.once(adjoint.surveyed)
    if isinstance(looks, str):
        return Proof(False, looks)
    if not looks.bending:
        return Proof(True, "nothing bends: the second and third derivatives are zero")
    first = looks.bending[0]
    *spatial, channels = traced.a.shape
    positions = math.prod(spatial)
    if not looks.placed:
        return Proof(
            True,
            f"one tangent for each of {channels} channels serves all {positions} positions, which "
            f"are summed before anything bends ({first})",
        )
    found = traced.once(bends)
    narrow = waist(found)
    if narrow is None:
        return Proof(False, f"no waist before {first}, which bends: its derivatives depend on the "
                     "position")  # fmt: skip
    numbers = math.prod(found.graph.program.shapes[narrow].shape)
    if numbers >= traced.a.size:
        return Proof(False, f"the narrowest value before {first}, which bends, is as wide as the "
                     "layer")  # fmt: skip
    if numbers * traced.a.size > LARGEST_JACOBIAN:
        return Proof(False, f"the narrowest value before {first}, which bends, has {numbers} "
                     f"numbers: too many for {traced.a.size} elements")  # fmt: skip
    return Proof(True, f"piecewise affine up to a waist of {numbers} numbers before {first}: "
                 "their gradients, and the score as a function of them")  # fmt: skip


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Carry tangents from the waist on, or from ``a`` where they do not depend on the position."""
    found = traced.once(bends)
    number = waist(found)
    if number is None or not traced.once(adjoint.carried).survey.placed:
        return adjoint.derive(traced, *arguments)
    shape = traced.a.shape
    point, u1, more = at_point(found, *arguments)
    jacobian = _jacobian(point, number, arguments, traced)

    def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
        column = (number, jacobian[coordinates])
        return adjoint.second_and_third(point, Element(coordinates, shape, {}), waist=column)

    u2, u3 = sweep(divide(along, shape), shape, traced.chunk_size, traced.axis)
    return LogDerivatives(u1, u2, u3), jax.tree.unflatten(traced.more, more)


def _jacobian(
    point: Point, number: int, arguments: tuple[Array, ...], traced: Traced
) -> Array:  # fmt: skip
    """Give the Jacobian of a value, ``[*a.shape, *value.shape]``, by one gradient a number."""
    shape = point.bends.graph.program.shapes[number].shape
    a, *context = arguments

    def component(a: Array, index: Array) -> Array:
        value = evaluate(point.bends.graph, (a, *context), {})[number].reshape(-1)
        return jax.lax.dynamic_index_in_dim(value, index, keepdims=False).astype(a.dtype)

    def row(index: Array) -> Array:
        return with_plain_convolutions(jax.grad(component))(a, index)

    size = math.prod(shape)
    chunk = traced.chunk_size
    if chunk is None:
        chunk = fitting(jax.make_jaxpr(row)(jax.ShapeDtypeStruct((), jnp.int32)), size)
    rows = in_chunks(row, size, chunk, traced.axis)
    return jnp.moveaxis(rows, 0, -1).reshape(*a.shape, *shape)


ENGINE = Engine("peeled", exact=True, prove=prove, derive=derive)
