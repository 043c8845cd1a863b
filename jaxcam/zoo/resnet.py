"""ResNet-18, -50 and -101 (He et al., arXiv 1512.03385) as torchvision has them.

    x: [batch, h, w, 3]  ->  conv1, bn1, relu [h/2, w/2, 64]  ->  maxpool [h/4, w/4, 64]
      ->  layer1 [h/4, w/4, 256]  ->  layer2 [h/8, w/8, 512]  ->  layer3 [h/16, w/16, 1024]
      ->  layer4 [h/32, w/32, 2048]  ->  avgpool  ->  fc: logits [batch, classes]

A bottleneck halves the resolution in its 3x3 convolution, not in the first 1x1 as the paper does
(this is called v1.5). In evaluation everything is piecewise affine. A block's ``relu`` is one
layer that is called several times: ``jaxcam.split(model, "layer4.2.relu", call=2)`` is its last.
"""

from functools import partial

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import ReLU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET, Preprocessing
from jaxcam.zoo.parts import GlobalPool, MaxPool, Sequence, batch_norm, conv, linear

# Drawn weights: a branch adds this much of its spread, so that 33 of them do not make it explode.
BRANCH_SCALE = 0.25


class Basic(nnx.Module):
    """``relu(x + bn2(conv2(relu(bn1(conv1(x))))))``, both of 3x3."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(inputs, width, 3, stride=stride, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.relu = ReLU()
        self.conv2 = conv(width, width, 3, rngs=rngs)
        self.bn2 = batch_norm(width, scale=BRANCH_SCALE, rngs=rngs)
        self.downsample = _downsample(inputs, width, stride, rngs)

    def __call__(self, x: Array) -> Array:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nnx.Module):
    """``relu(x + branch(x))`` with a branch of 1x1, 3x3 and 1x1."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs) -> None:
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, stride=stride, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.conv3 = conv(width, outputs, 1, rngs=rngs)
        self.bn3 = batch_norm(outputs, scale=BRANCH_SCALE, rngs=rngs)
        self.relu = ReLU()
        self.downsample = _downsample(inputs, outputs, stride, rngs)

    def __call__(self, x: Array) -> Array:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nnx.Module):
    """Four stages of so many ``blocks`` each; ``width`` is the stem's, and doubles with a stage."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        *,
        classes: int = 1000,
        width: int = 64,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv1 = conv(3, width, 7, stride=2, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.relu = ReLU()
        self.maxpool = MaxPool(3, 2, padding=1)
        wide = width * block.expansion
        self.layer1 = _stage(block, width, width, blocks[0], 1, rngs)
        self.layer2 = _stage(block, wide, 2 * width, blocks[1], 2, rngs)
        self.layer3 = _stage(block, 2 * wide, 4 * width, blocks[2], 2, rngs)
        self.layer4 = _stage(block, 4 * wide, 8 * width, blocks[3], 2, rngs)
        self.avgpool = GlobalPool()
        self.fc = linear(8 * wide, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(self.avgpool(x).reshape(len(x), -1))


def _stage(
    block: type[Basic] | type[Bottleneck],
    inputs: int,
    width: int,
    count: int,
    stride: int,
    rngs: nnx.Rngs,
) -> Sequence:
    """Blocks in a row, of which the first changes the resolution and the number of channels."""
    first = block(inputs, width, stride, rngs=rngs)
    rest = [block(width * block.expansion, width, 1, rngs=rngs) for _ in range(count - 1)]
    return Sequence(first, *rest)


def _downsample(inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> Sequence | None:
    """What makes the bypass fit, or ``None`` where it fits as it is."""
    if stride == 1 and inputs == outputs:
        return None
    shrink = conv(inputs, outputs, 1, stride=stride, gain=1.0, rngs=rngs)
    return Sequence(shrink, batch_norm(outputs, rngs=rngs))


TRANSFORMERS: Rules = (
    (r"conv1", lambda: "resnet.embedder.embedder.convolution"),
    (r"bn1", lambda: "resnet.embedder.embedder.normalization"),
    (r"layer(\d)\.(\d+)\.conv(\d)", lambda s, b, i: f"{_block(s, b)}.layer.{i - 1}.convolution"),
    (r"layer(\d)\.(\d+)\.bn(\d)", lambda s, b, i: f"{_block(s, b)}.layer.{i - 1}.normalization"),
    (r"layer(\d)\.(\d+)\.downsample\.0", lambda s, b: f"{_block(s, b)}.shortcut.convolution"),
    (r"layer(\d)\.(\d+)\.downsample\.1", lambda s, b: f"{_block(s, b)}.shortcut.normalization"),
    (r"fc", lambda: "classifier.1"),
)


def _block(stage: int, block: int) -> str:
    return f"resnet.encoder.stages.{stage - 1}.layers.{block}"


FIRST, SECOND = IMAGENET, IMAGENET._replace(resize=232)  # torchvision's IMAGENET1K_V1 and _V2


def _resnet(
    name: str,
    block: type[Basic] | type[Bottleneck],
    blocks: tuple[int, int, int, int],
    recipes: dict[str, Preprocessing],
) -> Architecture:
    settings = {
        "architecture": (name, f"tv_{name}"),
        "model_args.in_chans": (3,),
        "model_args.global_pool": ("avg",),
        "model_type": ("resnet",),
        "hidden_act": ("relu",),
        "downsample_in_bottleneck": (False,),
        "downsample_in_first_stage": (False,),
    }
    namings = {"torchvision and timm": (), "transformers": TRANSFORMERS}
    make = partial(ResNet, block, blocks)
    return Architecture(make, "fc", namings, settings, IMAGENET, recipes)


ARCHITECTURES = {
    "resnet18": _resnet("resnet18", Basic, (2, 2, 2, 2), {"f37072fd": FIRST}),
    "resnet50": _resnet(
        "resnet50", Bottleneck, (3, 4, 6, 3), {"0676ba61": FIRST, "11ad3fa6": SECOND}
    ),
    "resnet101": _resnet(
        "resnet101", Bottleneck, (3, 4, 23, 3), {"63fe2227": FIRST, "cd907fc2": SECOND}
    ),
}
