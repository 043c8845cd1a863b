"""What EfficientNet and MobileNetV3 are made of: inverted residuals with squeeze-and-excite.

    expand 1x1  ->  depthwise kxk  ->  squeeze-and-excite  ->  project 1x1

each convolution with BatchNorm, all but the last with an activation. Padding is that of PyTorch:
alike on both sides. TensorFlow's networks of the same names and tensors pad strided convolutions
on one side ("SAME"): timm has them as ``tf_...``, and transformers has no others.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import ReLU, SiLU
from jaxcam.zoo.parts import GlobalPool, Sequence, batch_norm, conv

# Drawn weights. Behind a smooth activation a third of the second moment is left; excitation is
# about a half everywhere, so a quarter of it.
SMOOTH_GAIN = 2.8
EXCITED_GAIN = 4 * SMOOTH_GAIN
BRANCH_SCALE = 0.25


class Norm(NamedTuple):
    """The constants of every BatchNorm of a network; ``momentum`` as in flax."""

    epsilon: float = 1e-5
    momentum: float = 0.9

    def __call__(self, channels: int, *, scale: float = 1.0, rngs: nnx.Rngs) -> nnx.BatchNorm:
        epsilon, momentum = self
        return batch_norm(channels, scale=scale, epsilon=epsilon, momentum=momentum, rngs=rngs)


class SqueezeExcite(nnx.Module):
    """``x * gate(fc2(activation(fc1(mean of x))))``: each channel by a factor of the picture."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: type[ReLU] | type[SiLU],
        gate: Callable[[], nnx.Module],
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.avgpool = GlobalPool()
        self.fc1 = conv(channels, squeezed, 1, bias=True, gain=SMOOTH_GAIN, rngs=rngs)
        self.fc2 = conv(squeezed, channels, 1, bias=True, gain=SMOOTH_GAIN, rngs=rngs)
        self.activation = activation()
        self.scale_activation = gate()

    def __call__(self, x: Array) -> Array:
        factors = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(factors) * x


def normed(
    inputs: int,
    outputs: int,
    window: int,
    norm: Norm,
    activation: Callable[[], nnx.Module] | None,
    *,
    stride: int = 1,
    groups: int = 1,
    gain: float = SMOOTH_GAIN,
    scale: float = 1.0,
    rngs: nnx.Rngs,
) -> Sequence:
    """Make a convolution, its BatchNorm and its activation if it has one: ``0``, ``1``, ``2``."""
    layers: list[nnx.Module] = [
        conv(inputs, outputs, window, stride=stride, groups=groups, gain=gain, rngs=rngs),
        norm(outputs, scale=scale, rngs=rngs),
    ]
    return Sequence(*layers, *([] if activation is None else [activation()]))
