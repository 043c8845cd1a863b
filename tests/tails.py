"""The case table of tails: what can stand between a target layer and the logits, tiny.

A tail is ``scores: a [*spatial, k] -> [classes]``. Its weights are fixed by the names of their
layers and take the dtype of ``a``, so that one tail runs in float32 and in float64.
"""

import functools
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
from flax import linen as nn
from jax import Array, lax

CLASSES = 5
CLASS = 1
IMAGE = (4, 4, 3)


class Tail(NamedTuple):
    """One case. ``affine``: the gradient of a logit is the same everywhere, not piece by piece.

    Both columns speak of derivatives as JAX takes them: ``stop_gradient`` and hand-written rules
    count as what they say, not as what the value does.
    """

    name: str
    scores: Callable[[Array], Array]
    piecewise_affine: bool
    affine: bool = False
    shape: tuple[int, ...] = IMAGE


def normal(name: str, *shape: int) -> np.ndarray:
    """Draw standard normal numbers that depend on the name and the shape alone."""
    return np.random.default_rng(zlib.crc32(f"{name}{shape}".encode())).normal(size=shape)


def point(tail: Tail) -> np.ndarray:
    """Give the activations at which a tail is tested, in float64 but exact in float32."""
    return normal(f"point of {tail.name}", *tail.shape).astype(np.float32).astype(np.float64)


@functools.cache
def truth(tail: Tail, kind: str) -> oracles.Triple:
    """Give ``u1, u2, u3`` at the tail's point, by brute force."""
    return oracles.brute_force(oracles.log_score(tail.scores, CLASS, kind), point(tail))


def dense(x: Array, name: str, width: int) -> Array:
    """Apply ``x W + b`` to the last axis."""
    kernel = normal(name, x.shape[-1], width) / np.sqrt(x.shape[-1])
    bias = normal(name + " bias", *(1,) * (x.ndim - 1), width) / 4
    return x @ jnp.asarray(kernel, x.dtype) + jnp.asarray(bias, x.dtype)


def conv(x: Array, name: str, width: int = 4) -> Array:
    """Convolve with a kernel of 3 along each of one, two or three spatial axes."""
    spatial = "DHW"[3 - (x.ndim - 1) :]
    kernel = normal(name, *(3,) * len(spatial), x.shape[-1], width)
    kernel = jnp.asarray(kernel / np.sqrt(kernel[..., 0].size), x.dtype)
    axes = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    ones = (1,) * len(spatial)
    return lax.conv_general_dilated(x[None], kernel, ones, "SAME", dimension_numbers=axes)[0]


def pool(x: Array) -> Array:
    """Average over all positions."""
    return x.mean(tuple(range(x.ndim - 1)))


def head(x: Array) -> Array:
    """Pool globally, then one dense layer."""
    return dense(pool(x), "head", CLASSES)


def flat(x: Array) -> Array:
    """Flatten, then one dense layer: what it weighs differs from position to position."""
    return dense(x.reshape(-1), "flat", CLASSES)


def layer_norm(x: Array) -> Array:
    """Normalise the last axis to mean 0 and variance 1."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 0.1)


def max_pool(x: Array) -> Array:
    """Take the maximum over windows of 2 x 2."""
    return nn.max_pool(x[None], (2, 2), (2, 2))[0]


def one_conv(act: Callable) -> Callable:
    return lambda a: flat(act(conv(a, "one", 3)))


def two_convs(act: Callable) -> Callable:
    return lambda a: head(act(conv(act(conv(a, "one")), "two")))


def residual(act: Callable) -> Callable:
    return lambda a: head(act(a + conv(act(conv(a, "one")), "two", a.shape[-1])))


def fully_connected(act: Callable) -> Callable:
    return lambda a: dense(act(dense(a.reshape(-1), "hidden", 6)), "out", CLASSES)


def remat(act: Callable) -> Callable:
    return lambda a: head(jax.checkpoint(lambda x: act(conv(x, "one")))(a))


def scan(act: Callable) -> Callable:
    def scores(a: Array) -> Array:
        def step(x: Array, bias: Array) -> tuple[Array, None]:
            return act(conv(x, "loop", x.shape[-1]) + bias), None

        biases = jnp.asarray(normal("loop biases", 2, 1, 1, a.shape[-1]), a.dtype)
        return head(lax.scan(step, a, biases)[0])

    return scores


def squeeze_excite(act: Callable, gate: Callable) -> Callable:
    def scores(a: Array) -> Array:
        squeezed = act(dense(pool(a), "squeeze", 2))
        excited = gate(dense(squeezed, "excite", a.shape[-1]))
        return flat(a * excited[None, None])

    return scores


def attention(a: Array) -> Array:
    """Attend from every position to every position, with a residual connection."""
    x = a.reshape(-1, a.shape[-1])
    q, k, v = (dense(x, name, a.shape[-1]) for name in ("query", "key", "value"))
    return head(x + jax.nn.softmax(q @ k.T / 2, -1) @ v)


def gem(a: Array) -> Array:
    """Pool by the generalised mean of order 3 (image retrieval)."""
    return dense(jnp.cbrt(pool((jax.nn.relu(a) + 0.1) ** 3)), "head", CLASSES)


def cosine(a: Array) -> Array:
    """Compare the normalised pooled features with a direction for each class."""
    pooled = pool(conv(a, "one"))
    return dense(pooled / jnp.sqrt((pooled**2).sum() + 1e-3), "head", CLASSES)


def branch(a: Array) -> Array:
    """Choose one of two layers by the sign of the mean."""
    return head(lax.cond(a.mean() > 0, lambda x: conv(x, "yes"), lambda x: conv(-x, "no"), a))


def linen(make: Callable[..., nn.Module]) -> Callable:
    """Turn ``make(dtype) -> module`` into a tail, its variables filled in by name."""

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> Array:
        name = jax.tree_util.keystr(path)
        values = normal(name, *leaf.shape) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        if "var" in name or "scale" in name:
            values = 0.5 + abs(values)
        return jnp.asarray(values, leaf.dtype)

    def scores(a: Array) -> Array:
        module = make(a.dtype)
        batch = jax.ShapeDtypeStruct((1, *a.shape), a.dtype)
        shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
        return module.apply(jax.tree_util.tree_map_with_path(fill, shapes), a[None])[0]

    return scores


class Network(nn.Module):
    """Layers of Flax in a row, made for a dtype, then global pooling and a dense layer."""

    layers: Callable
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for layer in self.layers(self.dtype):
            x = layer(x)
        x = x.mean(tuple(range(1, x.ndim - 1)))
        return nn.Dense(CLASSES, param_dtype=self.dtype)(x)


class ConvNeXt(nn.Module):
    """One ConvNeXt block, global pooling, LayerNorm, dense layer."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, a: Array) -> Array:
        make = {"param_dtype": self.dtype}
        exact = {"force_float32_reductions": False, "epsilon": 0.1, **make}
        width = a.shape[-1]
        x = nn.Conv(width, (3, 3), feature_group_count=width, **make)(a)
        x = nn.Dense(2 * width, **make)(nn.LayerNorm(**exact)(x))
        x = nn.Dense(width, **make)(nn.gelu(x))
        x = a + x * self.param("scale", nn.initializers.ones, (1, 1, 1, width), self.dtype)
        return nn.Dense(CLASSES, **make)(nn.LayerNorm(**exact)(x.mean((1, 2))))


def conv_norm(norm: type, act: Callable, **options: object) -> Callable:
    def layers(dtype: jnp.dtype) -> list:
        normalise = norm(param_dtype=dtype, force_float32_reductions=False, **options)
        return [nn.Conv(4, (3, 3), param_dtype=dtype), normalise, act]

    return linen(lambda dtype: Network(layers, dtype))


def written_by_hand(forward: Callable, slope: Callable) -> Callable:
    """Give an activation by a reverse rule alone, as JAX's manual writes one: no forward mode."""

    @jax.custom_vjp
    def act(x: Array) -> Array:
        return forward(x)

    act.defvjp(lambda x: (act(x), x), lambda x, g: (g * slope(x),))
    return act


@jax.custom_jvp
def straight_through(x: Array) -> Array:
    """Round, with the derivative of the identity."""
    return jnp.round(x)


straight_through.defjvps(lambda dx, out, x: dx)

silu_by_hand = written_by_hand(
    jax.nn.silu, lambda x: jax.nn.sigmoid(x) * (1 + x * jax.nn.sigmoid(-x))
)
relu_by_hand = written_by_hand(jax.nn.relu, lambda x: (x > 0).astype(x.dtype))
gelu_erf = functools.partial(jax.nn.gelu, approximate=False)
KINKED = {
    "leaky_relu": jax.nn.leaky_relu, "relu6": jax.nn.relu6, "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, -0.5, 0.7), "hard_sigmoid": jax.nn.hard_sigmoid,
    "where": lambda x: jnp.where(x > 0.1, 2 * x, jnp.minimum(x, -0.3)),
}  # fmt: skip
SMOOTH = {
    "softplus": jax.nn.softplus, "elu": jax.nn.elu, "mish": jax.nn.mish,
    "hard_swish": jax.nn.hard_swish,
}  # fmt: skip

TAILS = (
    Tail("gap_dense", head, True, affine=True),
    Tail("sum_pool", lambda a: dense(a.sum((0, 1)), "head", CLASSES), True, affine=True),
    Tail("flatten_dense", flat, True, affine=True),
    Tail("conv_dense", lambda a: flat(conv(a, "one")), True, affine=True),
    Tail("convs_relu", two_convs(jax.nn.relu), True),
    Tail("convs_gelu_tanh", two_convs(jax.nn.gelu), False),
    Tail("convs_gelu_erf", two_convs(gelu_erf), False),
    Tail("convs_silu", two_convs(jax.nn.silu), False),
    Tail("convs_tanh", two_convs(jnp.tanh), False),
    Tail("custom_vjp_relu", two_convs(relu_by_hand), True),
    Tail("custom_vjp_silu", two_convs(silu_by_hand), False),
    *(Tail(name, one_conv(act), True) for name, act in KINKED.items()),
    *(Tail(name, one_conv(act), False) for name, act in SMOOTH.items()),
    Tail("silu_first", lambda a: flat(jax.nn.silu(a)), False),
    Tail("batchnorm_relu", conv_norm(nn.BatchNorm, nn.relu, use_running_average=True), True),
    Tail("batchnorm_gelu", conv_norm(nn.BatchNorm, nn.gelu, use_running_average=True), False),
    Tail("groupnorm_relu", conv_norm(nn.GroupNorm, nn.relu, num_groups=2, epsilon=0.1), False),
    Tail("layernorm_relu", conv_norm(nn.LayerNorm, nn.relu, epsilon=0.1), False),
    Tail("layernorm_gap", lambda a: head(layer_norm(a)), False),
    Tail("gap_layernorm", lambda a: dense(layer_norm(pool(a)), "head", CLASSES), False),
    Tail("squeeze_excite", squeeze_excite(jax.nn.relu, jax.nn.sigmoid), False),
    Tail("squeeze_excite_hard", squeeze_excite(jax.nn.relu, jax.nn.hard_sigmoid), False),
    Tail("maxpool", lambda a: flat(max_pool(a)), True),
    Tail("maxpool_gelu", lambda a: flat(jax.nn.gelu(max_pool(a))), False),
    Tail("global_maxpool", lambda a: dense(a.max((0, 1)), "head", CLASSES), True),
    Tail("maxout", lambda a: flat(a.max(-1)), True),
    Tail("fc_relu", fully_connected(jax.nn.relu), True),
    Tail("fc_gelu", fully_connected(jax.nn.gelu), False),
    Tail("attention", attention, False),
    Tail("residual_relu", residual(jax.nn.relu), True),
    Tail("residual_gelu", residual(jax.nn.gelu), False),
    Tail("remat_relu", remat(jax.nn.relu), True),
    Tail("remat_gelu", remat(jax.nn.gelu), False),
    Tail("scan_relu", scan(jax.nn.relu), True),
    Tail("scan_gelu", scan(jax.nn.gelu), False),
    Tail("convnext", linen(ConvNeXt), False),
    Tail("gem", gem, False),
    Tail("cosine", cosine, False),
    Tail("conv1d_gelu", two_convs(jax.nn.gelu), False, shape=(8, 3)),
    Tail("conv3d_relu", two_convs(jax.nn.relu), True, shape=(2, 3, 3, 2)),
    Tail("conv3d_silu", two_convs(jax.nn.silu), False, shape=(2, 3, 3, 2)),
    Tail("cond", branch, True),
    Tail("sort", lambda a: dense(jnp.sort(a.reshape(-1)), "head", CLASSES), True),
    Tail("top_k", lambda a: dense(lax.top_k(a.reshape(-1), 4)[0], "head", CLASSES), True),
    Tail("stop_gradient", lambda a: flat(jax.nn.relu(a) * lax.stop_gradient(jnp.tanh(a))), True),
    Tail("straight_through", lambda a: flat(straight_through(a)), True, affine=True),
    Tail("straight_through_squared", lambda a: flat(straight_through(a) ** 2), False),
)  # fmt: skip
