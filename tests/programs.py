"""Steps of which tests make tails at random: maps ``[*spatial, k]`` of any rank and size.

A step takes three earlier values and gives a new one, of whatever shape it likes; what it needs of
the shape of the second and the third operand is made by `like`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import tails
from jax import lax

LARGEST = 160  # numbers in a value, so that brute force stays quick


def weights(name, x, *shape):
    """Give fixed weights in the dtype of ``x``, about as large as keeps its variance."""
    kernel = tails.normal(name, *shape) / np.sqrt(math.prod(shape[:-1]))
    return jnp.asarray(kernel, x.dtype)


def like(y, x):
    """Cut and pad a value to the shape of another."""
    flat = y.reshape(-1)[: x.size]
    padding = jnp.full((x.size - flat.size,), 0.3, y.dtype)
    return jnp.concatenate([flat, padding]).reshape(x.shape)


def small(x):
    """Keep the first channels, or the first numbers, of a value that has grown large."""
    if x.size > LARGEST:
        x = x[..., :2]
    return x if x.size <= LARGEST else x.reshape(-1, 2)[:20]


def conv(x, name, width=3, size=3, stride=1, dilation=1, groups=1, padding="SAME", expansion=1):
    """Convolve along all axes but the last; ``groups=0`` is one for each channel."""
    rank, channels = x.ndim - 1, x.shape[-1]
    groups = channels if groups == 0 else math.gcd(groups, channels)
    width = groups * max(1, width // groups)
    if padding == "VALID":
        size = min(size, *x.shape[:-1])
        dilation = 1
    kernel = weights(name, x, *(size,) * rank, channels // groups, width)
    last = (0, rank + 1, *range(1, rank + 1))
    pairs = padding if isinstance(padding, str) else [padding] * rank
    return lax.conv_general_dilated(
        x[None], kernel, (stride,) * rank, pairs, lhs_dilation=(expansion,) * rank,
        rhs_dilation=(dilation,) * rank, feature_group_count=groups,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
    )[0]  # fmt: skip


def windows(x, start, combine, padding, stride=1):
    """Reduce over windows of two places along every axis but the last."""
    sizes, strides = (*(2,) * (x.ndim - 1), 1), (*(stride,) * (x.ndim - 1), 1)
    sizes = tuple(min(size, full) for size, full in zip(sizes, x.shape, strict=True))
    return lax.reduce_window(x, np.asarray(start, x.dtype), combine, sizes, strides, padding)


def dense(x, name, width=3):
    """Apply a matrix to the last axis."""
    return x @ weights(name, x, x.shape[-1], width)


def normalise(x, axes):
    """Bring to mean 0 and variance 1 over axes."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(axes, keepdims=True) + 0.1)


def group_norm(x):
    """Normalise two groups of channels over all positions."""
    groups = math.gcd(2, x.shape[-1])
    divided = x.reshape(*x.shape[:-1], groups, -1)
    return normalise(divided, (*range(x.ndim - 1), x.ndim)).reshape(x.shape)


def spatial_mean(x):
    """Average over all positions, and keep their axes."""
    return x.mean(tuple(range(x.ndim - 1)), keepdims=True)


def divide_axis(x):
    """Make two axes of the first."""
    return x.reshape(2, -1, *x.shape[1:]) if x.ndim < 4 and x.shape[0] % 2 == 0 else x


def join_axes(x):
    """Make one axis of the first two."""
    return x.reshape(-1, *x.shape[2:]) if x.ndim > 2 else x


def attend(x, y, z):
    """Weigh ``z`` by the similarity of ``x`` and ``y``."""
    q, k, v = (w.reshape(-1, x.shape[-1])[:8] for w in (x, like(y, x), like(z, x)))
    return jax.nn.softmax(q @ k.T, -1) @ v


def gated(x):
    """Squeeze and excite."""
    return x * broadcast(jax.nn.sigmoid(dense(spatial_mean(x), "gate", x.shape[-1])), x)


def looped(x):
    """Apply a convolution and a bend twice."""
    return lax.scan(lambda c, _: (jnp.tanh(conv(c, "loop", c.shape[-1])), None), x, None, 2)[0]


def broadcast(y, x):
    return jnp.broadcast_to(y, x.shape)


AFFINE = {
    "conv": lambda x, y, z: conv(x, "conv"),
    "conv_two_wide": lambda x, y, z: conv(x, "two", size=2),
    "conv_pointlike": lambda x, y, z: conv(x, "point", size=1),
    "conv_pointlike_padded": lambda x, y, z: conv(x, "point", size=1, padding=(1, 0)),
    "conv_valid": lambda x, y, z: conv(x, "valid", padding="VALID"),
    "conv_lopsided": lambda x, y, z: conv(x, "lopsided", padding=(3, 1)),
    "conv_stride": lambda x, y, z: conv(x, "stride", stride=2),
    "conv_dilated": lambda x, y, z: conv(x, "dilated", dilation=2),
    "conv_expanded": lambda x, y, z: conv(x, "expanded", expansion=2, padding=(2, 1)),
    "conv_groups": lambda x, y, z: conv(x, "groups", 4, groups=2),
    "depthwise": lambda x, y, z: conv(x, "depthwise", 0, groups=0),
    "depthwise_twice_wide": lambda x, y, z: conv(x, "wide", 2 * x.shape[-1], groups=0),
    "conv_batch": lambda x, y, z: jax.vmap(lambda v: conv(v, "batch"))(x[None])[0],
    "conv_rows": lambda x, y, z: jax.vmap(lambda v: conv(v, "rows"))(x) if x.ndim > 2 else x,
    "dense": lambda x, y, z: dense(x, "dense") + 0.2,
    "dense_first_axis": lambda x, y, z: jnp.moveaxis(dense(jnp.moveaxis(x, 0, -1), "first"), -1, 0),
    "dense_two_axes": lambda x, y, z: jnp.tensordot(x, weights("t", x, *x.shape[-2:], 3), 2)
    .reshape(-1, 3),
    "dense_flat": lambda x, y, z: dense(x.reshape(1, -1), "flat"),
    "dense_each_place": lambda x, y, z: jnp.einsum(
        "pc,pcd->pd", x.reshape(-1, x.shape[-1]), weights("e", x, x[..., 0].size, x.shape[-1], 2)
    ),
    "flatten": lambda x, y, z: x.reshape(1, -1),
    "join_axes": lambda x, y, z: join_axes(x),
    "divide_axis": lambda x, y, z: divide_axis(x),
    "transpose": lambda x, y, z: x.transpose(),
    "swap": lambda x, y, z: jnp.swapaxes(x, 0, 1),
    "mean_positions": lambda x, y, z: spatial_mean(x),
    "mean_first": lambda x, y, z: broadcast(x.mean(0, keepdims=True), x),
    "centre": lambda x, y, z: x - x.mean(-1, keepdims=True),
    "centre_positions": lambda x, y, z: x - spatial_mean(x),
    "weigh_places": lambda x, y, z: x * weights("place", x, *x.shape[:-1], 1),
    "weigh_all": lambda x, y, z: x * weights("each", x, *x.shape),
    "weigh_channels": lambda x, y, z: x * broadcast(weights("channel", x, x.shape[-1]), x),
    "residual": lambda x, y, z: x + like(y, x),
    "subtract": lambda x, y, z: x - 0.7 * like(y, x) + 0.1,
    "concatenate_channels": lambda x, y, z: jnp.concatenate([x, like(y, x)], -1),
    "concatenate_places": lambda x, y, z: jnp.concatenate([like(y, x), x, x], 0),
    "slice": lambda x, y, z: x[1:] if x.shape[0] > 1 else x,
    "slice_channels": lambda x, y, z: x[..., -2:],
    "pad": lambda x, y, z: jnp.pad(x, ((1, 2), *((0, 1),) * (x.ndim - 1))),
    "reverse": lambda x, y, z: x[::-1],
    "cumsum": lambda x, y, z: jnp.cumsum(x, 0) / 2,
    "pool_windows": lambda x, y, z: windows(x, 0.0, lax.add, "SAME") / 3,
}  # fmt: skip
KINKED = {
    "relu": lambda x, y, z: jax.nn.relu(x),
    "leaky_relu": lambda x, y, z: jax.nn.leaky_relu(x),
    "maximum": lambda x, y, z: jnp.maximum(x, like(y, x)),
    "where": lambda x, y, z: jnp.where(x > like(y, x), x, like(z, x)),
    "clip": lambda x, y, z: jnp.clip(x, -0.5, 0.5),
    "max_channels": lambda x, y, z: x.max(-1, keepdims=True),
    "max_windows": lambda x, y, z: windows(x, -jnp.inf, lax.max, "VALID", 2),
    "sort": lambda x, y, z: jnp.sort(x, 0),
    "gather": lambda x, y, z: x[jnp.argsort(like(y, x).reshape(x.shape[0], -1)[:, 0])],
    "row": lambda x, y, z: x[jnp.argmax(x.reshape(x.shape[0], -1)[:, 0])][None],
    "scatter": lambda x, y, z: x.at[0].set(like(y, x)[-1]),
    "stop_gradient": lambda x, y, z: x * jnp.tanh(lax.stop_gradient(like(y, x))),
}
ELEMENTWISE = {
    "gelu": lambda x, y, z: jax.nn.gelu(x),
    "gelu_erf": lambda x, y, z: tails.gelu_erf(x),
    "silu": lambda x, y, z: jax.nn.silu(x),
    "tanh": lambda x, y, z: jnp.tanh(x),
    "softplus": lambda x, y, z: jax.nn.softplus(x),
    "exp": lambda x, y, z: jnp.exp(jnp.clip(x, -2, 2)),
    "square": lambda x, y, z: x**2,
    "times_its_tanh": lambda x, y, z: x * jnp.tanh(x) + jnp.sin(x),
}
JOINING = {
    "multiply": lambda x, y, z: x * like(y, x),
    "gate": lambda x, y, z: gated(x),
    "gate_places": lambda x, y, z: x * broadcast(jax.nn.sigmoid(like(y, x)[..., :1]), x),
    "divide": lambda x, y, z: x / (1.5 + like(y, x) ** 2),
    "power": lambda x, y, z: (1.1 + jnp.tanh(x)) ** jnp.tanh(like(y, x)),
    "layer_norm": lambda x, y, z: normalise(x, -1),
    "instance_norm": lambda x, y, z: normalise(x, tuple(range(x.ndim - 1))),
    "group_norm": lambda x, y, z: group_norm(x),
    "softmax": lambda x, y, z: jax.nn.softmax(x, 0),
    "logsumexp": lambda x, y, z: jax.nn.logsumexp(x, -1, keepdims=True),
    "gram": lambda x, y, z: x.reshape(-1, x.shape[-1]).T @ like(y, x).reshape(-1, x.shape[-1]),
    "attend": attend,
    "product_of_channels": lambda x, y, z: x.prod(-1, keepdims=True),
    "cond": lambda x, y, z: lax.cond(like(y, x).sum() > 0, jnp.tanh, jnp.sin, x),
    "scan": lambda x, y, z: looped(x),
    "remat": lambda x, y, z: jax.checkpoint(lambda v: jnp.tanh(conv(v, "remat")))(x),
}  # fmt: skip
EVERY = {
    name: lambda x, y, z, step=step: small(step(x, y, z))
    for name, step in (AFFINE | KINKED | ELEMENTWISE | JOINING).items()
}


def read_out(x):
    """Weigh all numbers, each differently."""
    return x.reshape(-1) @ weights("read out", x, x.size, 1)[:, 0]
