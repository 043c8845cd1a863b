"""Exact derivatives from first- and second-order tangents and one shared backward pass.

For every operation ``f`` that bends, let ``lambda`` be the adjoint of its result (one backward pass
for all elements), ``J_i`` and ``Z_i`` the first and second derivative of its operand along element
``i``. Then::

    u2_i = sum_f lambda . f''[J_i, J_i]
    u3_i = sum_f lambda . (f'''[J_i, J_i, J_i] + 3 f''[J_i, Z_i])

because what ``f`` adds to a higher derivative goes on to ``u`` linearly, and that is ``lambda``. So
third-order tangents are never needed, second-order ones only up to the last bend, and what is
affine behind the last bend costs nothing. Tangents are kept small: see tangents.py.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives import rules
from jaxcam.derivatives.layout import with_plain_convolutions
from jaxcam.derivatives.program import Graph, Node, as_function, evaluate, flatten, graph, slope_at
from jaxcam.derivatives.refusal import BILINEAR, LINEAR, where
from jaxcam.derivatives.structure import (
    Dependence,
    body,
    constant_axes,
    dependence,
    operations,
    run,
)
from jaxcam.derivatives.sweep import POSITION, arguments_used, sweep
from jaxcam.derivatives.tangents import (
    Element,
    Tangent,
    Term,
    collect,
    dense,
    multiplied,
    one_of_each,
    scaled,
    spread_all,
    times,
    total,
    unit_vector,
)
from jaxcam.types import Engine, LogDerivatives, LogScore, Proof, ScoreAndMore

Key = tuple[int, ...]
"""Along which operands a partial derivative is taken: ``(0, 1)`` is ``d^2 f / dx_0 dx_1``."""


class Bends(NamedTuple):
    """The graph of a score, and for each pointwise node its partial derivatives that are not
    proved zero, up to the third, as functions; with the axes along which each is constant.
    """

    graph: Graph
    partials: dict[int, dict[Key, tuple[Callable[..., Any], frozenset[int]]]]

    @property
    def bending(self) -> list[int]:
        """Number the nodes that have a second derivative."""
        return [i for i, node in self.graph.nodes.items() if self.bends(node)]

    def bends(self, node: Node) -> bool:
        """Say whether a node has a second derivative."""
        if node.kind == "pointwise":
            return any(len(key) > 1 for key in self.partials[node.result])
        return node.kind == "curved"


def bends(found: Graph) -> Bends:
    """Find the partial derivatives of all pointwise nodes."""
    nodes = found.nodes.items()
    return Bends(found, {i: _partials(found, n) for i, n in nodes if n.kind == "pointwise"})


def _partials(found: Graph, node: Node) -> dict[Key, tuple[Callable[..., Any], frozenset[int]]]:
    program = found.program
    whole = as_function(node)
    shapes = [program.shapes[i] for i in whole.numbers]
    constant = [program.constant[i] for i in whole.numbers]
    known: dict[Key, Callable] = {(): whole.function}
    traced: dict[Key, Any] = {(): body(jax.make_jaxpr(whole.function)(*shapes))}
    result = {}
    for order in (1, 2, 3):
        for key in itertools.combinations_with_replacement(range(len(node.operands)), order):
            before = key[:-1]
            if before not in known or not _depends(traced[before], key[-1]):
                continue
            known[key] = slope_at(known[before], key[-1])
            traced[key] = body(jax.make_jaxpr(known[key])(*shapes))
            (axes,) = constant_axes(traced[key], constant)
            result[key] = (known[key], axes)
    return result


def _depends(jaxpr: Any, place: int) -> bool:
    none, varying = Dependence.NONE, Dependence.VARYING
    levels = [varying if i == place else none for i in range(len(jaxpr.invars))]
    return dependence(jaxpr, levels) == [varying]


class Point(NamedTuple):
    """Everything at the point ``a`` that does not depend on the element."""

    bends: Bends
    values: dict[int, Any]
    adjoints: dict[int, Array]
    partials: dict[int, dict[Key, Array]]
    dtype: jnp.dtype


def at_point(found: Bends, a: Array) -> tuple[Point, Array, list[Any]]:
    """Make the one pass forward and backward: the point, ``u1``, and what else the score gives."""
    program = found.graph.program
    shifts = {i: jnp.zeros(program.shapes[i].shape, a.dtype) for i in found.bending}

    def forward(a: Array, shifts: dict[int, Array]) -> tuple[Array, tuple[dict, list]]:
        values = evaluate(found.graph, a, shifts)
        more = [values[i] for i in program.results[1:]]
        known = {i: v for i, v in values.items() if i not in program.fixed}
        return values[program.results[0]].astype(a.dtype), (known, more)

    gradient = jax.grad(forward, argnums=(0, 1), has_aux=True)
    (u1, adjoints), (known, more) = with_plain_convolutions(gradient)(a, shifts)
    values = {**program.fixed, **known}
    partials = {}
    for number, functions in found.partials.items():
        arguments = [values[i] for i in as_function(found.graph.nodes[number]).numbers]
        partials[number] = {
            key: one_of_each(function(*arguments), axes).astype(a.dtype)
            for key, (function, axes) in functions.items()
        }
    return Point(found, values, adjoints, partials, a.dtype), u1, more


def second_and_third(
    point: Point,
    element: Element,
    *,
    waist: tuple[int, Array] | None = None,
    watch: Callable[[Node, list[Tangent]], None] | None = None,
) -> tuple[Array, Array]:
    """Give ``u2`` and ``u3`` along one element.

    waist: a value on every way from ``a`` to a bend, and its tangent, if they start from there
    (peeled.py). watch: is shown what meets at each bend.
    """
    nodes = point.bends.graph.nodes
    source = point.bends.graph.program.source
    given = {source: [unit_vector(element, point.dtype)]}
    if waist is not None:
        given = {waist[0]: [dense(waist[1])]}

    @functools.cache
    def first(number: int) -> Tangent:
        if number in given:
            return given[number]
        return _first(point, nodes[number], first, element)

    @functools.cache
    def second(number: int) -> Tangent:
        if number in given:
            return []
        node = nodes[number]
        if node.kind == "curved":
            return [dense(_curved(point, node, first, second, element).second)]
        return collect([*_first(point, node, second, element), *quadratic(number)], element)

    @functools.cache
    def quadratic(number: int) -> Tangent:
        return _quadratic(point, nodes[number], first, element)

    u2, u3 = jnp.zeros((), point.dtype), jnp.zeros((), point.dtype)
    for number in point.bends.bending:
        node = nodes[number]
        weight = point.adjoints[number]
        if watch is not None:
            watch(node, [first(i) for i in node.operands])
        if node.kind == "curved":
            found = _curved(point, node, first, second, element)
            u2 = u2 + jnp.vdot(weight, found.quadratic, precision="highest")
            u3 = u3 + jnp.vdot(weight, found.cubic, precision="highest")
            continue
        cubic = _cubic(point, node, first, second, element)
        u2 = u2 + _sum(quadratic(number), weight, element)
        u3 = u3 + _sum(cubic, weight, element)
    return u2, u3


def _sum(tangent: Tangent, weight: Array, element: Element) -> Array:
    return sum(
        (total(times(term, weight, element), element) for term in tangent),
        start=jnp.zeros((), weight.dtype),
    )


def _first(
    point: Point, node: Node, tangent: Callable[[int], Tangent], element: Element
) -> Tangent:  # fmt: skip
    """Carry tangents through a node by its first derivative."""
    if node.kind == "pointwise":
        slopes = point.partials[node.result]
        moved = [
            times(term, slopes[(k,)], element)
            for k, number in enumerate(node.operands)
            if (k,) in slopes
            for term in tangent(number)
        ]
        return collect(moved, element)
    if node.kind == "curved":
        operands = [_whole(point, tangent(i), i, element) for i in node.operands]
        function, at = _as_array_function(point, node)
        moved = tuple(v.astype(x.dtype) for v, x in zip(operands, at, strict=True))
        return [dense(jax.jvp(function, at, moved)[1].astype(point.dtype))]
    (operation,) = node.operations
    values = [point.values[i] for i in operation.operands]
    rule = rules.LINEAR[operation.name]
    moved = [
        rule(term, rules.Step(operation.equation, values, place, element))
        for place, number in enumerate(operation.operands)
        if number in point.bends.graph.program.varying
        for term in tangent(number)
    ]
    return collect(moved, element)


def _quadratic(
    point: Point, node: Node, first: Callable[[int], Tangent], element: Element
) -> Tangent:  # fmt: skip
    """Give ``f''[J, J]`` of a node; nothing where it does not bend."""
    found = []
    for key, partial in point.partials.get(node.result, {}).items():
        if len(key) == 2:
            j, k = (first(node.operands[i]) for i in key)
            often = 1 if key[0] == key[1] else 2
            found += [
                times(scaled(term, often), partial, element)
                for term in multiplied(j, k, element)
            ]  # fmt: skip
    return collect(found, element)


def _cubic(
    point: Point,
    node: Node,
    first: Callable[[int], Tangent],
    second: Callable[[int], Tangent],
    element: Element,
) -> Tangent:
    """Give ``f'''[J, J, J] + 3 f''[J, Z]`` of a pointwise node."""
    found = []
    for key, partial in point.partials[node.result].items():
        tangents = [first(node.operands[i]) for i in key]
        if len(key) == 3:
            both = multiplied(tangents[0], tangents[1], element)
            terms = multiplied(both, tangents[2], element)
            often = len(set(itertools.permutations(key)))
            found += [times(scaled(term, often), partial, element) for term in terms]
        if len(key) == 2:
            for place in range(2 if key[0] != key[1] else 1):
                bent = second(node.operands[key[1 - place]])
                terms = multiplied(tangents[place], bent, element)
                found += [times(scaled(term, 3), partial, element) for term in terms]
    return collect(found, element)


class Curved(NamedTuple):
    """What a node that is differentiated as a whole adds: its result's ``Z``, and its bends."""

    quadratic: Array
    second: Array
    cubic: Array


def _curved(
    point: Point,
    node: Node,
    first: Callable[[int], Tangent],
    second: Callable[[int], Tangent],
    element: Element,
) -> Curved:
    """Differentiate a node three times along the parabola ``x + t J + t^2 Z / 2`` of its operand.

    The third derivative along it is ``f'''[J, J, J] + 3 f''[J, Z]``.
    """
    function, at = _as_array_function(point, node)
    j = [_whole(point, first(i), i, element) for i in node.operands]
    z = [_whole(point, second(i), i, element) for i in node.operands]

    def along(t: Array, bend: float) -> Array:
        moved = [
            x + (t * v + bend * t * t / 2 * w).astype(x.dtype)
            for x, v, w in zip(at, j, z, strict=True)
        ]
        return function(*moved).astype(point.dtype)

    def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda t: jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    zero = jnp.zeros((), point.dtype)
    straight = derivative(derivative(lambda t: along(t, 0.0)))
    bent = derivative(derivative(lambda t: along(t, 1.0)))
    return Curved(straight(zero), bent(zero), derivative(bent)(zero))


def _as_array_function(point: Point, node: Node) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    (operation,) = node.operations
    values = [point.values[i] for i in operation.operands]
    index = operation.results.index(node.result)

    def function(*moved: Array) -> Array:
        known = dict(zip(node.operands, moved, strict=True))
        operands = [known.get(i, v) for i, v in zip(operation.operands, values, strict=True)]
        return run(operation.equation, operands)[index]

    return function, tuple(point.values[i] for i in node.operands)


def _whole(point: Point, tangent: Tangent, number: int, element: Element) -> Array:
    """Store a tangent whole, in the dtype of its value."""
    shape = point.bends.graph.program.shapes[number]
    zero = jnp.zeros(shape.shape, point.dtype)
    return sum((spread_all(term, element).values for term in tangent), start=zero)


def derive(
    score: ScoreAndMore, a: Array, *, chunk_size: int | None = None
) -> tuple[LogDerivatives, Any]:
    """Differentiate along every element, ``chunk_size`` of them at a time."""
    closed, shape = jax.make_jaxpr(score, return_shape=True)(a)
    point, u1, more = at_point(bends(graph(flatten(closed))), a)

    def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
        return second_and_third(point, Element(coordinates, a.shape, {}))

    u2, u3 = sweep(along, a.shape, chunk_size)
    more = jax.tree.unflatten(jax.tree.structure(shape[1]), more)
    return LogDerivatives(u1, u2, u3), more


class Survey(NamedTuple):
    """What the tangents of a score look like.

    bending: the operations that bend, in words. chained: two of them of which one follows the
    other, if there are. elementwise: whether each has one operand and works element by element.
    met: an operation in which tangents of different positions meet, if there is one. placed:
    whether the derivatives depend on the position.
    """

    bending: tuple[str, ...]
    elementwise: bool
    chained: tuple[str, str] | None
    met: str | None
    placed: bool


def survey(log_score: LogScore, a: Any) -> Survey:
    """Trace the tangents of a score, and see what they look like."""
    closed = jax.make_jaxpr(lambda a: (log_score(a), None))(a)
    found = bends(graph(flatten(closed)))
    met: list[str] = []

    def watch(node: Node, tangents: list[Tangent]) -> None:
        apart = all(_apart(term, len(a.shape)) for tangent in tangents for term in tangent)
        if not apart or node.kind == "curved":
            met.append(_words(node))

    def traced(a: Array) -> Array:
        point, _, _ = at_point(found, a)

        def along(coordinates: tuple[Array, ...]) -> tuple[Array, Array]:
            return second_and_third(point, Element(coordinates, a.shape, {}), watch=watch)

        return jnp.zeros((int(POSITION in arguments_used(along, a.shape)),))

    placed = bool(jax.eval_shape(traced, a).shape[0])
    nodes = found.graph.nodes
    bending = {i: _words(nodes[i]) for i in found.bending}
    elementwise = all(nodes[i].kind == "pointwise" and len(nodes[i].operands) == 1 for i in bending)
    chained = _chained(found)
    pair = None if chained is None else (bending[chained[0]], bending[chained[1]])
    return Survey(tuple(bending.values()), elementwise, pair, met[0] if met else None, placed)


def _apart(term: Term, rank: int) -> bool:
    """Say whether the tangents of two positions have no place in common."""
    single = [axis.step for axis in term.axes if axis.kind == "window" and axis.size == 1]
    return all(any(step[d] for step in single) for d in range(rank - 1))


def _chained(found: Bends) -> tuple[int, int] | None:
    """Find a bending node that follows another."""
    follows: dict[int, int] = {}
    bending = set(found.bending)
    for number, node in found.graph.nodes.items():
        earlier = next((i if i in bending else follows[i] for i in node.operands
                        if i in bending or i in follows), None)  # fmt: skip
        if earlier is not None:
            if number in bending:
                return earlier, number
            follows[number] = earlier
    return None


def _words(node: Node) -> str:
    """Name a node; a chain by its last operation that is more than a sum or a product."""
    plain = LINEAR | BILINEAR
    telling = [o for o in node.operations if o.call or o.name not in plain]
    last = (telling or node.operations)[-1]
    return where(last.equation, last.call)


FORMS = ("powered", "coloured")


def prove(log_score: LogScore, a: Any, name: str = "adjoint") -> Proof:
    """Trace the tangents: any operation will do that JAX differentiates forward three times.

    The named forms are those in which tangents cost least:

    - ``powered``: no bend follows another, and each is elementwise: ``u_k`` is a transposed pass
      with the k-th powers of the kernel.
    - ``coloured``: tangents of different positions have no place in common where anything bends.
    """
    found = surveyed(log_score, a)
    if isinstance(found, str):
        return Proof(False, found)
    against = _against(found)
    form = next((form for form in FORMS if against[form] is None), "adjoint")
    if name in FORMS:
        reason = against[name]
        return Proof(reason is None, reason or _for(name, found), name)
    return Proof(True, _for(form, found), form)


def surveyed(log_score: LogScore, a: Any) -> Survey | str:
    """Survey a score, or say why it has no tangents."""
    closed = jax.make_jaxpr(log_score)(a)
    if "custom_vjp_call" in operations(body(closed)):
        return "a hand-written reverse rule (custom_vjp) has no forward derivative"
    try:
        return survey(log_score, a)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__} while tracing the tangents: {reason}"


def _against(found: Survey) -> dict[str, str | None]:
    """Say for each form what speaks against it."""
    powered = None
    if found.chained:
        powered = f"{found.chained[1]} follows {found.chained[0]}, and both bend"
    elif not found.elementwise:
        powered = f"not one elementwise operation: {found.bending[0]}"
    return {
        "powered": powered,
        "coloured": found.met and f"positions meet in {found.met}",
    }


def _for(form: str, found: Survey) -> str:
    """Say what was proved."""
    if not found.bending:
        return "nothing bends, so that the second and third derivatives are zero"
    bending = ", ".join(dict.fromkeys(found.bending))
    return {
        "powered": f"one bend on every way to the score ({bending}): transposed passes with the "
        "squares and cubes of what is affine before it",
        "coloured": f"positions never meet where anything bends ({bending})",
        "adjoint": f"tangents up to the last bend, one shared backward pass; what bends: {bending}",
    }[form]


ENGINE = Engine("adjoint", exact=True, prove=prove, derive=derive, forms=FORMS)
