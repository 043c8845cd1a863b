"""DigitNet: which digit the scene holds, in two kinds that differ in how smooth they are.

    x: [batch, 64, 64, 1] in 0..1  ->  block1 [32, 32, 16]  ->  block2 [16, 16, 32]
      ->  block3 [8, 8, 48]  ->  block4 [8, 8, 48]  ->  mean over positions  ->  logits [batch, 10]

``kind="gelu"`` is built like a ConvNeXt: GELU, LayerNorm over channels, and a LayerNorm between
the pooling and the head. Every score is smooth behind every layer, so exact second and third
derivatives differ from the classic closed form. ``kind="relu"`` is built like a ResNet: ReLU and
BatchNorm, piecewise affine in evaluation, where the two agree. Whatever differs between the maps
of the twins is due to that and to their weights.
"""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxcam.errors import fail

Kind = Literal["gelu", "relu"]
KINDS: tuple[Kind, ...] = ("gelu", "relu")


class Unit(nn.Module):
    """``act(norm(conv(x)))``: ``[batch, h, w, c] -> [batch, h / stride, w / stride, width]``."""

    width: int
    kind: Kind
    stride: int = 1
    window: int = 3

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        window, strides = (self.window, self.window), (self.stride, self.stride)
        y = nn.Conv(self.width, window, strides, use_bias=False, name="conv")(x)
        if self.kind == "gelu":
            return nn.gelu(layer_norm("norm")(y))
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(y))


class Block(nn.Module):
    """Halve the resolution if ``stride`` is 2, then ``x + Unit(x)``, ``residuals`` times.

    The output is the sum behind the last activation: what a map of this block is about. Windows
    that halve are even, so that each position of a map sees the pixels around its own centre; odd
    ones are padded on one side only, and maps come out half a position up and left of the picture.
    """

    width: int
    kind: Kind
    stride: int = 2
    window: int = 4
    residuals: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        if self.stride > 1:
            x = Unit(self.width, self.kind, self.stride, self.window, name="enter")(x, train)
        for index in range(self.residuals):
            x = x + Unit(self.width, self.kind, name=f"residual{index}")(x, train)
        return x


class DigitNet(nn.Module):
    """Logits ``[batch, 10]`` of scenes ``x: [batch, 64, 64, 1]`` in 0..1."""

    kind: Kind = "gelu"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        check_kind("DigitNet", self.kind)
        x = 4 * (x - 0.25)  # the pictures' mean to 0 and their spread to about 1
        x = Block(16, self.kind, window=6, residuals=0, name="block1")(x, train)
        x = Block(32, self.kind, name="block2")(x, train)
        x = Block(48, self.kind, residuals=2, name="block3")(x, train)
        x = Block(48, self.kind, stride=1, name="block4")(x, train)
        x = jnp.mean(x, axis=(1, 2))
        if self.kind == "gelu":
            x = layer_norm("norm")(x)
        return nn.Dense(10, name="head")(x)


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm by the two-pass variance: E[x^2] - E[x]^2 would cost derivatives their digits."""
    return nn.LayerNorm(use_fast_variance=False, name=name)


def check_kind(call: str, kind: object) -> None:
    """Refuse a kind of network that does not exist."""
    if kind not in KINDS:
        fail(call, needs=f"kind in {KINDS}", got=repr(kind), remedy="Pass kind='gelu' or 'relu'.")
