"""The README's recipe for Equinox as it stands: unbatched CHW models, with BatchNorm's state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from own import assert_is_the_model, assert_same_bits, copied, drawn, explain, images
from pages import block, run

import jaxcam
from jaxcam import JaxcamError

pytestmark = pytest.mark.collections


@pytest.fixture(scope="module")
def network():
    """A small ResNet with dropout, in training mode, as training leaves it."""
    import equinox as eqx
    from equinox import nn

    class Block(eqx.Module):
        conv1: nn.Conv2d
        norm: nn.BatchNorm
        conv2: nn.Conv2d
        drop: nn.Dropout

        def __init__(self, width, key):
            one, two = jax.random.split(key)
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, key=one)
            self.norm = nn.BatchNorm(width, "batch", mode="ema")
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, key=two)
            self.drop = nn.Dropout(0.5)

        def __call__(self, x, state):
            y, state = self.norm(self.conv1(x), state)
            return x + self.drop(self.conv2(jax.nn.gelu(y))), state

    class ResNet(eqx.Module):
        stem: nn.Conv2d
        blocks: list
        head: nn.Linear

        def __init__(self, key):
            stem, one, two, head = jax.random.split(key, 4)
            self.stem = nn.Conv2d(3, 8, 3, 2, key=stem)
            self.blocks = [Block(8, one), Block(8, two)]
            self.head = nn.Linear(8, 5, key=head)

        def __call__(self, x, state):
            x = self.stem(x)
            for layer in self.blocks:
                x, state = layer(x, state)
            return self.head(x.mean((1, 2))), state

    made = nn.make_with_state(ResNet)(jax.random.key(0))
    arrays, static = eqx.partition(made, eqx.is_array)
    return eqx.combine(drawn(arrays), static)


@pytest.mark.parametrize("layer", ["blocks[1].conv2", "blocks[0].conv1", "stem"])
def test_the_recipe_is_the_model(network, layer):
    import equinox as eqx

    model, state = network
    before = copied(eqx.filter(network, eqx.is_array))
    code = block("eqx.tree_at")
    assert code.count("model.blocks[1].conv2") == 1
    names = run(code.replace("model.blocks[1].conv2", f"model.{layer}"), model=model, state=state)
    x = jnp.moveaxis(images(size=16), -1, 1)
    _, static = eqx.partition((eqx.nn.inference_mode(model), state), eqx.is_array)

    def own(weights, x):
        model, state = eqx.combine(weights, static)
        batched = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        return batched(x, state)[0]

    weights = eqx.filter((model, state), eqx.is_array)
    assert_is_the_model(names["split"], own, weights, x)
    a = names["split"].features(x)
    assert a.shape[0] == 2
    assert a.shape[-1] == 8
    if layer == "blocks[1].conv2":
        explain(names["split"], x)
    assert_same_bits(before, copied(eqx.filter(network, eqx.is_array)))
    assert not model.blocks[0].drop.inference


def test_bypasses_are_not_replaced(network):
    import equinox as eqx

    model, state = network
    split = run(block("eqx.tree_at"), model=model, state=state)["split"]
    x = jnp.moveaxis(images(size=16), -1, 1)
    a = jax.random.normal(jax.random.key(1), split.features(x).shape)
    inner = jax.vmap(model.stem)(x)
    first = eqx.nn.inference_mode(model.blocks[0])
    inner = jax.vmap(lambda x: first(x, state)[0])(inner)
    expected = jax.vmap(model.head)((inner + jnp.moveaxis(a, -1, 1)).mean((2, 3)))
    np.testing.assert_allclose(split.scores(a, x), expected, rtol=1e-5, atol=1e-6)


def test_new_weights_reuse_the_compiled_program(network):
    model, state = network
    names = run(block("eqx.tree_at"), model=model, state=state)
    traces = []

    @jax.jit
    def scores(split, x):
        traces.append(1)
        return split.scores(split.features(x), x)

    x = jnp.moveaxis(images(size=16), -1, 1)
    first = scores(names["split"], x)
    weights = drawn(names["weights"], seed=1)
    halves = (Partial(names[half], weights) for half in ("features", "scores"))
    assert jnp.abs(scores(jaxcam.Split(*halves), x) - first).max() > 1e-3
    assert len(traces) == 1


def test_a_layer_that_is_called_twice_is_refused():
    """Its first output would stand for both."""
    import equinox as eqx

    class Twice(eqx.Module):
        blocks: list

        def __call__(self, x, state):
            conv = self.blocks[1].conv2
            return conv(jnp.tanh(conv(x))).mean((1, 2)), state

    class Block(eqx.Module):
        conv2: eqx.nn.Conv2d

    block_of_two = Block(eqx.nn.Conv2d(3, 3, 1, key=jax.random.key(0)))
    model = Twice([None, block_of_two])
    split = run(block("eqx.tree_at"), model=model, state=eqx.nn.State(model))["split"]
    x = jnp.moveaxis(images(size=8), -1, 1)
    with pytest.raises(AssertionError, match="called 2 times"):
        split.features(x)
    with pytest.raises(JaxcamError, match="called 2 times"):
        jaxcam.cam(split, x, jaxcam.methods.grad_cam())
