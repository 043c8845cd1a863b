"""Collections that are on GitHub alone, in clones of their repositories.

``JAXCAM_CLONES`` names a folder that holds ``bonsai`` (jax-ml), ``big_vision`` and ``scenic``
(google-research): ``JAXCAM_CLONES=~/clones pytest -m clones``. Their models are imported as they
are; TensorFlow and clu, which they import to read files and to log, need not be installed.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from unittest.mock import MagicMock

import flax.io  # noqa: F401  (asks for TensorFlow before it is there in name alone)
import jax
import numpy as np
import pytest
from flax import nnx
from own import CLASSES, assert_is_the_model, assert_same_bits, copied, drawn, explain, images
from test_linen_collections import check

import jaxcam

pytestmark = pytest.mark.clones
UNUSED = ("tensorflow", "tensorflow.io", "tensorflow.io.gfile", "clu", "clu.parameter_overview")


@pytest.fixture
def module(monkeypatch):
    """Import a module of a clone."""

    def load(repository, name):
        folder = Path(os.environ["JAXCAM_CLONES"]).expanduser() / repository
        assert (folder / repository).is_dir(), f"no clone in {folder}"
        monkeypatch.syspath_prepend(folder)
        absent = [name for name in UNUSED if importlib.util.find_spec(name.split(".")[0]) is None]
        for unused in absent:
            monkeypatch.setitem(sys.modules, unused, MagicMock())
        return importlib.import_module(name)

    return load


def check_nnx(model, layers, **kwargs):
    x = images()
    nnx.update(model, drawn(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
    graph, state = nnx.split(model)
    before = copied(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))

    def own(state, x):
        return nnx.merge(graph, state, copy=True)(x, **kwargs)

    names = jaxcam.layers(model, x, **kwargs)
    for layer in layers:
        split = jaxcam.split(model, layer, **kwargs)
        assert_is_the_model(split, own, state, x)
        assert names[layer].shape == split.features(x).shape
    np.testing.assert_array_equal(split.scores(split.features(x), x), model(x, **kwargs))
    explain(jaxcam.split(model, layers[0], **kwargs), x)
    assert_same_bits(before, copied(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))


def test_bonsai_resnet(module):
    resnet = module("bonsai", "bonsai.models.resnet.modeling")
    model = resnet.ResNet(resnet.ModelConfig([1, 1, 1, 2], CLASSES), rngs=nnx.Rngs(0))
    check_nnx(model, ["layer3/blocks/1/conv1", "layer2", "layer1/blocks/0/downsample"])


def test_bonsai_convnext(module):
    """``rngs=`` in evaluation too."""
    convnext = module("bonsai", "bonsai.models.convnext.modeling")
    config = convnext.ModelConfig((1, 1, 2, 2), (24, 48, 96, 192), num_classes=CLASSES)
    model = convnext.ConvNeXt(config, rngs=nnx.Rngs(0))
    layers = ["stages/3", "stages/3/layers/1/dwconv", "stages/2/layers/1"]
    check_nnx(model, layers, rngs=jax.random.key(0))


def test_bonsai_efficientnet(module):
    efficientnet = module("bonsai", "bonsai.models.efficientnet.modeling")
    model = efficientnet.EfficientNet(efficientnet.ModelConfig.b0(CLASSES), rngs=nnx.Rngs(0))
    check_nnx(model, ["head_conv", "blocks/12/bn1", "blocks/6"])


def test_bonsai_densenet(module):
    densenet = module("bonsai", "bonsai.models.densenet121.modeling")
    config = densenet.ModelConfig(CLASSES, (2, 2, 2), 16)
    model = densenet.DenseNet(config, rngs=nnx.Rngs(0))
    layers = ["blocks/layers/4/conv_layers/1", "blocks/layers/3", "final_bn"]
    check_nnx(model, layers)


def test_big_vision_bit(module):
    """GroupNorm, standardised kernels, a tuple as output, a head that is called twice."""
    bit = module("big_vision", "big_vision.models.bit")
    model = bit.Model(num_classes=CLASSES, depth=(1, 1, 2), width=0.5)
    layers = ["block3", "block3/unit2/conv2", "block2"]
    names, _ = check(model, layers, logits=0, scored=lambda output: output[0])
    assert list(names)[-2:] == ["head", "head call=1"]


def test_scenic_resnet(module):
    """Identity layers that give names to what follows a ReLU."""
    resnet = module("scenic", "scenic.projects.baselines.resnet")
    model = resnet.ResNet(num_outputs=CLASSES, num_layers=14, num_filters=16)
    check(model, ["ResidualBlock_3/conv2", "ResidualBlock_3/relu3", "ResidualBlock_1"], train=False)
