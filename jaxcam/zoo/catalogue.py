"""Which networks there are, and how to make one."""

from typing import Any

from flax import nnx

from jaxcam.errors import fail
from jaxcam.zoo import convnext, deit, densenet, efficientnet, mobilenet, resnet, vgg, vit
from jaxcam.zoo.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {
    **vgg.ARCHITECTURES,
    **resnet.ARCHITECTURES,
    **densenet.ARCHITECTURES,
    **mobilenet.ARCHITECTURES,
    **efficientnet.ARCHITECTURES,
    **convnext.ARCHITECTURES,
    **vit.ARCHITECTURES,
    **deit.ARCHITECTURES,
}


def names() -> tuple[str, ...]:
    """The networks that there are, by the names of torchvision's functions.

    >>> from jaxcam import zoo
    >>> "resnet50" in zoo.names()
    True
    """
    return tuple(ARCHITECTURES)


def build(name: str, *, classes: int = 1000, rngs: nnx.Rngs) -> Any:
    """Make a network with drawn weights, in evaluation mode.

    It maps ``x: [batch, height, width, 3]`` to logits ``[batch, classes]``. The weights are drawn
    so that activations keep their spread; they know nothing. ``model.train()`` switches to
    training.

    >>> from flax import nnx
    >>> from jaxcam import zoo
    >>> model = nnx.eval_shape(lambda: zoo.build("resnet18", classes=10, rngs=nnx.Rngs(0)))
    >>> model.fc.kernel.shape
    (512, 10)
    """
    architecture = find(f"zoo.build({name!r})", name)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        fail(
            f"zoo.build({name!r})",
            needs="classes of 1 or more",
            got=repr(classes),
            remedy="ImageNet has 1000.",
        )
    return make(architecture, classes=classes, rngs=rngs)


def make(architecture: Architecture, naming: str = "", *, classes: int, rngs: nnx.Rngs) -> Any:
    """Make a network in evaluation mode, with a collection's constants where they differ."""
    constants = architecture.constants.get(naming, {})
    model = architecture.make(classes=classes, rngs=rngs, **constants)
    model.eval()
    return model


def find(call: str, name: str) -> Architecture:
    """The network of a name, or an error that lists the names."""
    if name not in ARCHITECTURES:
        fail(
            call,
            needs="the name of a network, as torchvision has it",
            got=repr(name),
            remedy=f"There are {', '.join(ARCHITECTURES)}.",
        )
    return ARCHITECTURES[name]
