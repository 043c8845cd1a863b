"""`jaxcam.split` and `jaxcam.layers` on flax.linen models, against the models' own outputs."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import normal, same_third_derivatives

from jaxcam.errors import JaxcamError
from jaxcam.split import layers, split

X = normal((2, 4, 4, 3))


class Bypass(nn.Module):
    """A residual block with the target inside the bypass, BatchNorm and a smooth layer."""

    train: bool = False

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(3, (3, 3), name="conv")(x)
        y = nn.BatchNorm(use_running_average=not self.train, name="norm")(y)
        return x + nn.gelu(y)


class Net(nn.Module):
    """``wrap(Bypass)`` twice, then pooling and a Dense layer."""

    wrap: Any = None

    @nn.compact
    def __call__(self, x, train=False, gain=None):
        block = self.wrap(Bypass) if self.wrap else Bypass
        x = block(train, name="one")(x)
        x = block(train, name="two")(x)
        x = x if gain is None else x * gain
        return nn.Dense(4, name="head")(x.mean((1, 2)))


class Twice(nn.Module):
    """One layer called twice, then an identity layer without parameters."""

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(3, (3, 3), name="conv")
        x = nn.tanh(conv(nn.tanh(conv(x))))
        return Named(name="last")(x).mean((1, 2))


class Named(nn.Module):
    """A named identity, as model collections use to expose what is behind a ReLU."""

    def __call__(self, x):
        return x


class Doubled(nn.Conv):
    """A layer whose call goes through ``super()``, twice the same path."""

    @nn.compact
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


class WithSuper(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Doubled(3, (3, 3), name="conv")(x).mean((1, 2))


class Structured(nn.Module):
    """A layer that returns a tuple of a dict, and a model that returns a pair."""

    @nn.compact
    def __call__(self, x):
        y, extra = Pair(name="pair")(x)
        head = nn.Dense(4)((y["map"] + extra).mean((1, 2)))
        return head, {"map": y["map"]}


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Conv(3, (3, 3))(x)
        return {"map": nn.tanh(y), "step": 3}, y * y


COMPILED, COMPILED_PAIR = nn.jit(Bypass), nn.jit(Pair)


class Alike(nn.Module):
    """Two blocks that nn.jit takes for the same, the first called twice."""

    @nn.compact
    def __call__(self, x):
        one, two = COMPILED(name="one"), COMPILED(name="two")
        return two(one(one(x))).mean((1, 2))


class CompiledPair(nn.Module):
    @nn.compact
    def __call__(self, x):
        y, extra = COMPILED_PAIR(name="pair")(x)
        return (y["map"] + extra).mean((1, 2))


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Conv(3, (3, 3), name="conv")(x), None


class Loops(nn.Module):
    """A layer before a scan, one in it and one in a vmap behind it."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="stem")(x)
        rngs = {"params": True}
        scan = nn.scan(Cell, variable_axes={"params": 0}, split_rngs=rngs, length=2)
        x, _ = scan(name="scan")(x, None)
        many = nn.vmap(Bypass, variable_axes={"params": 0, "batch_stats": 0}, split_rngs=rngs)
        return many(name="many")(x).mean((1, 2))


def init(model, x=X, seed=1):
    """Variables with nothing at zero, so that BatchNorm's statistics and biases matter."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.6, leaf.shape), leaf.dtype), shapes
    )


close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def own(model, variables, layer, x):
    """The slow, obvious way to a layer's output: everything that the model can be made to keep."""
    _, state = model.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    tree = state["intermediates"]
    for part in layer.split("/"):
        tree = tree[part]
    return tree["__call__"]


@pytest.mark.parametrize("layer", ["one", "two/norm", "two.conv"])
@pytest.mark.parametrize("wrap", [None, nn.remat, nn.jit], ids=["plain", "remat", "jit"])
def test_halves_are_the_model_to_the_last_bit(wrap, layer):
    model = Net(wrap)
    variables = init(model)
    features, scores = split(model, layer, variables=variables)
    apply = partial(model.apply, variables)
    a = features(X)
    # XLA fuses across the layer in a compiled block, and rounds otherwise once it is cut there.
    equal = close if wrap is nn.jit else np.testing.assert_array_equal
    equal(a, own(model, variables, layer.replace(".", "/"), X)[0])
    equal(scores(a, X), apply(X))
    np.testing.assert_array_equal(jax.jit(lambda x: scores(features(x), x))(X), jax.jit(apply)(X))
    assert jnp.abs(scores(a + 1, X) - apply(X)).max() > 1e-3


def tail_of_two(variables, one, a):
    """What `Net` computes behind ``two/conv``, by hand, from the output of ``one``."""
    norm, head = nn.BatchNorm(use_running_average=True), nn.Dense(4)
    stored = {name: variables[name]["two"]["norm"] for name in ("params", "batch_stats")}
    pooled = (one + nn.gelu(norm.apply(stored, a))).mean((1, 2))
    return head.apply({"params": variables["params"]["head"]}, pooled)


def test_what_goes_around_the_layer_comes_from_x():
    model = Net()
    variables = init(model)
    scores = split(model, "two/conv", variables=variables).scores
    a = normal(X.shape, seed=5)
    expected = tail_of_two(variables, own(model, variables, "one", X)[0], a)
    close(scores(a, X), expected)


@pytest.mark.parametrize("spatial", [(8,), (6, 6), (2, 4, 2)])
def test_any_number_of_spatial_axes(spatial):
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.Conv(5, (3,) * len(spatial), strides=2, name="conv")(x))
            return x.mean(tuple(range(1, x.ndim - 1)))

    x = normal((2, *spatial, 3))
    variables = init(Plain(), x)
    features, scores = split(Plain(), "conv", variables=variables)
    assert features(x).shape == (2, *(size // 2 for size in spatial), 5)
    np.testing.assert_array_equal(scores(features(x), x), Plain().apply(variables, x))


@pytest.mark.parametrize("wrap", [None, nn.remat, nn.jit], ids=["plain", "remat", "jit"])
def test_three_nested_derivatives_under_jit_and_vmap(wrap):
    """Along directions in the second block, against the tail written out by hand."""
    model = Net(wrap)
    variables = init(model)
    features, scores = split(model, "two/conv", variables=variables)
    a = features(X)
    tail = partial(tail_of_two, variables, own(model, variables, "one", X)[0])

    same_third_derivatives(lambda a: scores(a, X), tail, a)
    slope = jax.jit(jax.grad(lambda a: scores(a, X).sum()))(a)
    by_hand = jax.jit(jax.grad(lambda a: tail(a).sum()))(a)
    np.testing.assert_allclose(slope, by_hand, rtol=1e-4, atol=1e-6)


def test_batchnorm_runs_on_its_stored_statistics():
    model = Net()
    variables = init(model)
    features, scores = map(jax.jit, split(model, "one", variables=variables))
    one, both = features(X[:1]), features(X)
    close(one[0], both[0])
    close(scores(one, X[:1])[0], scores(both, X)[0])


def test_new_weights_reuse_the_compiled_program():
    traces = []

    @jax.jit
    def explain(split, x):
        traces.append(1)
        return split.scores(split.features(x), x)

    gain = jnp.full((1, 1, 1, 3), 2.0)
    for seed in (1, 2):
        model = Net()
        variables = init(model, seed=seed)
        halves = split(model, "one/conv", variables=variables, train=False, gain=gain * seed)
        expected = model.apply(variables, X, train=False, gain=gain * seed)
        close(explain(halves, X), expected)
    assert len(traces) == 1
    for other in ("one/norm", "two/conv"):
        explain(split(model, other, variables=variables, train=False, gain=gain), X)
    assert len(traces) == 3


def test_static_values_that_compare_equal_are_told_apart():
    variables = init(Net())
    halves = [split(Net(), "one", variables=variables, gain=gain) for gain in (1, 1.0, True)]
    one, *others = map(jax.tree.structure, halves)
    assert one not in others


def test_unhashable_models_compare_by_value():
    class Widths(nn.Module):
        widths: Any

        @nn.compact
        def __call__(self, x):
            for width in self.widths:
                x = nn.tanh(nn.Conv(width, (3, 3))(x))
            return x.mean((1, 2))

    def structure(widths):
        model = Widths(widths)
        return jax.tree.structure(split(model, "Conv_0", variables=init(model)))

    assert structure([3, 4]) == structure([3, 4])
    sites = [split(Widths([3, 4]), "Conv_0", variables={}).features.args[0] for _ in range(2)]
    assert hash(sites[0]) == hash(sites[1])
    assert structure([3, 4]) != structure([3, 5])
    array = np.ones(2)
    assert structure((3, 4)) != structure([3, 4])
    same, other = (jax.tree.structure(split(Widths(w), "c", variables={})) for w in (array, +array))
    assert same != other


def test_weights_are_leaves_and_none_is_a_constant():
    model = Net()
    variables = init(model)
    halves = split(model, "one/conv", variables=variables)
    assert len(jax.tree.leaves(halves)) == 2 * len(jax.tree.leaves(variables))
    jaxpr = jax.make_jaxpr(lambda split, x: split.scores(split.features(x), x))(halves, X)
    assert not jaxpr.consts


def test_a_split_keeps_the_weights_that_it_was_made_with():
    variables = dict(init(Net()))
    halves = split(Net(), "one", variables=variables)
    before = halves.features(X)
    variables["params"] = jax.tree.map(jnp.zeros_like, variables["params"])
    np.testing.assert_array_equal(halves.features(X), before)


@pytest.mark.parametrize("call", [0, 1])
def test_call_says_which_of_several_calls(call):
    model = Twice()
    variables = init(model)
    features, scores = split(model, "conv", variables=variables, call=call)
    a = features(X)
    np.testing.assert_array_equal(a, own(model, variables, "conv", X)[call])
    np.testing.assert_array_equal(scores(a, X), model.apply(variables, X))
    again = partial(nn.Conv(3, (3, 3)).apply, {"params": variables["params"]["conv"]})
    expected = nn.tanh(a + 1) if call else nn.tanh(again(nn.tanh(a + 1)))
    close(scores(a + 1, X), expected.mean((1, 2)))


def test_call_counts_calls_of_a_compiled_layer():
    model = Alike()
    variables = init(model)
    expected, y = own(model, variables, "one/conv", X), model.apply(variables, X)
    for call in (1, 0):
        features, scores = split(model, "one/conv", variables=variables, call=call)
        close(features(X), expected[call])
        close(scores(features(X), X), y)
    with pytest.raises(JaxcamError, match="called 2 times"):
        split(model, "one/conv", variables=variables, call=2).features(X)


def test_select_in_a_compiled_layer():
    model = CompiledPair()
    variables = init(model)
    output = own(model, variables, "pair/Conv_0", X)[0]
    for select, expected in {squares: output * output, tanh: nn.tanh(output)}.items():
        features, scores = split(model, "pair", variables=variables, select=select)
        close(features(X), expected)
        close(scores(features(X), X), model.apply(variables, X))


def test_modules_without_a_place_in_the_model_are_left_alone():
    class Loose(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Named(parent=None)(nn.Conv(3, (3, 3), name="conv")(x)).mean((1, 2))

    variables = init(Loose())
    features, scores = split(Loose(), "conv", variables=variables)
    np.testing.assert_array_equal(scores(features(X), X), Loose().apply(variables, X))
    assert list(layers(Loose(), X, variables=variables)) == ["conv"]


def test_super_call_counts_once():
    model = WithSuper()
    variables = init(model)
    features, scores = split(model, "conv", variables=variables)
    np.testing.assert_array_equal(features(X), own(model, variables, "conv", X)[-1])
    np.testing.assert_array_equal(scores(features(X), X), model.apply(variables, X))
    np.testing.assert_array_equal(scores(features(X) + 1, X), (features(X) + 1).mean((1, 2)))
    assert list(layers(model, X, variables=variables)) == ["conv"]


def test_compiled_blocks_of_the_user_stay_whole():
    """Neither do the caches of nn.jit hide a layer from us, nor do we leave anything in them."""
    model = Alike()
    variables = init(model)
    before = model.apply(variables, X)
    for layer in ("two/conv", "one/norm", "two/conv", "two"):
        features, scores = split(model, layer, variables=variables)
        moved = jax.jit(scores)(jax.jit(features)(X) + 1, X)
        assert jnp.abs(moved - before).max() > 1e-3
        names = [f"{block}{name}" for block in ("one", "two") for name in ("", "/conv", "/norm")]
        assert {name for name in layers(model, X, variables=variables) if " " not in name} == {
            *names
        }
        np.testing.assert_array_equal(model.apply(variables, X), before)
    gradient = jax.jit(jax.grad(lambda v: model.apply(v, X).sum()))(variables)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def logits_of(output):
    return output[0]


def squares(output):
    return output[1]


def tanh(output):
    return output[0]["map"]


@pytest.mark.parametrize("select", [1, squares])
@pytest.mark.parametrize("logits", [0, logits_of])
def test_select_and_logits_pick_from_structures(select, logits):
    model = Structured()
    variables = init(model)
    features, scores = split(model, "pair", variables=variables, select=select, logits=logits)
    expected, kept = model.apply(variables, X)
    _, squared = own(model, variables, "pair", X)[0]
    np.testing.assert_array_equal(features(X), squared)
    np.testing.assert_array_equal(scores(features(X), X), expected)
    head = variables["params"]["Dense_0"]
    moved = nn.Dense(4).apply({"params": head}, (kept["map"] + squared + 1).mean((1, 2)))
    close(scores(features(X) + 1, X), moved)


def test_logits_may_compute():
    class Probabilities(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.softmax(nn.Conv(4, (3, 3), name="conv")(x).mean((1, 2)))

    model = Probabilities()
    variables = init(model)
    features, scores = split(model, "conv", variables=variables, logits=jnp.log)
    np.testing.assert_array_equal(scores(features(X), X), jnp.log(model.apply(variables, X)))


def test_a_bound_model_brings_its_variables():
    variables = init(Net())
    bound = Net().bind(variables)
    features, scores = split(bound, "one", variables=None)
    np.testing.assert_array_equal(scores(features(X), X), Net().apply(variables, X))
    unbound = split(Net(), "one", variables=variables)
    assert jax.tree.structure(unbound) == jax.tree.structure(split(bound, "one"))


def test_layers_in_call_order_with_shapes():
    abstract = jax.ShapeDtypeStruct(X.shape, X.dtype)
    found = layers(Net(), abstract, variables=jax.eval_shape(Net().init, jax.random.key(0), X))
    inner = ["", "/conv", "/norm"]
    assert list(found) == [block + name for block in ("one", "two") for name in inner] + ["head"]
    assert found["one/conv"].shape == X.shape
    assert found["head"].shape == (2, 4)


@pytest.mark.parametrize("wrap", [nn.remat, nn.jit], ids=["remat", "jit"])
def test_layers_see_through_remat_and_jit(wrap):
    variables = init(Net())
    for _ in range(2):
        assert layers(Net(wrap), X, variables=variables) == layers(Net(), X, variables=variables)


def test_layers_give_structures_and_later_calls():
    found = layers(Structured(), X, variables=init(Structured()))
    assert list(found) == ["pair", "pair/Conv_0", "Dense_0"]
    first, second = found["pair"]
    assert first["map"].shape == second.shape == X.shape
    again = layers(Twice(), X, variables=init(Twice()))
    assert list(again) == ["conv", "conv call=1", "last"]


def test_layers_leave_loops_out():
    assert list(layers(Loops(), X, variables=init(Loops()))) == ["stem"]


def test_every_listed_layer_can_be_split():
    variables = init(Loops())
    for name, output in layers(Loops(), X, variables=variables).items():
        select = None if hasattr(output, "shape") else 0
        halves = split(Loops(), name, variables=variables, select=select)
        np.testing.assert_array_equal(
            halves.scores(halves.features(X), X), Loops().apply(variables, X)
        )


class Mapped(nn.Module):
    """A layer whose variables are mapped on the way to it, as weight normalisation does."""

    kind: str

    @nn.compact
    def __call__(self, x):
        if self.kind == "weight":
            x = nn.WeightNorm(nn.Conv(3, (1, 1), name="conv"), name="norm")(x)
        elif self.kind == "spectral":
            conv = nn.Conv(3, (1, 1), name="conv")
            x = nn.SpectralNorm(conv, name="norm")(x, update_stats=False)
        else:  # maps its parameters alone, or all there is
            collections = "params" if self.kind == "parameters" else True
            halved = nn.map_variables(
                nn.Conv, collections, lambda tree: jax.tree.map(lambda v: v / 2, tree),
                init=self.is_initializing(), mutable=self.kind == "everything",
            )  # fmt: skip
            x = halved(3, (1, 1), name="conv")(x)
        return nn.Dense(2, name="head")(nn.tanh(x).mean((1, 2)))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("weight", ["norm", "head"]),
        ("spectral", ["norm", "head"]),
        ("parameters", ["conv", "head"]),
        ("everything", ["head"]),
    ],
)
def test_layers_lists_what_can_be_split_where_variables_are_mapped(kind, names):
    x = normal((2, 4, 4, 3))
    model = Mapped(kind)
    variables = model.init(jax.random.key(1), x)
    assert list(layers(model, x, variables=variables)) == names
    if "conv" not in names:
        with pytest.raises(JaxcamError, match=r"variables are mapped on the way .*that maps them"):
            split(model, "conv", variables=variables).features(x)
    if names[0] != "head":
        features, scores = split(model, names[0], variables=variables)
        a = features(x)
        np.testing.assert_array_equal(scores(a, x), model.apply(variables, x))
        head = variables["params"]["head"]
        expected = jnp.tanh(a + 1).mean((1, 2)) @ head["kernel"] + head["bias"][None]
        np.testing.assert_allclose(scores(a + 1, x), expected, rtol=1e-5)
