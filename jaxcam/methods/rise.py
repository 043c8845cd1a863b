"""RISE (Petsiuk et al., arXiv 1806.07421): the probability of the class behind random masks."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.arrays.keys import numbered
from jaxcam.arrays.precision import widen
from jaxcam.contracts import Example, Queries
from jaxcam.methods import masks
from jaxcam.methods.options import check_count, checked_number
from jaxcam.methods.outcomes import probability as probability_of

NUMBERS_AT_ONCE = 1 << 20  # of masks that are added up together


@functools.cache
def rise(*, num_masks: int = 6000, cells: int = 8, probability: float = 0.1) -> Queries:
    """Show each place the mean probability of the class behind the random masks that let it pass.

    With ``M_n`` drawn as below, from 0 to 1, ``E M = p`` at every place, and ``p_c`` the softmax of
    the scores::

        map_ij = 1 / (N p) sum_n p_c(x M_n) M_n,ij

    This is an unbiased estimate of ``E[p_c(x M) M_ij] / E M_ij``: divided by ``p``, and not by the
    mean of the masks that were drawn, of which the picture has the noise, ``1 / sqrt(N)``. It is
    never negative: where nothing matters it is flat. No gradient is taken: one pass of the network
    for each mask. Meant for the input, ``jaxcam.split(model, "input")``; at another layer it is the
    layer that is masked.

    A mask is a grid of ``cells`` along each axis, each of which is open with the probability ``p``,
    enlarged linearly to one cell more than the input has room for, and cut to the input's size at a
    random place. It depends on the key and on ``n`` alone; none is kept.

    Args:
        num_masks: ``N``.
        cells: along each axis.
        probability: ``p``, above 0 and at most 1.

    Defaults are those of the authors' script (eclique/RISE); in the paper, from memory, 4,000 or
    8,000 masks of 7 cells, half of them open.

    Raises:
        JaxcamError: one of them is not what it should be; when called, no key, or a target
            that is not a class.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(lambda x: x, lambda a, x: a[:, 1] @ jnp.array([[1.0, -1.0]]))
    >>> method = jaxcam.methods.rise(num_masks=500, cells=5, probability=0.5)
    >>> result = jaxcam.cam(split, jnp.ones((1, 5, 1)), method, 0, key=jax.random.key(0))
    >>> int(result.map[0].argmax())
    1
    """
    check_count("rise", "num_masks", num_masks, 1, "Default: 6000.")
    check_count("rise", "cells", cells, 1, "Default: 8.")
    least = math.ulp(0.0)  # any above zero
    share = float(checked_number("rise", "probability", probability, least, 1, "Default: 0.1."))
    mask = functools.partial(_mask, cells=cells, probability=share)
    return Queries(
        "rise", "layer",
        functools.partial(_count, count=num_masks),
        functools.partial(_behind, mask=mask),
        probability_of("rise"),
        functools.partial(_weigh, mask=mask, probability=share),
        _prepare,
        random=True,
    )  # fmt: skip


def _count(shape: tuple[int, ...], *, count: int) -> int:
    return count


def _prepare(example: Example) -> Array | None:
    return example.key


def drawn(
    key: Array, n: Array, spatial: tuple[int, ...], *, cells: int, probability: float
) -> tuple[Array, Array]:
    """Draw the cells of the ``n``-th mask that are open, and by how much it is moved."""
    grid, moved = jax.random.split(numbered(key, n))
    # Of one precision, so that the masks are the same in any.
    opens = jax.random.uniform(grid, (cells,) * len(spatial), jnp.float32) < probability
    sizes = jnp.asarray([-(-length // cells) for length in spatial], jnp.int32)
    return opens, jax.random.randint(moved, sizes.shape, 0, sizes, jnp.int32)


def _mask(key: Array, n: Array, a: Array, *, cells: int, probability: float) -> Array:
    """Enlarge the cells as squares, and cut: ``[*spatial]`` of ``a: [*spatial, k]``."""
    spatial = a.shape[:-1]
    opens, moved = drawn(key, n, spatial, cells=cells, probability=probability)
    mask = opens.astype(widen(a).dtype)
    for axis, length in enumerate(spatial):
        whole = (cells + 1) * -(-length // cells)
        middle = jnp.arange(length, dtype=jnp.int32) + moved[axis]
        where = (middle.astype(mask.dtype) + 0.5) * (cells / whole) - 0.5
        mask = masks.between(mask, axis, where)
    return mask


def _behind(a: Array, n: Array, key: Array, *, mask) -> Array:
    return masks.masked(a, mask(key, n, a))


def _weigh(
    outcomes: Array, clean: Array, a: Array, key: Array, *, mask, probability: float
) -> tuple[None, Array]:
    """Add up the masks, drawn again in chunks: all of them together would fill the memory."""
    count, size = outcomes.size, math.prod(a.shape[:-1])
    steps = -(-count // max(1, min(count, NUMBERS_AT_ONCE // size)))
    numbers = jnp.arange(steps * -(-count // steps), dtype=jnp.int32).reshape(steps, -1)

    # In reverse mode masks are drawn again.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def added(total: Array, chunk: Array) -> tuple[Array, None]:
        found = jnp.where(chunk < count, outcomes.at[chunk].get(mode="clip"), 0)
        shown = jax.vmap(lambda n: mask(key, n, a))(chunk)
        return total + jnp.tensordot(found, shown, 1, precision="highest"), None

    total, _ = jax.lax.scan(added, jnp.zeros_like(a[..., 0]), numbers)
    return None, total / (count * probability)
