"""VGG-16, with and without BatchNorm (Simonyan, Zisserman, arXiv 1409.1556), as torchvision has it.

    x: [batch, h, w, 3]  ->  features: thirteen 3x3 convolutions with ReLU, a max-pool behind the
      second, fourth, seventh, tenth and thirteenth [h/32, w/32, 512]
      ->  avgpool [7, 7, 512]  ->  classifier: three dense layers, logits [batch, classes]

In evaluation everything is piecewise affine. Papers cut at ``features.29``, the last ReLU (42 with
BatchNorm), or at ``features.30``, the pool behind it (43). ``avgpool`` does nothing to pictures of
224x224. At other sizes timm's VGG is another network: it slides its first dense layer.
"""

from functools import partial

from flax import nnx
from jax import Array

from jaxcam.zoo.activations import ReLU
from jaxcam.zoo.architecture import Architecture, Rules
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.parts import (
    RELU_GAIN,
    GridPool,
    MaxPool,
    Sequence,
    batch_norm,
    conv,
    flatten,
    linear,
)

GRID = 7


class VGG(nnx.Module):
    """Stages of so many ``convolutions`` of so many channels, then dense layers of ``hidden``."""

    def __init__(
        self,
        convolutions: tuple[int, ...],
        widths: tuple[int, ...],
        *,
        normed: bool,
        hidden: int = 4096,
        classes: int = 1000,
        rngs: nnx.Rngs,
    ) -> None:
        layers: list[nnx.Module] = []
        inputs = 3
        for count, width in zip(convolutions, widths, strict=True):
            for _ in range(count):
                gain = RELU_GAIN if layers else 1.0  # a picture has not been through ReLU
                layers.append(conv(inputs, width, 3, bias=True, gain=gain, rngs=rngs))
                if normed:
                    layers.append(batch_norm(width, rngs=rngs))
                layers.append(ReLU())
                inputs = width
            layers.append(MaxPool(2, 2))
        self.features = Sequence(*layers)
        self.avgpool = GridPool(GRID)
        self.classifier = Sequence(
            linear(GRID * GRID * inputs, hidden, gain=RELU_GAIN, rngs=rngs),
            ReLU(),
            nnx.Dropout(0.5, rngs=rngs),
            linear(hidden, hidden, gain=RELU_GAIN, rngs=rngs),
            ReLU(),
            nnx.Dropout(0.5, rngs=rngs),
            linear(hidden, classes, gain=RELU_GAIN, rngs=rngs),
        )

    def __call__(self, x: Array) -> Array:
        return self.classifier(flatten(self.avgpool(self.features(x))))


TIMM: Rules = (
    (r"classifier\.0", lambda: "pre_logits.fc1"),
    (r"classifier\.3", lambda: "pre_logits.fc2"),
    (r"classifier\.6", lambda: "head.fc"),
)


def _vgg(name: str, normed: bool, digest: str) -> Architecture:
    settings = {
        "architecture": (name, f"tv_{name}"),
        "model_args.in_chans": (3,),
        "model_args.global_pool": ("avg",),
    }
    make = partial(VGG, (2, 2, 3, 3, 3), (64, 128, 256, 512, 512), normed=normed)
    namings = {"torchvision": (), "timm": TIMM}
    return Architecture(make, "classifier.6", namings, settings, IMAGENET, {digest: IMAGENET})


ARCHITECTURES = {
    "vgg16": _vgg("vgg16", normed=False, digest="397923af"),
    "vgg16_bn": _vgg("vgg16_bn", normed=True, digest="6c64b313"),
}
