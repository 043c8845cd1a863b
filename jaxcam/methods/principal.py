"""The first principal component of feature maps over positions, with derivatives of every order."""

import jax
import jax.numpy as jnp
from jax import Array


def component(values: Array) -> tuple[Array, Array]:
    """Give the first principal axis of ``values: [*spatial, k]``, and the centred values.

    Positions are the observations. With ``C`` the values less the mean of each feature map, the
    axis ``v: [k]`` of length one makes ``|C v|^2`` as large as possible, and ``C v`` is what a map
    shows. Its sign, which that leaves open, is the one by which the map goes with the mean over
    the feature maps; because ``C^T C v = lambda v``, that is ``sum_k v_k >= 0``. Where nothing
    varies over the positions, ``v`` is zero.
    """
    positions = tuple(range(values.ndim - 1))
    centred = values - values.mean(axis=positions, keepdims=True)
    rows = centred.reshape(-1, values.shape[-1])
    size = jax.lax.stop_gradient(jnp.abs(rows).max())
    varies = size > 0
    rows = rows / jnp.where(varies, size, 1)
    # The smaller of the two matrices that have the same eigenvalues.
    if rows.shape[1] <= rows.shape[0]:
        axis = leading(rows.T @ rows)
    else:
        across = rows.T @ leading(rows @ rows.T)
        length = jnp.sqrt((across**2).sum())
        axis = across / jnp.where(varies, length, 1)
    return jnp.where(varies, signed(axis, axis.sum()), 0), centred


def signed(values: Array, side: Array) -> Array:
    """Turn an eigenvector to its positive side; on neither side, to its largest entry's."""
    largest = values[jnp.argmax(jnp.abs(values))]
    return jnp.where(jnp.where(side == 0, largest, side) < 0, -values, values)


@jax.custom_jvp
def leading(matrix: Array) -> Array:
    """Give the eigenvector of the largest eigenvalue of a symmetric matrix, up to its sign.

    JAX's own derivative divides by the differences of all eigenvalues, those of dead feature maps
    among them, which are equal: this one only by those from the largest. Where that is not alone
    the vector is not unique, and has no derivative: it is zero here.
    """
    return jnp.linalg.eigh(matrix)[1][:, -1]


@leading.defjvp
def _turned(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """``(lambda - M) dv = dM v`` beside ``v``; ``v v^T`` makes the system regular."""
    ((matrix,), (moved,)) = primals, tangents
    v = leading(matrix)
    largest, next_one = jnp.linalg.eigvalsh(jax.lax.stop_gradient(matrix))[jnp.array([-1, -2])]
    alone = largest - next_one > 8 * jnp.finfo(matrix.dtype).eps * jnp.abs(largest) * len(v)
    push = moved @ v
    system = (v @ matrix @ v) * jnp.eye(len(v), dtype=v.dtype) - matrix + jnp.outer(v, v)
    system = jnp.where(alone, system, jnp.eye(len(v), dtype=v.dtype))
    turn = jnp.linalg.solve(system, push - v * (v @ push))
    return v, jnp.where(alone, turn, 0)
