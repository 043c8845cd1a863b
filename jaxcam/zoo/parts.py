"""Pieces that the networks share: each a module, so that each has a name and can be cut at.

Names, order and arithmetic are torchvision's; arrays are ``[batch, height, width, channel]``. What
differs between the two worlds is settled here once: padding is given in pixels on both sides
(``"SAME"`` pads strided convolutions on one side only), BatchNorm's ``momentum`` is the share of
the old statistics (torch's is that of the new), and LayerNorm takes the variance in two passes,
because E[x^2] - E[x]^2 would cost derivatives their digits.

Weights are drawn so that the spread of activations neither dies out nor explodes with depth: a
network without trained weights is good for measurements of time and of derivatives.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

RELU_GAIN = 2.0  # behind ReLU, half of the second moment is left
LINEAR_GAIN = 1.0


class Sequence(nnx.Module):
    """Modules called one after the other, named ``0``, ``1`` … and then by keyword.

    >>> from jaxcam.zoo.activations import ReLU
    >>> from jaxcam.zoo.parts import Sequence
    >>> import jax.numpy as jnp
    >>> relu = Sequence(ReLU())
    >>> float(relu(jnp.float32(-1))), relu[0] is getattr(relu, "0")
    (0.0, True)
    """

    def __init__(self, *modules: nnx.Module, **named: nnx.Module) -> None:
        inner = {str(index): module for index, module in enumerate(modules)} | named
        self.order = tuple(inner)
        for name, module in inner.items():
            setattr(self, name, module)

    def __call__(self, x: Array) -> Array:
        for name in self.order:
            x = getattr(self, name)(x)
        return x

    def __getitem__(self, index: int) -> Any:
        return getattr(self, self.order[index])

    def __len__(self) -> int:
        return len(self.order)


class Identity(nnx.Module):
    """``x``: keeps the place of a layer that only moves torch's axes."""

    def __call__(self, x: Array) -> Array:
        return x


class MaxPool(nnx.Module):
    """The largest value of each window."""

    def __init__(self, window: int, stride: int, padding: int = 0) -> None:
        self.window, self.stride, self.padding = window, stride, padding

    def __call__(self, x: Array) -> Array:
        window, strides = (1, self.window, self.window, 1), (1, self.stride, self.stride, 1)
        padding = ((0, 0), *_both_sides(self.padding), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


class AvgPool(nnx.Module):
    """The mean of each of the windows side by side; rows and columns left over are left out."""

    def __init__(self, window: int) -> None:
        self.window = window

    def __call__(self, x: Array) -> Array:
        rows, columns = (n // self.window for n in x.shape[1:3])
        x = x[:, : rows * self.window, : columns * self.window]
        tiles = x.reshape(len(x), rows, self.window, columns, self.window, x.shape[3])
        return jnp.mean(tiles, axis=(2, 4))


class GlobalPool(nnx.Module):
    """The mean over all positions: ``[batch, h, w, k] -> [batch, 1, 1, k]``."""

    def __call__(self, x: Array) -> Array:
        return jnp.mean(x, axis=(1, 2), keepdims=True)


class GridPool(nnx.Module):
    """Means of ``size x size`` regions that cover a picture of any size (torch's adaptive pool).

    Region i of n rows goes from floor(i n / size) up to ceil((i + 1) n / size): regions overlap, or
    repeat where there are fewer rows than regions. At ``size`` rows and columns it is ``x``.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Array) -> Array:
        if x.shape[1:3] == (self.size, self.size):
            return x
        rows, columns = (jnp.asarray(_regions(n, self.size), x.dtype) for n in x.shape[1:3])
        return jnp.einsum("ih,jw,bhwk->bijk", rows, columns, x)


class Flatten(nnx.Module):
    """``[batch, h, w, k] -> [batch, k h w]``, see `flatten`."""

    def __call__(self, x: Array) -> Array:
        return flatten(x)


def flatten(x: Array) -> Array:
    """``[batch, h, w, k] -> [batch, k h w]``, in the order of torch: channels slowest."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def conv(
    inputs: int,
    outputs: int,
    window: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
    gain: float = RELU_GAIN,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Make a convolution; ``padding=None`` keeps the resolution, ``gain`` is that of its input."""
    return nnx.Conv(
        inputs,
        outputs,
        (window, window),
        (stride, stride),
        padding=_both_sides(window // 2 if padding is None else padding),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=_kernel(gain),
        rngs=rngs,
    )


def linear(inputs: int, outputs: int, *, gain: float = LINEAR_GAIN, rngs: nnx.Rngs) -> nnx.Linear:
    """Make a dense layer over the last axis."""
    return nnx.Linear(inputs, outputs, kernel_init=_kernel(gain), rngs=rngs)


def batch_norm(
    channels: int,
    *,
    scale: float = 1.0,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    rngs: nnx.Rngs,
) -> nnx.BatchNorm:
    """Make a BatchNorm with torch's defaults, and its scales at ``scale``."""
    init = nnx.initializers.constant(scale)
    return nnx.BatchNorm(channels, momentum=momentum, epsilon=epsilon, scale_init=init, rngs=rngs)


def layer_norm(channels: int, *, epsilon: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Make a LayerNorm over the channels of each position."""
    return nnx.LayerNorm(channels, epsilon=epsilon, use_fast_variance=False, rngs=rngs)


def stochastic_depth(rate: float, *, rngs: nnx.Rngs) -> nnx.Dropout:
    """Drop whole examples of a residual branch, in training only."""
    return nnx.Dropout(rate, broadcast_dims=(1, 2, 3), rngs=rngs)


def _regions(length: int, count: int) -> np.ndarray:
    """Shares of ``length`` positions in the mean of each of ``count`` regions."""
    shares = np.zeros((count, length))
    for index in range(count):
        region = slice(index * length // count, -(-(index + 1) * length // count))
        shares[index, region] = 1 / (region.stop - region.start)
    return shares


def _kernel(gain: float) -> nnx.Initializer:
    return nnx.initializers.variance_scaling(gain, "fan_in", "truncated_normal")


def _both_sides(padding: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((padding, padding), (padding, padding))
