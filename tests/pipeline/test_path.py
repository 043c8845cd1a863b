"""Nodes of a path up to a tolerance: levels of them, when they stop, and for whom.

Of a score that adds up over elements, ``u(A) = sum f(A_i)``, Integrated Gradients are known without
any quadrature: ``f(A_i) - f(B_i)``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import methods
from jaxcam.errors import JaxcamError, JaxcamWarning
from jaxcam.pipeline import path

EASY, HARD = jnp.array([[0.02], [-0.01], [0.04]]), jnp.array([[2.0], [0.6], [-1.4]])


def adds(f) -> jaxcam.Split:
    return jaxcam.Split(lambda x: x, lambda a, x: f(a).sum(axis=1))


def steep(a):
    return jnp.tanh(20 * a)


def hinge(a):
    return jax.nn.relu(a - 0.0037)


STEEP, HINGE = adds(steep), adds(hinge)


def until(tolerance, **more):
    return jaxcam.integrate(methods.hires_cam(), tolerance=tolerance, **more)


@pytest.mark.parametrize("rule", path.RULES)
def test_levels_are_rules_of_their_own(rule):
    """Of Gauss's nodes one after the other; of midpoints all so far."""
    found = path.numbered(rule, 60, True)
    begin, sizes = 0, [4, 8, 16, 32] if rule == path.GAUSS else [4, 12, 36]
    for size, end in zip(sizes, found.ends, strict=True):
        where, weights = path.nodes(rule, size)
        order = np.argsort(found.where[begin:end])
        np.testing.assert_allclose(found.where[begin:end][order], where, atol=1e-15)
        own = found.weights[begin:end][order]
        np.testing.assert_allclose(own / own.sum(), weights, rtol=1e-12)
        begin = end if rule == path.GAUSS else 0


@pytest.mark.parametrize(
    ("split", "f", "rule"), [(STEEP, steep, "gauss"), (HINGE, hinge, "midpoint")]
)
def test_it_takes_the_nodes_that_an_image_needs(split, f, rule):
    x = jnp.stack([EASY, HARD])
    result = jaxcam.cam(split, x, until(0.02))
    d, expected = result.diagnostics, np.asarray(f(x) - f(0.0 * x))[..., 0]
    assert d.report.rule == rule
    assert (d.relative_error <= 0.02).all()
    assert (d.gap <= 0.02).all()
    off = abs(result.signed - expected).max(axis=1) / result.map.max(axis=1)
    assert (off <= 0.02).all()
    np.testing.assert_allclose(
        d.relative_error, d.standard_error.max(axis=1) / result.map.max(axis=1), rtol=1e-5
    )
    if rule == "gauss":
        assert d.num_samples.tolist() == [8, 32]


def test_neither_neighbours_nor_chunks_nor_watching_move_where_it_stops():
    """To the last bit, next to one that needs more; and the same nodes by themselves."""
    beside = jaxcam.cam(STEEP, jnp.stack([EASY, HARD]), until(0.02))
    twins = jaxcam.cam(STEEP, jnp.stack([EASY, EASY]), until(0.02))
    assert (beside.signed[0] == twins.signed[0]).all()
    assert beside.diagnostics.num_samples[0] == twins.diagnostics.num_samples[0]
    told = []
    x = jnp.stack([EASY, HARD])
    watched = jaxcam.cam(STEEP, x, until(0.02), progress=lambda *at: told.append(at))
    assert told[-1] == (15, 15)  # rounds of 4 nodes, in levels of 4, 8, 16 and 32
    for other in (watched, jaxcam.cam(STEEP, x, until(0.02), chunk_size=3)):
        assert (other.diagnostics.num_samples == beside.diagnostics.num_samples).all()
        np.testing.assert_allclose(other.signed, beside.signed, rtol=1e-5, atol=1e-6)


def test_a_gap_keeps_an_image_open_whose_map_has_settled():
    """Both levels miss a step that is narrower than their nodes are apart."""
    narrow = adds(lambda a: a + jax.nn.sigmoid(4000 * (a - 0.22)))
    with pytest.warns(JaxcamWarning) as warned:
        d = jaxcam.cam(narrow, jnp.ones((1, 3, 1)), until(0.02, max_nodes=16)).diagnostics
    assert d.relative_error[0] < 0.02 < d.gap[0]
    assert d.num_samples[0] == 16
    assert "max_nodes=16 leaves a gap of 0.5" in str(warned[0].message)


def test_too_few_nodes_are_said():
    with pytest.warns(JaxcamWarning) as warned:
        result = jaxcam.cam(STEEP, jnp.stack([EASY, HARD]), until(1e-3, max_nodes=16))
    assert result.diagnostics.num_samples.tolist() == [8, 16]
    change, gap = (str(warning.message) for warning in warned)
    assert "max_nodes=16 left the error of the map of image [1]" in change
    assert "max_nodes=16 leaves a gap" in gap


@pytest.mark.parametrize("more", [{}, {"tolerance": 0.02}], ids=["nodes", "tolerance"])
def test_from_several_baselines_the_mean_of_their_maps(more):
    """``mean over B of f(A) - f(B)``; the paths from an image to itself say nothing."""
    x, starts = jnp.stack([EASY, HARD]), jnp.stack([EASY, EASY - 0.03, 2 * EASY])
    method = jaxcam.integrate(
        methods.hires_cam(), num_nodes=64, baseline=("several", starts), **more
    )
    result = jaxcam.cam(STEEP, x, method)
    gains = np.asarray(steep(x)[None] - steep(starts)[:, None])[..., 0]
    expected = gains.mean(axis=0)
    np.testing.assert_allclose(result.signed, expected, atol=0.01 * abs(expected).max())
    np.testing.assert_allclose(result.diagnostics.total, expected.sum(axis=1), rtol=1e-4)
    assert (result.diagnostics.gap < 0.02).all()
    if more:
        assert result.diagnostics.relative_error.shape == (2,)


def test_several_baselines_of_another_shape():
    wrong = jaxcam.integrate(methods.hires_cam(), baseline=("several", EASY))
    with pytest.raises(JaxcamError, match=r"several inputs of shape \(3, 1\): \[m, ...\]; got"):
        jaxcam.cam(STEEP, EASY[None], wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_nodes": 11, "tolerance": 0.1}, "max_nodes of at least 12"),
        ({"tolerance": -1}, "tolerance of 0 or more"),
        ({"tolerance": "small"}, "tolerance of 0 or more"),
    ],
)
def test_options_that_are_none(options, words):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.integrate(methods.hires_cam(), **options)


def test_two_paths_around_each_other_are_refused():
    once = jaxcam.integrate(methods.hires_cam())
    with pytest.raises(JaxcamError, match="not averaged over points yet; got hires_cam, averaged"):
        jaxcam.integrate(once)
