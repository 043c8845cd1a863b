"""How many operations a traced function makes: what `auto` ranks engines by.

Counted on the jaxpr: two for each product of a matrix product or convolution, one for each number
that anything else makes or sums up. Loops count as often as they turn. Nothing is computed, and no
constant of any machine is in it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from jaxcam.derivatives.structure import body

FREE = {"reshape", "squeeze", "broadcast_in_dim", "iota", "copy", "stop_gradient"}


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Count the operations of a function of arrays, or of their shapes."""
    return _count(body(jax.make_jaxpr(function)(*arguments)))


def _count(jaxpr: Any) -> float:
    return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    inner = [_count(body(sub)) for sub in core.jaxprs_in_params(params)]
    if name == "cond":
        return max(inner)
    if inner:
        return params.get("length", 1) * sum(inner)
    made = sum(math.prod(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape"))
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * made * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * made * math.prod(kernel) / outputs
    if name in FREE:
        return 0
    read = max((math.prod(a.aval.shape) for a in equation.invars if hasattr(a.aval, "shape")),
               default=0)  # fmt: skip
    return max(made, read) if name.startswith(("reduce", "cum", "arg", "sort")) else made
