"""Where the places come from in every operation that only moves them about (rearrange.py)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcam.derivatives.tangents.axes import SAME, Element
from jaxcam.derivatives.tangents.rearrange import NOTHING, Sources, rearrange
from jaxcam.derivatives.tangents.step import Step, whole_map
from jaxcam.derivatives.tangents.terms import Tangent, Term, spread, times
from jaxcam.jaxprs.interpret import run


def slice_(term: Term, step: Step) -> Tangent:
    """Take a part, or every so many."""
    starts, limits = step.params["start_indices"], step.params["limit_indices"]
    strides = step.params["strides"] or (1,) * len(starts)
    spans = zip(starts, limits, strides, strict=True)
    return rearrange(term, {i: np.arange(*span) for i, span in enumerate(spans)}, step.element)


def reverse(term: Term, step: Step) -> Tangent:
    """Flip axes."""
    turned = {i: np.arange(term.shape[i])[::-1] for i in step.params["dimensions"]}
    return rearrange(term, turned, step.element)


def tile(term: Term, step: Step) -> Tangent:
    """Repeat an array beside itself."""
    repeats = enumerate(step.params["reps"])
    return rearrange(
        term, {i: np.tile(np.arange(term.shape[i]), n) for i, n in repeats}, step.element
    )


def pad(term: Term, step: Step) -> Tangent:
    """Put a constant before, behind and between the places, or take places away."""
    if step.place == 1:
        return whole_map(term, step)
    sources = {
        i: _padded(n, *width)
        for i, (n, width) in enumerate(zip(term.shape, step.params["padding_config"], strict=True))
    }
    return rearrange(term, sources, step.element)


def _padded(size: int, low: int, high: int, between: int) -> np.ndarray:
    apart = np.full((size - 1) * (between + 1) + 1, NOTHING)
    apart[:: between + 1] = np.arange(size)
    apart = np.pad(apart, (max(0, low), max(0, high)), constant_values=NOTHING)
    return apart[max(0, -low) : len(apart) - max(0, -high)]


def split(term: Term, step: Step) -> Tangent:
    """Take one of the parts into which an axis is divided."""
    i, sizes = step.params["axis"], step.params["sizes"]
    start = sum(sizes[: step.result])
    return rearrange(term, {i: np.arange(start, start + sizes[step.result])}, step.element)


def concatenate(term: Term, step: Step) -> Tangent:
    """Put one of the operands in its place, with zeros for the others."""
    i = step.params["dimension"]
    sizes = [v.shape[i] for v in step.operands]
    return rearrange(
        term, {i: _at(sum(sizes[: step.place]), term.shape[i], sum(sizes))}, step.element
    )


def _at(start: int, size: int, full: int) -> np.ndarray:
    source = np.full(full, NOTHING)
    source[start : start + size] = np.arange(size)
    return source


def dynamic_slice(term: Term, step: Step) -> Tangent:
    """Take a part that begins where a number says."""
    sizes = step.params["slice_sizes"]
    starts = _starts(step, 1, term.shape, sizes)
    if starts is None:
        return whole_map(term, step)
    spans = zip(starts, sizes, strict=True)
    sources = {i: np.arange(start, start + size) for i, (start, size) in enumerate(spans)}
    return rearrange(term, sources, step.element)


def dynamic_update_slice(term: Term, step: Step) -> Tangent:
    """Write a part over another."""
    if step.place == 0:
        return overwritten(term, step)
    full = step.operands[0].shape
    starts = _starts(step, 2, full, term.shape)
    if starts is None:
        return whole_map(term, step)
    boxes = zip(starts, term.shape, full, strict=True)
    return rearrange(term, {i: _at(*box) for i, box in enumerate(boxes)}, step.element)


def _starts(step: Step, first: int, full: Sequence[int], sizes: Sequence[int]) -> list[int] | None:
    known = [step.constant(first + i) for i in range(len(full))]
    if any(start is None for start in known):
        return None
    pairs = zip(known, full, sizes, strict=True)
    return [int(np.clip(int(np.asarray(start)), 0, n - size)) for start, n, size in pairs]


def overwritten(term: Term, step: Step) -> Tangent:
    """Put zeros where an operation writes over its first operand."""

    def left() -> Array:
        operands = list(step.operands)
        written = 2 if step.equation.primitive.name == "scatter" else 1
        operands[0] = jnp.ones(operands[0].shape, operands[0].dtype)
        operands[written] = jnp.zeros(operands[written].shape, operands[written].dtype)
        return run(step.equation, operands)[0].astype(term.values.dtype)

    return [times(term, step.once(left), step.element)]


def gather(term: Term, step: Step) -> Tangent:
    """Pick places by known numbers, axis by axis; other picks of the tangent stored whole."""
    indices = step.constant(1)
    by_axis = None if indices is None else _gathered(step.params, indices, term.shape, step.shape)
    if by_axis is None:
        return whole_map(term, step)
    sources, origins = by_axis
    terms = rearrange(term, sources, step.element)
    return [_laid_out(new, origins, step.shape, step.element) for new in terms]


def _gathered(
    params: dict[str, Any], indices: np.ndarray, shape: Sequence[int], result: Sequence[int]
) -> tuple[Sources, list[int | None]] | None:
    """Give the sources of each axis, and which one each axis of the result comes from, if any."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if numbers.operand_batching_dims:
        return None
    batch = [i for i in range(len(result)) if i not in numbers.offset_dims]
    kept_axes = [d for d in range(len(shape)) if d not in numbers.collapsed_slice_dims]
    origins: list[int | None] = [None] * len(result)
    for i, d in zip(numbers.offset_dims, kept_axes, strict=True):
        origins[i] = d
    sources = {d: np.arange(sizes[d]) for d in range(len(shape))}
    for k, d in enumerate(numbers.start_index_map):
        start = np.asarray(indices[..., k], np.int64)
        if start.min() < 0 or start.max() + sizes[d] > shape[d]:
            return None
        differing = [j for j in range(start.ndim) if np.ptp(start, axis=j).any()]
        if not differing:
            sources[d] = sources[d] + start.flat[0]
            continue
        i = batch[differing[0]]
        if len(differing) > 1 or d in kept_axes or origins[i] is not None:
            return None  # not axis by axis
        origins[i] = d
        sources[d] = np.moveaxis(start, differing[0], 0).reshape(start.shape[differing[0]], -1)[
            :, 0
        ]
    return sources, origins


def _laid_out(
    term: Term, origins: Sequence[int | None], shape: Sequence[int], element: Element
) -> Term:
    """Put axes where they belong: without those of one place that are dropped, with new ones."""
    placed_axes = [d for d in origins if d is not None]
    dropped = [d for d in range(len(term.shape)) if d not in placed_axes]
    for d in dropped:
        term = spread(term, d, element)

    def moved(array: Array) -> Array:
        sizes = [1 if d is None else array.shape[d] for d in origins]
        return lax.transpose(array, (*dropped, *placed_axes)).reshape(sizes)

    axes = tuple(SAME if d is None else term.axes[d] for d in origins)
    pattern = None if term.pattern is None else moved(term.pattern)
    return Term(moved(term.values), axes, tuple(shape), pattern)
