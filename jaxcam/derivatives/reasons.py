"""Which operation stops a proof, and where in the model: words for a reader, never a proof."""

import itertools
from collections.abc import Collection, Iterator
from typing import Any

from jax.extend import core

from jaxcam.jaxprs.interpret import body, inner, variables
from jaxcam.jaxprs.primitives import Fact, known_as


class Refused(Exception):
    """A score that an engine cannot serve; the message says why, for a reader."""


def first_line(error: BaseException) -> str:
    """Give the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


LINEAR, KINKED = known_as(Fact.LINEAR), known_as(Fact.KINKED)
BILINEAR = known_as(Fact.BILINEAR)  # linear where one factor is fixed
FLAT = {"stop_gradient"}
SMOOTH_CALLS = {"logaddexp", "softplus"}  # a maximum inside, and a derivative written by hand
KINKED_CALLS = {"relu", "relu6", "leaky_relu", "hard_tanh", "hard_sigmoid", "clip", "_where"}


def first_nonlinear(closed: Any) -> str:
    """Word the first operation on the way from ``a`` to ``u`` that is not piecewise affine."""
    jaxpr = body(closed)
    return _search(jaxpr, {jaxpr.invars[0]}) or "no single operation"


def has_kinks(closed: Any) -> bool:
    """Say whether the slope of a program may jump: whether it compares, picks or takes a maximum.

    Not a proof, and asked only to choose between ways that are right: an unknown function counts
    as smooth. A maximum that is only subtracted (`logsumexp`) has no slope, and is no kink.
    """
    jaxpr = body(closed)
    return _kinked(jaxpr, set(jaxpr.invars))


def _kinked(jaxpr: Any, varying: set[Any]) -> bool:
    return any(_is_kink(*one) for one in _on_the_way(jaxpr, varying, FLAT))


def _is_kink(equation: Any, moved: list[bool]) -> bool:
    named = equation.params.get("name") or _written(equation)
    if named in SMOOTH_CALLS:
        return False
    if named in KINKED_CALLS or equation.primitive.name in KINKED | {"cond"}:
        return True
    inside = [body(sub) for sub in core.jaxprs_in_params(equation.params)]
    if len(inside) == 1 and len(inside[0].invars) == len(moved):
        return _kinked(inside[0], set(itertools.compress(inside[0].invars, moved)))
    return any(_kinked(sub, set(sub.invars)) for sub in inside)


def _search(jaxpr: Any, varying: set[Any]) -> str | None:
    words = (_curved(*one) for one in _on_the_way(jaxpr, varying))
    return next((word for word in words if word is not None), None)


def _on_the_way(
    jaxpr: Any, varying: set[Any], without: Collection[str] = ()
) -> Iterator[tuple[Any, list[bool]]]:
    """Give the equations between what varies and the outputs, and which operands of each vary.

    without: operations that end the way.
    """
    varying, needed = set(varying), _needed(jaxpr, without)
    for equation in jaxpr.eqns:
        moved = [not isinstance(a, core.Literal) and a in varying for a in equation.invars]
        if any(moved) and equation.primitive.name not in without:
            varying.update(equation.outvars)
            if needed.intersection(equation.outvars):
                yield equation, moved


def _needed(jaxpr: Any, without: Collection[str] = ()) -> set[Any]:
    """Collect the variables on which the outputs depend, other than through some operations."""
    needed = set(variables(jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if equation.primitive.name not in without and needed.intersection(equation.outvars):
            needed.update(variables(equation.invars))
    return needed


def _curved(equation: Any, moved: list[bool]) -> str | None:
    """Name what is not piecewise affine in an equation, None if all of it is.

    Inside anonymous calls; a named function (gelu, softmax) is the better word itself.
    """
    name, named = equation.primitive.name, equation.params.get("name") or _written(equation)
    if name in BILINEAR:
        return None if sum(moved) == 1 else where(equation)
    if name == "div":
        return None if moved == [True, False] else where(equation)
    called = inner(equation)
    if called is not None:
        word = _search(called, set(itertools.compress(called.invars, moved)))
        anonymous = named in (None, "", "<lambda>", "checkpoint")
        return where(equation) if word is not None and not anonymous else word
    return None if name in LINEAR | KINKED or named in KINKED_CALLS else where(equation)


def where(equation: Any, call: str = "") -> str:
    """Name an operation, or the named call that it is part of, and its place in the model."""
    word = call or equation.params.get("name") or _written(equation) or equation.primitive.name
    place = str(getattr(equation.source_info, "name_stack", ""))
    return f"{word!s} in {place}" if place else str(word)


def _written(equation: Any) -> str | None:
    """Name the function whose derivative was written by hand, if that is what an operation is."""
    if not equation.primitive.name.startswith("custom_"):
        return None
    info = getattr(body(equation.params.get("call_jaxpr")), "debug_info", None)
    name = getattr(info, "func_name", "")
    return name if name.isidentifier() else None
