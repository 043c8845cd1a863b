"""Which operation stops a proof, and where in the model: words for a reader, never a proof."""

from typing import Any

from jax.extend import core

from jaxcam.derivatives.structure import INLINE_CALLS, body, inner

LINEAR = {
    "add", "add_any", "sub", "neg", "copy", "convert_element_type", "transpose", "reshape",
    "squeeze", "expand_dims", "broadcast_in_dim", "slice", "dynamic_slice", "gather", "concatenate",
    "pad", "rev", "reduce_sum", "cumsum", "reduce_window_sum", "reduce_precision",
}  # fmt: skip
KINKED = {
    "max", "min", "abs", "sign", "floor", "ceil", "round", "clamp", "select_n", "reduce_max",
    "reduce_min", "reduce_window_max", "argmax", "argmin", "stop_gradient", "sort", "top_k",
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "is_finite",
}  # fmt: skip
BILINEAR = {"mul", "dot_general", "conv_general_dilated"}  # linear where one factor is fixed
KINKED_CALLS = {"relu", "relu6", "leaky_relu", "hard_tanh", "hard_sigmoid", "clip", "_where"}


def first_nonlinear(closed: Any) -> str:
    """Word the first operation on the way from ``a`` to ``u`` that is not piecewise affine."""
    jaxpr = body(closed)
    return _search(jaxpr, {jaxpr.invars[0]}) or "no single operation"


def _search(jaxpr: Any, varying: set[Any]) -> str | None:
    needed = _needed(jaxpr)
    for equation in jaxpr.eqns:
        moved = [not isinstance(a, core.Literal) and a in varying for a in equation.invars]
        if not any(moved):
            continue
        varying.update(equation.outvars)
        if needed.intersection(equation.outvars) and not _is_piecewise_affine(equation, moved):
            return _deeper(equation, moved) or where(equation)
    return None


def _needed(jaxpr: Any) -> set[Any]:
    """Collect the variables on which the outputs depend."""
    needed = {a for a in jaxpr.outvars if not isinstance(a, core.Literal)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(a for a in equation.invars if not isinstance(a, core.Literal))
    return needed


def _is_piecewise_affine(equation: Any, moved: list[bool]) -> bool:
    name = equation.primitive.name
    if name in BILINEAR:
        return sum(moved) == 1
    if name == "div":
        return moved == [True, False]
    called = inner(equation)
    if called is not None:
        entering = {v for v, m in zip(called.invars, moved, strict=True) if m}
        return _search(called, entering) is None
    return name in LINEAR | KINKED or equation.params.get("name") in KINKED_CALLS


def _deeper(equation: Any, moved: list[bool]) -> str | None:
    """Look inside anonymous calls; a named function (gelu, softmax) is the better word itself."""
    called = inner(equation)
    anonymous = equation.params.get("name") in (None, "", "<lambda>", "checkpoint")
    if called is None or not (anonymous or equation.primitive.name not in INLINE_CALLS):
        return None
    return _search(called, {v for v, m in zip(called.invars, moved, strict=True) if m})


def where(equation: Any, call: str = "") -> str:
    """Name an operation, or the named call that it is part of, and its place in the model."""
    word = call or equation.params.get("name") or equation.primitive.name
    place = str(getattr(equation.source_info, "name_stack", ""))
    return f"{word!s} in {place}" if place else str(word)
