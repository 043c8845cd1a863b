"""Convolutions in the order of axes for which every compiler has a fast kernel.

JAX transposes a convolution by swapping the channel axes of its kernel. XLA's CPU compiler swaps
them back only at the top of a program, and not inside a loop, where such a convolution then runs
several times slower (measured: three times, on a ResNet's last block); and the loop over noisy
samples is where our gradients are. So they are brought to the plain order here, by explicit
transpositions, which is the same computation.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend import core

from jaxcam.derivatives.structure import body, run

CONVOLUTION = "conv_general_dilated"
REORDERINGS = {"transpose", "rev"}


def with_plain_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, with channels last in every convolution that it makes itself.

    Convolutions inside calls of their own (``remat``, ``scan``) are left as they are.
    """

    def run(*arguments: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr = body(closed)
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known.update(zip(jaxpr.invars, jax.tree.leaves(arguments), strict=True))
        found = results(jaxpr, evaluate(jaxpr.eqns, known))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return run


def scan_in_order(body_of: Callable[..., Any], start: Any, xs: Any) -> Any:
    """`jax.lax.scan` of ``(carry, x) -> carry``, with reordered weights kept outside the loop.

    XLA leaves a transposition or a reversal inside a loop even where its operand never changes, and
    would reorder all kernels again at every turn.
    """
    first = jax.tree.map(lambda v: v[0], xs)
    closed, shape = jax.make_jaxpr(body_of, return_shape=True)(start, first)
    jaxpr = body(closed)
    fixed = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    rest = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in REORDERINGS and equation.invars[0] in fixed:
            fixed[equation.outvars[0]] = equation.primitive.bind(
                fixed[equation.invars[0]], **equation.params
            )
        else:
            rest.append(equation)

    def turn(carry: Any, x: Any) -> tuple[Any, None]:
        given = dict(zip(jaxpr.invars, jax.tree.leaves((carry, x)), strict=True))
        found = results(jaxpr, evaluate(rest, fixed | given))
        return jax.tree.unflatten(jax.tree.structure(shape), found), None

    return jax.lax.scan(turn, start, xs)[0]


def evaluate(equations: Iterable[Any], known: dict[Any, Any]) -> dict[Any, Any]:
    """Run equations in order, with channels last in every convolution; give all known values."""
    known = dict(known)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in equations:
        if equation.primitive.name == CONVOLUTION:
            found = [_convolve(equation, *map(read, equation.invars))]
        else:
            found = run(equation, list(map(read, equation.invars)))
        known.update(zip(equation.outvars, found, strict=True))
    return known


def results(jaxpr: Any, known: dict[Any, Any]) -> list[Any]:
    """Look up the results of a jaxpr among the known values."""
    return [v.val if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]


def _convolve(equation: Any, left: Any, right: Any) -> Any:
    given, rank = equation.params["dimension_numbers"], left.ndim
    last = (0, rank - 1, *range(1, rank - 1))
    plain = lax.ConvDimensionNumbers(last, (rank - 1, rank - 2, *range(rank - 2)), last)
    if given == plain:
        return equation.primitive.bind(left, right, **equation.params)
    result = equation.primitive.bind(
        _reorder(left, given.lhs_spec, plain.lhs_spec),
        _reorder(right, given.rhs_spec, plain.rhs_spec),
        **{**equation.params, "dimension_numbers": plain},
    )
    return _reorder(result, plain.out_spec, given.out_spec)


def _reorder(value: Any, given: Sequence[int], wanted: Sequence[int]) -> Any:
    """Move axis ``given[i]`` to ``wanted[i]``."""
    order = [0] * value.ndim
    for old, new in zip(given, wanted, strict=True):
        order[new] = old
    return lax.transpose(value, order)
