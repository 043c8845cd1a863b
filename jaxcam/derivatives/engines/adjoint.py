"""Exact derivatives from first- and second-order tangents and one shared backward pass.

For every operation ``f`` that bends, let ``lambda`` be the adjoint of its result (one backward pass
for all elements), ``J_i`` and ``Z_i`` the first and second derivative of its operand along element
``i``. Then::

    u2_i = sum_f lambda . f''[J_i, J_i]
    u3_i = sum_f lambda . (f'''[J_i, J_i, J_i] + 3 f''[J_i, Z_i])

because what ``f`` adds to a higher derivative goes on to ``u`` linearly, and that is ``lambda``. So
third-order tangents are never needed, second-order ones only up to the last bend, and what is
affine behind the last bend costs nothing. Tangents are kept small: see tangents/.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines import directional
from jaxcam.derivatives.graph.carry import Way, curved
from jaxcam.derivatives.graph.elements import POSITION, divide, for_all
from jaxcam.derivatives.graph.kinds import Node
from jaxcam.derivatives.graph.partials import differentiated
from jaxcam.derivatives.graph.point import Point, at_point
from jaxcam.derivatives.graph.survey import FORMS, Survey, against, in_words, positions_meet, survey
from jaxcam.derivatives.reasons import Refused
from jaxcam.derivatives.tangents.axes import Element
from jaxcam.derivatives.tangents.products import total
from jaxcam.derivatives.tangents.terms import Tangent, Term, dense, unit_vector
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.merge import merged
from jaxcam.types import LogDerivatives

Watch = Callable[[Node, list[Tangent]], None]
"""Is shown every node that bends, and the tangents that meet in it."""


def second_and_third(
    point: Point,
    element: Element,
    *,
    waist: tuple[int, Array] | None = None,
    watch: Watch | None = None,
) -> tuple[Array, Array]:
    """Give ``u2`` and ``u3`` along one element.

    waist: a value on every way from ``a`` to a bend, and its tangent, if they start from there
    (peeled.py).
    """
    source = point.score.graph.program.source
    given = {source: [unit_vector(element, point.dtype)]}
    if waist is not None:
        given = {waist[0]: [dense(waist[1])]}
    way = Way(point, element, given, {}, {})
    u2, u3 = jnp.zeros((), point.dtype), jnp.zeros((), point.dtype)
    for number in point.score.bends:
        node = way.node(number)
        if watch is not None:
            watch(node, [way.first(i) for i in node.operands])
        added = _by_curved(way, node) if node.kind == "curved" else _by_pointwise(way, node)
        u2, u3 = u2 + added[0], u3 + added[1]
    return u2, u3


def _by_curved(way: Way, node: Node) -> tuple[Array, Array]:
    """Give what a node that is differentiated as a whole adds to ``u2`` and ``u3``."""
    weighed = functools.partial(jnp.vdot, way.point.adjoints[node.result], precision="highest")
    along = curved(way, node.result)
    return weighed(along.quadratic), weighed(along.cubic)


def _by_pointwise(way: Way, node: Node) -> tuple[Array, Array]:
    """Give what a pointwise node adds to ``u2`` and ``u3``.

    Products are not written out as tangents: each is summed with its weight at once.
    """
    u2, u3 = jnp.zeros((), way.point.dtype), jnp.zeros((), way.point.dtype)
    for key, weight in way.point.weighed[node.result].items():
        tangents = [way.first(node.operands[i]) for i in key]
        often = len(set(itertools.permutations(key)))
        if len(key) == 2:
            u2 = u2 + often * _contraction(way, tangents, weight)
            for place in range(often):
                mixed = [tangents[place], way.second(node.operands[key[1 - place]])]
                u3 = u3 + 3 * _contraction(way, mixed, weight)
        if len(key) == 3:
            u3 = u3 + often * _contraction(way, tangents, weight)
    return u2, u3


def _contraction(way: Way, tangents: Sequence[Tangent], weight: Array) -> Array:
    """Sum the product of tangents, times a weight, over all places."""
    products: dict[tuple[int, ...], list[tuple[Term, ...]]] = {}
    for terms in itertools.product(*tangents):  # equal ones, in whatever order, are computed once
        products.setdefault(tuple(sorted(map(id, terms))), []).append(terms)
    contracted = jnp.zeros((), way.point.dtype)
    for equal in products.values():
        one = total(equal[0], weight, way.element)
        contracted = contracted if one is None else contracted + len(equal) * one
    return contracted


class Carried(NamedTuple):
    """The derivatives as a program ``(a, *context) -> [u1, u2, u3, *more]``, and a survey of the
    tangents in it.
    """

    closed: core.ClosedJaxpr
    survey: Survey


def carried(traced: Traced) -> Carried:
    """Trace the derivatives along every element, ``chunk_size`` of them at a time."""
    score = traced.once(differentiated)
    rank = len(traced.a.shape)
    met: list[Node] = []
    placed: list[bool] = []

    def derivatives(a: Array, *context: Array) -> list[Array]:
        point, u1, more = at_point(score, a, *context)

        def watch(node: Node, tangents: list[Tangent]) -> None:
            if positions_meet(node, tangents, rank):
                met.append(node)

        def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
            return second_and_third(point, Element(coordinates, a.shape, {}), watch=watch)

        parts = divide(along, a.shape)
        placed.append(POSITION in parts.moved)
        return [u1, *for_all(parts, a.shape, traced.chunk_size, traced.axis), *more]

    closed = merged(derivatives, *traced.arguments)
    return Carried(closed, survey(score, met, placed=any(placed)))


def derive(traced: Traced, *arguments: Array) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element."""
    leaves = core.jaxpr_as_fun(traced.once(carried).closed)(*arguments)
    return LogDerivatives(*leaves[:3]), jax.tree.unflatten(traced.more, leaves[3:])


def surveyed(traced: Traced) -> Survey | str:
    """Survey a score, or say why it has no tangents."""
    if "custom_vjp_call" in operations(traced.closed):
        return directional.NO_FORWARD
    try:
        return traced.once(carried).survey
    except Refused as refusal:
        return str(refusal)
    except Exception:
        obstacle = directional.obstacle(traced)
        if obstacle is None:
            raise  # it is ours
        return obstacle


def prove(traced: Traced, name: str = "adjoint") -> Proof:
    """Trace the tangents: any operation will do that JAX differentiates forward three times.

    The named forms are those in which tangents cost least:

    - ``powered``: no bend follows another, and each is elementwise: ``u_k`` is a transposed pass
      with the k-th powers of the kernel.
    - ``coloured``: tangents of different positions have no place in common where anything bends.
    """
    looks = traced.once(surveyed)
    if isinstance(looks, str):
        return Proof(False, looks)
    reasons = against(looks)
    if name in FORMS:
        return Proof(reasons[name] is None, reasons[name] or in_words(name, looks), name)
    form = next((form for form in FORMS if reasons[form] is None), "adjoint")
    return Proof(True, in_words(form, looks), form)


ENGINE = Engine("adjoint", exact=True, prove=prove, derive=derive, forms=FORMS)
