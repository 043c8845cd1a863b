"""Small networks of the zoo's kinds, and checkpoints of them in every naming."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcam.zoo import catalogue, loading
from jaxcam.zoo.convnext import ConvNeXt
from jaxcam.zoo.deit import DeiT
from jaxcam.zoo.densenet import DenseNet
from jaxcam.zoo.efficientnet import EfficientNet, Stage
from jaxcam.zoo.mobilenet import LARGE, MobileNetV3
from jaxcam.zoo.resnet import Basic, Bottleneck, ResNet
from jaxcam.zoo.vgg import VGG
from jaxcam.zoo.vit import VisionTransformer
from jaxcam.zoo.weights.assign import slots

CLASSES = 5
FULL = dict(catalogue.ARCHITECTURES)
# All stages and all rows, because timm's names count them.
STAGES = [Stage(1 if s == 0 else 2, 3, 1 + s % 2, 4 + s // 2 * 2, 1) for s in range(7)]
ROWS = [row._replace(expanded=row.expanded // 8, outputs=row.outputs // 8) for row in LARGE]
MAKE = {
    "vgg16": partial(VGG, (1, 1, 1), (4, 6, 8), normed=False, hidden=16),
    "vgg16_bn": partial(VGG, (1, 1, 1), (4, 6, 8), normed=True, hidden=16),
    "resnet18": partial(ResNet, Basic, (1, 1, 1, 1), width=8),
    "resnet50": partial(ResNet, Bottleneck, (1, 1, 1, 1), width=8),
    "densenet121": partial(DenseNet, (1, 2), growth=4, width=8),
    "mobilenet_v3_large": partial(MobileNetV3, ROWS, width=2, last=16),
    "efficientnet_b0": partial(EfficientNet, STAGES, width=8, last=16),
    "convnext_tiny": partial(ConvNeXt, (1, 1, 2, 1), (8, 16, 24, 32)),
    "vit_b_16": partial(VisionTransformer, width=24, depth=2, heads=3, side=64),
    "deit_small_patch16_224": partial(DeiT, width=12, depth=1, heads=2, side=64),
}
LAYERS = {
    "tiny_vit_b_16": "encoder.layers.encoder_layer_1.ln_1",
    "tiny_deit_small_patch16_224": "blocks.0.norm1",
}
X = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)


def register(monkeypatch) -> None:
    """Let the zoo know them, as ``tiny_resnet18`` and so on, and no others, which take longer."""
    known = {f"tiny_{name}": FULL[name]._replace(make=make) for name, make in MAKE.items()}
    for name, layer in LAYERS.items():
        known[name] = known[name]._replace(layer=layer)
    for name in tuple(catalogue.ARCHITECTURES):
        monkeypatch.delitem(catalogue.ARCHITECTURES, name)
    for name, architecture in known.items():
        monkeypatch.setitem(catalogue.ARCHITECTURES, name, architecture)


def rename(monkeypatch, name: str, other: str) -> None:
    """Let the zoo know one of them by another name, and keep no trace of it beyond the test."""
    monkeypatch.setitem(catalogue.ARCHITECTURES, other, catalogue.ARCHITECTURES[name])
    for cached in (loading._abstract, loading._wanted):
        monkeypatch.setattr(loading, cached.__name__, cache(cached.__wrapped__))


@cache
def network(name: str):
    """Make one with nothing at zero or one, in evaluation mode; numpy draws, nothing compiles.

    It is made once: who changes it takes a clone.
    """
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        graph, state = nnx.split(loading._abstract(f"tiny_{name}", CLASSES, ""))

    def drawn(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if len(leaf.shape) < 2:
            value = rng.uniform(0.3, 1.2, leaf.shape)
        else:
            value = rng.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(value, leaf.dtype)

    return nnx.merge(graph, jax.tree.map(drawn, state))


def tensors(model, name: str, naming: str) -> dict[str, np.ndarray]:
    """Write the model's arrays as a collection does."""
    flat = dict(nnx.to_flat_state(nnx.state(model)))
    found = {}
    for label, slot in slots(model, FULL[name].namings[naming]).items():
        array = np.asarray(flat[slot.path][...])
        theirs = array.transpose(np.argsort(slot.axes))
        rows, first = slot.shape[0], slot.part * slot.shape[0]
        found[label] = theirs[first : first + rows].copy()
        if label.endswith("running_var"):
            found[label.replace("running_var", "num_batches_tracked")] = np.array(7)
    return found
