"""A blank map says why, and a map that is rounding alone is blank."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import methods, targets
from jaxcam.pipeline.blank import Seen

X = np.random.default_rng(0).normal(size=(1, 5, 4, 6)).astype(np.float32)
HEAD = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
METHODS = {
    "grad_cam": methods.grad_cam(), "grad_cam_pp": methods.grad_cam_pp(),
    "taylor_cam": methods.taylor_cam(),
}  # fmt: skip


def explain(scores, method, x=X, target=1, **how):
    """Explain, and give the warnings too."""
    split = jaxcam.Split(features=lambda x: x, scores=scores)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = jaxcam.cam(split, x, method, target, **how)
    return found, " ".join(str(warning.message) for warning in caught)


def norm(a, axes):
    return (a - a.mean(axes, keepdims=True)) / jnp.sqrt(a.var(axes, keepdims=True) + 1e-5)


def head(a):
    return a.mean((1, 2)) @ jnp.asarray(HEAD, a.dtype)


def repeated(u):
    return jnp.stack([u] * 3, axis=-1)


def attention(a, values):
    places = a.reshape(len(a), -1, a.shape[-1])
    return jax.nn.softmax(places @ jnp.swapaxes(places, 1, 2)) @ values


def embedded(a):
    pooled = a.mean((1, 2))
    return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)


CANNOT_MOVE = {
    "instance norm, averaged": lambda a, x: head(norm(a, (1, 2)) * 2 + 0.3),
    "layer norm, summed": lambda a, x: repeated(norm(a, (-1,)).sum((1, 2, 3))),
    "an embedding's own length": lambda a, x: repeated((embedded(a) ** 2).sum(-1)),
    "attention to equal values": lambda a, x: attention(a, jnp.ones((1, 20, 4), a.dtype)).mean(1),
    "shares of a whole": lambda a, x: repeated(
        ((a**2 + 0.01) / (a**2 + 0.01).sum((1, 2, 3), keepdims=True)).sum((1, 2, 3))
    ),
    "a sine and its cosine": lambda a, x: repeated(
        (jnp.sin(a) ** 2 + jnp.cos(a) ** 2).mean((1, 2, 3))
    ),
}  # fmt: skip
# One method each is enough for the kind; all of them for the first.
CASES = [
    *((score, "grad_cam") for score in CANNOT_MOVE),
    pytest.param("instance norm, averaged", "grad_cam_pp", marks=pytest.mark.slow),
    pytest.param("instance norm, averaged", "taylor_cam", marks=pytest.mark.slow),
    pytest.param("attention to equal values", "taylor_cam", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("score", "method"), CASES)
def test_a_map_that_is_rounding_alone_is_blank_and_said_to_be(score, method):
    found, said = explain(CANNOT_MOVE[score], METHODS[method])
    assert "rounding alone" in said
    assert found.diagnostics.blank[0]
    assert found.diagnostics.doubtful[0]
    assert Seen(int(found.diagnostics.seen[0])) == Seen.ROUNDING
    assert not jnp.any(found.map)
    assert not jnp.any(found.signed)
    assert not jnp.any(found.weights)


def test_in_float64_and_half_precision_and_with_noise_too():
    score = CANNOT_MOVE["instance norm, averaged"]
    smoothed = jaxcam.smooth(methods.grad_cam(), num_samples=2)
    assert "rounding alone" in explain(score, smoothed, key=jax.random.key(0))[1]
    half = jnp.asarray(X, jnp.bfloat16)
    assert "rounding alone" in explain(score, methods.grad_cam(), half)[1]
    with jax.enable_x64(True):
        assert "rounding alone" in explain(score, methods.grad_cam(), X.astype(np.float64))[1]


def test_weights_that_cancel_are_told_from_those_that_do_not():
    """A shift of a whole feature map changes nothing: Grad-CAM weighs by that alone."""
    score = lambda a, x: head(jax.nn.relu(norm(a, (1, 2))))  # noqa: E731
    assert "rounding alone" in explain(score, methods.grad_cam())[1]
    found, said = explain(score, methods.grad_cam_pp())
    assert not said
    assert found.map.max() > 0


def sure(scores):
    """The probability's logarithm, centred; saturated it is tiny, and right."""
    return -jnp.log1p(jnp.exp(jnp.delete(scores, 1) - scores[1]).sum())


def smooth_head(a):
    return head(jax.nn.gelu(a[:, 1:] * a[:, :-1]))


@pytest.mark.parametrize(
    ("score", "target"),
    [
        (lambda a, x: smooth_head(a) * 1e-20, 1),
        (lambda a, x: smooth_head(a) * 1e-5 + 5, 1),
        (lambda a, x: smooth_head(a) + 60 * jnp.eye(4, dtype=a.dtype)[1:2], targets.custom(sure)),
        (lambda a, x: jax.nn.sigmoid(smooth_head(a) - 20), 1),
    ],
)
def test_what_is_small_and_real_is_left_as_it_is(score, target):
    """Against float64, where the same map has nine more digits."""
    found, said = explain(score, methods.grad_cam(), target=target)
    assert not said
    assert not found.diagnostics.doubtful[0]
    with jax.enable_x64(True):
        truth = np.asarray(explain(score, methods.grad_cam(), X.astype(np.float64), target)[0].map)
    np.testing.assert_allclose(found.map, truth, rtol=1e-2, atol=1e-3 * truth.max())


def test_inside_jit_a_map_that_may_be_rounding_is_marked():
    split = jaxcam.Split(lambda x: x, CANNOT_MOVE["instance norm, averaged"])
    traced = jax.jit(lambda x: jaxcam.cam(split, x, methods.grad_cam(), 1))(X)
    assert traced.diagnostics.doubtful[0]
    assert not traced.diagnostics.blank[0]


def test_the_others_of_a_batch_stay_as_they_are():
    """The score moves for one image of the two, by what the input says beside the layer."""
    both = lambda a, x: jnp.where(x[:, :1, 0, 0] > 0, head(norm(a, (1, 2))), head(a))  # noqa: E731
    x = np.concatenate([X, X])
    x[:, 0, 0, 0] = (1, -1)
    found, said = explain(both, methods.grad_cam(), x)
    assert "image [0] is blank" in said
    alone, _ = explain(lambda a, x: head(a), methods.grad_cam(), x[1:])
    np.testing.assert_allclose(found.map[1], alone.map[0], rtol=1e-5)
    assert found.diagnostics.blank.tolist() == [True, False]


ONES = np.random.default_rng(0).uniform(0.5, 1, (1, 3, 3, 2)).astype(np.float32)
FOR_AGAINST = jnp.array([[1.0, -1.0], [-3.0, 3.0]])


def opposed(a, x):
    return a.mean((1, 2)) @ FOR_AGAINST


@pytest.mark.parametrize("method", [methods.grad_cam(), methods.taylor_cam()])
def test_a_sum_that_is_negative_everywhere(method):
    found, said = explain(opposed, method, ONES, 0)
    assert "negative or zero at every position" in said
    assert found.signed.max() < 0


def test_positive_weights_of_negative_activations():
    assert "negative or zero" in explain(opposed, methods.grad_cam_pp(), -ONES, 0)[1]


@pytest.mark.parametrize("method", METHODS.values())
def test_a_layer_that_is_not_active(method):
    assert "every activation of the layer is zero" in explain(opposed, method, 0 * ONES, 0)[1]


@pytest.mark.parametrize("method", METHODS.values())
def test_a_score_that_is_switched_off_behind_the_layer(method):
    off = lambda a, x: jax.nn.relu(opposed(a, x) - 100)  # noqa: E731
    assert "all derivatives along the layer are zero" in explain(off, method, ONES, 0)[1]


def test_no_positive_derivative():
    falling = lambda a, x: repeated(-a.sum((1, 2, 3)))  # noqa: E731
    assert "no derivative along the layer is positive" in explain(
        falling, methods.grad_cam_pp(), ONES, 0
    )[1]  # fmt: skip


def test_weights_that_are_zero_although_derivatives_are_not():
    level = lambda a, x: repeated(a[:, 0].sum((1, 2)) - a[:, 1].sum((1, 2)))  # noqa: E731
    assert "they cancel in each weight" in explain(level, methods.grad_cam(), ONES, 0)[1]


def test_what_has_a_weight_is_not_active():
    apart = lambda a, x: repeated(a[..., 0].sum((1, 2)))  # noqa: E731
    x = ONES * np.array([0.0, 1.0], np.float32)
    assert "what has a weight is not active" in explain(apart, methods.grad_cam(), x, 0)[1]


def test_chosen_neurons_on_which_the_score_does_not_depend():
    corner = lambda a, x: repeated(a[:, 0, 0].sum(-1))  # noqa: E731
    chosen = np.zeros((3, 3, 2), bool)
    chosen[2] = True
    _, said = explain(corner, methods.taylor_cam(order=1), ONES, 0, neurons=chosen)
    assert "all derivatives along the chosen feature maps and neurons are zero" in said
    dark = ONES.copy()
    dark[:, 2] = 0
    _, said = explain(corner, methods.grad_cam(), dark, 0, neurons=chosen)
    assert "every activation of the chosen feature maps and neurons is zero" in said


def test_a_tolerance_is_kept_by_a_blank_map():
    bent = lambda a, x: (a.mean((1, 2)) ** 2) @ FOR_AGAINST  # noqa: E731
    smoothed = jaxcam.smooth(methods.grad_cam(), tolerance=0.05, max_samples=256)
    found, said = explain(bent, smoothed, ONES, 0, key=jax.random.key(0))
    assert "negative or zero" in said
    assert found.diagnostics.num_samples[0] == 32
    assert found.diagnostics.relative_error[0] == 0


@pytest.mark.parametrize(
    ("x", "words"),
    [(0 * ONES, "that was drawn is zero"), (ONES, "no removal changes the score of image")],
)
def test_removals_that_change_nothing_are_told(x, words):
    split = jaxcam.Split(lambda x: x, lambda a, x: jax.nn.relu(a.mean((1, 2)) - 100))
    with pytest.warns(jaxcam.JaxcamWarning, match=words):
        jaxcam.check_removal(split, x, 0)


def test_a_probability_that_is_one_as_far_as_its_numbers_go():
    """Image 0 is surer than float32 can say, image 1 is not."""
    x = jnp.asarray(np.linspace(0.1, 1, 18).reshape(2, 3, 3, 1)[::-1], jnp.float32)
    split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) @ jnp.array([[200.0, 1.0]]))
    target = jaxcam.targets.softmax(0)
    with pytest.warns(jaxcam.JaxcamWarning, match=r"image \[0\] is blank.*1 - p = 1e-\d\d.*logit"):
        result = jaxcam.cam(split, x, jaxcam.methods.grad_cam(), target)
    np.testing.assert_array_equal(result.diagnostics.blank, [True, False])
