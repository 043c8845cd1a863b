"""EfficientNet-B0 (Tan, Le, arXiv 1905.11946) as torchvision has it.

    x: [batch, h, w, 3]  ->  features.0 [h/2, w/2, 32]  ->  features.1 [h/2, w/2, 16]
      ->  features.2 [h/4, w/4, 24]  ->  features.3 [h/8, w/8, 40]  ->  features.4 [h/16, w/16, 80]
      ->  features.5 [h/16, w/16, 112]  ->  features.6 [h/32, w/32, 192]
      ->  features.7 [h/32, w/32, 320]  ->  features.8 [h/32, w/32, 1280]
      ->  avgpool  ->  classifier: logits [batch, classes]

SiLU everywhere, and squeeze-and-excite in every block: every score is smooth behind every layer.
"""

from functools import partial
from typing import NamedTuple

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import Sigmoid, SiLU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.inverted import BRANCH_SCALE, EXCITED_GAIN, SMOOTH_GAIN, Norm, SqueezeExcite, normed
from jaxcam.zoo.parts import GlobalPool, Sequence, flatten, linear, stochastic_depth

NORM = Norm()
DROPOUT, DEPTH_DROP = 0.2, 0.2


class Stage(NamedTuple):
    """So many ``blocks``, of which the first has the stride."""

    expansion: int
    window: int
    stride: int
    outputs: int
    blocks: int


class MBConv(nnx.Module):
    """An inverted residual; the bypass is where the resolution and the channels stay as they are.

    Squeezed to a quarter of the block's inputs, not of the expanded channels.
    """

    def __init__(self, inputs: int, stage: Stage, stride: int, drop: float, *, rngs: nnx.Rngs):
        wide = inputs * stage.expansion
        self.residual = stride == 1 and inputs == stage.outputs
        scale = BRANCH_SCALE if self.residual else 1.0
        layers = []
        if wide != inputs:
            layers.append(normed(inputs, wide, 1, NORM, SiLU, gain=1.0, rngs=rngs))
        window = stage.window
        self.block = Sequence(
            *layers,
            normed(wide, wide, window, NORM, SiLU, stride=stride, groups=wide, rngs=rngs),
            SqueezeExcite(wide, max(1, inputs // 4), SiLU, Sigmoid, rngs=rngs),
            normed(wide, stage.outputs, 1, NORM, None, gain=EXCITED_GAIN, scale=scale, rngs=rngs),
        )
        self.stochastic_depth = stochastic_depth(drop, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.block(x)
        return x + self.stochastic_depth(y) if self.residual else y


class EfficientNet(nnx.Module):
    """A stem of ``width``, stages, and a head of ``last`` channels."""

    def __init__(
        self,
        stages: tuple[Stage, ...],
        *,
        width: int = 32,
        last: int = 1280,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        layers = [normed(3, width, 3, NORM, SiLU, stride=2, gain=1.0, rngs=rngs)]
        inputs, done, total = width, 0, sum(stage.blocks for stage in stages)
        for stage in stages:
            blocks = []
            for index in range(stage.blocks):
                drop, stride = DEPTH_DROP * done / total, 1 if index else stage.stride
                blocks.append(MBConv(inputs, stage, stride, drop, rngs=rngs))
                inputs, done = stage.outputs, done + 1
            layers.append(Sequence(*blocks))
        layers.append(normed(inputs, last, 1, NORM, SiLU, gain=1.0, rngs=rngs))
        self.features = Sequence(*layers)
        self.avgpool = GlobalPool()
        head = linear(last, classes, gain=SMOOTH_GAIN, rngs=rngs)
        self.classifier = Sequence(nnx.Dropout(DROPOUT, rngs=rngs), head)

    def __call__(self, x: Array) -> Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


TIMM: Rules = (
    (r"features\.0\.0", lambda: "conv_stem"),
    (r"features\.0\.1", lambda: "bn1"),
    (r"features\.8\.0", lambda: "conv_head"),
    (r"features\.8\.1", lambda: "bn2"),
    (r"features\.1\.(\d)\.block\.0\.0", lambda b: f"blocks.0.{b}.conv_dw"),
    (r"features\.1\.(\d)\.block\.0\.1", lambda b: f"blocks.0.{b}.bn1"),
    (r"features\.1\.(\d)\.block\.1\.fc1", lambda b: f"blocks.0.{b}.se.conv_reduce"),
    (r"features\.1\.(\d)\.block\.1\.fc2", lambda b: f"blocks.0.{b}.se.conv_expand"),
    (r"features\.1\.(\d)\.block\.2\.0", lambda b: f"blocks.0.{b}.conv_pw"),
    (r"features\.1\.(\d)\.block\.2\.1", lambda b: f"blocks.0.{b}.bn2"),
    (r"features\.(\d)\.(\d)\.block\.0\.0", lambda s, b: f"blocks.{s - 1}.{b}.conv_pw"),
    (r"features\.(\d)\.(\d)\.block\.0\.1", lambda s, b: f"blocks.{s - 1}.{b}.bn1"),
    (r"features\.(\d)\.(\d)\.block\.1\.0", lambda s, b: f"blocks.{s - 1}.{b}.conv_dw"),
    (r"features\.(\d)\.(\d)\.block\.1\.1", lambda s, b: f"blocks.{s - 1}.{b}.bn2"),
    (r"features\.(\d)\.(\d)\.block\.2\.fc1", lambda s, b: f"blocks.{s - 1}.{b}.se.conv_reduce"),
    (r"features\.(\d)\.(\d)\.block\.2\.fc2", lambda s, b: f"blocks.{s - 1}.{b}.se.conv_expand"),
    (r"features\.(\d)\.(\d)\.block\.3\.0", lambda s, b: f"blocks.{s - 1}.{b}.conv_pwl"),
    (r"features\.(\d)\.(\d)\.block\.3\.1", lambda s, b: f"blocks.{s - 1}.{b}.bn3"),
    (r"classifier\.1", lambda: "classifier"),
)

B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
SETTINGS = {
    "architecture": ("efficientnet_b0",),
    "model_args.in_chans": (3,),
    "model_args.global_pool": ("avg",),
    "model_type": (),  # that of transformers pads as TensorFlow does
}
BICUBIC = IMAGENET._replace(interpolation="bicubic")

ARCHITECTURES = {
    "efficientnet_b0": Architecture(
        partial(EfficientNet, B0),
        "classifier.1",
        {"torchvision": (), "timm": TIMM},
        SETTINGS,
        BICUBIC,
        {"7f5810bc": BICUBIC},
    )
}
