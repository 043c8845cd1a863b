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

from jax import lax

from jaxcam.jaxprs.interpret import run, run_all, through_program

CONVOLUTION = "conv_general_dilated"


def with_plain_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, with channels last in every convolution that it makes itself.

    Convolutions inside calls of their own (``remat``, ``scan``) are left as they are.
    """
    return through_program(function, partial(run_all, rule=run_plain))


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
