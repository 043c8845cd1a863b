"""DenseNet-121 (Huang et al., arXiv 1608.06993) as torchvision has it.

    x: [batch, h, w, 3]  ->  features.conv0 [h/2, w/2, 64]  ->  features.pool0 [h/4, w/4, 64]
      ->  features.denseblock1 [h/4, w/4, 256]  ->  features.transition1 [h/8, w/8, 128]
      ->  features.denseblock2 [h/8, w/8, 512]  ->  features.transition2 [h/16, w/16, 256]
      ->  features.denseblock3 [h/16, w/16, 1024]  ->  features.transition3 [h/32, w/32, 512]
      ->  features.denseblock4 [h/32, w/32, 1024]  ->  features.norm5
      ->  ReLU, mean over positions  ->  classifier: logits [batch, classes]

Each layer of a block sees all that came before it. In evaluation everything is piecewise affine.
The last ReLU is no layer in torchvision: ``features.norm5`` is in front of it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcam.zoo.activations import ReLU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.parts import RELU_GAIN, AvgPool, MaxPool, Sequence, batch_norm, conv, linear

BOTTLENECK = 4  # a layer's first convolution makes four times what its second adds


class DenseBlock(Sequence):
    """``x <- [x, layer(x)]`` for each layer: channels are added and none is replaced."""

    def __call__(self, x: Array) -> Array:
        for name in self.order:
            x = jnp.concatenate([x, getattr(self, name)(x)], axis=-1)
        return x


class DenseNet(nnx.Module):
    """Blocks of so many ``layers`` that add ``growth`` channels each."""

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        growth: int = 32,
        width: int = 64,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        parts: dict[str, nnx.Module] = {
            "conv0": conv(3, width, 7, stride=2, gain=1.0, rngs=rngs),
            "norm0": batch_norm(width, rngs=rngs),
            "relu0": ReLU(),
            "pool0": MaxPool(3, 2, padding=1),
        }
        for block, count in enumerate(layers, start=1):
            parts[f"denseblock{block}"] = _block(width, count, growth, rngs)
            width += count * growth
            if block < len(layers):
                parts[f"transition{block}"] = _transition(width, rngs)
                width //= 2
        parts[f"norm{len(layers) + 1}"] = batch_norm(width, rngs=rngs)
        self.features = Sequence(**parts)
        self.classifier = linear(width, classes, gain=RELU_GAIN, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.classifier(jnp.mean(jax.nn.relu(self.features(x)), axis=(1, 2)))


def _block(width: int, count: int, growth: int, rngs: nnx.Rngs) -> DenseBlock:
    layers = {}
    for index in range(count):
        inputs, inner = width + index * growth, BOTTLENECK * growth
        layers[f"denselayer{index + 1}"] = Sequence(
            norm1=batch_norm(inputs, rngs=rngs),
            relu1=ReLU(),
            conv1=conv(inputs, inner, 1, rngs=rngs),
            norm2=batch_norm(inner, rngs=rngs),
            relu2=ReLU(),
            conv2=conv(inner, growth, 3, rngs=rngs),
        )
    return DenseBlock(**layers)


def _transition(width: int, rngs: nnx.Rngs) -> Sequence:
    """Half the channels at half the resolution."""
    return Sequence(
        norm=batch_norm(width, rngs=rngs),
        relu=ReLU(),
        conv=conv(width, width // 2, 1, rngs=rngs),
        pool=AvgPool(2),
    )


_LAYER = r"features\.denseblock(\d+)\.denselayer(\d+)"

# torchvision still publishes files of the names that it had before it gave up dots in them.
DOTTED: Rules = (
    (
        rf"{_LAYER}\.norm(\d)",
        lambda b, i, n: f"features.denseblock{b}.denselayer{i}.norm.{n}",
    ),
    (
        rf"{_LAYER}\.conv(\d)",
        lambda b, i, n: f"features.denseblock{b}.denselayer{i}.conv.{n}",
    ),
)
SETTINGS = {
    "architecture": ("densenet121", "tv_densenet121"),
    "model_args.in_chans": (3,),
    "model_args.global_pool": ("avg",),
}

ARCHITECTURES = {
    "densenet121": Architecture(
        partial(DenseNet, (6, 12, 24, 16)),
        "classifier",
        {"torchvision and timm": (), "torchvision, published": DOTTED},
        SETTINGS,
        IMAGENET,
        {"a639ec97": IMAGENET},
    )
}
