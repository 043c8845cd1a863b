"""The layer that is taken where none is named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import normal

import jaxcam
from jaxcam.errors import JaxcamError
from jaxcam.zoo.resnet import Basic, ResNet
from jaxcam.zoo.vit import VisionTransformer

X = normal((2, 64, 64, 3))


def small_resnet():
    """Weights of 0.1 each: drawing them would take longer than all that is tested here."""
    shapes = nnx.eval_shape(
        lambda: ResNet(Basic, (1, 1, 1, 1), width=8, classes=4, rngs=nnx.Rngs(0))
    )
    graph, weights = nnx.split(shapes)
    model = nnx.merge(graph, jax.tree.map(lambda v: np.full(v.shape, 0.1, v.dtype), weights))
    model.eval()
    return model


class Twice(nn.Module):
    """A layer called twice, an auxiliary pair, and vectors behind the pooling."""

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(3, (3, 3), name="conv")
        x = conv(nn.gelu(conv(x)))
        return nn.Dense(5, name="head")(Flat(name="flat")(x))


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.mean((1, 2), keepdims=True)[:, 0, 0]


class Vector(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(x.mean((1, 2)))


def test_of_a_block_and_what_ends_it_the_block():
    model = small_resnet()
    assert jaxcam.last_layer(model, X) == "layer4"
    auto, named = jaxcam.split(model), jaxcam.split(model, "layer4")
    both = jax.jit(lambda split: (split.features(X), split.scores(split.features(X), X)))
    # The same program: the name is all that was to be found.
    for found, expected in zip(both(auto), both(named), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_of_a_layer_called_twice_the_second_call():
    model = Twice()
    variables = model.init(jax.random.key(0), X)
    assert jaxcam.last_layer(model, X, variables=variables) == "conv call=1"
    auto = jaxcam.split(model, "auto", variables=variables)
    named = jaxcam.split(model, "conv", call=1, variables=variables)
    np.testing.assert_array_equal(auto.features(X), named.features(X))
    np.testing.assert_array_equal(
        jax.jit(auto.scores)(named.features(X), X), jax.jit(named.scores)(named.features(X), X)
    )


def test_tokens_are_no_picture():
    model = VisionTransformer(width=32, depth=1, heads=2, side=64, classes=7, rngs=nnx.Rngs(0))
    assert jaxcam.last_layer(model, X) == "conv_proj"


def test_a_map_of_one_position_is_none():
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")  # down to 1 x 1 in layer4
    model = small_resnet()
    assert jaxcam.layers(model, x)["layer4"].shape == (1, 1, 1, 64)
    assert jaxcam.last_layer(model, x) == "layer3"


def test_channels_first_are_moved_before_they_are_looked_at():
    class First(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Move(name="first")(nn.Conv(7, (3, 3), name="conv")(x))
            return nn.Dense(5)(Pool(name="pool")(x).reshape(len(x), -1))

    class Move(nn.Module):
        def __call__(self, a):
            return jnp.moveaxis(a, -1, 1)

    class Pool(nn.Module):
        def __call__(self, a):
            return a.mean((2, 3), keepdims=True)  # [batch, 7, 1, 1]

    variables = First().init(jax.random.key(0), X)
    to_map = lambda a: jnp.moveaxis(a, 1, -1)  # noqa: E731
    found = jaxcam.last_layer(First(), X, variables=variables, to_map=to_map)
    assert found == "first"
    assert jaxcam.last_layer(First(), X, variables=variables) == "pool"


def test_without_one_it_is_refused():
    variables = Vector().init(jax.random.key(0), X)
    with pytest.raises(JaxcamError, match=r"spatial extent; got none .* jaxcam\.layers lists"):
        jaxcam.last_layer(Vector(), X, variables=variables)
    with pytest.raises(JaxcamError, match=r"split\(model, 'auto'\)"):
        jaxcam.split(Vector(), variables=variables).features(X)


def test_a_call_without_a_name_is_refused():
    with pytest.raises(JaxcamError, match="no call= of a layer without a name; got call=1"):
        jaxcam.split(Vector(), call=1, variables={})


def test_new_weights_compile_nothing():
    traced = []

    @jax.jit
    def scores(split, x):
        traced.append(1)
        return split.scores(split.features(x), x)

    for seed in range(2):
        variables = Twice().init(jax.random.key(seed), X)
        scores(jaxcam.split(Twice(), variables=variables), X)
    assert len(traced) == 1
