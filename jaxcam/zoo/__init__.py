"""Networks that papers explain, with layers named as torchvision names them.

    from jaxcam import zoo

    model, card = zoo.load("resnet50", "resnet50-0676ba61.pth")
    model, card = zoo.load("convnext_tiny", "hf://timm/convnext_tiny.in12k_ft_in1k")
    split = jaxcam.split(model, "layer4")           # or "layer3.5.conv2", "features.7.2.block.3"
    x = zoo.prepare(Image.open("cat.jpg"), card.preprocessing)[None]

Weights come from published checkpoints of torchvision, timm or Hugging Face transformers, as
safetensors or ``.pth``, in a file, a folder or on the hub. Reading one runs nothing that it holds
and needs no torch. The network's tensors are found whatever wraps them, and of several sets the
caller chooses (``part=``); each of the set is used exactly once, or an error says which were not,
and the card names what else there is.

Models are `flax.nnx` modules in evaluation mode; ``model.train()`` switches BatchNorm, dropout and
stochastic depth to training. Nothing here is loaded by ``import jaxcam``.
"""

from jaxcam.zoo.card import Card, Preprocessing, input_size, prepare, seen
from jaxcam.zoo.catalogue import build, names
from jaxcam.zoo.loading import Described, Loaded, describe, inspect, load

__all__ = [
    "Card",
    "Described",
    "Loaded",
    "Preprocessing",
    "build",
    "describe",
    "input_size",
    "inspect",
    "load",
    "names",
    "prepare",
    "seen",
]
