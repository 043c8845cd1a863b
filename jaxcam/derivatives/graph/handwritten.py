"""Derivatives that an author wrote (`jax.custom_jvp`), and whether tangents may follow them.

A rule gives a value and its tangent, and JAX differentiates further what the *rule* gives. Where
the rule's value is the function itself, as `jax.nn.relu` has it, its next derivative follows the
same rule, and all three tangents of nested derivatives are one. Where it is the plain value
(``return jnp.round(x), t``: a straight-through or a surrogate gradient), the second derivative
sees the plain value, and along one direction there are different tangents at different levels.
What nested `jax.grad` gives is then still defined, but no engine that carries one tangent for all
levels has it: these refuse (`of_one_tangent`), and `directional` serves.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxcam.jaxprs.interpret import body, called, run, run_all
from jaxcam.jaxprs.merge import key_of
from jaxcam.jaxprs.primitives import Fact, known_as

POINTWISE = known_as(Fact.POINTWISE)

CUSTOM = {"custom_jvp_call", "custom_vjp_call"}


def of_one_tangent(equation: Any, moved: Sequence[bool]) -> bool:
    """Say whether all derivatives inside an operation are those of one tangent for all levels.

    moved: which operands depend on ``a`` differentiably.
    """
    if equation.primitive.name == "custom_jvp_call":
        traced = third(equation, moved)
        return traced is not None and _levels_agree(traced)
    return all(
        of_one_tangent(inner, [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in inner.invars])
        for closed in core.jaxprs_in_params(equation.params)
        for inner in body(closed).eqns
    )


def third(equation: Any, moved: Sequence[bool]) -> Any | None:
    """Trace an operation, differentiated three times along one direction of what is moved.

    Gives the jaxpr of ``(*values, *tangents) -> [y, y3, y2, y23, y1, y13, y12, y123]`` (results of
    several are flattened), a number for every level that a value was differentiated at. None: its
    rule cannot be differentiated so often.
    """
    places = [i for i, is_moved in enumerate(moved) if is_moved]
    avals = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in equation.invars]

    def nested(values: Sequence[Any], tangents: Sequence[Any]) -> Any:
        def call(*xs: Any) -> list[Any]:
            known = dict(zip(places, xs, strict=True))
            return run(equation, [known.get(i, value) for i, value in enumerate(values)])

        def along(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *xs: jax.jvp(function, xs, tuple(tangents))

        return along(along(along(call)))(*(values[i] for i in places))

    try:
        return jax.make_jaxpr(nested)(avals, [avals[i] for i in places])
    except Exception:  # whatever JAX, or the rule, has against it
        return None


def _levels_agree(traced: Any) -> bool:
    """Say whether the three first tangents are the same computation, and the three second ones."""
    numbers = numbered(traced)
    count = len(numbers) // 8
    _, y3, y2, y23, y1, y13, y12, _ = (numbers[i * count : (i + 1) * count] for i in range(8))
    return y1 == y2 == y3 and y12 == y13 == y23


def numbered(closed: Any) -> list[Any]:
    """Give for each result something that is equal for results that are the same computation."""
    done: dict[Any, tuple[list[Any], Any]] = {}

    def number(equation: Any, operands: list[Any]) -> list[Any]:
        call = _body_of_call(equation)
        if call is not None:
            return run_all(call, operands, number)
        made = [object() for _ in equation.outvars]
        return done.setdefault(key_of(equation, operands), (made, operands))[0]

    return run_all(closed, [object() for _ in body(closed).invars], number)


def _body_of_call(equation: Any) -> Any | None:
    """Give the body of a call; that of a hand-written one too, which nobody differentiates now."""
    if equation.primitive.name in CUSTOM:
        return equation.params["call_jaxpr"]
    return called(equation)


def calls(jaxpr: Any) -> Iterator[Any]:
    """Find the operations whose derivatives are written by hand, in loops and branches too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in CUSTOM:
            yield equation
        else:
            for closed in core.jaxprs_in_params(equation.params):
                yield from calls(body(closed))


def is_pointwise(equation: Any, moved: Sequence[bool]) -> bool:
    """Say whether a hand-written derivative works element by element, in all that is moved.

    Up to the third order; of an operation that is none, that it does not.
    """
    if equation.primitive.name != "custom_jvp_call":
        return False
    shapes = {a.aval.shape for a, m in zip(equation.invars, moved, strict=True) if m}
    if len(shapes) != 1:
        return False
    traced = third(equation, moved)
    return traced is not None and _all_pointwise(body(traced), *shapes)


def _all_pointwise(jaxpr: Any, shape: tuple[int, ...]) -> bool:
    for equation in jaxpr.eqns:
        call = _body_of_call(equation)
        if call is not None:
            if not _all_pointwise(body(call), shape):
                return False
            continue
        spread = equation.primitive.name == "broadcast_in_dim" and (
            equation.invars[0].aval.shape == ()
        )
        shapes = {atom.aval.shape for atom in (*equation.invars, *equation.outvars)}
        if not (spread or equation.primitive.name in POINTWISE) or not shapes <= {shape, ()}:
            return False
    return True
