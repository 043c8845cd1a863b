"""What real models do besides: one of everything, split and explained like any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from networks import normal

import jaxcam
from jaxcam.errors import JaxcamError

KEY = jax.random.key(0)
X = normal((2, 8, 8, 3), seed=1)


class Odd(nn.Module):
    """GroupNorm, ``train=``, remat, a layer called twice, a tuple inside, a dict outside."""

    @nn.compact
    def __call__(self, x, *, train: bool = True):
        shared = nn.Conv(4, (3, 3), name="shared")
        x = nn.remat(Normed)(name="normed")(nn.Conv(4, (3, 3), name="stem")(x))
        x = shared(nn.silu(shared(x)))
        x = nn.BatchNorm(use_running_average=not train, name="batch")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x, scale = Pair(name="pair")(x)
        return {"logits": nn.Dense(5)((x * scale).mean((1, 2))), "features": x}


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.gelu(nn.GroupNorm(num_groups=2, name="norm")(x))


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.tanh(x), jax.nn.sigmoid(x.mean((1, 2), keepdims=True))


class Layers(nnx.Module):
    """A stack of blocks with a leading axis, run by nnx.scan, between two layers."""

    def __init__(self):
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(key):
            return Residual(key)

        self.stem = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        self.stack = make(jax.random.split(KEY, 3))
        self.last = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(1))
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(2))
        self.head = nnx.Linear(4, 5, rngs=nnx.Rngs(3))

    def __call__(self, x):
        x = through(self.stack, self.stem(x))
        return self.head(jax.nn.silu(self.norm(self.last(x))).mean((1, 2)))


class Residual(nnx.Module):
    def __init__(self, key):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(key))

    def __call__(self, x):
        return x + jax.nn.gelu(self.conv(x))


@nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
def through(block, x):
    return block(x)


@pytest.fixture(scope="module")
def odd():
    model = Odd()
    variables = model.init(KEY, X, train=False)
    moved = jax.tree.map(lambda v: v + 0.1, variables["batch_stats"])
    return model, {**variables, "batch_stats": moved}


WAYS = [
    ("stem", {}),
    ("normed", {}),
    ("normed/norm", {}),
    ("shared", {"call": 0}),
    ("shared", {"call": 1}),
    ("batch", {}),
    ("pair", {"select": 0}),
]


@pytest.mark.parametrize(("layer", "options"), WAYS)
def test_the_halves_are_the_model_to_the_last_bit(layer, options, odd):
    model, variables = odd
    split = jaxcam.split(model, layer, variables=variables, logits="logits", train=False, **options)
    whole = model.apply(variables, X, train=False)["logits"]
    np.testing.assert_array_equal(split.scores(split.features(X), X), whole)


@pytest.mark.parametrize("layer", ["stem", "last", "norm"])
def test_layers_around_a_stack_that_nnx_scans(layer):
    model = Layers()
    split = jaxcam.split(model, layer)
    np.testing.assert_array_equal(split.scores(split.features(X), X), model(X))
    assert not [name for name in jaxcam.layers(model, X) if name.startswith("stack")]


def test_layers_inside_the_stack_are_refused():
    with pytest.raises(JaxcamError, match="inside a scan, where one call stands for many"):
        jaxcam.split(Layers(), "stack/conv").features(X)


def test_their_derivatives_are_brute_force(odd):
    model, variables = odd
    split = jaxcam.split(model, "shared", call=1, variables=variables, logits="logits", train=False)
    a = split.features(X)
    check = jaxcam.check_derivatives(
        lambda a: split.scores(a[None], X[:1])[0, 2], jnp.asarray(a[0]), samples=8
    )
    assert max(check.errors) < 1e-3


def test_the_model_stays_as_it_is(odd):
    model, variables = odd
    before = jax.tree.map(np.array, variables)
    split = jaxcam.split(model, "normed", variables=variables, logits="logits", train=False)
    jaxcam.smooth_grad_cam_pp(split, X, 1, key=KEY, num_samples=2, engine="power")
    jax.tree.map(np.testing.assert_array_equal, variables, before)
