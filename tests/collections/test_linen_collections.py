"""Collections of linen models from PyPI, unmodified, by the names that they give their layers."""

import importlib.util
import subprocess
import sys
import tarfile
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own import CLASSES, assert_is_the_model, assert_same_bits, copied, drawn, explain, images

import jaxcam

pytestmark = pytest.mark.collections


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """``examples/imagenet/models.py`` of the installed flax, out of its source distribution."""
    folder = tmp_path_factory.mktemp("flax")
    wanted = f"flax=={flax.__version__}"
    command = ["pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", *command, wanted], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        name = f"flax-{flax.__version__}/examples/imagenet/models.py"
        archive.extract(name, folder, filter="data")
    spec = importlib.util.spec_from_file_location("examples_imagenet_models", folder / name)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(model, layers, *, logits=None, scored=lambda output: output, **kwargs):
    """All the layers, an explanation at the first, and that model and variables have not moved."""
    x = images()
    variables = drawn(jax.eval_shape(partial(model.init, **kwargs), jax.random.key(1), x))
    before, described = copied(variables), repr(model)

    def own(variables, x):
        return scored(model.apply(variables, x, **kwargs))

    names = jaxcam.layers(model, x, variables=variables, **kwargs)
    for layer in layers:
        split = jaxcam.split(model, layer, variables=variables, logits=logits, **kwargs)
        assert_is_the_model(split, own, variables, x)
        assert names[layer].shape == split.features(x).shape
    explain(jaxcam.split(model, layers[0], variables=variables, logits=logits, **kwargs), x)
    assert_same_bits(before, copied(variables))
    assert repr(model) == described
    return names, variables


def test_flax_examples_imagenet(examples):
    """``train=True`` by default, and residual branches that start at zero."""
    block = examples.BottleneckResNetBlock
    model = examples.ResNet([1, 1, 2], block, num_classes=CLASSES, num_filters=16)
    layers = ["BottleneckResNetBlock_3/Conv_1", "BottleneckResNetBlock_2", "bn_init"]
    names, variables = check(model, layers, train=False)
    assert next(iter(names)) == "conv_init"
    with pytest.raises(jaxcam.JaxcamError, match=r"evaluation mode.*axis name: batch.*train=False"):
        jaxcam.split(model, layers[0], variables=variables).features(images())


def test_flaxmodels_of_probabilities():
    """A softmax is its output; its logarithm is what a score is."""
    import flaxmodels

    model = flaxmodels.ResNet18(pretrained=None, num_classes=CLASSES)
    layers = ["BasicBlock_7", "BasicBlock_5/Conv_1", "BasicBlock_3"]
    check(model, layers, logits=jnp.log, scored=jnp.log, train=False)


def test_flaxmodels_of_a_dictionary_of_activations():
    import flaxmodels

    model = flaxmodels.ResNet18(output="activations", pretrained=None, num_classes=CLASSES)
    variables = drawn(jax.eval_shape(partial(model.init, train=False), jax.random.key(1), images()))
    split = jaxcam.split(model, "BasicBlock_6", variables=variables, logits="fc", train=False)
    expected = model.apply(variables, images(), train=False)["fc"]
    np.testing.assert_array_equal(split.scores(split.features(images()), images()), expected)


def test_jax_resnet():
    """Modules as fields of a Sequential, and no ``train``: training is ``mutable=``."""
    import jax_resnet

    model = jax_resnet.ResNet(
        jax_resnet.ResNetBlock, stage_sizes=[1, 1, 2], hidden_sizes=(16, 32, 64), n_classes=CLASSES
    )
    check(model, ["layers_5/ConvBlock_1", "layers_4", "layers_3/ConvBlock_0/Conv_0"])


def test_jax_resnet_with_split_attention():
    import jax_resnet

    block = jax_resnet.ResNeStBottleneckBlock
    model = jax_resnet.ResNet(
        block,
        stem_cls=jax_resnet.ResNetDStem,
        stage_sizes=[1, 2],
        hidden_sizes=(16, 32),
        n_classes=CLASSES,
    )
    check(model, ["layers_4", "layers_4/SplAtConv2d_0", "layers_3"])


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("ResNet", "stages/1/layers/1/layer/1/convolution"),
        ("RegNet", "stages/1/layers/1/layer/2"),
    ],
)
def test_transformers(kind, inside):
    """The module takes NHWC and returns a structure; the wrapper around it takes NCHW."""
    import transformers

    options = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 2, 1]}
    if kind == "RegNet":
        options |= {"groups_width": 8, "layer_type": "y"}
    config = getattr(transformers, f"{kind}Config")(**options, num_labels=CLASSES)
    wrapper = getattr(transformers, f"Flax{kind}ForImageClassification")(config, _do_init=False)
    name = kind.lower()
    layers = [f"{name}/encoder/stages/2", f"{name}/encoder/{inside}", f"{name}/embedder"]
    _, variables = check(
        wrapper.module, layers, logits="logits", scored=lambda output: output.logits
    )
    x = images()
    split = jaxcam.split(wrapper.module, layers[0], variables=variables, logits="logits")
    expected = wrapper(jnp.moveaxis(x, -1, 1), params=variables).logits
    np.testing.assert_array_equal(split.scores(split.features(x), x), expected)
