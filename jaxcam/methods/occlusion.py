"""Occlusion (Zeiler and Fergus, arXiv 1311.2901): what the score loses behind a sliding window."""

import functools
import math
import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcam.contracts import Queries
from jaxcam.errors import fail
from jaxcam.methods.outcomes import log_score

MEAN = "mean"
PART = 8  # of each axis: the default window


def occlusion(*, window: Any = None, stride: Any = None, fill: float | str = 0.0) -> Queries:
    """Show what the log-score loses, on average, when a window over a position is filled.

    With ``W_n`` the places of a window at its ``n``-th position::

        map_ij = mean of u(A) - u(A filled on W_n) over the n with ij in W_n

    At any layer, where ``window=1`` takes single positions; at the input,
    ``jaxcam.split(model, "input")``, it is a window on the picture. One pass of the head for each
    position of the window. No place is left out: where the stride does not lead to the end of an
    axis, a last window is put there.

    Args:
        window: its size along every axis, or one for each; by default an eighth of the axis,
            rounded up.
        stride: how far apart windows are, likewise; by default half the window, rounded up, and at
            most the window, behind which places would be left out.
        fill: what is put there, a number in the units of the layer (of a standardised picture 0 is
            its mean colour), or ``mean``, each channel's mean over this example's positions.

    Zeiler and Fergus put a grey square on the picture and draw the score at its middle; averaging
    over the windows that hold a place gives the map the resolution of the picture. Published sizes
    vary (64 pixels, every 8, in explain-cl).

    Raises:
        JaxcamError: a size or a fill that is none; when called, a window that does not fit.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a[:, 1])
    >>> method = jaxcam.methods.occlusion(window=2, stride=1)
    >>> print(jaxcam.cam(split, jnp.array([[[1.0], [6.0], [1.0], [1.0]]]), method, 0).map)
    [[6. 6. 3. 0.]]
    """
    if fill != MEAN and not (isinstance(fill, numbers.Real) and math.isfinite(fill)):
        fail("occlusion", needs="a fill of a number or 'mean'", got=repr(fill), remedy="Default: 0")
    fill = fill if fill == MEAN else float(fill)
    return _occlusion(_sizes("window", window), _sizes("stride", stride), fill)


def _sizes(name: str, sizes: Any) -> Any:
    """Give one whole number, or a tuple of them, or None."""
    if sizes is None:
        return None
    several = isinstance(sizes, tuple | list)
    each = tuple(sizes) if several else (sizes,)
    for size in each:
        if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1:
            needs = f"a {name} of 1 or more, or one for each axis"
            fail("occlusion", needs=needs, got=repr(sizes), remedy="Leave it None for a default.")
    return tuple(map(int, each)) if several else int(sizes)


@functools.cache
def _occlusion(window: Any, stride: Any, fill: float | str) -> Queries:
    windows = functools.partial(_windows, window=window, stride=stride)
    return Queries(
        "occlusion", "layer",
        functools.partial(_count, windows=windows),
        functools.partial(_filled, windows=windows, fill=fill),
        log_score,
        functools.partial(_weigh, windows=windows),
        signed=True,
    )  # fmt: skip


def _windows(spatial: tuple[int, ...], *, window: Any, stride: Any) -> list[np.ndarray]:
    """Say for each axis which places every window holds, ``[windows, places]``."""
    sizes = _each(window, [-(-length // PART) for length in spatial])
    steps = _each(stride, [-(-size // 2) for size in sizes])
    found = []
    for length, size, step in zip(spatial, sizes, steps, strict=True):
        if not step <= size <= length:
            needs = f"a window within {spatial}, and a stride within the window"
            got = f"window {tuple(sizes)} and stride {tuple(steps)}"
            fail("occlusion", needs=needs, got=got, remedy="Take others, or another layer.")
        starts = np.array([*range(0, length - size, step), length - size])
        away = np.arange(length) - starts[:, None]
        found.append((away >= 0) & (away < size))
    return found


def _each(sizes: Any, default: list[int]) -> list[int]:
    if sizes is None or isinstance(sizes, int):
        return default if sizes is None else [sizes] * len(default)
    if len(sizes) != len(default):
        needs, remedy = f"a size for each of {len(default)} axes", "One number is for every axis."
        fail("occlusion", needs=needs, got=sizes, remedy=remedy)
    return list(sizes)


def _count(shape: tuple[int, ...], *, windows: Any) -> int:
    return math.prod(len(inside) for inside in windows(shape[:-1]))


def _filled(a: Array, n: Array, *, windows: Any, fill: float | str) -> Array:
    along = windows(a.shape[:-1])
    place = jnp.unravel_index(n, [len(inside) for inside in along])
    rows = (jnp.asarray(inside)[here] for inside, here in zip(along, place, strict=True))
    grid = jnp.meshgrid(*rows, indexing="ij", sparse=True)
    there = functools.reduce(jnp.logical_and, grid)[..., None]
    put = a.mean(axis=tuple(range(a.ndim - 1)), keepdims=True) if fill == MEAN else fill
    return jnp.where(there, jnp.asarray(put, a.dtype), a)


def _weigh(outcomes: Array, clean: Array, a: Array, *, windows: Any) -> tuple[None, Array]:
    along = windows(a.shape[:-1])
    signed = (clean - outcomes).reshape([len(inside) for inside in along])
    for inside in along:  # each takes the first axis away, and adds its own behind the others
        share = jnp.asarray(inside / inside.sum(axis=0), signed.dtype)
        signed = jnp.tensordot(signed, share, (0, 0), precision="highest")
    return None, signed
