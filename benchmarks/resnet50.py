"""A linen ResNet-50 with random weights: the size of network that benchmarks are about."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut; version 1.5, with the stride in the 3x3."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Give ``ReLU(x + f(x))``."""

        def norm(name: str) -> nn.BatchNorm:
            return nn.BatchNorm(use_running_average=not train, name=name)

        stride = (self.stride, self.stride)
        y = nn.relu(norm("bn1")(nn.Conv(self.width, (1, 1), use_bias=False, name="conv1")(x)))
        y = nn.Conv(self.width, (3, 3), stride, use_bias=False, name="conv2")(y)
        y = nn.relu(norm("bn2")(y))
        y = norm("bn3")(nn.Conv(4 * self.width, (1, 1), use_bias=False, name="conv3")(y))
        if x.shape != y.shape:
            x = nn.Conv(4 * self.width, (1, 1), stride, use_bias=False, name="down")(x)
            x = norm("bn_down")(x)
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """Layers are named as papers name them: ``layer4_2`` is the last block."""

    classes: int = 1000

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Give the logits of ``x: [batch, 224, 224, 3]``."""
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage, blocks in enumerate((3, 4, 6, 3), start=1):
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                name = f"layer{stage}_{block}"
                x = Bottleneck(64 * 2 ** (stage - 1), stride, name=name)(x, train=train)
        return nn.Dense(self.classes, name="fc")(x.mean(axis=(1, 2)))


def initialised(seed: int = 0) -> tuple[ResNet50, Any]:
    """Give the model and random variables."""
    model = ResNet50()
    initialise = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3))))
    return model, initialise(jax.random.key(seed))
