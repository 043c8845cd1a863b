"""Functional Keras models on the JAX backend, of `keras.applications` and with what is odd."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own import CLASSES, SIZE, assert_is_the_model, assert_same_bits, drawn, explain, images

import jaxcam
from jaxcam import JaxcamError

pytestmark = pytest.mark.collections


@pytest.fixture(scope="module", autouse=True)
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    assert keras.config.backend() == "jax"
    return keras


def values(model):
    return [variable.value for variable in model.variables]


def own(model):
    """``model(x, training=False)`` by Keras's own ``stateless_call``, at given values."""

    def call(values, x):
        by_variable = {id(v): value for v, value in zip(model.variables, values, strict=True)}
        lists = (model.trainable_variables, model.non_trainable_variables)
        given = ([by_variable[id(v)] for v in variables] for variables in lists)
        return model.stateless_call(*given, x, training=False)[0]

    return call


def state(model):
    """What a call or a split could leave behind: nodes, flags, losses and names besides values."""
    every = model._flatten_layers()
    layers = [
        (layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes), layer.trainable)
        for layer in every
    ]
    return layers, len(model.losses), [np.array(value) for value in values(model)]


def unchanged(model, before):
    after = state(model)
    assert before[:2] == after[:2]
    assert_same_bits(before[2], after[2])


def redraw(model, seed=0):
    for variable, value in zip(model.variables, drawn(values(model), seed), strict=True):
        variable.assign(value)


def check(model, layers, x, **options):
    """All the layers, an explanation at the first, and that the model has not moved."""
    redraw(model)
    before = state(model)
    names = jaxcam.layers(model, x)
    for layer in layers:
        split = jaxcam.split(model, layer, **options)
        assert_is_the_model(split, own(model), values(model), x)
        assert names[layer].shape == split.features(x).shape
    explain(jaxcam.split(model, layers[0], **options), x)
    unchanged(model, before)
    return names


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("ResNet50", ["conv5_block3_2_conv", "conv4_block6_out", "conv3_block2_1_relu"]),
        ("EfficientNetB0", ["top_activation", "block6b_dwconv", "block4b_add"]),
        (
            "ConvNeXtTiny",
            [
                "convnext_tiny_stage_3_block_2_identity",
                "convnext_tiny_stage_3_block_1_depthwise_conv",
                "convnext_tiny_stem/convnext_tiny_stem_layernorm",
            ],
        ),
    ],
)
def test_applications(keras, name, layers):
    make = getattr(keras.applications, name)
    model = make(
        weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None
    )
    check(model, layers, images())
    for layer in layers:
        assert model.get_layer(layer.split("/")[0]).output is not None


@pytest.fixture
def residual(keras):
    """A residual block, a layer called twice, dropout, BatchNorm, and a model within the model."""
    inner = keras.Sequential(
        [keras.Input((None, None, 4)), keras.layers.Conv2D(4, 3, padding="same", name="conv.0")],
        name="inner",
    )
    twice = keras.layers.Conv2D(4, 3, padding="same", activation="gelu", name="twice")
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, name="stem")(x)
    y = keras.layers.Activation("tanh", name="tanh")(y)
    normed = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.Add(name="add")([y, inner(normed, training=True)])
    y = keras.layers.Dropout(0.5)(keras.ops.cos(twice(twice(y))), training=True)
    pooled = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, {"logits": keras.layers.Dense(5)(pooled), "pooled": pooled})


def small():
    return images(size=8)


def test_residuals_and_models_within_models(residual):
    layers = ["inner", "inner/conv.0", "norm", "add", "stem"]
    redraw(residual)
    before = state(residual)

    def logits(values, x):
        return own(residual)(values, x)["logits"]

    for layer in layers:
        split = jaxcam.split(residual, layer, logits="logits")
        assert_is_the_model(split, logits, values(residual), small())
    names = list(jaxcam.layers(residual, small()))
    assert names[:2] == ["stem", "tanh"]
    assert names[names.index("inner") + 1] == "inner/conv.0"
    assert [name for name in names if name.startswith("twice")] == ["twice", "twice call=1"]
    unchanged(residual, before)


def test_call_says_which_of_several_calls(residual):
    redraw(residual)
    first, second = (jaxcam.split(residual, "twice", call=call, logits="logits") for call in (0, 1))
    x, layer = small(), residual.get_layer("twice")
    np.testing.assert_array_equal(second.features(x), layer(first.features(x)))
    np.testing.assert_array_equal(
        first.scores(first.features(x) + 1, x),
        second.scores(layer(first.features(x) + 1), x),
    )
    with pytest.raises(JaxcamError, match=r"call=2, of a layer that is called 2 times"):
        jaxcam.split(residual, "twice", call=2, logits="logits").features(x)


def test_bypasses_are_not_replaced(residual):
    redraw(residual)
    x = small()
    added, inner = (jaxcam.split(residual, name, logits="logits") for name in ("add", "inner"))
    stem = jaxcam.split(residual, "tanh", logits="logits").features(x)
    a = jax.random.normal(jax.random.key(3), inner.features(x).shape)
    np.testing.assert_array_equal(inner.scores(a, x), added.scores(stem + a, x))


def test_new_values_reuse_the_compiled_program(residual):
    traces = []

    @jax.jit
    def explain(split, x):
        traces.append(1)
        return split.scores(split.features(x), x)

    kept = []
    for seed in (1, 2):
        redraw(residual, seed)
        split = jaxcam.split(residual, "inner/conv.0", logits="logits")
        expected = residual(small(), training=False)["logits"]
        np.testing.assert_allclose(explain(split, small()), expected, rtol=1e-5, atol=1e-6)
        kept.append((split, expected))
    assert len(traces) == 1
    for split, expected in kept:  # each with the values of its own
        np.testing.assert_array_equal(split.scores(split.features(small()), small()), expected)
    explain(jaxcam.split(residual, "norm", logits="logits"), small())
    assert len(traces) == 2


def test_weights_are_leaves_and_none_is_a_constant(residual):
    split = jaxcam.split(residual, "norm", logits="logits")
    both = jax.make_jaxpr(lambda split, x: split.scores(split.features(x), x))(split, small())
    assert not [constant for constant in both.consts if np.size(constant) > 1]
    assert len(jax.tree.leaves(split.scores)) == len(residual.variables)


def test_values_as_stateless_call_takes_them(residual):
    redraw(residual)
    lists = residual.trainable_variables, residual.non_trainable_variables
    given = tuple([2 * variable.value for variable in variables] for variables in lists)
    split = jaxcam.split(residual, "stem", variables=given, logits="logits")
    expected = residual.stateless_call(*given, small(), training=False)[0]["logits"]
    np.testing.assert_array_equal(split.scores(split.features(small()), small()), expected)
    residual.get_layer("twice").trainable = False  # reorders the lists, not the split
    np.testing.assert_array_equal(split.scores(split.features(small()), small()), expected)
    with pytest.raises(JaxcamError, match=r"variables= as stateless_call takes them"):
        jaxcam.split(residual, "stem", variables=given[0], logits="logits")


def test_masks_go_around_the_layer(keras):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 3)), jnp.float32).at[:, 4:].set(0.0)
    y = inputs = keras.Input((6, 3))
    y = keras.layers.Masking()(y)
    y = keras.layers.Dense(4, activation="tanh", name="target")(y)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(y))
    split = jaxcam.split(model, "target")
    a = jnp.array(split.features(x), copy=True)  # without the mask that Keras attached to its own
    np.testing.assert_array_equal(split.scores(a, x), model(x, training=False))
    np.testing.assert_allclose(split.scores(a, x), a[:, :4].mean(1), rtol=1e-6)
    assert getattr(a, "_keras_mask", None) is None


def test_mixed_precision(keras):
    x = inputs = keras.Input((8, 8, 3))
    for i in range(2):
        x = keras.layers.Conv2D(4, 3, activation="gelu", dtype="mixed_bfloat16", name=f"c{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(x))
    split = jaxcam.split(model, "c0")
    assert split.features(small()).dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        split.scores(split.features(small()), small()), model(small(), training=False)
    )


def test_refusals(keras, residual):
    class Mine(keras.Model):
        def call(self, x):
            return x

    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    for model in (Mine(), unbuilt, keras.layers.Dense(3)):
        with pytest.raises(JaxcamError, match=r"a functional Keras model .*keras\.Model\(inputs"):
            jaxcam.split(model, "dense")
        with pytest.raises(JaxcamError, match=r"a functional Keras model .*keras\.Model\(inputs"):
            jaxcam.layers(model, small())
    with pytest.raises(JaxcamError, match=r"'stam'.*Nearest: stem.*inner/conv\.0"):
        jaxcam.split(residual, "stam")
    with pytest.raises(JaxcamError, match="Layers: stem"):
        jaxcam.split(residual, "")
    with pytest.raises(JaxcamError, match=r"got training=.*training=False"):
        jaxcam.split(residual, "stem", training=False)
    with pytest.raises(JaxcamError, match=r"a model's output that is one array.*logits="):
        jaxcam.split(residual, "stem").features(small())
    with pytest.raises(JaxcamError, match=r"needs 1 inputs.*got 2"):
        jaxcam.split(residual, "stem", logits="class").features((small(), small()))


def test_another_backend_is_refused():
    """In a process of its own: the backend is chosen when Keras is imported."""
    program = (
        "import keras, jaxcam\n"
        "model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        "try: jaxcam.split(model, 'dense')\n"
        "except jaxcam.JaxcamError as error: print(error)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "needs Keras on its JAX backend; got the backend numpy" in done.stdout
    assert "KERAS_BACKEND=jax" in done.stdout


def test_keras_is_not_imported_before_a_model_of_it_comes():
    program = "import sys, jaxcam.split; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def siamese(keras, shared):
    """``shared`` on three inputs, of which the last is used first."""
    inputs = [keras.Input((4, 4, 1), name=name) for name in "abc"]
    outputs = [shared(x) for x in inputs]
    outputs[0] = keras.layers.ReLU()(outputs[0])
    pooled = [keras.layers.GlobalAveragePooling2D()(y) for y in reversed(outputs)]
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(pooled)))


def identity(keras, name):
    return keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name=name)


THREE = tuple(np.full((1, 4, 4, 1), value, np.float32) for value in (1.0, 2.0, 3.0))


def seen(model, layer, calls, x=THREE):
    found = (jaxcam.split(model, layer, call=call).features(x) for call in range(calls))
    return [float(a[0, 0, 0, 0]) for a in found]


def test_calls_are_counted_as_they_were_made(keras, tmp_path):
    shared = identity(keras, "conv")
    shared(keras.Input((4, 4, 1)))  # a node outside of the model
    model = siamese(keras, shared)
    assert seen(model, "conv", 3) == [1, 2, 3]
    names = [name for name in jaxcam.layers(model, list(THREE)) if "conv" in name]
    assert names == ["conv", "conv call=1", "conv call=2"]
    model.save(tmp_path / "model.keras")
    assert seen(keras.models.load_model(tmp_path / "model.keras"), "conv", 3) == [1, 2, 3]
    head = keras.Model(model.inputs, model.get_layer("concatenate").output)
    assert seen(head, "conv", 3) == [1, 2, 3]
    with pytest.raises(JaxcamError, match="call=3, of a layer that is called 3 times"):
        jaxcam.split(model, "conv", call=3).features(THREE)
    split = jaxcam.split(model, "conv", call=1)
    np.testing.assert_array_equal(split.scores(split.features(THREE), THREE), model(THREE))


def test_calls_within_models_within_models(keras):
    inner = keras.Input((4, 4, 1))
    conv = identity(keras, "conv")
    twice = keras.Model(inner, conv(keras.layers.Rescaling(10.0)(conv(inner))), name="twice")
    assert seen(siamese(keras, twice), "twice/conv", 6) == [1, 10, 2, 20, 3, 30]
    sequential = keras.Sequential([keras.Input((4, 4, 1)), identity(keras, "one")], name="within")
    assert seen(siamese(keras, sequential), "within/one", 3) == [1, 2, 3]


def test_lists_and_names_of_inputs(keras):
    model = siamese(keras, identity(keras, "conv"))
    split, method = jaxcam.split(model, "conv"), jaxcam.methods.grad_cam()
    of_tuple = jaxcam.cam(split, THREE, method, 1)
    by_name = dict(zip("abc", THREE, strict=True))
    for x in (list(THREE), by_name):
        np.testing.assert_array_equal(jaxcam.cam(split, x, method, 1).scores, of_tuple.scores)


@pytest.fixture
def always(keras):
    """Layers that do not heed ``training=False``, and a counter and a generator without harm."""

    class Dropout(keras.layers.Dropout):
        def call(self, x, training=None):
            return super().call(x, training=True)

    class Norm(keras.layers.BatchNormalization):
        def call(self, x, training=None, mask=None):
            return super().call(x, training=True)

    class Counter(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.seed = keras.random.SeedGenerator(1)

        def call(self, x):
            keras.random.normal((2,), seed=self.seed)
            self.calls.assign_add(1.0)
            return x

    def model(layer):
        x = keras.Input((8, 8, 3), batch_size=2)
        y = layer(keras.layers.Conv2D(4, 3, name="conv")(x))
        return keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(y)))

    made = {"dropout": Dropout(0.5), "norm": Norm(), "counter": Counter()}
    recurrent = [keras.layers.Reshape((36, 4)), keras.layers.LSTM(3, stateful=True)]
    made["states"] = lambda y: recurrent[1](recurrent[0](y))
    return {name: model(layer) for name, layer in made.items()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dropout", "asks for random numbers .*seed_generator_state"),
        ("norm", "updates its variables .*moving_mean"),
        ("states", "updates its variables .*rnn_state"),  # which model.variables leaves out
    ],
)
def test_layers_in_training_whatever_they_are_told(always, name, words):
    with pytest.raises(JaxcamError, match=f"evaluation mode; got one that {words}.*training=False"):
        jaxcam.split(always[name], "conv").features(small())


def test_what_changes_without_harm(always):
    split = jaxcam.split(always["counter"], "conv")
    scores = split.scores(split.features(small()), small())
    np.testing.assert_array_equal(scores, always["counter"](small()))


def sure(keras, activation):
    """Two models of the same weights, very sure, one with a last activation."""
    keras.utils.set_random_seed(1)
    y = inputs = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(y)
    head = keras.layers.Dense(5, kernel_initializer=keras.initializers.RandomNormal(stddev=150.0))
    y = head(keras.layers.GlobalAveragePooling2D()(y))
    return keras.Model(inputs, y), keras.Model(inputs, keras.layers.Activation(activation)(y))


@pytest.mark.filterwarnings("ignore:.*blank")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_last_activation_that_is_saturated(keras, activation):
    plain, activated = sure(keras, activation)
    assert activated(small(), training=False).max() == 1
    own = jax.nn.log_sigmoid if activation == "sigmoid" else None
    target = jaxcam.targets.softmax() if own is None else None
    expected = jaxcam.cam(
        jaxcam.split(plain, "conv", logits=own), small(), jaxcam.methods.taylor_cam(), target
    )
    found = jaxcam.cam(
        jaxcam.split(activated, "conv", logits=jnp.log), small(), jaxcam.methods.taylor_cam()
    )
    assert found.target.tolist() == expected.target.tolist()
    assert expected.map.max() > 0
    np.testing.assert_allclose(
        found.signed, expected.signed, rtol=1e-4, atol=1e-5 * float(expected.map.max())
    )
