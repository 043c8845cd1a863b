"""What an operation does to a tangent: one table, a line for each operation.

A rule takes a term of the tangent of an operand that varies, and gives the terms of the result.
To add an operation: put it into its row of jaxprs/primitives.py; if it is linear and not pointwise,
give it a line in `RULES`. An operation that is neither is differentiated as a whole (carry.py),
which is slower and never wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import whole
from jaxcam.derivatives.tangents.convolution import convolve, pointlike_axes
from jaxcam.derivatives.tangents.matrices import dot_general
from jaxcam.derivatives.tangents.pooling import window_pick, window_sum
from jaxcam.derivatives.tangents.products import summed
from jaxcam.derivatives.tangents.shapes import broadcast, reshape, same_places, transpose
from jaxcam.derivatives.tangents.sources import (
    concatenate,
    dynamic_slice,
    dynamic_update_slice,
    gather,
    overwritten,
    pad,
    reverse,
    slice_,
    split,
    tile,
)
from jaxcam.derivatives.tangents.step import Step, unchanged, whole_map
from jaxcam.derivatives.tangents.terms import (
    Tangent,
    Term,
    cut,
    localize,
    resized,
    spread,
    times,
    varies,
)
from jaxcam.jaxprs.interpret import run


def reduce_sum(term: Term, step: Step) -> Tangent:
    """Sum over axes, and leave them out."""
    over = step.params["axes"]
    term = summed(term, over, step.element)
    axes = tuple(axis for i, axis in enumerate(term.axes) if i not in over)
    pattern = None if term.pattern is None else lax.squeeze(term.pattern, over)
    return [Term(lax.squeeze(term.values, over), axes, step.shape, pattern)]


def cumulative(term: Term, step: Step) -> Tangent:
    """Sum up along an axis."""
    axis = step.params["axis"]
    term = spread(localize(term, step.element), axis, step.element)
    return [term._replace(values=run(step.equation, [term.values])[0])]


def scatter(term: Term, step: Step) -> Tangent:
    """Write or add numbers at places that are known at the point."""
    if step.place == 0:
        adds = step.equation.primitive.name == "scatter-add"
        return [term] if adds else overwritten(term, step)
    return whole_map(term, step)


def reduce_pick(term: Term, step: Step) -> Tangent:
    """Take the tangent of the largest or smallest place, the mean of those that are equal."""
    x = step.operands[0]

    def share() -> Array:
        largest, back = jax.vjp(lambda x: run(step.equation, [x])[0], x)
        return back(jnp.ones_like(largest))[0].astype(term.values.dtype)

    return reduce_sum(times(term, step.once(share), step.element), step)


def sort(term: Term, step: Step) -> Tangent:
    """Put places in the order that they have at the point."""
    if step.place != step.result:
        return []  # how it is sorted does not change

    def order() -> Array:
        axis, keys = step.params["dimension"], step.params["num_keys"]
        numbers = lax.broadcasted_iota(jnp.int32, step.operands[0].shape, axis)
        stable = step.params["is_stable"]
        return lax.sort((*step.operands, numbers), axis, is_stable=stable, num_keys=keys)[-1]

    return _in_order(term, step.once(order), step.params["dimension"], step)


def top_k(term: Term, step: Step) -> Tangent:
    """Take the places that are largest at the point."""

    def largest() -> Array:
        return run(step.equation, step.operands)[1]

    return _in_order(term, step.once(largest), step.params["axis"], step)


def _in_order(term: Term, order: Array, axis: int, step: Step) -> Tangent:
    if term.axes[axis].kind == "same" and not varies(term, [axis]):
        return [resized(term, axis, step.shape[axis])]
    term = localize(term, step.element)
    for i, one in enumerate(term.axes):
        if i == axis or one.kind == "same":
            term = spread(term, i, step.element)
    axes = [*term.axes[:axis], whole(order.shape[axis]), *term.axes[axis + 1 :]]
    part = cut(order, axes, step.shape, step.element)
    return [Term(jnp.take_along_axis(term.values, part, axis), tuple(axes), step.shape)]


def axes_before(equation: Any, place: int, over: Sequence[int]) -> list[int] | None:
    """Say over which axes of an operand to sum instead of these axes of an operation's result.

    None where the sum and the operation cannot change places.
    """
    name, origins = equation.primitive.name, list[int | None]()
    if name == "transpose":
        origins = list(equation.params["permutation"])
    elif name in ("reshape", "squeeze", "expand_dims"):
        origins = same_places(equation)
    elif name == "dot_general":
        contracted, batched = equation.params["dimension_numbers"]
        free = [
            [i for i in range(len(atom.aval.shape)) if i not in axes]
            for atom, axes in zip(equation.invars, contracted, strict=True)
        ]
        origins = free[0] + [None] * len(free[1]) if place == 0 else [None] * len(free[0]) + free[1]
        origins = [] if batched[0] else origins
    elif name == "conv_general_dilated" and place == 0:
        origins = pointlike_axes(equation)
    before = [axis for i in over if origins and (axis := origins[i]) is not None]
    return before if len(before) == len(over) else None


RULES: dict[str, Callable[[Term, Step], Tangent]] = {
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "reduce_sum": reduce_sum,
    "dot_general": dot_general,
    "conv_general_dilated": convolve,
    "concatenate": concatenate,
    "slice": slice_,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "pad": pad,
    "rev": reverse,
    "split": split,
    "tile": tile,
    "cumsum": cumulative,
    "reduce_window_sum": window_sum,
    "scatter": scatter,
    "scatter-add": scatter,
    "sharding_constraint": unchanged,
    "optimization_barrier": unchanged,
    # Linear at a point, since they pick elements: the derivative of the choice is zero.
    "reduce_max": reduce_pick,
    "reduce_min": reduce_pick,
    "reduce_window_max": window_pick,
    "reduce_window_min": window_pick,
    "cummax": whole_map,
    "cummin": whole_map,
    "select_and_gather_add": whole_map,
    "select_and_scatter_add": whole_map,
    "sort": sort,
    "top_k": top_k,
}
