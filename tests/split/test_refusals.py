"""What `jaxcam.split` and `jaxcam.layers` refuse, when, and in which words."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import normal

from jaxcam.errors import JaxcamError
from jaxcam.split import last_layer, layers, split

X = normal((2, 4, 4, 3))


def conv(name=None):
    return nn.Conv(3, (3, 3), name=name)


class Convs(nn.Module):
    """Called layers ``conv_0`` … and one that is set up but never called."""

    depth: int = 2

    def setup(self):
        self.conv = [conv() for _ in range(self.depth)]
        self.idle = conv()
        self.head = nn.Dense(4)

    def __call__(self, x, mask=None, names=None):
        for layer in self.conv:
            x = nn.tanh(layer(x))
        return self.head(x.mean((1, 2)))


class Scanned(nn.Module):
    """A scan whose length is the batch size, so that a slice of ``a`` would fit as well."""

    lifted: Any = "params"

    @nn.compact
    def __call__(self, x):
        class Cell(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(conv("conv")(x)), None

        x = conv("stem")(x)
        split_rngs = {"params": True}
        scan = nn.scan(Cell, variable_axes={self.lifted: 0}, split_rngs=split_rngs, length=2)
        return scan(name="scan")(x, None)[0].mean((1, 2))


class Mapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        many = nn.vmap(nn.Conv, variable_axes={"params": 0}, split_rngs={"params": True})
        return many(3, (3, 3), name="many")(conv("stem")(x)).mean((1, 2))


class Branched(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = conv("branch")
        if self.is_initializing():
            return layer(x).mean((1, 2))
        x = conv("stem")(x) if self.has_variable("params", "stem") else x
        run, skip = (lambda layer, x: layer(x)), (lambda layer, x: x)
        return nn.cond(x.sum() > 0, run, skip, layer, x).mean((1, 2))


class Training(nn.Module):
    @nn.compact
    def __call__(self, x, train=True, noisy=False):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dropout(0.5, deterministic=not noisy)(x).mean((1, 2))


class Outputs(nn.Module):
    """Whatever ``form`` makes of a layer's output, from the layer or from the model."""

    layer: Any = None
    model: Any = None

    @nn.compact
    def __call__(self, x):
        class Inner(nn.Module):
            form: Any

            @nn.compact
            def __call__(self, x):
                y = nn.tanh(conv()(x))
                return self.form(y) if self.form else y

        y = Inner(self.layer, name="inner")(x)
        y = jax.tree.leaves(y)[0]
        y = y.reshape(y.shape[0], -1)[:, :4].astype(x.dtype)
        return self.model(y) if self.model else y


class Stack(nnx.Module):
    """Blocks with a leading axis, run by ``loop``."""

    def __init__(self, loop):
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(key):
            return nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(key))

        self.loop = loop
        self.stem = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))
        self.stack = make(jax.random.split(jax.random.key(0), 2))
        self.idle = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.loop(self.stack, self.stem(x)).mean((1, 2))


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def scanned(layer, x):
    return nnx.tanh(layer(x))


@nnx.vmap(in_axes=(0, 0), out_axes=0)
def mapped(layer, x):
    return layer(x)


class Inside(nnx.Module):
    """A layer within a plain transformation of JAX, which cannot hand out what it computes."""

    def __init__(self, transform):
        self.transform = transform
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.transform(self.conv)(x).mean((1, 2))


def init(model, x=X):
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)


def run(model, layer, x=X, **options):
    """Both halves under one trace; the linen models bring their variables."""
    variables = init(model) if isinstance(model, nn.Module) else None

    def both(x):
        features, scores = split(model, layer, variables=variables, **options)
        return scores(features(x), x)

    return jax.eval_shape(both, x)


def check(words, function, /, *args, **kwargs):
    """The call is refused in the library's form of message, and with all of these words."""
    with pytest.raises(JaxcamError, match=r"(?s): needs .+; got .+\. ") as raised:
        function(*args, **kwargs)
    for word in words:
        assert word in str(raised.value), f"{word!r} is missing in: {raised.value}"


def test_unknown_layer_names_the_nearest_and_lists_all():
    check(["'conv_9'", "Nearest: conv_1, conv_0", "Layers:", "head"], run, Convs(), "conv_9")
    check(["Nearest: stem", "Layers:"], run, Stack(scanned), "sten")


def test_a_long_list_is_capped():
    model = Convs(30)
    with pytest.raises(JaxcamError) as raised:
        run(model, "nothing")
    assert "conv_19 and 11 more, which jaxcam.layers" in str(raised.value)
    assert "conv_20" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "/", "."])
def test_the_whole_model_is_no_layer(name):
    check(["jaxcam.layers"], split, Convs(), name, variables={"params": {}})
    check(["Layers: ", "stem"], split, Stack(scanned), name)


def test_names_are_strings():
    check(["got a NoneType"], split, Convs(), None, variables={"params": {}})
    check(["got a tuple"], split, Stack(scanned), ("stem",))


def test_nnx_names_are_checked_at_once():
    for name in ("stem/kernel", "stem/0", "loop", "stack/3", "idle/0/1"):
        check([repr(name), "Layers: "], split, Stack(scanned), name)


def test_a_layer_that_is_never_called():
    check(["'idle'", "a layer that the model calls"], run, Convs(), "idle")
    check(["'idle'", "a layer that the model calls"], run, Stack(scanned), "idle")


def test_call_out_of_range():
    check(["0 to 0", "call=1", "called once"], run, Convs(), "conv_0", call=1)
    check(["call= from 0", "-1"], split, Convs(), "conv_0", variables={}, call=-1)


@pytest.mark.parametrize("half", [0, 1], ids=["features", "scores"])
@pytest.mark.parametrize(
    ("model", "layer", "inside"),
    [
        (Scanned(), "scan/conv", "scan"),
        (Scanned(True), "scan/conv", "scan"),
        (Mapped(), "many", "vmap"),
        (Branched(), "branch", "cond"),
        (Stack(scanned), "stack", "scan"),
        (Stack(mapped), "stack", "vmap"),
        (Inside(jax.vmap), "conv", "vmap"),
    ],
)
def test_layers_inside_loops(model, layer, inside, half):
    """Each half by itself: nothing is replaced in every iteration, or in some."""
    variables = init(model) if isinstance(model, nn.Module) else None
    halves = split(model, layer, variables=variables)
    args = (X,) if half == 0 else (X, X)
    check([f"inside a {inside}"], jax.jit(halves[half]), *args)
    assert layer not in layers(model, X, variables=variables)


def test_a_branch_does_not_hide_the_other_layers():
    model = Branched()
    variables = init(model)
    variables["params"]["stem"] = variables["params"]["branch"]
    assert list(layers(model, X, variables=variables)) == ["stem"]
    features, scores = split(model, "stem", variables=variables)
    np.testing.assert_array_equal(scores(features(X), X), model.apply(variables, X))


def test_plain_transformations_of_jax_around_an_nnx_layer():
    check(["nnx.remat"], run, Inside(jax.checkpoint), "conv")


@pytest.mark.parametrize("model", [jax.jit(Convs().apply), Convs().apply, lambda x: x, 3])
def test_functions_are_pairs_and_not_models(model):
    words = ["flax.linen or flax.nnx module", "jaxcam.Split(Partial(features, params), Partial("]
    check(words, split, model, "conv")
    check(words, layers, model, X)
    if hasattr(model, "lower"):
        check(["a compiled function"], split, model, "conv")


def test_classes_are_not_models():
    check(["the class Convs", "Make an instance"], split, Convs, "conv")


def test_variables():
    check(["variables=", "got none"], split, Convs(), "conv_0")
    check(["variables=", "got a list"], split, Convs(), "conv_0", variables=[1])
    check(["no variables=", "got a dict"], split, Stack(scanned), "stem", variables={})
    params = init(Convs())["params"]
    with pytest.raises(JaxcamError, match=r"the variables of this model, .* got others"):
        split(Convs(), "conv_0", variables={"params": {}}).features(X)
    with pytest.raises(JaxcamError, match=r"the variables of this model, .* got others"):
        split(Convs(), "conv_0", variables=params).features(X)


def test_training_mode():
    check(["evaluation mode", "updates its variables", "train=False"], run, Training(), "norm")
    noisy = {"train": False, "noisy": True}
    check(["evaluation mode", "random numbers", "rngs="], run, Training(), "norm", **noisy)
    keyed = {**noisy, "rngs": {"dropout": jax.random.key(0)}}
    assert run(Training(), "norm", **keyed).shape == (2, 3)
    assert run(Training(), "norm", train=False).shape == (2, 3)


def test_arguments_of_apply_that_are_taken():
    check(["got mutable="], split, Convs(), "conv_0", variables={}, mutable=True)


def test_static_arguments_without_a_hash():
    check(["hashable", "a set"], split, Convs(), "conv_0", variables={}, names={"a"})
    mask = {"mask": [jnp.ones(3), "kept"]}
    assert run(Convs(), "conv_0", **mask).shape == (2, 4)


def pair(y):
    return y, {"double": 2 * y}


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (None, ["one array", "tuple(float32[2,4,4,3], {'double': float32[2,4,4,3]})", "select="]),
        (2, ["select=2", "pick one array"]),
        ("double", ["select='double'", "pick one array"]),
        (lambda out: out[1], ["pick one array"]),
        (lambda out: out[0] + out[1]["double"], ["as it is", "computed"]),
        (lambda out: 3, ["pick one array"]),
        ([0], ["an index, a key or a function"]),
    ],
)
def test_a_layer_that_returns_a_structure(select, words):
    check(words, run, Outputs(layer=pair), "inner", select=select)


def test_select_and_logits_do_not_index_arrays():
    check(["Leave select= away"], run, Outputs(), "inner", select=0)
    check(["Leave logits= away"], run, Outputs(), "inner", logits=0)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda y: y.mean((1, 2)), ["float32[2,3]", "no spatial axis"]),
        (lambda y: y.mean((1, 2, 3)), ["float32[2]", "batch axis"]),
        (lambda y: y.reshape(4, 2, 4, 3), ["float32[4,2,4,3]", "batch axis"]),
        (lambda y: y.astype(int), ["int32[2,4,4,3]", "floating"]),
    ],
)
def test_layers_without_a_map(form, words):
    check(words, run, Outputs(layer=form), "inner")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (pair, ["a model's output that is one array", "logits="]),
        (lambda y: y[0], ["scores [batch, classes]", "float32[4]"]),
        (lambda y: y[:1], ["scores [batch, classes]", "float32[1,4]"]),
        (lambda y: y > 0, ["floating scores [batch, classes]", "bool[2,4]"]),
    ],
)
def test_models_without_scores(form, words):
    check(words, run, Outputs(model=form), "inner")
    variables = init(Outputs())
    scores = split(Outputs(model=form), "inner", variables=variables).scores
    check(words, scores, X, X)


def test_an_input_without_its_batch_axis():
    model = Convs()
    features = split(model, "conv_0", variables=init(model)).features
    check(["x with its batch axis", "ScopeParamShapeError"], features, X[0])
    features = split(Inside(lambda layer: layer), "conv").features
    check(["scores [batch, classes]", "x with its batch axis"], features, X[0])


@pytest.mark.parametrize("shape", [(2, 4, 4, 5), (2, 4, 3)])
def test_activations_of_another_shape(shape):
    model = Convs()
    scores = split(model, "conv_0", variables=init(model)).scores
    got = ",".join(map(str, shape))
    check(["float32[2,4,4,3]", f"got float32[{got}]"], scores, jnp.ones(shape), X)
    check(["for x float32[1,4,4,3]", "batch axis"], scores, X, X[:1])


def test_a_failed_call_leaves_the_model_usable():
    block = nn.jit(nn.Conv)

    class Compiled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return block(3, (3, 3), name="conv")(x).mean((1, 2))

    model = Compiled()
    variables = init(model)
    halves = split(model, "conv", variables=variables)
    with pytest.raises(JaxcamError):
        jax.jit(halves.scores)(X[..., :2], X)
    apply = partial(model.apply, variables)
    np.testing.assert_array_equal(halves.scores(halves.features(X), X), apply(X))
    np.testing.assert_allclose(
        jax.jit(apply)(X), jax.jit(halves.scores)(halves.features(X), X), rtol=1e-5
    )


def test_errors_of_the_model_itself_stay_below_ours():
    model = Convs()
    calls = (
        lambda: run(model, "conv_0", unknown=1),
        lambda: layers(model, X, variables=init(model), unknown=1),
    )
    for call in calls:
        with pytest.raises(JaxcamError, match=r"a network that runs on x.*own call") as raised:
            call()
        assert isinstance(raised.value.__cause__, TypeError)
    model = Inside(lambda layer: layer)
    for call in (layers, last_layer):
        check(["x of shape (1, 4, 4, 5)", "feature dimension"], call, model, jnp.ones((1, 4, 4, 5)))
    check(["select=", "raised TypeError"], run, model, "conv", select=lambda a: a["map"])
    check(["got a Conv"], split, model, model.conv)
