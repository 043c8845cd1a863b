"""Sampled Shapley values against sums over all coalitions, and what every sample keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import affine, images, smooth

import jaxcam
from jaxcam import methods
from jaxcam.errors import JaxcamError

KEY = jax.random.key(7)
SHAPE = (3, 2)
CLASS = 1
RUNS = 64


def values(x, target=CLASS, key=KEY, split=None, chunk_size="auto", **options):
    method = methods.shapley(**options)
    return jaxcam.cam(
        smooth() if split is None else split, x, method, target, key=key, chunk_size=chunk_size
    )


@functools.cache
def exact():
    x = images(size=SHAPE, dtype=np.float64)
    with jax.enable_x64(True):
        split = smooth()
        a, black = (np.asarray(split.features(jnp.asarray(v)))[0] for v in (x, 0 * x))

        def u(a):
            return split.scores(a[None], jnp.asarray(x))[0, CLASS]

        return oracles.shapley(oracles.coalition_worth(u, a, black), SHAPE)


@functools.cache
def repeated():
    """Repeat the question under many keys, as many images of one batch."""
    x = np.repeat(images(size=SHAPE), RUNS, axis=0)
    return values(x, key=jax.random.split(KEY, RUNS), num_permutations=16)


def test_the_mean_is_the_sum_over_all_coalitions():
    """Over keys, within four of its standard errors, which are small enough to tell."""
    signed = np.asarray(repeated().signed, np.float64)
    error = signed.std(axis=0, ddof=1) / RUNS**0.5
    assert (abs(signed.mean(axis=0) - exact()) < 4 * error).all()
    assert error.max() < 0.02 * abs(exact()).max()


def test_the_stated_error_is_the_spread_over_keys():
    result = repeated()
    spread = np.asarray(result.signed).std(axis=0, ddof=1)
    stated = np.sqrt((np.asarray(result.diagnostics.standard_error) ** 2).mean(axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.35)  # of 64: 4 deviations of 9 %


def test_every_sample_divides_the_whole_difference():
    d = repeated().diagnostics
    assert (d.gap < 1e-5).all()
    assert (d.num_samples == 16).all()
    assert np.ptp(d.total) == 0


def test_where_the_gradient_is_constant_it_is_hires_cam_from_the_baseline():
    x = images()
    sampled = values(x, split=affine(), num_permutations=2)
    path = jaxcam.cam(affine(), x, jaxcam.integrate(methods.hires_cam()), CLASS)
    np.testing.assert_allclose(sampled.signed, path.signed, atol=1e-5)
    assert sampled.diagnostics.relative_error < 1e-5


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_chunks_and_neighbours_change_nothing(chunk_size):
    x = images(2, size=SHAPE)
    both = values(x, num_permutations=20)
    alone = values(x[1:], num_permutations=20, chunk_size=chunk_size)
    np.testing.assert_allclose(alone.signed[0], both.signed[1], atol=1e-6)


def test_a_tolerance_is_met_image_by_image():
    x = images(3, size=SHAPE)
    together = values(x, tolerance=0.012)
    d = together.diagnostics
    assert (d.relative_error <= 0.012).all()
    assert len(set(d.num_samples.tolist())) > 1
    for i, taken in enumerate(d.num_samples.tolist()):
        alone = values(x[i : i + 1], num_permutations=taken)
        np.testing.assert_allclose(alone.signed[0], together.signed[i], atol=1e-6)
    with pytest.warns(jaxcam.JaxcamWarning, match="max_permutations=48 left the standard error"):
        late = values(x[:1], tolerance=1e-4, max_permutations=48)
    assert late.diagnostics.num_samples == 48


def test_blocks_and_labels_are_players():
    """Two players of two columns, by size and by labels; each gives its positions the same."""
    x = images(size=(3, 4))
    labels = np.array([[5, 5, 9, 9]] * 3)
    blocks = values(x, players=(3, 2), num_permutations=2)
    np.testing.assert_array_equal(values(x, players=labels, num_permutations=2).map, blocks.map)
    split = smooth()
    a, black = split.features(x), split.features(0 * x)

    def u(columns):
        mixed = jnp.where(jnp.asarray(np.isin(labels, columns))[..., None], a, black)
        return split.scores(mixed, jnp.asarray(x))[0, CLASS]

    left = ((u([5]) - u([])) + (u([5, 9]) - u([9]))) / 2
    np.testing.assert_allclose(blocks.signed[0, :, :2], left / 6, rtol=1e-4)
    whole = values(x, players=4, num_permutations=2)
    np.testing.assert_allclose(whole.signed, float(whole.diagnostics.total[0]) / 12, rtol=1e-5)


def test_at_the_input_from_any_baseline_and_differentiable():
    split = jaxcam.Split(lambda x: x, lambda a, x: (a**2).sum(axis=1))
    x, start = jnp.array([[[2.0], [3.0]]]), jnp.array([[1.0], [1.0]])
    for baseline in (start, ("activations", start)):
        result = values(x, 0, split=split, num_permutations=2, baseline=baseline)
        np.testing.assert_allclose(result.signed, [[3.0, 8.0]], rtol=1e-6)

    def total(x):
        return values(x, 0, split=split, num_permutations=2).map.sum()

    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), 2 * x, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_permutations": 1}, "num_permutations of at least 2"),
        ({"tolerance": -1}, "tolerance of 0 or more"),
        ({"players": 0}, "blocks of at least 1 position"),
        ({"players": np.ones((3, 2))}, "integers"),
        ({"players": np.zeros((2, 3), int)}, r"labels of shape \(3, 2\)"),
        ({"players": (2, 2, 2)}, "1 or 2 sizes"),
        ({"baseline": np.zeros((4, 4, 2))}, "a baseline: an input of shape"),
        ({"baseline": ("activations", np.zeros(3))}, "a baseline: activations of shape"),
    ],
)
def test_options_that_are_none(options, words):
    with pytest.raises(JaxcamError, match=f"shapley.*{words}"):
        values(images(size=SHAPE), **options)


def test_what_cannot_be_played_is_refused():
    with pytest.raises(JaxcamError, match="shapley: needs a key"):
        values(images(), key=None)
    with pytest.raises(JaxcamError, match="its players are positions"):
        jaxcam.cam(smooth(), images(), methods.shapley(), key=KEY, channels=[0])
    big = jaxcam.Split(lambda x: x, lambda a, x: a.sum((1, 2)))
    with pytest.raises(JaxcamError, match=r"at most 4096 players.*players=8"):
        values(np.ones((1, 65, 64, 1), np.float32), 0, split=big)
    with pytest.warns(jaxcam.JaxcamWarning, match="the same at the baseline"):
        values(images(size=SHAPE), baseline=images(size=SHAPE), num_permutations=2)
