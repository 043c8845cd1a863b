"""A layer's output as a map: tokens laid out in rows and columns, channels moved to the end.

``to_map=`` of a split picks elements of the layer's output and puts them in another order, as any
function of slices, reshapes and transposes does. Since it computes nothing, activations can be put
back where they came from: what it left out (a class token) stays as the network computed it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.arrays.outputs import describe, is_array
from jaxcam.errors import JaxcamError, fail

ToMap = Callable[[Any], Any]


@dataclass(frozen=True)
class Tokens:
    """See `tokens`; compared by value, so that one made anew compiles nothing."""

    before: int
    grid: tuple[int, ...] | None

    def __call__(self, output: Any) -> Any:
        """``[batch, before + rows * columns, k] -> [batch, rows, columns, k]``."""
        call = f"tokens(before={self.before}, grid={self.grid})"
        if output.ndim != 3 or output.shape[1] <= self.before:
            fail(
                call,
                needs=f"tokens [batch, {self.before} + rows * columns, k]",
                got=describe(output),
                remedy="Take a layer that has tokens, or leave to_map= away.",
            )
        count = output.shape[1] - self.before
        grid = self.grid or (math.isqrt(count),) * 2
        if math.prod(grid) != count:
            fail(
                call,
                needs=f"a grid of {count} tokens" if self.grid else "tokens of a square picture",
                got=f"{' x '.join(map(str, grid))} for {describe(output)}",
                remedy="Say how many stand before= the picture's (class token, registers), and "
                "grid=(rows, columns) where it is not square.",
            )
        return output[:, self.before :].reshape(len(output), *grid, output.shape[-1])


def tokens(before: int = 1, *, grid: tuple[int, ...] | None = None) -> Tokens:
    """Lay tokens out as the picture they stand for: the ``to_map=`` of transformers.

    ``[batch, before + rows * columns, k] -> [batch, rows, columns, k]``, row by row. The tokens
    before them (class token, distillation token, registers) are not part of the map, and stay as
    the network computes them. Where the scores are read off the class token, nothing behind the
    last attention depends on the others: take the last block's first LayerNorm, or a layer before.

    Args:
        before: how many stand before the picture's: 1 in ViT, 0 in Swin-like networks.
        grid: (rows, columns), or any number of axes; a square by default.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> jaxcam.tokens(before=1)(jnp.ones((2, 197, 768))).shape
    (2, 14, 14, 768)
    """
    if isinstance(before, bool) or not isinstance(before, int) or before < 0:
        fail("tokens", needs="before= of 0 or more", got=repr(before), remedy="Default: 1.")
    if grid is not None and not (isinstance(grid, Sequence) and all(map(_is_length, grid))):
        fail("tokens", needs="grid= of lengths", got=repr(grid), remedy="For example (14, 14).")
    return Tokens(before, None if grid is None else tuple(grid))


def _is_length(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value > 0)


def arranged(call: str, to_map: ToMap, output: Array) -> Array:
    """``to_map(output)``, if it is one that can be undone."""
    _places(call, to_map, output)
    return to_map(output)


def put_back(call: str, to_map: ToMap, output: Array, a: Array) -> Array:
    """``output`` with ``a`` in the places from which ``to_map`` took it."""
    places = _places(call, to_map, output)
    (new,) = jax.linear_transpose(to_map, jax.ShapeDtypeStruct(output.shape, output.dtype))(a)
    if places.size == output.size:
        return new
    taken = np.zeros(output.size, bool)
    taken[places.reshape(-1)] = True
    return jnp.where(taken.reshape(output.shape), new, output)


def _places(call: str, to_map: ToMap, output: Array) -> np.ndarray:
    """From where in ``output`` each element of the map comes, found out by moving numbers about."""
    numbers = np.arange(output.size, dtype=np.int32).reshape(output.shape)
    try:
        with jax.ensure_compile_time_eval():
            places, others = to_map(jnp.asarray(numbers)), to_map(jnp.asarray(-3 - 2 * numbers))
            moved = is_array(places) and (others == -3 - 2 * places).all()
            unique = moved and len(np.unique(places)) == places.size
    except JaxcamError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        got = f"{describe(output)}, on which it raised {type(error).__name__}: {first}"
    else:
        if unique:
            return np.asarray(places)
        got = "one that computes" if not moved else "one that takes an element twice"
        got = f"{got}, from {describe(output)} to {describe(places)}"
    fail(
        call,
        needs="a to_map= that only picks and reorders elements of the layer's output",
        got=got,
        remedy="Use slices, reshapes and transposes alone, as jaxcam.tokens does.",
    )
