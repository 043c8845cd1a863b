"""A model in training mode is refused, however it got there, and no other model is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxcam
from jaxcam import JaxcamError
from jaxcam.split import layers, split
from jaxcam.split.state import training

X = jnp.asarray(1 + np.random.default_rng(0).normal(size=(3, 4, 4, 3)), jnp.float32)
RANDOM, UPDATES = "asks for random numbers .dropout", "updates its variables .BatchNorm"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # nnx: sow


class Net(nnx.Module):
    """A layer to explain, and behind it what the test is about."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (1, 1), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)
        self.made(rngs)

    def made(self, rngs):
        self.drop, self.norm = nnx.Dropout(0.5, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

    def middle(self, x):
        return x

    def __call__(self, x, **kwargs):
        return self.head(nnx.tanh(self.middle(self.conv(x), **kwargs)).mean((1, 2)))


class Argument(Net):
    def middle(self, x, train=True):
        return self.drop(x, deterministic=not train)


class Flag(Net):
    def made(self, rngs):
        super().made(rngs)
        self.training = True

    def middle(self, x):
        return self.norm(x, use_running_average=not self.training)


class Compiled(Net):
    def middle(self, x, train=True):
        return nnx.jit(lambda drop, x: drop(x, deterministic=not train))(self.drop, x)


class Recomputed(Net):
    def middle(self, x, train=True):
        return nnx.remat(lambda norm, x: norm(x, use_running_average=not train))(self.norm, x)


class Moving(Net):
    """A codebook that follows the activations."""

    def made(self, rngs):
        self.book = nnx.Variable(jnp.ones(4))

    def middle(self, x):
        self.book[...] = 0.9 * self.book[...] + 0.1 * x.mean((0, 1, 2))
        return x * self.book[...][None, None, None]


class Noise(Net):
    def made(self, rngs):
        self.rngs = rngs.fork()

    def middle(self, x):
        return x + self.rngs.noise.normal(x.shape)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Argument, RANDOM + r".*drop/rngs/count.*train=False"),
        (Flag, UPDATES + r".*norm/mean, norm/var.*the model's own flag"),
        (Compiled, RANDOM),
        (Recomputed, UPDATES),
        (Moving, UPDATES + ".*book"),
        (Noise, RANDOM),
    ],
)
def test_training_is_refused(net, words):
    model = net()
    model.eval()  # sets the flags of nnx alone
    with pytest.raises(JaxcamError, match=f"a model in evaluation mode; got one that {words}"):
        split(model, "conv").features(X)


def test_what_the_words_say_helps():
    """The argument, and the model's own flag; inside a map too."""
    flag = Flag()
    flag.training = False
    for model, kwargs in [(Argument(), {"train": False}), (Compiled(), {"train": False}),
                          (Recomputed(), {"train": False}), (flag, {})]:  # fmt: skip
        halves = split(model, "conv", **kwargs)
        np.testing.assert_allclose(
            halves.scores(halves.features(X), X), model(X, **kwargs), rtol=1e-6
        )
    with pytest.raises(JaxcamError, match=UPDATES):
        jaxcam.cam(split(Flag(), "conv"), X, jaxcam.methods.grad_cam(), 0)


class Counting(Net):
    def made(self, rngs):
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def middle(self, x):
        self.calls[...] += 1
        return x


class Sowing(Net):
    class Kept(nnx.Variable):
        """Not one of nnx."""

    def middle(self, x):
        self.sow(self.Kept, "kept", x)
        self.sow(nnx.Intermediate, "seen", x)
        return x


class DrawnForNobody(Noise):
    def middle(self, x):
        self.rngs.carry.normal(x.shape)
        return x


class Normalised(Net):
    """Whose weights are normalised in place, call by call."""

    def made(self, rngs):
        self.inner = nnx.WeightNorm(nnx.Conv(4, 4, (1, 1), rngs=rngs), rngs=rngs)

    def middle(self, x):
        return self.inner(x)


class Spectral(Net):
    """Which `nnx.view` does not put into evaluation mode, and ``eval`` does."""

    def made(self, rngs):
        self.inner = nnx.SpectralNorm(nnx.Conv(4, 4, (1, 1), rngs=rngs), rngs=rngs)

    def middle(self, x):
        return self.inner(x)


class Own(Net):
    """Stochastic depth, with the flag of nnx and no view of its own."""

    def made(self, rngs):
        self.deterministic, self.rngs = False, rngs.fork()

    def middle(self, x):
        return x if self.deterministic else x * jax.random.bernoulli(self.rngs.depth(), 0.5, (3, 1))


@pytest.mark.parametrize("net", [Counting, Sowing, DrawnForNobody, Normalised, Spectral, Own])
def test_what_changes_without_harm_is_served(net):
    model = net()
    if net is Sowing:
        model(X)  # so that what is sown is there before
    halves = split(model, "conv")
    scores = halves.scores(halves.features(X), X)
    model.eval()
    np.testing.assert_allclose(scores, model(X), rtol=1e-6)


OUTSIDE = jnp.ones(2)
TRIALS = {
    "handed on": (lambda s, x: (s * x, s, s), False),
    "handed on by jit": (lambda s, x: (s * x, s, jax.jit(jnp.asarray)(s)), False),
    "written anew": (lambda s, x: (s * x, s, s * 1), False),
    "with x": (lambda s, x: (x, s, s + x), True),
    "with x, by jit": (lambda s, x: (x, s, jax.jit(lambda s, x: (x, s + x))(s, x)[1]), True),
    "with x, held outside": (lambda s, x: (x, OUTSIDE, OUTSIDE + x), True),
    "in a loop": (lambda s, x: (x, s, jax.lax.fori_loop(0, 2, lambda _, c: c, (s, x))[0]), False),
}


@pytest.mark.parametrize("trial", TRIALS)
def test_a_change_is_harmless_where_nothing_comes_from_the_input(trial):
    call, alive = TRIALS[trial]

    def around(state, x):
        output, before, after = call(state, x)
        return output, {"state": [before]}, {"state": [after]}

    found = training(around, jnp.ones(2), jnp.ones(2), is_generator=lambda name: False)
    assert found == ["state"] * alive


@pytest.mark.parametrize("heard", [True, False])
def test_a_generator_is_harmless_where_nobody_hears_it(heard):
    def around(seed, x):
        return x * seed if heard else x, {"seed": [seed]}, {"seed": [seed + 1]}

    found = training(around, jnp.ones(2), jnp.ones(2), is_generator=lambda name: True)
    assert found == ["seed"] * heard


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train)(x)


class Bridged(Net):
    def made(self, rngs):
        self.inner = nnx.bridge.ToNNX(Linen(), rngs=nnx.Rngs(0)).lazy_init(jnp.ones((1, 4, 4, 4)))

    def middle(self, x, train=False):
        return self.inner(x, train=train)


def test_linen_modules_within():
    model = Bridged()
    assert "inner" in layers(model, X)
    halves = split(model, "inner")
    np.testing.assert_array_equal(halves.scores(halves.features(X), X), model(X))
    assert jnp.abs(halves.scores(halves.features(X) + 1, X) - model(X)).max() > 1e-3
    with pytest.raises(JaxcamError, match=UPDATES):
        split(model, "inner", train=True).features(X)


class CompiledNorm(nnx.Module):
    """A BatchNorm within ``nnx.jit``, which hands every array back as a new one."""

    def __init__(self, width, rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)

    def __call__(self, x, use_running_average):
        normalise = nnx.jit(lambda norm, x: norm(x, use_running_average=use_running_average))
        return normalise(self.norm, x)


class Outer(nn.Module):
    """An nnx BatchNorm in a linen model: what it changes, linen drops without a word."""

    average: bool
    norm: type = nnx.BatchNorm

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (1, 1), name="conv")(x)
        x = nnx.bridge.ToLinen(self.norm, args=(3,), name="norm")(
            x, use_running_average=self.average
        )
        return x.mean((1, 2))


@pytest.mark.parametrize("norm", [nnx.BatchNorm, CompiledNorm])
def test_an_nnx_model_in_training_mode_within_a_linen_one_is_refused(norm):
    x = jnp.ones((1, 2, 2, 3))
    variables = Outer(True, norm).init(jax.random.key(0), x)
    split = jaxcam.split(Outer(True, norm), "conv", variables=variables)
    assert split.scores(split.features(x), x).shape == (1, 3)
    assert "conv" in jaxcam.layers(Outer(True, norm), x, variables=variables)
    with pytest.raises(jaxcam.JaxcamError, match=r"ToLinen.*evaluation mode.*norm/.*mean"):
        jaxcam.split(Outer(False, norm), "conv", variables=variables).features(x)
