"""Convolutions in the order of axes for which every compiler has a fast kernel.

JAX transposes a convolution by swapping the channel axes of its kernel. XLA's CPU compiler swaps
them back only at the top of a program, and not inside a loop, where such a convolution then runs
several times slower (measured: three times, on a ResNet's last block); and the loop over noisy
samples is where our gradients are. So they are brought to the plain order here, by explicit
transpositions, which is the same computation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax import Array, lax

from jaxcam.derivatives.chunks import pieces
from jaxcam.derivatives.structure import arguments, body, evaluate, results, run

CONVOLUTION = "conv_general_dilated"
PREPARATIONS = {"transpose", "rev", "convert_element_type"}


def with_plain_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, with channels last in every convolution that it makes itself.

    Convolutions inside calls of their own (``remat``, ``scan``) are left as they are.
    """

    def plain(*given: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*given)
        jaxpr = body(closed)
        known = arguments(jaxpr, closed.consts, jax.tree.leaves(given))
        found = results(jaxpr, evaluate(jaxpr.eqns, known, run_plain))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return plain


def fold_in_order(
    part_of: Callable[[Array], Any], combine: Callable[[Any, Any], Any], start: Any, rows: Array,
    *, fit: bool = False,
) -> Any:  # fmt: skip
    """Combine ``part_of(row)`` for all rows in a loop, with prepared weights kept outside of it.

    XLA leaves a transposition, a reversal or a rounding inside a loop even where its operand never
    changes, and would prepare all kernels again at every turn.

    In reverse mode each part is computed again from its row, so that what it kept on the way does
    not add up over the turns.

    fit: cut the rows into equal pieces, as small as it takes for a part to fit the memory.
    """
    closed, shape = jax.make_jaxpr(part_of, return_shape=True)(rows[0])
    cuts = pieces(closed, rows.shape[1]) if fit else 1
    if cuts > 1:
        rows = rows.reshape(cuts * len(rows), -1)
        closed, shape = jax.make_jaxpr(part_of, return_shape=True)(rows[0])
    jaxpr = body(closed)
    fixed = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    rest = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in PREPARATIONS and equation.invars[0] in fixed:
            fixed[equation.outvars[0]] = equation.primitive.bind(
                fixed[equation.invars[0]], **equation.params
            )
        else:
            rest.append(equation)

    @partial(jax.checkpoint, prevent_cse=False)  # a loop's body is compiled by itself
    def part(row: Array) -> Any:
        found = results(jaxpr, evaluate(rest, fixed | {jaxpr.invars[0]: row}, run_plain))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    def turn(so_far: Any, row: Array) -> tuple[Any, None]:
        return combine(so_far, part(row)), None

    return jax.lax.scan(turn, start, rows)[0]


def run_plain(equation: Any, operands: list[Any]) -> Sequence[Any]:
    """Run one equation, with channels last if it is a convolution."""
    if equation.primitive.name == CONVOLUTION:
        return [_convolve(equation, *operands)]
    return run(equation, operands)


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
