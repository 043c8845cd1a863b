"""What pooling does to a tangent: sums over windows, and the places that a maximum picks."""

import functools
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import Axis, whole
from jaxcam.derivatives.tangents.sliding import Side, every, product_of_sizes, seen, slid
from jaxcam.derivatives.tangents.step import Step, whole_map
from jaxcam.derivatives.tangents.terms import Tangent, Term, cleaned, cut, localize, on, spread

MOST_PLACES = 81  # that a maximum is taken of, one by one


def window_sum(term: Term, step: Step) -> Tangent:
    """Sum over the places that each place of the result sees."""
    sides = _sides(step)
    expanded = any(side.expansion > 1 for side in sides)
    if expanded and product_of_sizes(sides) > MOST_PLACES:
        return whole_map(term, step)
    term, sides = _ready(term, step)
    term, axes = _laid_out(term, sides, step)
    if expanded:
        # XLA aborts where it meets zeros between places and a window over an axis of one place.
        counts = [axes[side.axis].size for side in sides]
        taken = [_at(term.values, sides, taps, counts) for taps in _taps(sides)]
        return [Term(functools.reduce(jnp.add, taken), tuple(axes), step.shape)]
    sizes, strides = step.params["window_dimensions"], step.params["window_strides"]
    values = lax.reduce_window(
        term.values, jnp.zeros((), term.values.dtype), lax.add, sizes, strides, "VALID",
        window_dilation=step.params["window_dilation"],
    )  # fmt: skip
    return [Term(values, tuple(axes), step.shape)]


def window_pick(term: Term, step: Step) -> Tangent:
    """Take the tangent of the place that a maximum or a minimum picks, at the point.

    Of equal ones that is the first, as in JAX's gradient (forward mode may pick another).
    """
    sides = _sides(step)
    if product_of_sizes(sides) > MOST_PLACES:
        return whole_map(term, step)
    term, sides = _ready(term, step)
    for i in range(len(term.shape)):
        term = spread(term, i, step.element) if term.axes[i].kind == "same" else term
    term, axes = _laid_out(term, sides, step)
    values = term.values

    def picked() -> Array:
        return _first_of_the_largest(step, sides)

    number = cut(step.once(picked), axes, step.shape, step.element)
    counts = [axes[side.axis].size for side in sides]
    picks = jnp.zeros(number.shape, values.dtype)
    for n, taps in enumerate(_taps(sides)):
        picks = jnp.where(number == n, _at(values, sides, taps, counts), picks)
    return [Term(picks, tuple(axes), step.shape)]


def _ready(term: Term, step: Step) -> tuple[Term, list[Side]]:
    sides = _sides(step)
    term = localize(term, step.element)
    return cleaned(term, [side.axis for side in sides], step.element), sides


def _laid_out(term: Term, sides: Sequence[Side], step: Step) -> tuple[Term, list[Axis]]:
    """Store a term where the windows slide without padding, and give the axes of the result."""
    axes = list(term.axes)
    for side in sides:
        new = slid(term.axes[side.axis], side, step.element)
        if new is None:
            term = spread(term, side.axis, step.element)
            padded = _padded(term.values, side, 0.0)
            term = on(term, side.axis, whole(padded.shape[side.axis]), padded)
            axes[side.axis] = whole(side.out)
        else:
            term, axes[side.axis] = seen(term, side, new, step.element), new
    return term, axes


def _sides(step: Step) -> list[Side]:
    """Describe the axes along which something happens."""
    params, name = step.params, "window_dimensions"
    each = zip(
        params[name], params["window_dilation"], params["window_strides"], params["padding"],
        params["base_dilation"], step.shape, strict=True,
    )  # fmt: skip
    sides = [Side(i, *one) for i, one in enumerate(each)]
    return [side for side in sides if not side.pointlike]


def _padded(values: Array, side: Side, filling: float) -> Array:
    """Put what is never picked, or counts for nothing, around the places and between them."""
    widths = [(0, 0, 0)] * values.ndim
    widths[side.axis] = (*side.pads, side.expansion - 1)
    return lax.pad(values, jnp.asarray(filling, values.dtype), widths)


def _taps(sides: Sequence[Side]) -> itertools.product:
    return itertools.product(*(range(side.size) for side in sides))


def _at(values: Array, sides: Sequence[Side], taps: Sequence[int], counts: Sequence[int]) -> Array:
    """Give what stands at one place of the sliding window, for each place of the result."""
    for side, tap, count in zip(sides, taps, counts, strict=True):
        values = every(values, side.axis, tap * side.dilation, side.stride, count)
    return values


def _first_of_the_largest(step: Step, sides: Sequence[Side]) -> Array:
    """Number, for each place of the result, the place of the sliding window that is picked."""
    sign = 1 if step.equation.primitive.name == "reduce_window_max" else -1
    x = sign * step.operands[0]
    for side in sides:
        x = _padded(x, side, -jnp.inf)
    counts = [side.out for side in sides]
    best, number = jnp.full(step.shape, -jnp.inf, x.dtype), jnp.full(step.shape, -1, jnp.int32)
    for n, taps in enumerate(_taps(sides)):
        one = _at(x, sides, taps, counts)
        number = jnp.where(one > best, n, number)
        best = jnp.maximum(best, one)
    return number
