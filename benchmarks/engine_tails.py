"""The tails that the engines are measured on: what stands behind the last layers of real networks.

Each is made for the channels of its activations, with random weights that are leaves of a
`jax.tree_util.Partial`: arguments of the compiled program, never constants of it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial

from benchmarks.resnet50 import Bottleneck

CLASSES = 1000
CLASS = 3


class Tail(NamedTuple):
    """One row of the table.

    make: ``channels -> u``. shape, quick: activations at full and at testing size. target: the
    factor by which the best exact engine should beat ``directional``, or, where ``power`` is the
    ``base``, how far above its time ``affine`` may be. size_grows: also measure the growth of the
    time from 7x7 to 28x28.
    """

    name: str
    make: Callable[[int], Partial]
    shape: tuple[int, int, int]
    quick: tuple[int, int, int]
    target: float
    base: str = "directional"
    size_grows: bool = False


def normal(index: int, *shape: int) -> Array:
    """Draw weights scaled so that they keep the size of what they multiply."""
    return jax.random.normal(jax.random.key(index), shape) / math.prod(shape[:-1]) ** 0.5


def log_share(scores: Array) -> Array:
    """Give ``log p_c``, centred as `jaxcam.targets.softmax` does it."""
    return -jax.nn.logsumexp(scores - scores[CLASS][None])


def logit_of(scores: Callable[[Any, Array], Array], weights: Any) -> Partial:
    """Give ``u = S_c``."""
    return Partial(lambda w, a: scores(w, a)[CLASS], weights)


def share_of(scores: Callable[[Any, Array], Array], weights: Any) -> Partial:
    """Give ``u = log p_c``."""
    return Partial(lambda w, a: log_share(scores(w, a)), weights)


def pool(a: Array) -> Array:
    """Average over all positions."""
    return a.mean((0, 1))


def layer_norm(x: Array) -> Array:
    """Normalise the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def conv(x: Array, kernel: Array, groups: int = 1) -> Array:
    """Convolve one image."""
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=axes, feature_group_count=groups
    )[0]


def gap_dense(channels: int) -> Partial:
    """Pool, dense: the last layer of a ResNet."""
    return logit_of(lambda w, a: pool(a) @ w, normal(0, channels, CLASSES))


def resnet_blocks(channels: int) -> Partial:
    """Give the last three blocks of a ReLU ResNet-50, behind ``channels`` feature maps."""
    blocks = [Bottleneck(channels // 2, stride) for stride in (2, 1, 1)]
    weights, x = [], jnp.zeros((1, 4, 4, channels))
    for n, block in enumerate(blocks):
        variables = jax.jit(block.init)(jax.random.key(n), x)
        weights.append(variables)
        x = jnp.zeros(jax.eval_shape(block.apply, variables, x).shape)

    def scores(w: Any, a: Array) -> Array:
        variables, dense = w
        x = a[None]
        for block, held in zip(blocks, variables, strict=True):
            x = block.apply(held, x)
        return pool(jnp.asarray(x)[0]) @ dense

    return logit_of(scores, (weights, normal(9, 2 * channels, CLASSES)))


def convnext_scores(w: Array, a: Array) -> Array:
    """Pool, LayerNorm, dense: ConvNeXt's head."""
    return layer_norm(pool(a)) @ w


def gap_norm_dense(channels: int) -> Partial:
    """Explain a logit of ConvNeXt's head."""
    return logit_of(convnext_scores, normal(0, channels, CLASSES))


def gap_norm_softmax(channels: int) -> Partial:
    """Explain a class probability of ConvNeXt's head."""
    return share_of(convnext_scores, normal(0, channels, CLASSES))


def efficientnet_head(channels: int) -> Partial:
    """1x1 convolution to four times the channels, BatchNorm, SiLU, pool, dense."""
    wide = 4 * channels
    norm = (jnp.abs(normal(1, wide)) + 0.5, normal(2, wide))

    def scores(w: Any, a: Array) -> Array:
        kernel, (scale, shift), dense = w
        x = conv(a, kernel) * scale[None, None] + shift[None, None]
        return pool(jax.nn.silu(x)) @ dense

    return logit_of(scores, (normal(0, 1, 1, channels, wide), norm, normal(3, wide, CLASSES)))


def norm_gap_dense(channels: int) -> Partial:
    """LayerNorm at every position, pool, dense."""
    return logit_of(lambda w, a: pool(layer_norm(a)) @ w, normal(0, channels, CLASSES))


def two_convolutions(channels: int) -> Partial:
    """Two 3x3 convolutions with GELU, pool, dense."""

    def scores(w: Any, a: Array) -> Array:
        first, second, dense = w
        return pool(jax.nn.gelu(conv(jax.nn.gelu(conv(a, first)), second))) @ dense

    kernels = (normal(n, 3, 3, channels, channels) for n in range(2))
    return logit_of(scores, (*kernels, normal(2, channels, CLASSES)))


def convnext_block(channels: int) -> Partial:
    """One ConvNeXt block, then its head."""

    def scores(w: Any, a: Array) -> Array:
        depthwise, up, down, dense = w
        x = layer_norm(conv(a, depthwise, channels))
        x = a + jax.nn.gelu(x @ up) @ down
        return layer_norm(pool(x)) @ dense

    weights = (
        normal(0, 7, 7, 1, channels),
        normal(1, channels, 4 * channels),
        normal(2, 4 * channels, channels),
        normal(3, channels, CLASSES),
    )
    return logit_of(scores, weights)


def squeeze_excite(channels: int) -> Partial:
    """Scale every channel by a gate of the pooled channels, SiLU, pool, dense."""

    def scores(w: Any, a: Array) -> Array:
        squeeze, excite, dense = w
        gate = jax.nn.sigmoid(jax.nn.silu(pool(a) @ squeeze) @ excite)
        return pool(jax.nn.silu(a * gate[None, None])) @ dense

    narrow = max(1, channels // 4)
    weights = (normal(0, channels, narrow), normal(1, narrow, channels))
    return logit_of(scores, (*weights, normal(2, channels, CLASSES)))


TAILS = (
    Tail("gap_dense", gap_dense, (7, 7, 2048), (4, 4, 8), 1.05, "power"),
    Tail("resnet50_blocks", resnet_blocks, (14, 14, 1024), (4, 4, 8), 1.05, "power"),
    Tail("gap_norm_dense", gap_norm_dense, (7, 7, 768), (4, 4, 8), 500, size_grows=True),
    Tail("gap_norm_dense_softmax", gap_norm_softmax, (7, 7, 768), (4, 4, 8), 500),
    Tail("efficientnet_head", efficientnet_head, (7, 7, 320), (4, 4, 8), 1000),
    Tail("norm_gap_dense", norm_gap_dense, (7, 7, 768), (4, 4, 8), 30),
    Tail("two_convolutions", two_convolutions, (14, 14, 64), (4, 4, 8), 40, size_grows=True),
    Tail("convnext_block", convnext_block, (7, 7, 768), (7, 7, 8), 5),
    Tail("squeeze_excite", squeeze_excite, (7, 7, 192), (4, 4, 8), 3),
)
