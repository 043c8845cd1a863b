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

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines import adjoint
from jaxcam.derivatives.graph.elements import divide, for_all
from jaxcam.derivatives.graph.flatten import evaluate
from jaxcam.derivatives.graph.partials import Differentiated, differentiated
from jaxcam.derivatives.graph.point import Point, at_point
from jaxcam.derivatives.tangents.axes import Element
from jaxcam.jaxprs.loops import NUMBER, fitting, in_chunks
from jaxcam.jaxprs.pullback import gradient_of
from jaxcam.types import LogDerivatives

LARGEST_JACOBIAN = 1 << 27  # numbers; the Jacobian of the waist is held whole


def waist(score: Differentiated) -> int | None:
    """Find the narrowest value that is on every way from ``a`` to a bend, itself without one."""
    nodes, program = score.graph.nodes, score.graph.program
    bends = set(score.bends)
    if not bends:
        return None
    straight = {program.source}
    for number, node in nodes.items():
        if number not in bends and straight.issuperset(node.operands):
            straight.add(number)
    candidates = [n for n in straight - {program.source} if _separates(score, n, bends)]
    return min(candidates, key=lambda n: (math.prod(program.shapes[n].shape), -n), default=None)


def _separates(score: Differentiated, number: int, bends: set[int]) -> bool:
    """Say whether no bend depends on ``a`` except through one value."""
    moved = {score.graph.program.source}
    for result, node in score.graph.nodes.items():
        if result != number and moved.intersection(node.operands):
            moved.add(result)
    return not moved & bends


def prove(traced: Traced, name: str = "peeled") -> Proof:
    """Find the waist, or show that the derivatives do not depend on the position."""
    del name
    looks = traced.once(adjoint.surveyed)
    if isinstance(looks, str):
        return Proof(False, looks)
    if not looks.bends:
        return Proof(True, "nothing bends: the second and third derivatives are zero")
    first = looks.bends[0]
    *spatial, channels = traced.a.shape
    positions = math.prod(spatial)
    if not looks.placed:
        return Proof(
            True,
            f"one tangent for each of {channels} channels serves all {positions} positions, which "
            f"are summed before anything bends ({first})",
        )
    score = traced.once(differentiated)
    narrow = waist(score)
    if narrow is None:
        return Proof(False, f"no waist before {first}, which bends: its derivatives depend on the "
                     "position")  # fmt: skip
    numbers = math.prod(score.graph.program.shapes[narrow].shape)
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
    score = traced.once(differentiated)
    number = waist(score)
    if number is None or not traced.once(adjoint.carried).survey.placed:
        return adjoint.derive(traced, *arguments)
    shape = traced.a.shape
    point, u1, more = at_point(score, *arguments)
    jacobian = _jacobian(point, number, arguments, traced)

    def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
        column = (number, jacobian[coordinates])
        return adjoint.second_and_third(point, Element(coordinates, shape, {}), waist=column)

    u2, u3 = for_all(divide(along, shape), shape, traced.chunk_size, traced.axis)
    return LogDerivatives(u1, u2, u3), jax.tree.unflatten(traced.more, more)


def _jacobian(
    point: Point, number: int, arguments: tuple[Array, ...], traced: Traced
) -> Array:  # fmt: skip
    """Give the Jacobian of a value, ``[*a.shape, *value.shape]``, by one gradient a number."""
    shape = point.score.graph.program.shapes[number].shape
    a, *context = arguments

    def component(a: Array, index: Array) -> Array:
        value = evaluate(point.score.graph.program, (a, *context))[number].reshape(-1)
        return jax.lax.dynamic_index_in_dim(value, index, keepdims=False).astype(a.dtype)

    def row(index: Array) -> Array:
        return gradient_of(lambda a: (component(a, index), None))(a)[0]

    size = math.prod(shape)
    chunk = traced.chunk_size
    if chunk is None:
        chunk = fitting(jax.make_jaxpr(row)(NUMBER), size)
    rows = in_chunks(row, size, chunk, traced.axis)
    return jnp.moveaxis(rows, 0, -1).reshape(*a.shape, *shape)


ENGINE = Engine("peeled", exact=True, prove=prove, derive=derive)
