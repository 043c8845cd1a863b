"""Which engine would serve at each layer, and what it would cost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcam
from jaxcam import zoo
from jaxcam.zoo.vit import VisionTransformer

X = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")


class Net(nn.Module):
    """A layer for every kind of answer."""

    @nn.compact
    def __call__(self, x):
        side = nn.Conv(2, (3, 3), name="aside")(x)
        self.sow("intermediates", "side", side)
        x = nn.gelu(nn.Conv(4, (3, 3), name="early")(x))
        conv = nn.Conv(4, (3, 3), name="late")
        x = nn.relu(conv(nn.relu(conv(x))))
        return nn.Dense(5, name="head")(x.mean((1, 2)))


VARIABLES = jax.eval_shape(Net().init, jax.random.key(0), X)


@pytest.fixture(scope="module")
def costs():
    return jaxcam.explain_layers(Net(), X, variables=VARIABLES)


def test_every_layer_has_its_answer(costs):
    assert list(costs) == list(jaxcam.layers(Net(), X, variables=VARIABLES))
    engines = {name: cost.engine for name, cost in costs.items()}
    assert engines == {
        "aside": None, "early": "powered", "late": "affine", "late call=1": "affine", "head": None,
    }  # fmt: skip
    assert costs["aside"].words == "the score does not depend on this layer"
    assert "spatial axis" in costs["head"].words
    assert costs["head"].shape == (2, 5)
    assert costs["late"].shape == (2, 8, 8, 4)


def test_costs_are_those_of_the_program_that_is_taken(costs):
    arrays = jax.tree.map(lambda v: jnp.ones(v.shape, v.dtype) / 10, (VARIABLES, X))
    variables, x = arrays
    split = jaxcam.split(Net(), "early", variables=variables)
    a = split.features(x[:1])
    decision = jaxcam.explain_engine(lambda a: split.scores(a[None], x[:1])[0, 0], a[0])
    (taken,) = [c for c in decision.candidates if c.name == decision.chosen]
    assert costs["early"].engine == taken.name
    # The same but for the class, which is an argument there and a constant here.
    assert costs["early"].operations == pytest.approx(taken.operations, rel=0.02)
    assert costs["late call=1"].operations < costs["late"].operations < costs["early"].operations
    forward = costs["late"].operations / costs["late"].passes
    assert forward == pytest.approx(costs["early"].operations / costs["early"].passes)
    # Three convolutions, which is nearly all there is: 2 * 9 * 64 * (3*2 + 3*4 + 4*4 + 4*4).
    convolutions = 2 * 9 * 64 * (3 * 4 + 2 * 4 * 4)
    assert convolutions < forward < 1.3 * convolutions


def test_some_layers_to_first_order_with_progress():
    seen = []
    found = jaxcam.explain_layers(
        Net(), X, names=["late call=1", "early"], order=1, variables=VARIABLES,
        progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert list(found) == ["late call=1", "early"]
    assert {cost.engine for cost in found.values()} == {"gradient"}
    assert seen == [(1, 2), (2, 2)]


def test_a_name_that_is_none_says_so():
    (cost,) = jaxcam.explain_layers(Net(), X, names=["lata"], variables=VARIABLES).values()
    assert cost.engine is None
    assert cost.shape == ()
    assert "Nearest: late" in cost.words


def test_targets_and_tokens():
    model = VisionTransformer(width=16, depth=1, heads=2, side=32, classes=3, rngs=nnx.Rngs(0))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    name = "encoder/layers/encoder_layer_0/ln_1"
    (cost,) = jaxcam.explain_layers(
        model, x, jaxcam.targets.softmax(), names=[name], to_map=jaxcam.tokens()
    ).values()
    assert cost.shape == (1, 2, 2, 16)
    assert cost.engine in ("adjoint", "directional")


def test_weights_need_not_exist():
    model = nnx.eval_shape(lambda: zoo.build("resnet18", classes=3, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    found = jaxcam.explain_layers(model, x, names=["layer4", "layer3", "fc"])
    assert [cost.engine for cost in found.values()] == ["affine", "affine", None]
    assert np.isclose(found["layer4"].passes, 0, atol=0.01)  # a pooled head
    assert 0.2 < found["layer3"].passes < 1
