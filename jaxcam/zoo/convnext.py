"""ConvNeXt-T (Liu et al., arXiv 2201.03545) as torchvision has it.

    x: [batch, h, w, 3]  ->  features.0 [h/4, w/4, 96]  ->  features.1, three blocks
      ->  features.2 [h/8, w/8, 192]  ->  features.3, three blocks
      ->  features.4 [h/16, w/16, 384]  ->  features.5, nine blocks
      ->  features.6 [h/32, w/32, 768]  ->  features.7, three blocks
      ->  avgpool  ->  classifier: LayerNorm and logits [batch, classes]

GELU and LayerNorm everywhere: every score is smooth behind every layer. The last LayerNorm has an
epsilon of 1e-12 in transformers, and of 1e-6 in torchvision and timm: each file gets its own.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxcam.zoo.activations import GELU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.parts import Flatten, GlobalPool, Identity, Sequence, conv, linear
from jaxcam.zoo.parts import layer_norm as norm
from jaxcam.zoo.parts import stochastic_depth as depth_drop

layer_norm = partial(norm, epsilon=1e-6)

# Drawn weights: trained scales are of this order, those that training starts from (1e-6) would
# leave nothing of a branch.
LAYER_SCALE = 0.25


class Block(nnx.Module):
    """``x + layer_scale * block(x)``: a 7x7 depthwise convolution and two dense layers."""

    def __init__(self, width: int, drop: float, *, rngs: nnx.Rngs) -> None:
        self.block = Sequence(
            conv(width, width, 7, groups=width, bias=True, gain=1.0, rngs=rngs),
            Identity(),
            layer_norm(width, rngs=rngs),
            linear(width, 4 * width, rngs=rngs),
            GELU(),
            linear(4 * width, width, gain=2.0, rngs=rngs),
            Identity(),
        )
        self.layer_scale = nnx.Param(jnp.full((1, 1, 1, width), LAYER_SCALE))
        self.stochastic_depth = depth_drop(drop, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.stochastic_depth(self.layer_scale[...] * self.block(x))


class ConvNeXt(nnx.Module):
    """Four stages of so many ``blocks`` of so many channels each."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        classes: int = 1000,
        drop: float = 0.1,
        epsilon: float = 1e-6,
        rngs: nnx.Rngs,
    ) -> None:
        stem = conv(3, widths[0], 4, stride=4, padding=0, bias=True, gain=1.0, rngs=rngs)
        features = [Sequence(stem, layer_norm(widths[0], rngs=rngs))]
        done, total = 0, max(sum(blocks) - 1, 1)
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            if stage:
                features.append(_downsample(widths[stage - 1], width, rngs))
            rates = [drop * (done + index) / total for index in range(count)]
            features.append(Sequence(*[Block(width, rate, rngs=rngs) for rate in rates]))
            done += count
        self.features = Sequence(*features)
        self.avgpool = GlobalPool()
        head = linear(widths[-1], classes, rngs=rngs)
        last = layer_norm(widths[-1], epsilon=epsilon, rngs=rngs)
        self.classifier = Sequence(last, Flatten(), head)

    def __call__(self, x: Array) -> Array:
        return self.classifier(self.avgpool(self.features(x)))


def _downsample(inputs: int, outputs: int, rngs: nnx.Rngs) -> Sequence:
    shrink = conv(inputs, outputs, 2, stride=2, padding=0, bias=True, gain=1.0, rngs=rngs)
    return Sequence(layer_norm(inputs, rngs=rngs), shrink)


TIMM: Rules = (
    (r"features\.0\.(\d)", lambda i: f"stem.{i}"),
    (r"features\.([246])\.(\d)", lambda s, i: f"stages.{s // 2}.downsample.{i}"),
    (r"features\.(\d)\.(\d+)\.block\.0", lambda s, b: f"stages.{s // 2}.blocks.{b}.conv_dw"),
    (r"features\.(\d)\.(\d+)\.block\.2", lambda s, b: f"stages.{s // 2}.blocks.{b}.norm"),
    (r"features\.(\d)\.(\d+)\.block\.3", lambda s, b: f"stages.{s // 2}.blocks.{b}.mlp.fc1"),
    (r"features\.(\d)\.(\d+)\.block\.5", lambda s, b: f"stages.{s // 2}.blocks.{b}.mlp.fc2"),
    (r"features\.(\d)\.(\d+)\.layer_scale", lambda s, b: f"stages.{s // 2}.blocks.{b}.gamma"),
    (r"classifier\.0", lambda: "head.norm"),
    (r"classifier\.2", lambda: "head.fc"),
)

TRANSFORMERS: Rules = (
    (r"features\.0\.0", lambda: "convnext.embeddings.patch_embeddings"),
    (r"features\.0\.1", lambda: "convnext.embeddings.layernorm"),
    (r"features\.([246])\.(\d)", lambda s, i: f"{_stage(s)}.downsampling_layer.{i}"),
    (r"features\.(\d)\.(\d+)\.block\.0", lambda s, b: f"{_stage(s)}.layers.{b}.dwconv"),
    (r"features\.(\d)\.(\d+)\.block\.2", lambda s, b: f"{_stage(s)}.layers.{b}.layernorm"),
    (r"features\.(\d)\.(\d+)\.block\.3", lambda s, b: f"{_stage(s)}.layers.{b}.pwconv1"),
    (r"features\.(\d)\.(\d+)\.block\.5", lambda s, b: f"{_stage(s)}.layers.{b}.pwconv2"),
    (
        r"features\.(\d)\.(\d+)\.layer_scale",
        lambda s, b: f"{_stage(s)}.layers.{b}.layer_scale_parameter",
    ),
    (r"classifier\.0", lambda: "convnext.layernorm"),
    (r"classifier\.2", lambda: "classifier"),
)


def _stage(index: int) -> str:
    """Name a stage, which torchvision counts together with what stands between stages."""
    return f"convnext.encoder.stages.{index // 2}"


NAMINGS = {"torchvision": (), "timm": TIMM, "transformers": TRANSFORMERS}
SETTINGS = {
    "architecture": ("convnext_tiny",),
    "model_args.in_chans": (3,),
    "model_args.global_pool": ("avg",),
    "model_type": ("convnext",),
    "hidden_act": ("gelu",),
    "layer_norm_eps": (1e-12,),
}
TORCHVISION = IMAGENET._replace(resize=236)

ARCHITECTURES = {
    "convnext_tiny": Architecture(
        partial(ConvNeXt, (3, 3, 9, 3), (96, 192, 384, 768)),
        "classifier.2",
        NAMINGS,
        SETTINGS,
        TORCHVISION,
        {"983f1562": TORCHVISION},
        {"transformers": {"epsilon": 1e-12}},
    )
}
