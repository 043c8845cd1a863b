"""Methods of queries: their options, and what each refuses. What all must keep: test_methods.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import jaxcam
from jaxcam import methods, targets
from jaxcam.errors import JaxcamError
from jaxcam.methods.score_cam import CONVENTIONS

X = np.random.default_rng(2).normal(size=(2, 5, 4, 2)).astype(np.float32)
HEAD = np.random.default_rng(3).normal(size=(5, 4, 2, 2)).astype(np.float32)


@functools.cache
def linear() -> jaxcam.Split:
    """Cut at the input; scores are sums by weights of their own for each place."""
    return jaxcam.Split(lambda x: x, lambda a, x: jnp.einsum("bijk,ijkc->bc", a, HEAD))


def explained(method, target=0, split=None):
    return jaxcam.cam(split or linear(), jnp.asarray(X), method, target)


# outcomes


def test_a_probability_is_that_of_a_class_among_several():
    margin = targets.custom(lambda scores: scores[0] - scores[1])
    for target in (margin, targets.counterfactual(0), targets.contrast(0), targets.any_of([0, 1])):
        with pytest.raises(JaxcamError, match=r"recipro_cam: .* of a class.*; got another one"):
            explained(methods.recipro_cam(), target)
    single = jaxcam.Split(lambda x: x, lambda a, x: a.sum((1, 2, 3))[:, None])
    with pytest.raises(JaxcamError, match=r"two classes or more; got .* \[batch, 1\]"):
        explained(methods.recipro_cam(), split=single)


# ablation_cam


def test_what_a_loss_is_measured_in():
    losses = (X * HEAD[..., 0]).sum((1, 2))
    score = losses.sum(1, keepdims=True)
    assert score[0] < 0 < score[1]
    for unit, size in (("size", abs(score)), ("score", score), ("none", 1)):
        found = explained(methods.ablation_cam(unit=unit))
        np.testing.assert_allclose(found.weights, losses / size, rtol=1e-4)
    with pytest.raises(JaxcamError, match="unit of 'size', 'score' or 'none'; got 'logit'"):
        methods.ablation_cam(unit="logit")


def test_a_subset_of_feature_maps_is_of_their_own_weights():
    whole = explained(methods.ablation_cam())
    part = jaxcam.cam(linear(), jnp.asarray(X), methods.ablation_cam(), 0, channels=[1])
    np.testing.assert_array_equal(part.weights, whole.weights)
    np.testing.assert_allclose(part.signed, whole.weights[:, None, None, 1] * X[..., 1], rtol=1e-6)


# occlusion


def test_single_places_and_their_fill():
    """Of a linear score what is lost at a place is its own share, less that of the fill."""
    for fill, put in ((0.0, 0), ("mean", X.mean((1, 2), keepdims=True)), (2, 2)):
        found = explained(methods.occlusion(window=1, fill=fill))
        expected = ((X - put) * HEAD[..., 0]).sum(-1)
        np.testing.assert_allclose(found.signed, expected, rtol=1e-4, atol=1e-5)


def test_windows_by_default_and_their_number():
    shape = jax.ShapeDtypeStruct((1, 32, 20, 1), "float32")
    ones = jaxcam.Split(lambda x: x, lambda a, x: a.mean((1, 2)))

    def words(**sizes):
        cam = lambda x: jaxcam.cam(ones, x, methods.occlusion(**sizes), 0)  # noqa: E731
        return jax.eval_shape(cam, shape).diagnostics.report.proof

    assert words().startswith(f"{(1 + 28 // 2) * (1 + -(-17 // 2))} forward")  # 4x3, every 2
    assert words(window=8).startswith(f"{7 * 4} forward")
    assert words(window=[8, 4], stride=[8, 4]).startswith(f"{4 * 5} forward")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"window": 0}, "window of 1 or more"),
        ({"stride": (1, 2.0)}, "stride of 1 or more"),
        ({"fill": "grey"}, "a fill of a number or 'mean'"),
        ({"window": 6}, r"within \(5, 4\).*got window \(6, 6\)"),
        ({"window": 1, "stride": 2}, r"stride within the window; got .* stride \(2, 2\)"),
        ({"window": (1, 1, 1)}, "each of 2 axes"),
    ],
)
def test_windows_that_are_none(sizes, words):
    with pytest.raises(JaxcamError, match=words):
        explained(methods.occlusion(**sizes))


# score_cam

SMALL = np.random.default_rng(4).normal(size=(2, 3)).astype(np.float32)
TALL = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)


@functools.cache
def coarse() -> jaxcam.Split:
    """Cut behind a layer of a half of the input's size, whose last map is constant."""

    def features(x):
        half = x.reshape(-1, 4, 2, 3, 2, 2).mean((2, 4)) @ jnp.asarray(SMALL, x.dtype)
        return jnp.concatenate([jax.nn.relu(half), jnp.ones_like(half[..., :1])], -1)

    return jaxcam.Split(
        features, lambda a, x: jnp.tanh(a).sum((1, 2)) @ jnp.asarray(TALL.T, x.dtype)
    )


COARSE = np.random.default_rng(6).normal(size=(1, 8, 6, 2))


def behind(x):
    split = coarse()
    return split.scores(split.features(x[None]), x[None])[0]


def test_conventions_of_score_cam():
    split = coarse()
    with jax.enable_x64(True):
        x = jnp.asarray(COARSE)
        run = jax.jit(lambda x: {
            name: jaxcam.cam(split, x, methods.score_cam(convention=name), 1).signed[0]
            for name in CONVENTIONS
        })  # fmt: skip
        found, a = run(x), np.asarray(split.features(x))[0]
        score = jax.jit(behind)
        expected = {
            name: oracles.score_cam(lambda x: score(jnp.asarray(x)), 1, COARSE[0], a, name)
            for name in CONVENTIONS
        }
    for name in CONVENTIONS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
    kinds = [np.round(one / one.max(), 6).tobytes() for one in expected.values()]
    assert len(set(kinds)) == len(CONVENTIONS)


def test_the_maps_of_the_largest_variance():
    """The others have no weight, and those that are left share the whole."""
    whole, part = (
        jaxcam.cam(coarse(), jnp.asarray(COARSE, jnp.float32), methods.score_cam(max_maps=n), 1)
        for n in (9, 2)
    )
    chosen = np.sort(
        np.asarray(coarse().features(COARSE.astype(np.float32)))[0].var((0, 1)).argsort()[2:]
    )
    assert "4 forward" in whole.diagnostics.report.proof
    assert "2 forward" in part.diagnostics.report.proof
    kept = np.asarray(whole.weights)[0, chosen]
    np.testing.assert_allclose(part.weights[0, chosen], kept / kept.sum(), rtol=1e-5)
    assert (np.delete(np.asarray(part.weights[0]), chosen) == 0).all()


def test_the_papers_softmax_of_log_probabilities_is_the_authors():
    x = jnp.asarray(COARSE, jnp.float32)
    ours = jaxcam.cam(coarse(), x, methods.score_cam(), targets.softmax(1)).weights[0, :3]
    theirs = jaxcam.cam(coarse(), x, methods.score_cam(convention="authors"), 1).weights[0, :3]
    np.testing.assert_allclose(ours / ours.sum(), theirs / theirs.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"convention": "captum"}, "convention of 'paper', 'authors'"),
        ({"max_maps": 0}, "max_maps of at least 1; got 0"),
    ],
)
def test_options_of_score_cam(options, words):
    with pytest.raises(JaxcamError, match=words):
        methods.score_cam(**options)


def test_a_layer_that_is_no_map_of_the_input_is_refused():
    flat = jaxcam.Split(lambda x: x.reshape(len(x), -1, 2), lambda a, x: a.sum(1))
    with pytest.raises(JaxcamError, match=r"as many axes as the input; got shapes \(20, 2\)"):
        explained(methods.score_cam(), split=flat)


# ss_cam, is_cam, abs_cam, fd_cam


def test_without_noise_and_in_one_step_they_are_score_cam():
    x = jnp.asarray(COARSE, jnp.float32)
    expected = jaxcam.cam(coarse(), x, methods.score_cam(), 1).weights
    key = jax.random.key(2)
    quiet = jaxcam.cam(
        coarse(), x, methods.ss_cam(num_samples=2, noise_level=0), 1, key=key
    ).weights  # fmt: skip
    single = jaxcam.cam(coarse(), x, methods.is_cam(num_steps=1), 1).weights
    np.testing.assert_allclose(quiet, expected, rtol=1e-5)
    np.testing.assert_allclose(single, expected, rtol=1e-5)
    with pytest.raises(JaxcamError, match="ss_cam: needs a key"):
        jaxcam.cam(coarse(), x, methods.ss_cam(), 1)


def test_steps_that_add_up():
    found = jaxcam.cam(
        coarse(), jnp.asarray(COARSE, jnp.float32), methods.is_cam(num_steps=2, steps="cumulative")
    )
    a = np.asarray(coarse().features(jnp.asarray(COARSE, jnp.float32)), np.float64)[0]
    index, score = int(found.target[0]), jax.jit(behind)
    expected = oracles.is_cam(
        lambda x: score(jnp.asarray(x, jnp.float32))[index], COARSE[0], a, (0.5, 1.5)
    )
    np.testing.assert_allclose(found.signed[0], expected, rtol=1e-4)


def test_the_initial_map_of_abs_cam_is_a_gradient_method():
    """Of a linear score, whose gradient is the weights of its head; smoothed it is the same."""
    method = methods.abs_cam(stage="initial")
    expected = (abs(HEAD[..., 0]).mean((0, 1)) * X).sum(-1)
    np.testing.assert_allclose(explained(method).signed, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(JaxcamError, match="weighs derivatives; got abs_cam"):
        jaxcam.smooth(methods.abs_cam())


def test_a_group_of_feature_maps_and_its_scores():
    """At the threshold of one nothing is in a group: every score is ``2 S(A) - S(0)``, alike."""
    found = explained(methods.fd_cam(threshold=1))
    gradients = HEAD[..., 0].mean((0, 1))
    expected = (gradients - gradients.min()) / np.ptp(gradients) - 0.5
    np.testing.assert_allclose(found.weights, np.broadcast_to(expected, (2, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: methods.ss_cam(num_samples=0), "ss_cam: needs num_samples of at least 1"),
        (lambda: methods.ss_cam(noise_level=-1), "a noise_level of 0 or more; got -1"),
        (lambda: methods.is_cam(num_steps=1.5), "num_steps of at least 1; got 1.5"),
        (lambda: methods.is_cam(steps="odd"), "steps 'even' or 'cumulative'; got 'odd'"),
        (lambda: methods.abs_cam(stage="last"), "stage 'final' or 'initial'"),
        (lambda: methods.fd_cam(threshold=2), "a threshold from 0 to 1; got 2"),
    ],
)
def test_options_that_are_none(make, words):
    with pytest.raises(JaxcamError, match=words):
        make()


# rise


def test_masks_are_open_as_often_as_asked_for():
    """Of a network that is never surer than a half the map is one half, up to the masks' noise.

    A mask varies by ``p (1 - p)`` at most: five standard errors of the mean are allowed.
    """
    even = jaxcam.Split(lambda x: x, lambda a, x: a.sum((1, 2)) * 0)
    count, p = 1500, 0.3
    method = methods.rise(num_masks=count, cells=3, probability=p)
    found = jaxcam.cam(even, jnp.asarray(X), method, 0, key=jax.random.key(4))
    error = ((1 - p) / p / count) ** 0.5
    assert np.abs(2 * np.asarray(found.map) - 1).max() < 5 * error
    assert np.asarray(found.map).std() > 0.01 * error
    np.testing.assert_array_equal(found.map[0], found.map[1])
    assert f"{count} forward" in found.diagnostics.report.proof


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_masks": 0}, "num_masks of at least 1"),
        ({"cells": None}, "cells of at least 1; got None"),
        ({"probability": 0}, "a probability from .* to 1; got 0"),
    ],
)
def test_options_of_rise(options, words):
    with pytest.raises(JaxcamError, match=words):
        methods.rise(**options)
