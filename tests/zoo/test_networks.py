"""The definitions: shapes, names that papers type, cuts at them. Arithmetic is in test_parity."""

import re
from functools import reduce
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from flax import nnx

import jaxcam
from jaxcam import zoo
from jaxcam.errors import JaxcamError
from jaxcam.zoo import catalogue, loading
from jaxcam.zoo.weights.assign import slots

# As torchvision's documentation of the weights counts them.
PARAMETERS = {
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "densenet121": 7_978_856,
    "mobilenet_v3_large": 5_483_032,
    "efficientnet_b0": 5_288_548,
    "convnext_tiny": 28_589_128,
    "vit_b_16": 86_567_656,
    "deit_small_patch16_224": 22_050_664,
}
SIDES = {"vit_b_16": 224, "deit_small_patch16_224": 224}
# Layers at full size, [height, width, channel] or [token, channel] for a picture of 64x64 or so.
LAYERS = {
    "vgg16": {"features/28": (4, 4, 512), "features/30": (2, 2, 512), "avgpool": (7, 7, 512)},
    "vgg16_bn": {"features/42": (4, 4, 512), "features/43": (2, 2, 512), "classifier/3": (4096,)},
    "resnet18": {"layer3/1/conv2": (4, 4, 256), "layer4": (2, 2, 512), "maxpool": (16, 16, 64)},
    "resnet50": {"layer4/2/conv3": (2, 2, 2048), "layer2/0/downsample/1": (8, 8, 512)},
    "resnet101": {"layer3/22": (4, 4, 1024), "avgpool": (1, 1, 2048)},
    "densenet121": {
        "features/denseblock3/denselayer24/conv2": (4, 4, 32),
        "features/transition1/pool": (8, 8, 128),
        "features/norm5": (2, 2, 1024),
    },
    "mobilenet_v3_large": {
        "features/1/block/1/1": (32, 32, 16),
        "features/15/block/2/fc1": (1, 1, 240),
        "features/16": (2, 2, 960),
        "classifier/1": (1280,),
    },
    "efficientnet_b0": {
        "features/4/2/block/2": (4, 4, 480),
        "features/8/2": (2, 2, 1280),
        "features/7/0": (2, 2, 320),
    },
    "convnext_tiny": {"features/5/8/block/3": (4, 4, 1536), "features/7": (2, 2, 768)},
    "vit_b_16": {
        "conv_proj": (14, 14, 768),
        "encoder/layers/encoder_layer_11/self_attention": (197, 768),
        "encoder/ln": (197, 768),
    },
    "deit_small_patch16_224": {
        "patch_embed/proj": (14, 14, 384),
        "blocks/11/mlp/act": (197, 1536),
        "blocks": (197, 384),
    },
}


def abstract(name):
    return loading._abstract(name, 1000, "")


@pytest.mark.parametrize("name", zoo.names())
def test_sizes_and_names_are_torchvision_s(name):
    model = abstract(name)
    state = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(np.prod(leaf.shape) for leaf in state) == PARAMETERS[name]


@pytest.mark.parametrize("name", zoo.names())
def test_layers_are_listed_by_the_names_of_torchvision(name):
    side = SIDES.get(name, 64)
    x = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    graph, state = nnx.split(abstract(name))
    found = {}

    def run(state, image):
        model = nnx.merge(graph, state)
        found.update(jaxcam.layers(model, x))
        return model(image)

    assert jax.eval_shape(run, state, x).shape == (1, 1000)  # no array is made
    for layer, shape in LAYERS[name].items():
        assert found[layer].shape == (1, *shape)


QUICK = [  # one of each kind of network and of place
    ("vgg16_bn", "features.10", 0),
    ("resnet50", "layer4.0.relu", 2),
    ("densenet121", "features.denseblock1.denselayer1.relu2", 0),
    ("convnext_tiny", "features.3.0.stochastic_depth", 0),
    ("deit_small_patch16_224", "blocks.0.norm1", 0),
]
MORE = [
    ("vgg16", "features.8", 0),
    ("resnet18", "layer4", 0),
    ("resnet18", "layer2.0.downsample.0", 0),
    ("resnet18", "layer3.0.relu", 1),
    ("resnet50", "layer3.0.conv2", 0),
    ("resnet50", "avgpool", 0),
    ("densenet121", "features.norm3", 0),
    ("mobilenet_v3_large", "features.16", 0),
    ("mobilenet_v3_large", "features.5.block.2.scale_activation", 0),
    ("efficientnet_b0", "features.8", 0),
    ("efficientnet_b0", "features.3.0.block.2", 0),
    ("convnext_tiny", "features.7", 0),
    ("convnext_tiny", "features.5.1.block.3", 0),
    ("convnext_tiny", "features.0.0", 0),
    ("vit_b_16", "encoder.layers.encoder_layer_0", 0),
    ("vit_b_16", "encoder.layers.encoder_layer_1.self_attention.in_proj", 0),
    ("deit_small_patch16_224", "patch_embed", 0),
]


@pytest.mark.parametrize(
    ("name", "layer", "call"), QUICK + [pytest.param(*c, marks=pytest.mark.slow) for c in MORE]
)
def test_a_split_is_the_model(name, layer, call):
    own = tiny.network(name)
    trained = nnx.clone(own)
    trained.train()  # a split is in evaluation mode whatever the model is in
    features, scores = jaxcam.split(trained, layer, call=call)
    shape = jax.eval_shape(features, tiny.X).shape
    # Channels differ by their gains: a LayerNorm would undo one gain for all.
    gain = np.linspace(0.5, 2, shape[-1], dtype=np.float32).reshape((1,) * len(shape[1:]) + (-1,))

    def three(x):
        a = features(x)
        return own(x), scores(a, x), scores(a * gain, x)

    whole, through, other = jax.jit(three)(tiny.X)  # one program: compiling is what takes long
    np.testing.assert_array_equal(through, whole)
    assert np.abs(other - whole).max() > 1e-3


@pytest.mark.parametrize(
    "name", ["vgg16_bn", pytest.param("convnext_tiny", marks=pytest.mark.slow)]
)
def test_training_is_another_mode(name):
    model = nnx.clone(tiny.network(name))
    before = jax.tree.leaves(nnx.state(model))

    def both(model, x):
        own = model(x)
        model.train()
        return own, model(x)

    own, trained = nnx.jit(both)(model, tiny.X)
    assert not np.allclose(trained, own)
    after = jax.tree.leaves(nnx.state(model))  # statistics, or counts of random numbers
    assert any(np.any(b != a) for b, a in zip(before, after, strict=True))


def test_a_network_is_built_in_evaluation_mode(monkeypatch):
    tiny.register(monkeypatch)
    model = nnx.eval_shape(lambda: zoo.build("tiny_convnext_tiny", rngs=nnx.Rngs(0)))
    assert model.features[1][0].stochastic_depth.deterministic
    model = nnx.eval_shape(lambda: zoo.build("tiny_resnet18", rngs=nnx.Rngs(0)))
    assert model.layer4[0].bn2.use_running_average


@pytest.mark.parametrize("name", zoo.names())
def test_every_naming_names_every_tensor_once(name):
    model, namings = abstract(name), catalogue.ARCHITECTURES[name].namings
    weights = jax.tree.leaves(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    for naming, rules in namings.items():
        found = slots(model, rules).values()
        assert len({slot.path for slot in found}) == len(weights), naming
        assert len({(slot.path, slot.part) for slot in found}) == len(found)
        # No name twice, which would hide a tensor: all elements are there.
        elements = sum(np.prod(slot.shape) for slot in found)
        assert elements == sum(np.prod(leaf.shape) for leaf in weights), naming


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_drawn_weights_keep_the_spread(name):
    model = zoo.build(name, rngs=nnx.Rngs(0))
    side = SIDES.get(name, 96)
    # This picture: from one to another the spread differs by a factor of three.
    x = jax.random.normal(jax.random.key(0), (1, side, side, 3))
    assert 0.2 < jax.jit(model)(x).std() < 5


@pytest.mark.parametrize("name", SIDES)
def test_pictures_of_another_size_than_a_transformer_has_positions_for(name):
    with pytest.raises(JaxcamError, match=r"needs pictures \[batch, 64, 64, 3\]; got \[2, 48, 64"):
        tiny.network(name)(tiny.X[:, :48])


def in_the_docs() -> dict[str, str]:
    """Read a layer of each network off the table of its page."""
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    table = page.split("| last spatial layer |")[1].split("\n\n")[0]
    found = {}
    for row in table.splitlines()[2:]:
        names, layers = (re.findall("`(.*?)`", cell) for cell in row.split("|")[1:3])
        several = layers if len(layers) > 1 else layers * len(names)
        found |= dict(zip(names, several, strict=False))
    return found


@pytest.mark.parametrize("name", zoo.names())
def test_the_docs_table_has_it_and_a_layer_of_it(name):
    layer = in_the_docs()[name]
    assert isinstance(reduce(getattr, layer.split("."), abstract(name)), nnx.Module), layer


def test_the_docs_table_has_no_other():
    assert sorted(in_the_docs()) == sorted(zoo.names())


@pytest.mark.parametrize("name", ["vit_b_16", "deit_small_patch16_224"])
def test_the_layer_of_a_transformer_is_its_last_of_tokens_that_matter(name):
    architecture = tiny.FULL[name]
    found = list(zoo.inspect(name, jaxcam.layers))
    layer = architecture.layer.replace(".", "/")
    attentions = [
        at for at, other in enumerate(found) if other.endswith(("self_attention", "attn"))
    ]
    assert found.index(layer) == attentions[-1] - 1


def test_wrong_calls():
    with pytest.raises(JaxcamError, match=r"resnet34.*There are .*resnet18"):
        zoo.build("resnet34", rngs=nnx.Rngs(0))
    with pytest.raises(JaxcamError, match="classes of 1 or more; got 0"):
        zoo.build("resnet18", classes=0, rngs=nnx.Rngs(0))
