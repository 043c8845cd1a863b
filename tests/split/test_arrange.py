"""Tokens and transposed channels as maps: what goes in comes back, and the rest stays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import normal

import jaxcam
from jaxcam.errors import JaxcamError
from jaxcam.zoo.vit import VisionTransformer

X = normal((2, 64, 64, 3))
LAYERS = (
    "encoder.layers.encoder_layer_1.ln_1",
    "encoder.layers.encoder_layer_0",
    "encoder.layers.encoder_layer_1.self_attention.in_proj",
)


@pytest.fixture(scope="module")
def model():
    made = VisionTransformer(width=32, depth=2, heads=2, side=64, classes=7, rngs=nnx.Rngs(0))
    made.eval()
    return made


@pytest.mark.parametrize("layer", LAYERS)
def test_tokens_go_back_where_they_came_from(model, layer):
    split = jaxcam.split(model, layer, to_map=jaxcam.tokens())
    whole = jaxcam.split(model, layer)
    a = split.features(X)
    assert a.shape == (2, 4, 4, whole.features(X).shape[-1])
    np.testing.assert_array_equal(a.reshape(2, 16, -1), whole.features(X)[:, 1:])
    np.testing.assert_array_equal(split.scores(a, X), model(X))
    jitted = jax.jit(lambda x: split.scores(split.features(x), x))
    np.testing.assert_allclose(jitted(X), model(X), rtol=1e-5, atol=1e-6)


def test_what_is_put_in_is_what_the_network_sees_and_the_class_token_stays(model):
    split = jaxcam.split(model, LAYERS[0], to_map=jaxcam.tokens())
    whole = jaxcam.split(model, LAYERS[0])
    other = normal(split.features(X).shape, seed=1)
    by_hand = jnp.concatenate([whole.features(X)[:, :1], other.reshape(2, 16, -1)], axis=1)
    np.testing.assert_array_equal(split.scores(other, X), whole.scores(by_hand, X))
    assert abs(split.scores(other, X) - model(X)).max() > 1e-2


def test_the_derivatives_are_those_of_the_tokens(model):
    split = jaxcam.split(model, LAYERS[0], to_map=jaxcam.tokens())
    whole = jaxcam.split(model, LAYERS[0])
    found = jaxcam.cam(split, X, jaxcam.methods.taylor_cam(order=1), 3)
    tokens = whole.features(X)
    slope = jax.grad(lambda t: whole.scores(t, X)[:, 3].sum())(tokens)
    expected = (slope * tokens)[:, 1:].sum(-1).reshape(2, 4, 4)
    np.testing.assert_allclose(found.signed, expected, rtol=1e-4, atol=1e-7)


def test_channels_that_come_first_are_moved_to_the_end():
    class First(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0))
            self.flip = Flip()

        def __call__(self, x):
            return jnp.tanh(self.flip(self.conv(x))).mean((2, 3))

    class Flip(nnx.Module):
        def __call__(self, a):
            return jnp.moveaxis(a, -1, 1)

    model = First()
    split = jaxcam.split(model, "flip", to_map=lambda a: jnp.moveaxis(a, 1, -1))
    a = split.features(X)
    np.testing.assert_array_equal(a, model.conv(X))
    np.testing.assert_array_equal(split.scores(a, X), model(X))
    jaxpr = str(jax.make_jaxpr(split.scores)(a, X))
    assert "select_n" not in jaxpr  # nothing stays, so nothing is chosen


def test_new_tokens_of_the_same_kind_compile_nothing(model):
    traced = []

    @jax.jit
    def scores(split, x):
        traced.append(1)
        return split.scores(split.features(x), x)

    for _ in range(2):
        scores(jaxcam.split(model, LAYERS[0], to_map=jaxcam.tokens(before=1)), X)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("to_map", "words"),
    [
        (lambda t: 2 * t[:, 1:].reshape(2, 4, 4, -1), "one that computes"),
        (lambda t: t[:, 1:].reshape(2, 4, 4, -1) + 1, "one that computes"),
        (lambda t: jnp.stack([t[:, 1:], t[:, 1:]], 1), "takes an element twice"),
        (lambda t: t.reshape(2, 3, 3, -1), "on which it raised TypeError"),
        (jaxcam.tokens(before=0), "tokens of a square picture; got 4 x 4"),
        (jaxcam.tokens(grid=(3, 5)), "a grid of 16 tokens; got 3 x 5"),
        (jaxcam.tokens(before=17), r"needs tokens \[batch, 17 \+ rows \* columns, k\]"),
    ],
)
def test_what_cannot_be_undone_is_refused(model, to_map, words):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.split(model, LAYERS[0], to_map=to_map).features(X)


def test_activations_of_another_shape_are_refused(model):
    split = jaxcam.split(model, LAYERS[0], to_map=jaxcam.tokens())
    with pytest.raises(JaxcamError, match=r"float32\[2,4,4,32\]; got float32\[2,4,5,32\]"):
        split.scores(jnp.ones((2, 4, 5, 32)), X)


@pytest.mark.parametrize(("call", "words"), [
    (lambda m: jaxcam.split(m, "conv_proj", to_map="tokens"), "a function for to_map="),
    (lambda m: jaxcam.tokens(before=-1), "before= of 0 or more; got -1"),
    (lambda m: jaxcam.tokens(before=True), "before= of 0 or more; got True"),
])  # fmt: skip
def test_options_are_refused_at_once(model, call, words):
    with pytest.raises(JaxcamError, match=words):
        call(model)


def test_a_compiled_layer_is_not_taken_for_another_arrangement():
    """``nn.jit`` caches what it traced, by the variables that it sees: to_map is one of them."""
    jitted = nn.jit(nn.Conv)

    class Compiled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jitted(4, (3, 3), name="conv")(x).reshape(len(x), -1)

    x = X[:, :8, :8]
    variables = Compiled().init(jax.random.key(0), x)
    turned = lambda a: jnp.swapaxes(a, 1, 2)  # noqa: E731
    for to_map in (None, turned):
        split = jaxcam.split(Compiled(), "conv", variables=variables, to_map=to_map)
        expected = Compiled().apply(variables, x)
        np.testing.assert_array_equal(split.scores(split.features(x), x), expected)
