"""Networks of several inputs: how they are called, and which input gets the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from networks import normal

import jaxcam
from jaxcam.errors import JaxcamError

KEY = jax.random.key(3)
QUICK = {"key": KEY, "num_samples": 4, "engine": "power"}  # what is tested is the inputs
IMAGE = normal((3, 8, 8, 2))
DEPTH = normal((3, 8, 8, 1), seed=1)
WORD = np.array([0, 1, 1])


class Two(nn.Module):
    """A picture, its depth and a word."""

    @nn.compact
    def __call__(self, image, depth, word):
        x = nn.gelu(nn.Conv(4, (3, 3), name="conv")(jnp.concatenate([image, depth], -1)))
        x = nn.gelu(nn.Conv(4, (3, 3), name="last")(x) + depth)
        return nn.Dense(5)(x.mean((1, 2)) * nn.Embed(2, 4)(word))


class OfNnx(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        self.dense = nnx.Linear(4, 5, rngs=nnx.Rngs(1))

    def __call__(self, image, depth, *, gain):
        x = self.conv(jnp.concatenate([image, depth], -1))
        return self.dense((jnp.tanh(x) * gain[:, None, None, None]).mean((1, 2)))


@pytest.fixture(scope="module")
def split():
    variables = Two().init(jax.random.key(2), IMAGE, DEPTH, WORD)
    return jaxcam.split(Two(), "conv", variables=variables), variables


def apply(variables, x):
    return Two().apply(variables, *x) if isinstance(x, tuple) else Two().apply(variables, **x)


FORMS = [(IMAGE, DEPTH, WORD), {"image": IMAGE, "depth": DEPTH, "word": WORD}]


@pytest.mark.parametrize("x", FORMS, ids=["tuple", "dict"])
@pytest.mark.parametrize("layer", ["conv", "last"])
def test_a_model_is_called_with_all_of_them(x, layer, split):
    _, variables = split
    cut = jaxcam.split(Two(), layer, variables=variables)
    a = cut.features(x)
    assert a.shape == (3, 8, 8, 4)
    np.testing.assert_array_equal(cut.scores(a, x), apply(variables, x))
    assert "conv" in jaxcam.layers(Two(), x, variables=variables)
    assert jaxcam.last_layer(Two(), x, variables=variables) == "last"


def test_an_nnx_model_too():
    model, gain = OfNnx(), np.array([1.0, 2.0, 3.0], np.float32)
    x = {"image": IMAGE, "depth": DEPTH, "gain": gain}
    cut = jaxcam.split(model, "conv")
    np.testing.assert_array_equal(cut.scores(cut.features(x), x), model(**x))
    found = jaxcam.smooth_grad_cam_pp(cut, x, 1, noisy="image", **QUICK)
    alone = jaxcam.smooth_grad_cam_pp(
        cut, jax.tree.map(lambda leaf: leaf[1:2], x), 1, noisy="image", **QUICK
    )
    np.testing.assert_allclose(found.map[1], alone.map[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "image", [1, *(pytest.param(image, marks=pytest.mark.slow) for image in (0, 2))]
)
@pytest.mark.parametrize("noisy", [0, 1])
def test_the_named_one_gets_the_noise_and_the_others_stay(noisy, image, split):
    """Against a network of that one input, in which the others are constants."""
    cut, _ = split
    x = FORMS[0]

    def whole(one):
        rest = [leaf[image : image + 1] for leaf in x]
        return tuple(one if place == noisy else leaf for place, leaf in enumerate(rest))

    method = jaxcam.smooth(
        jaxcam.methods.grad_cam_pp(), num_samples=6, noise_level=0.3, noisy=noisy
    )
    found = jaxcam.cam(cut, x, method, 2, key=KEY, engine="power")
    single = jaxcam.Split(
        lambda one: cut.features(whole(one)),
        lambda a, one: cut.scores(a, whole(one)),
    )
    expected = jaxcam.smooth_grad_cam_pp(
        single, x[noisy][image : image + 1], 2,
        key=KEY, num_samples=6, noise_level=0.3, engine="power",
    )  # fmt: skip
    np.testing.assert_allclose(found.map[image], expected.map[0], rtol=1e-3, atol=1e-7)


def test_tuple_and_dict_are_one_question(split):
    cut, _ = split
    call = lambda x, noisy: jaxcam.smooth_grad_cam_pp(  # noqa: E731
        cut, x, noisy=noisy, **QUICK
    )
    first, second = call(FORMS[0], 1), call(FORMS[1], "depth")
    np.testing.assert_allclose(first.map, second.map, rtol=1e-5)


def test_the_only_floating_one_need_not_be_named(split):
    _, variables = split
    model = lambda x: apply(variables, (x[0], DEPTH[: len(x[0])], x[1]))  # noqa: E731
    cut = jaxcam.Split(lambda x: x[0], lambda a, x: model((a, x[1])))
    named, unnamed = (
        jaxcam.smooth_grad_cam_pp(cut, (IMAGE, WORD), noisy=noisy, **QUICK) for noisy in (0, None)
    )
    np.testing.assert_array_equal(named.map, unnamed.map)


@pytest.mark.slow
def test_progress_removal_half_precision_and_devices_take_them(split):
    cut, _ = split
    x, seen = FORMS[0], []
    plain = jaxcam.smooth_grad_cam_pp(cut, x, 1, noisy=0, **QUICK)
    shown = jaxcam.smooth_grad_cam_pp(
        cut, x, 1, noisy=0, **QUICK, progress=lambda *at: seen.append(at)
    )
    np.testing.assert_allclose(shown.map, plain.map, rtol=1e-4, atol=1e-8)
    assert seen
    spread = jaxcam.smooth_grad_cam_pp(cut, x, 1, noisy=0, **QUICK, spread=jaxcam.spread(batch=1))
    np.testing.assert_allclose(spread.map, plain.map, rtol=1e-4, atol=1e-8)
    assert jaxcam.check_removal(cut, x, samples=20).l2_error.shape == (3, 3)
    rounded = jaxcam.half_precision(cut)
    np.testing.assert_allclose(rounded.features(x), cut.features(x), atol=0.05)
    assert rounded.scores(cut.features(x), x).shape == (3, 5)


@pytest.mark.parametrize(("x", "noisy", "words"), [
    (FORMS[0], None, "noisy= of 0, 1, the input that gets the noise; got None"),
    (FORMS[0], 2, "noisy= of 0, 1, .* got 2"),
    (FORMS[1], "deep", "noisy= of 'image', 'depth', .* got 'deep'"),
    (IMAGE, 0, "no noisy= where x is one array"),
    ((IMAGE, DEPTH[:2], WORD), 0, r"inputs of one batch; got 0: \(3, 8, 8, 2\), 1: \(2, 8"),
    ((IMAGE, DEPTH, None), 0, r"x\[2\]: needs an array of numbers; got NoneType of object"),
    ((IMAGE, np.float32(1), WORD), 0, r"x\[1\]: needs an array"),
    ((IMAGE, DEPTH * np.nan, WORD), 0, r"x\[1\]: needs finite input"),
    ((WORD,), 0, "floating input, to add noise to; got int"),
    ((), 0, "needs an input; got none"),
    (WORD[:, None], None, "floating input, to add noise to; got int.*a method without noise"),
    (([IMAGE, DEPTH], WORD), 0, r"x\[0\]: needs one array; got a list of several.*side by side"),
])  # fmt: skip
def test_what_is_wrong_is_said(x, noisy, words, split):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.smooth_grad_cam_pp(split[0], x, key=KEY, num_samples=2, noisy=noisy)


def test_a_list_is_a_tuple(split):
    """Also of arrays of one shape, and a list of numbers is an array."""
    cut, variables = split
    a = cut.features(FORMS[0])
    np.testing.assert_array_equal(cut.features(list(FORMS[0])), a)
    np.testing.assert_array_equal(cut.scores(a, list(FORMS[0])), cut.scores(a, FORMS[0]))
    assert jaxcam.layers(Two(), list(FORMS[0]), variables=variables)["conv"].shape == a.shape
    assert jaxcam.last_layer(Two(), list(FORMS[0]), variables=variables) == "last"
    pair = jaxcam.Split(lambda x: x[0] + x[1], lambda a, x: jnp.tanh(a).mean((1, 2)))
    method = jaxcam.methods.grad_cam()
    of_tuple = jaxcam.cam(pair, (IMAGE, -IMAGE[:, ::-1]), method, 0)
    of_list = jaxcam.cam(pair, [IMAGE, -IMAGE[:, ::-1]], method, 0)
    np.testing.assert_array_equal(of_list.map, of_tuple.map)
    numbers = jaxcam.cam(pair, [IMAGE.tolist(), (-IMAGE[:, ::-1])], method, 0)
    np.testing.assert_array_equal(numbers.map, of_tuple.map)


class Words(nn.Module):
    @nn.compact
    def __call__(self, ids):
        x = nn.gelu(nn.Conv(4, (3,), name="conv")(nn.Embed(9, 4, name="embed")(ids)))
        return nn.Dense(3)(x.mean(1))


def test_names_are_explained_where_nothing_is_noisy():
    ids = np.array([[1, 5, 3, 8], [2, 2, 7, 0]])
    variables = Words().init(jax.random.key(0), ids)
    cut = jaxcam.split(Words(), variables=variables)
    assert jaxcam.last_layer(Words(), ids, variables=variables) == "conv"
    found = jaxcam.cam(cut, ids, jaxcam.methods.grad_cam(), 1)
    np.testing.assert_allclose(found.scores, Words().apply(variables, ids), rtol=1e-5)
    a = cut.features(ids)
    gradient = jax.grad(lambda a: cut.scores(a, ids)[:, 1].sum())(a)
    expected = jax.nn.relu((a * gradient.mean(1, keepdims=True)).sum(-1))
    np.testing.assert_allclose(found.map, expected, rtol=1e-4, atol=1e-7)
    small = jaxcam.cam(cut, ids.astype(np.uint8), jaxcam.methods.grad_cam(), 1)
    np.testing.assert_array_equal(small.map, found.map)
