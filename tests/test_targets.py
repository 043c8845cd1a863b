"""Targets: their values, their precision, and the classes they accept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import aims, noise, targets
from jaxcam.errors import JaxcamError
from jaxcam.targets import Aim

SCORES = jnp.array([1.0, -2.0, 0.5])


def value(target, index=0, scores=SCORES):
    return target.log_score(scores, Aim(jnp.int32(index)))


def test_values():
    assert value(targets.exp_logit(), 1) == -2
    assert value(targets.logit(), 2) == 0.5
    assert np.isclose(value(targets.softmax(), 2), np.log(np.exp(0.5) / np.exp(SCORES).sum()))
    margin = targets.custom(lambda scores: scores[0] - scores[1])
    assert value(margin, -1) == 3


@pytest.mark.parametrize("gap", [0.0, 10.0, 40.0, 80.0])
def test_softmax_keeps_its_derivatives_where_log_softmax_loses_them(gap):
    """Along a competing logit u1 = -p, u2 = -p(1-p), u3 = -p(1-p)(1-2p), p = 1/(1+e^gap)."""
    scores = jnp.array([gap, 0.0], jnp.float32)
    u = lambda t: value(targets.softmax(), 0, scores.at[1].add(t))  # noqa: E731
    found = [d(0.0) for d in (jax.grad(u), jax.grad(jax.grad(u)), jax.grad(jax.grad(jax.grad(u))))]
    p = 1 / (1 + np.exp(np.float64(gap)))
    truth = [-p, -p * (1 - p), -p * (1 - p) * (1 - 2 * p)]
    assert np.allclose(found, truth, rtol=1e-5, atol=1e-6 if gap == 0 else 0)


def test_the_class_is_fixed_or_per_image_or_the_top_one():
    scores = jnp.array([[0.0, 3.0, 1.0], [5.0, 0.0, 1.0]])
    resolve = lambda t: aims.resolve(targets.as_target(t), scores).class_index.tolist()  # noqa: E731
    assert resolve(None) == [1, 0]
    assert resolve(2) == [2, 2]
    assert resolve(np.array([0, 2])) == [0, 2]
    assert resolve(targets.softmax(jnp.array([2, 1]))) == [2, 1]


def test_bad_classes_are_refused():
    with pytest.raises(JaxcamError, match=r"integer class indices; got 1\.5"):
        targets.as_target(1.5)
    with pytest.raises(JaxcamError, match="integer class indices"):
        targets.as_target("cat")
    for wrong in (3, -1):
        with pytest.raises(JaxcamError, match=f"from 0 to 2; got {wrong}"):
            targets.check_class(targets.as_target(wrong), 3)
    with pytest.raises(JaxcamError, match=r"shape \(\) or \(2,\); got shape \(3,\)"):
        aims.resolve(targets.as_target(np.array([0, 1, 2])), jnp.zeros((2, 3)))


def test_a_class_out_of_range_inside_jit_gives_nan_and_not_another_class():
    assert np.isnan(jax.jit(lambda i: targets.exp_logit().log_score(SCORES, Aim(i)))(7))


# A region of a dense output.

DENSE = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 5, 3)))
MASK = np.asarray(jax.random.bernoulli(jax.random.key(1), 0.4, (2, 4, 5)))


def aim_of(target, scores):
    return aims.resolve(targets.as_target(target), jnp.asarray(scores))


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("one_for_all", [True, False])
def test_a_region_is_summed(mean, one_for_all):
    target = targets.region(2, MASK[0] if one_for_all else MASK, mean=mean)
    aim = aim_of(target, DENSE)
    assert aim.class_index.tolist() == [2, 2]
    for image in range(2):
        chosen = DENSE[image][MASK[0 if one_for_all else image]][:, 2]
        expected = chosen.mean() if mean else chosen.sum()
        one = jax.tree.map(lambda leaf, image=image: leaf[image], aim)
        np.testing.assert_allclose(
            target.log_score(jnp.asarray(DENSE[image]), one), expected, rtol=1e-5
        )


def test_without_a_class_it_is_the_one_of_the_largest_sum_in_the_region():
    sums = [DENSE[image][MASK[image]].sum(0).argmax() for image in range(2)]
    assert aim_of(targets.region(mask=MASK), DENSE).class_index.tolist() == sums


def test_without_a_mask_it_is_where_the_class_is_on_top():
    tops = DENSE.argmax(-1)
    found = aim_of(targets.region(1), DENSE)
    np.testing.assert_array_equal(found.about, tops == 1)
    most = [np.bincount(top.ravel(), minlength=3).argmax() for top in tops]
    found = aim_of(targets.region(), DENSE)
    assert found.class_index.tolist() == most
    np.testing.assert_array_equal(found.about, tops == np.reshape(most, (2, 1, 1)))


def test_a_class_that_is_on_top_nowhere_is_blank_and_said_to_be():
    scores = lambda a, x: a.at[..., 1].add(-100.0)  # noqa: E731
    split = jaxcam.Split(features=jnp.tanh, scores=scores)
    with pytest.warns(jaxcam.JaxcamWarning, match=r"image \[0, 1\] is blank"):
        found = jaxcam.cam(split, DENSE, jaxcam.methods.grad_cam(), targets.region(1, mean=True))
    assert not found.map.any()


def test_a_region_of_a_smoothed_map_is_that_of_the_clean_input():
    split = jaxcam.Split(features=jnp.tanh, scores=lambda a, x: jnp.sin(a) + x.mean())
    call = lambda target: jaxcam.smooth_grad_cam_pp(  # noqa: E731
        split,
        DENSE,
        target,
        key=jax.random.key(0),
        num_samples=4,
        sample_weights="uniform",
        engine="power",
    )
    clean = split.scores(split.features(DENSE), DENSE).argmax(-1) == 1
    found, expected = call(targets.region(1)), call(targets.region(1, clean))
    np.testing.assert_array_equal(found.map, expected.map)
    assert found.scores.shape == DENSE.shape
    # Kept is the class of the largest sum over the region, not the top of any one pixel.
    for image in range(2):
        about, one = clean[image], jnp.asarray(DENSE[image])
        draws = [noise.sample(jax.random.key(0), n, one, jnp.float32(0.15)) for n in range(4)]
        tops = [np.asarray(jnp.sin(jnp.tanh(x)) + x.mean())[about].sum(0).argmax() for x in draws]
        still = np.asarray(found.scores[image])[about].sum(0).argmax()
        share = np.mean([top == still for top in tops])
        assert found.diagnostics.top_class_kept[image] == share


def test_an_image_has_the_region_that_it_has_alone():
    split = jaxcam.Split(features=jnp.tanh, scores=lambda a, x: jnp.sin(a))
    method = jaxcam.methods.grad_cam_pp()
    both = jaxcam.cam(split, DENSE, method, targets.region(0, MASK))
    for image in range(2):
        target = targets.region(0, MASK[image])
        alone = jaxcam.cam(split, DENSE[image : image + 1], method, target)
        np.testing.assert_allclose(both.map[image], alone.map[0], rtol=1e-5)


def test_which_arrays_have_a_row_per_image_is_known_by_their_axes():
    """A mask for all has as many rows as there are images here: its shape would not tell."""
    rows = lambda target, rank: aims.per_image(targets.as_target(target), rank)  # noqa: E731
    square = np.ones((2, 2), bool)
    one, each = rows(targets.region(0, square), 4), rows(targets.region([0, 1], MASK), 4)
    assert (one.class_index, one.about) == (False, False)
    assert (each.class_index, each.about) == (True, True)
    assert not rows(targets.similarity(np.ones(2)), 2).about
    assert rows(targets.similarity(np.ones((2, 3))), 2).about


# Embeddings.

EMBEDDINGS = DENSE[:, 0]  # [2, 5, 3]
POOLED = jaxcam.Split(features=jnp.tanh, scores=lambda a, x: a.mean((1, 2)))
PAIRED = jaxcam.Split(
    features=jnp.tanh, scores=lambda a, x: jnp.stack([a.mean((1, 2)), x.max((1, 2))], axis=1)
)


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("one_for_all", [True, False])
def test_similarity_to_a_reference(one_for_all):
    reference = EMBEDDINGS[:, 1]
    target = targets.similarity(reference[0] if one_for_all else reference, scale=7.0)
    aim = aim_of(target, EMBEDDINGS[:, 0])
    for image in range(2):
        one = jax.tree.map(lambda leaf, image=image: leaf[image], aim)
        found = target.log_score(EMBEDDINGS[image, 0], one)
        truth = 7 * cosine(EMBEDDINGS[image, 0], reference[0 if one_for_all else image])
        np.testing.assert_allclose(found, truth, rtol=1e-5)


def test_similarity_of_a_pair():
    target, pair = targets.similarity(), EMBEDDINGS[:, :2]
    found = target.log_score(pair[0], aim_of(target, pair)._replace(about=None))
    np.testing.assert_allclose(found, cosine(pair[0, 0], pair[0, 1]), rtol=1e-5)


@pytest.mark.parametrize(
    ("split", "target"),
    [
        (POOLED, targets.similarity(EMBEDDINGS[:, 0], scale=3.0)),
        pytest.param(PAIRED, targets.similarity(), marks=pytest.mark.slow),
    ],
)
def test_similarities_have_maps_and_no_top_class(split, target):
    found = jaxcam.smooth_grad_cam_pp(
        split, DENSE, target, key=jax.random.key(0), num_samples=3, noise_level=0.05
    )
    assert found.diagnostics.top_class_kept is None
    assert found.target.tolist() == [-1, -1]
    assert found.diagnostics.report.exact
    alone = jaxcam.smooth_grad_cam_pp(
        split, DENSE[1:],
        target if target.about is None else targets.similarity(EMBEDDINGS[1, 0], scale=3.0),
        key=jax.random.key(0), num_samples=3, noise_level=0.05,
    )  # fmt: skip
    np.testing.assert_allclose(found.map[1], alone.map[0], rtol=2e-4, atol=1e-7)


def test_new_references_and_masks_compile_nothing():
    traced = []

    def scores(a, x):
        traced.append(1)
        return a.mean((1, 2))

    split = jaxcam.Split(jax.tree_util.Partial(jnp.tanh), jax.tree_util.Partial(scores))
    method = jaxcam.methods.grad_cam()
    jaxcam.cam(split, DENSE, method, targets.similarity(EMBEDDINGS[:, 0], scale=2.0))
    before = len(traced)
    jaxcam.cam(split, DENSE, method, targets.similarity(EMBEDDINGS[:, 1], scale=3.0))
    assert len(traced) == before > 0


@pytest.mark.parametrize(("target", "split", "words"), [
    (None, jaxcam.Split(jnp.tanh, lambda a, x: a), r"scores \[batch, classes\]; got .*region"),
    (targets.region(0), POOLED, "a dense output .*exp_logit"),
    (targets.region(0, MASK[0, :3]), jaxcam.Split(jnp.tanh, lambda a, x: a),
     r"a mask of shape \(4, 5\), or \(2, 4, 5\); got shape \(3, 5\)"),
    (targets.region(3), jaxcam.Split(jnp.tanh, lambda a, x: a), "from 0 to 2; got 3"),
    (targets.similarity(), POOLED, r"pairs \[batch, 2, d\]; got scores of shape \(2, 3\)"),
    (targets.similarity(EMBEDDINGS[0, 0]), PAIRED, r"embeddings \[batch, d\]"),
    (targets.similarity(np.ones(4)), POOLED, r"a reference of shape \(3,\), or \(2, 3\)"),
    (targets.similarity(np.zeros(3)), POOLED, "finite maps"),
])  # fmt: skip
def test_what_does_not_fit_the_scores_is_refused(target, split, words):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.cam(split, DENSE, jaxcam.methods.grad_cam(), target)


def test_masks_are_refused_at_once():
    with pytest.raises(JaxcamError, match="a mask of booleans; got float32"):
        targets.region(0, np.ones((2, 2), np.float32))
    with pytest.raises(JaxcamError, match="at least one pixel"):
        targets.region(0, np.zeros((2, 2), bool))
