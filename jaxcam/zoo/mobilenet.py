"""MobileNetV3-Large (Howard et al., arXiv 1905.02244) as torchvision has it.

    x: [batch, h, w, 3]  ->  features.0 [h/2, w/2, 16]  ->  features.1
      ->  features.2 and 3 [h/4, w/4, 24]  ->  features.4 to 6 [h/8, w/8, 40]
      ->  features.7 to 10 [h/16, w/16, 80]  ->  features.11 and 12 [h/16, w/16, 112]
      ->  features.13 to 15 [h/32, w/32, 160]  ->  features.16 [h/32, w/32, 960]
      ->  avgpool  ->  classifier: two dense layers, logits [batch, classes]

ReLU up to features.6, hard-swish behind: piecewise quadratic, with a second derivative that jumps.
torchvision's BatchNorm has an epsilon of 1e-3, and timm's of 1e-5: each file gets its own.
"""

from functools import partial
from typing import NamedTuple

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import HardSigmoid, HardSwish, ReLU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.inverted import BRANCH_SCALE, EXCITED_GAIN, SMOOTH_GAIN, Norm, SqueezeExcite, normed
from jaxcam.zoo.parts import GlobalPool, Sequence, flatten, linear

DROPOUT = 0.2


class Row(NamedTuple):
    """A block: a row of the paper's table 1."""

    window: int
    expanded: int
    outputs: int
    excited: bool
    activation: type[ReLU] | type[HardSwish]
    stride: int


class InvertedResidual(nnx.Module):
    """An inverted residual; the bypass is where the resolution and the channels stay as they are.

    Squeezed to a quarter of the expanded channels, in whole eights.
    """

    def __init__(self, inputs: int, row: Row, norm: Norm, *, rngs: nnx.Rngs) -> None:
        wide, activation = row.expanded, row.activation
        self.residual = row.stride == 1 and inputs == row.outputs
        scale = BRANCH_SCALE if self.residual else 1.0
        depthwise = partial(normed, stride=row.stride, groups=wide, rngs=rngs)
        layers: list[nnx.Module] = []
        if wide != inputs:
            layers.append(normed(inputs, wide, 1, norm, activation, gain=1.0, rngs=rngs))
        layers.append(depthwise(wide, wide, row.window, norm, activation))
        if row.excited:
            layers.append(SqueezeExcite(wide, eights(wide // 4), ReLU, HardSigmoid, rngs=rngs))
        gain = EXCITED_GAIN if row.excited else SMOOTH_GAIN
        layers.append(normed(wide, row.outputs, 1, norm, None, gain=gain, scale=scale, rngs=rngs))
        self.block = Sequence(*layers)

    def __call__(self, x: Array) -> Array:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nnx.Module):
    """A stem, a block for each row, and a head of six times the last row and ``last`` channels."""

    def __init__(
        self,
        rows: tuple[Row, ...],
        *,
        width: int = 16,
        last: int = 1280,
        epsilon: float = 1e-3,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        norm = Norm(epsilon, momentum=0.99)
        layers: list[nnx.Module] = [
            normed(3, width, 3, norm, HardSwish, stride=2, gain=1.0, rngs=rngs)
        ]
        inputs = width
        for row in rows:
            layers.append(InvertedResidual(inputs, row, norm, rngs=rngs))
            inputs = row.outputs
        layers.append(normed(inputs, 6 * inputs, 1, norm, HardSwish, gain=1.0, rngs=rngs))
        self.features = Sequence(*layers)
        self.avgpool = GlobalPool()
        self.classifier = Sequence(
            linear(6 * inputs, last, rngs=rngs),
            HardSwish(),
            nnx.Dropout(DROPOUT, rngs=rngs),
            linear(last, classes, gain=SMOOTH_GAIN, rngs=rngs),
        )

    def __call__(self, x: Array) -> Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


def eights(channels: int) -> int:
    """The nearest multiple of 8 that is not below nine tenths, and not below 8."""
    near = max(8, (channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


LARGE = (
    Row(3, 16, 16, False, ReLU, 1),
    Row(3, 64, 24, False, ReLU, 2),
    Row(3, 72, 24, False, ReLU, 1),
    Row(5, 72, 40, True, ReLU, 2),
    Row(5, 120, 40, True, ReLU, 1),
    Row(5, 120, 40, True, ReLU, 1),
    Row(3, 240, 80, False, HardSwish, 2),
    Row(3, 200, 80, False, HardSwish, 1),
    Row(3, 184, 80, False, HardSwish, 1),
    Row(3, 184, 80, False, HardSwish, 1),
    Row(3, 480, 112, True, HardSwish, 1),
    Row(3, 672, 112, True, HardSwish, 1),
    Row(5, 672, 160, True, HardSwish, 2),
    Row(5, 960, 160, True, HardSwish, 1),
    Row(5, 960, 160, True, HardSwish, 1),
)
STAGES = (1, 2, 3, 4, 2, 3)  # timm counts the blocks of each resolution apart


def _timm() -> Rules:
    """By the kinds of the blocks, of which each has its own layers."""
    rules: list[tuple[str, str]] = [(r"features\.0\.0", "conv_stem"), (r"features\.0\.1", "bn1")]
    places = [f"blocks.{s}.{b}" for s, count in enumerate(STAGES) for b in range(count)]
    inputs = 16
    for index, (row, place) in enumerate(zip(LARGE, places, strict=True), start=1):
        expands = row.expanded != inputs
        convolutions = ["conv_pw", "conv_dw", "conv_pwl"] if expands else ["conv_dw", "conv_pw"]
        inner = iter(range(4))
        for number, theirs in enumerate(convolutions, start=1):
            if row.excited and number == len(convolutions):
                ours = rf"features\.{index}\.block\.{next(inner)}"
                rules.append((rf"{ours}\.fc1", f"{place}.se.conv_reduce"))
                rules.append((rf"{ours}\.fc2", f"{place}.se.conv_expand"))
            ours = rf"features\.{index}\.block\.{next(inner)}"
            rules.append((rf"{ours}\.0", f"{place}.{theirs}"))
            rules.append((rf"{ours}\.1", f"{place}.bn{number}"))
        inputs = row.outputs
    rules += [(r"features\.16\.0", "blocks.6.0.conv"), (r"features\.16\.1", "blocks.6.0.bn1")]
    rules += [(r"classifier\.0", "conv_head"), (r"classifier\.3", "classifier")]
    return tuple((pattern, partial(str, theirs)) for pattern, theirs in rules)


SETTINGS = {
    "architecture": ("mobilenetv3_large_100",),
    "model_args.in_chans": (3,),
    "model_args.global_pool": ("avg",),
    "model_type": (),
}

ARCHITECTURES = {
    "mobilenet_v3_large": Architecture(
        partial(MobileNetV3, LARGE),
        "classifier.3",
        {"torchvision": (), "timm": _timm()},
        SETTINGS,
        IMAGENET,
        {"8738ca79": IMAGENET, "5c1a4163": IMAGENET._replace(resize=232)},
        {"timm": {"epsilon": 1e-5}},
    )
}
