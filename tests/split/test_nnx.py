"""`jaxcam.split` and `jaxcam.layers` on flax.nnx models, in graph mode and in tree mode."""

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import normal, same_third_derivatives

from jaxcam.errors import JaxcamError
from jaxcam.split import layers, split

X = normal((2, 4, 4, 3))


@pytest.fixture(params=[True, False], ids=["graph", "tree"])
def graph(request):
    """Both modes of nnx; the library follows what the model needs, not the setting."""
    with nnx.set_graph_mode(request.param):
        yield request.param


class Block(nnx.Module):
    """A residual block with the target in the bypass, BatchNorm, dropout and a smooth layer."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.drop(nnx.gelu(self.norm(self.conv(x))))


def plain(block, x):
    return block(x)


@nnx.jit
def compiled(block, x):
    return block(x)


@nnx.remat
def recomputed(block, x):
    return block(x)


class Net(nnx.Module):
    """A list of two blocks, each called through ``wrap``, then pooling and a linear layer."""

    def __init__(self, wrap=plain, seed=0):
        rngs = nnx.Rngs(seed)
        self.wrap = wrap
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(3, 4, rngs=rngs)
        perturb(self, seed)

    def __call__(self, x, gain=None):
        for block in self.blocks:
            x = self.wrap(block, x)
        x = x if gain is None else x * gain
        return self.head(x.mean((1, 2)))


class Twice(nnx.Module):
    """One layer under two names, called three times; one that is never called."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.alias = nnx.Dict(same=self.conv)
        self.unused = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.tanh(self.conv(x))
        x = nnx.tanh(self.alias["same"](x))
        return self.conv(x).mean((1, 2))


class Stack(nnx.Module):
    """A stem, a stack of blocks under ``nnx.scan``, and a block behind it."""

    def __init__(self):
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(key):
            return nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(key))

        self.stem = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(0))
        self.stack = make(jax.random.split(jax.random.key(0), 2))
        self.last = nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(1))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer, x):
            return x + nnx.tanh(layer(x))

        x = run(self.stack, nnx.tanh(self.stem(x)))
        return (x + nnx.gelu(self.last(x))).mean((1, 2))


class Doubled(nnx.Conv):
    """A layer whose call goes through ``super()``, and that returns a structure."""

    def __call__(self, inputs: Any) -> Any:
        y = super().__call__(inputs)
        return {"twice": 2 * y, "once": y}


class Structured(nnx.Module):
    def __init__(self):
        self.conv = Doubled(3, 4, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x, *, rngs=None):
        y = self.conv(x)
        shift = 0.0 if rngs is None else rngs.noise.normal((1, 1))
        return (y["twice"] * y["once"]).mean((1, 2)) + shift, y


def perturb(model, seed):
    """Statistics and weights with nothing at zero."""
    rng = np.random.default_rng(seed)

    def drawn(leaf):
        return jnp.asarray(rng.uniform(0.1, 0.6, leaf.shape), leaf.dtype)

    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    nnx.update(model, jax.tree.map(drawn, state))


close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def evaluated(model):
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def merged(state, x):
    return nnx.merge(*state, copy=True)(x)


def inventory(model):
    """Everything that a call could change: values, their order, mode flags, classes, attributes."""
    modules = {}
    for path, node in nnx.iter_graph(model, graph=True):
        if isinstance(node, nnx.Module):
            flags = [getattr(node, flag, None) for flag in ("deterministic", "use_running_average")]
            modules[path] = (type(node), id(node), sorted(vars(node)), flags)
    leaves = jax.tree.leaves(nnx.state(model, graph=True))
    return modules, [
        np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in leaves
    ]


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def assert_same(one, other):
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1])
    for before, after in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("layer", ["blocks/0/conv", "blocks.1.norm"])
@pytest.mark.parametrize("wrap", [plain, compiled, recomputed])
def test_halves_are_the_model_to_the_last_bit(graph, wrap, layer):
    model = Net(wrap)
    own = evaluated(model)
    features, scores = split(model, layer)
    a = features(X)
    # XLA fuses across the layer in a compiled block, and rounds otherwise once it is cut there.
    equal = close if wrap is compiled else np.testing.assert_array_equal
    equal(scores(a, X), own(X))
    state = nnx.split(own)
    jitted = jax.jit(partial(merged, state))
    np.testing.assert_array_equal(jax.jit(lambda x: scores(features(x), x))(X), jitted(X))
    assert jnp.abs(scores(a + 1, X) - own(X)).max() > 1e-3


def test_features_are_what_the_layer_returns(graph):
    model = Net()
    own = evaluated(model)
    inner = own.blocks[0](X)
    np.testing.assert_array_equal(split(model, "blocks/0").features(X), inner)
    a = own.blocks[1].conv(inner)
    features, scores = split(model, "blocks/1/conv")
    np.testing.assert_array_equal(features(X), a)
    expected = own.head((inner + nnx.gelu(own.blocks[1].norm(a + 1))).mean((1, 2)))
    close(scores(a + 1, X), expected)


@pytest.mark.parametrize("spatial", [(8,), (2, 4, 2)])
def test_any_number_of_spatial_axes(spatial):
    conv = nnx.Conv(3, 5, (3,) * len(spatial), strides=2, rngs=nnx.Rngs(0))
    model = nnx.Sequential(conv, nnx.tanh, lambda x: x.reshape(2, -1, 5).mean(1))
    x = normal((2, *spatial, 3))
    features, scores = split(model, "layers/0")
    np.testing.assert_array_equal(features(x), conv(x))
    np.testing.assert_array_equal(scores(features(x), x), model(x))


@pytest.mark.parametrize("wrap", [plain, recomputed, compiled])
def test_three_nested_derivatives_under_jit_and_vmap(wrap):
    """Along directions in the second block, against the tail written out by hand."""
    model = Net(wrap)
    own = evaluated(model)
    inner = own.blocks[0](X)
    features, scores = split(model, "blocks/1/conv")
    a = features(X)

    def tail(a):
        return own.head((inner + nnx.gelu(own.blocks[1].norm(a))).mean((1, 2)))

    same_third_derivatives(lambda a: scores(a, X), tail, a)


@pytest.mark.parametrize("wrap", [plain, compiled])
def test_the_model_stays_as_it_is(graph, wrap):
    model = Net(wrap)
    model.train()
    before = inventory(model)
    features, scores = split(model, "blocks/0/norm")
    jax.jit(scores)(jax.jit(features)(X), X)
    scores(features(X), X)
    layers(model, X)
    assert_same(before, inventory(model))
    with pytest.raises(JaxcamError):
        split(model, "blocks/0/normal")
    with pytest.raises(JaxcamError):
        split(model, "blocks/0/norm", call=3).features(X)
    with pytest.raises(JaxcamError, match="unexpected keyword"):
        split(model, "blocks/0/norm", unknown=3).features(X)
    with pytest.raises(ValueError, match="feature dimension"):
        features(X[..., :2])
    assert_same(before, inventory(model))


def test_evaluation_mode_whatever_the_model_is_in():
    model = Net()
    model.train()
    training = split(model, "blocks/0")
    model.eval()
    np.testing.assert_array_equal(training.features(X), split(model, "blocks/0").features(X))
    np.testing.assert_allclose(
        training.features(X[:1])[0], training.features(X)[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("by_reference", [False, True])
def test_a_split_keeps_the_weights_that_it_was_made_with(by_reference):
    with nnx.var_defaults(ref=by_reference):
        model = Twice()
    features, scores = halves = split(model, "conv")
    a, y = features(X), scores(features(X), X)
    assert jax.jit(lambda split, x: split.features(x))(halves, X).shape == a.shape
    model.conv.kernel[...] = 2 * model.conv.kernel[...]
    np.testing.assert_array_equal(features(X), a)
    np.testing.assert_array_equal(scores(a, X), y)
    assert jnp.abs(split(model, "conv").features(X) - a).max() > 1e-3


def test_new_weights_reuse_the_compiled_program(graph):
    traces = []

    @jax.jit
    def explain(split, x):
        traces.append(1)
        return split.scores(split.features(x), x)

    gain = jnp.full((1, 1, 1, 3), 2.0)
    model = Net()
    for seed in (1, 2):
        perturb(model, seed)
        halves = split(model, "blocks/0/conv", gain=gain * seed)
        expected = evaluated(model)(X, gain * seed)
        close(explain(halves, X), expected)
    explain(split(Net(seed=3), "blocks/0/conv", gain=gain), X)
    assert len(traces) == 1
    explain(split(model, "blocks/1/conv", gain=gain), X)
    assert len(traces) == 2


def test_compiled_blocks_of_the_model_are_compiled_once(graph):
    traces = []

    @nnx.jit
    def counted(block, x):
        traces.append(1)
        return block(x)

    model = Net(counted)
    for seed in (1, 2):
        perturb(model, seed)
        features, scores = split(model, "blocks/1/conv")
        scores(features(X), X)
        if seed == 1:
            first = len(traces)
    assert len(traces) == first


def test_weights_are_leaves_and_none_is_a_constant():
    halves = split(Net(), "blocks/0/conv")
    jaxpr = jax.make_jaxpr(lambda split, x: split.scores(split.features(x), x))(halves, X)
    assert not jaxpr.consts

    def total(weights):
        return halves.features.func(halves.features.args[0], weights, (), X).sum()

    gradient = jax.jit(jax.grad(total, allow_int=True))(halves.features.args[1])
    assert jnp.abs(gradient["blocks"][0]["conv"]["kernel"].get_value()).max() > 0


@pytest.mark.parametrize(("layer", "call"), [("conv", 0), ("alias/same", 1), ("conv", 2)])
def test_call_says_which_of_several_calls(graph, layer, call):
    model = Twice()
    outputs = [model.conv(X)]
    for _ in range(2):
        outputs.append(model.conv(nnx.tanh(outputs[-1])))
    features, scores = split(model, layer, call=call)
    np.testing.assert_array_equal(features(X), outputs[call])
    np.testing.assert_array_equal(scores(features(X), X), model(X))
    moved = outputs[call] + 1
    for _ in range(2 - call):
        moved = model.conv(nnx.tanh(moved))
    np.testing.assert_allclose(scores(outputs[call] + 1, X), moved.mean((1, 2)), rtol=1e-5)


def test_a_layer_is_the_same_under_each_of_its_names():
    one, other = (split(Twice(), name) for name in ("conv", "alias/same"))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    with pytest.raises(JaxcamError, match="called 3 times"):
        split(Twice(), "conv", call=3).features(X)
    with pytest.raises(JaxcamError, match="the layer's own shape"):
        one.scores(X[:, :2], X)


@pytest.mark.parametrize("layer", ["stem", "last"])
def test_layers_outside_of_a_scan(graph, layer):
    model = Stack()
    features, scores = split(model, layer)
    a = features(X)
    np.testing.assert_array_equal(scores(a, X), model(X))
    assert jnp.abs(scores(a + 1, X) - model(X)).max() > 1e-3
    assert list(layers(model, X)) == ["stem", "last"]


def test_a_layer_inside_a_scan_is_refused(graph):
    with pytest.raises(JaxcamError, match=r"inside a scan, .*Take a layer outside of it"):
        split(Stack(), "stack").features(X)


def test_select_and_logits_pick_from_structures_behind_super():
    model = Structured()
    y = model.conv(X)
    features, scores = split(model, "conv", select="twice", logits=0)
    np.testing.assert_array_equal(features(X), y["twice"])
    np.testing.assert_array_equal(scores(features(X), X), model(X)[0])
    moved = ((y["twice"] + 1) * y["once"]).mean((1, 2))
    np.testing.assert_allclose(scores(y["twice"] + 1, X), moved, rtol=1e-5)


def test_random_streams_of_the_caller_do_not_advance():
    rngs = nnx.Rngs(noise=0)
    features, scores = split(Structured(), "conv", select="once", logits=0, rngs=rngs)
    a = features(X)
    first, second = scores(a, X), jax.jit(scores)(a, X)
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert rngs.noise.count.get_value() == 0
    np.testing.assert_array_equal(first, Structured()(X, rngs=nnx.Rngs(noise=0))[0])


@pytest.mark.parametrize("wrap", [plain, compiled, recomputed])
def test_layers_in_call_order_with_shapes(graph, wrap):
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    for _ in range(2):
        found = layers(Net(wrap), x)
        inner = ["", "/conv", "/norm", "/drop"]
        blocks = [f"blocks/{i}{name}" for i in range(2) for name in inner]
        assert list(found) == [*blocks, "head"]
        assert found["blocks/1/conv"].shape == X.shape
        assert found["head"].shape == (2, 4)


def test_layers_give_structures_and_later_calls():
    assert list(layers(Twice(), X)) == ["alias/same", "alias/same call=1", "alias/same call=2"]
    assert layers(Structured(), X)["conv"]["once"].shape == (2, 4, 4, 4)


def test_nnx_is_not_imported_before_a_model_of_it_comes():
    program = "import sys, jaxcam.split; sys.exit('flax.nnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
