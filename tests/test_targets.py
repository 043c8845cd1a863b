"""Targets: their values, their precision, and the classes they accept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import normal

import jaxcam
from jaxcam import targets
from jaxcam.errors import JaxcamError
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline import noise
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
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_keeps_its_derivatives_where_log_softmax_loses_them(gap, masked):
    """Along the lower of two logits, with ``p = 1 / (1 + e^gap)`` its probability."""
    scores = jnp.array([gap, 0.0, -jnp.inf][: 3 if masked else 2], jnp.float32)
    p = 1 / (1 + np.exp(np.float64(gap)))
    bends = [-p * (1 - p), -p * (1 - p) * (1 - 2 * p)]
    for index, slope in ((0, -p), (1, 1 - p)):
        found, gradient = slopes_of_softmax(scores, index)
        assert np.allclose(found, [slope, *bends], rtol=1e-5, atol=1e-6 if gap == 0 else 0)
        assert np.isfinite(gradient).all()


@jax.jit
def slopes_of_softmax(scores, index):
    u = lambda s: value(targets.softmax(), index, s)  # noqa: E731
    first = jax.grad(lambda t: u(scores.at[1].add(t)))
    second = jax.grad(first)
    return [d(0.0) for d in (first, second, jax.grad(second))], jax.grad(u)(scores)


def test_a_class_that_is_masked_out_has_no_probability():
    scores = jnp.array([1.0, -jnp.inf, 0.5])
    assert value(targets.softmax(), 1, scores) == -np.inf
    assert np.isnan(value(targets.softmax(), 0, jnp.array([jnp.inf, 0.0])))


def test_half_precision_scores_are_compared_in_single_precision():
    scores = jnp.array([20.0, 0.125, -3.0], jnp.bfloat16)
    found = value(targets.softmax(), 0, scores)
    assert np.isclose(found, -np.log1p(np.exp([-19.875, -23]).sum()), rtol=1e-5)


# A sure network behind global pooling, in float32 against the closed form in float64.

HEAD = np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]])
SURE = np.random.default_rng(3).uniform(0.25, 1, (1, 3, 3, 2)).astype(np.float32)


def logits_of(gain, mask, a, x):
    return jnp.where(mask, -jnp.inf, gain * (a.mean((1, 2)) @ jnp.asarray(HEAD, a.dtype)))


def log_softmax_of(gain, mask, a, x):
    return jnp.log(jax.nn.softmax(logits_of(gain, mask, a, x)))


def sure_split(scores, gain, mask):
    held = jax.tree_util.Partial(scores, jnp.float32(gain), jnp.asarray(mask)[None])
    return jaxcam.Split(jax.tree_util.Partial(jnp.asarray), held)


def sure_derivatives(gain, mask, index):
    """``u1, u2, u3`` of ``log p_c``, the same at all positions: cumulants of what competes."""
    wide = SURE[0].astype(np.float64)
    slopes = gain * HEAD / wide[..., 0].size
    scores = np.where(mask, -np.inf, gain * wide.mean((0, 1)) @ HEAD)
    p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    from_class = slopes - slopes[:, index, None]  # of the class itself zero: nothing cancels
    mean = from_class @ p
    apart = from_class - mean[:, None]
    return p, (-mean, -(apart**2) @ p, -(apart**3) @ p)


def taylor_map(u1, u2, u3):
    a = SURE[0].astype(np.float64)
    return (u1 * a - u2 * a**2 / 2 + u3 * a**3 / 6).sum(-1)


@pytest.mark.filterwarnings("ignore:.*blank")
@pytest.mark.parametrize("masked", [False, True])
def test_maps_of_sure_predictions_have_their_digits(masked):
    mask, method = np.array([False, False, masked]), jaxcam.methods.taylor_cam()
    low, high = np.sort(np.where(mask, -np.inf, SURE[0].mean((0, 1), np.float64) @ HEAD))[-2:]
    for margin in (0.7, 30.0, 68.0):  # 1 - p down to 1e-30
        gain = float(np.float32(margin / (high - low)))
        p, _ = sure_derivatives(gain, mask, 0)
        for index in (int(p.argmax()), int(np.where(mask, np.inf, p).argmin())):
            expected = taylor_map(*sure_derivatives(gain, mask, index)[1])
            largest = abs(expected).max()
            for scores, target in ((logits_of, targets.softmax(index)), (log_softmax_of, index)):
                found = jaxcam.cam(sure_split(scores, gain, mask), SURE, method, target)
                np.testing.assert_allclose(found.signed[0], expected, atol=1e-4 * largest, rtol=0)


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


@pytest.mark.parametrize("target", [targets.exp_logit(), targets.logit(), targets.softmax(),
                                    targets.exp_logit(negative=True)])  # fmt: skip
def test_a_class_that_is_none_gives_nan_inside_jit(target):
    slopes = jax.jit(jax.vmap(jax.value_and_grad(target.log_score), (None, 0)))
    u, gradient = slopes(SCORES, Aim(jnp.array([2, -1, 3, 7])))
    np.testing.assert_array_equal(np.isnan(u), [False, True, True, True])
    np.testing.assert_array_equal(np.isnan(gradient).any(1), [False, True, True, True])
    assert np.isfinite(gradient[0]).all()


def test_an_ignored_label_inside_jit_is_not_finite():
    split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)))
    dense = jaxcam.Split(jnp.tanh, lambda a, x: a)
    method = jaxcam.methods.grad_cam()

    @jax.jit
    def both(labels):
        found = jaxcam.cam(split, DENSE, method, labels), jaxcam.cam(
            dense, DENSE, method, targets.region(labels, mean=True))  # fmt: skip
        return [(each.map, each.diagnostics.finite) for each in found]

    for heat, finite in both(jnp.array([-1, 1])):
        assert finite.tolist() == [False, True]
        assert np.isnan(heat[0]).all()
        assert np.isfinite(heat[1]).all()


# A region of a dense output.

DENSE = normal((2, 4, 5, 3))
MASK = np.random.default_rng(1).random((2, 4, 5)) < 0.4


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
    with pytest.warns(jaxcam.JaxcamWarning, match=r"region of image \[0, 1\] is empty"):
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


# One score, and functions of one's own.


def binary(a, x):
    return (a @ jnp.array([1.0, -1.0, 0.5])).mean((1, 2))[:, None]


ONE = jaxcam.Split(jnp.tanh, binary)


def test_the_other_side_of_one_logit():
    method = jaxcam.methods.grad_cam()
    one, other = (
        jaxcam.cam(ONE, DENSE, method, targets.exp_logit(0, negative=n)) for n in (False, True)
    )
    np.testing.assert_allclose(other.signed, -one.signed, rtol=1e-6)
    with pytest.raises(JaxcamError, match=r"from 0 to 0; got 1.*exp_logit\(0, negative=True\)"):
        jaxcam.cam(ONE, DENSE, method, 1)
    with pytest.raises(JaxcamError, match=r"two classes or more; got one.*negative=True"):
        jaxcam.cam(ONE, DENSE, method, targets.softmax())


@pytest.mark.parametrize(("own", "words"), [
    (lambda s: s[:1], r"got an array of shape \(1,\).*\[0\]"),
    (lambda s: s, r"got an array of shape \(3,\)"),
    (lambda s: (s > 0).sum(), "a number of int32"),
    (lambda s: 1.0, "does not depend on the scores"),
    (lambda s: None, "got None"),
    (lambda s: (s.sum(),), "got a tuple"),
    (lambda s: s[7], "the index 7 into an axis of length 3"),
    (lambda s: s[-4], "the index -4 into an axis of length 3"),
    (lambda s: s[np.array([0, 3])].sum(), "the index 3 into an axis of length 3"),
    (lambda s: s[0] if s[0] > 0 else s[1], r"an if .* on a value.*jnp\.where"),
    (lambda s: float(s[0]), r"float\(\).*jax\.numpy"),
    (lambda s: np.exp(np.asarray(s)[0]), "NumPy"),
    (lambda s: s["logits"], r"TypeError: .*for scores of shape \(3,\)"),
])  # fmt: skip
def test_a_function_that_is_no_score_is_refused_by_name(own, words):
    own.__name__ = "mine"
    with pytest.raises(
        JaxcamError, match=r"targets\.custom\(mine\): needs one floating .*" + words
    ):
        aims.resolve(targets.custom(own), jnp.zeros((2, 3)))


def test_a_function_that_is_one_is_taken():
    for own in (lambda s: s[2], lambda s: s[jnp.argmax(s)], np.max, lambda s: s[-3]):
        assert aims.resolve(targets.as_target(own), jnp.zeros((2, 3))).class_index.tolist() == [
            -1,
            -1,
        ]
    with pytest.raises(JaxcamError, match=r"a function of scores; got 3.*class index"):
        targets.custom(3)


def test_one_channel_is_its_region_where_its_logit_is_above_zero():
    found = aim_of(targets.region(), DENSE[..., :1])
    np.testing.assert_array_equal(found.about, DENSE[..., 0] > 0)
    assert found.class_index.tolist() == [0, 0]


def test_masks_of_zeros_and_ones_are_masks():
    assert targets.region(0, MASK.astype(int)).about.dtype == bool
    with pytest.raises(JaxcamError, match=r"a mask of booleans; got int.*labels == 7"):
        targets.region(0, 2 * MASK.astype(int))


def test_an_infinite_score_is_named():
    split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) - jnp.array([[0.0, jnp.inf, 0.0]]))
    with pytest.raises(
        JaxcamError, match=r"NaN or infinity in image \[0, 1\]. The score of class 1"
    ):
        jaxcam.cam(split, DENSE, jaxcam.methods.grad_cam(), 1)
    assert jaxcam.cam(split, DENSE, jaxcam.methods.grad_cam(), 0).diagnostics.finite.all()


class Weighted(NamedTuple):
    """A function that holds its weights: neither to be hashed nor compared as a whole."""

    weights: Any
    name: str = "weighted"

    def __call__(self, value, *_):
        return value.mean((1, 2)) @ jnp.diag(self.weights)


class Sum(NamedTuple):
    weights: Any

    def __call__(self, scores):
        return (scores * self.weights).sum()


def test_functions_that_are_containers_have_their_arrays_for_leaves():
    x = jnp.asarray(np.arange(12.0).reshape(1, 2, 2, 3), jnp.float32)
    maps = []
    for scale in (1.0, 2.0):
        w = scale * jnp.arange(1, 4.0)
        target = targets.custom(Sum(w))
        split = jaxcam.Split(jnp.tanh, Weighted(w))
        maps.append(jaxcam.cam(split, x, jaxcam.methods.grad_cam(), target).map)
    np.testing.assert_allclose(maps[1], 4 * maps[0], rtol=1e-6)
    with pytest.raises(jaxcam.JaxcamError, match=r"targets.custom\(Sum\).*shape \(3,\)"):
        jaxcam.cam(split, x, jaxcam.methods.grad_cam(), targets.custom(Sum(jnp.ones((3, 3)))))


# One class against others, several as one, one logit, quantities.

DRAWN = np.random.default_rng(5).normal(scale=3, size=(2, 6)).astype(np.float32)
DEFINED = {
    "contrast": (targets.contrast(1, [4, 0, 4], gamma=0.7),
                 lambda s: oracles.contrast(s, 1, [4, 0, 4], 0.7)),
    "nearest": (targets.contrast(2, nearest=2),
                lambda s: oracles.contrast(s, 2, oracles.nearest(s, 2, 2), 0.6)),
    "rest": (targets.rest(3), lambda s: oracles.rest(s, 3)),
    "counterfactual": (targets.counterfactual(3), lambda s: -s[3]),
    "any_of": (targets.any_of([5, 0, 5]),
               lambda s: oracles.any_of(s, [5, 0, 5], probability=False)),
    "probability": (targets.any_of([5, 0, 5], probability=True),
                    lambda s: oracles.any_of(s, [5, 0, 5], probability=True)),
    "regression": (targets.regression(2, scale=4), lambda s: s[2] / 4),
    "lower": (targets.regression(2, scale=4, negative=True), lambda s: -s[2] / 4),
    "other side": (targets.binary(False), lambda s: -s[0]),
    "own side": (targets.binary(1), lambda s: s[0]),
}  # fmt: skip


def scored(target, scores):
    """Give ``u`` and its gradient for a batch of scores, as a call does."""
    aim = aims.resolve(targets.as_target(target), jnp.asarray(scores))
    return jax.vmap(jax.value_and_grad(target.log_score))(jnp.asarray(scores), aim)


@pytest.mark.parametrize("name", DEFINED)
def test_each_is_its_definition(name):
    target, definition = DEFINED[name]
    scores = DRAWN[:, :1] if target.form.scores == targets.BINARY else DRAWN
    u, gradient = scored(target, scores)
    for found, slope, wide in zip(u, gradient, scores.astype(np.float64), strict=True):
        steps = 1e-6 * np.eye(len(wide))
        apart = [(definition(wide + one) - definition(wide - one)) / 2e-6 for one in steps]
        np.testing.assert_allclose(found, definition(wide), rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(slope, apart, atol=2e-6)


def test_unions_and_rest_keep_their_digits_at_every_confidence():
    """Along the last logit, or the two others together, with ``p`` its share of exponentials."""
    first_two, last = (targets.any_of(c, probability=True) for c in ([0, 1], [2]))

    @jax.jit
    def slopes(scores):
        def found(t):
            return jnp.stack([
                target.log_score(scores + t * jnp.array(along), Aim(jnp.int32(0), target.about))
                for target, along in (
                    (first_two, [0.0, 0.0, 1.0]), (last, [0.0, 0.0, 1.0]),
                    (targets.rest(0), [0.0, 0.0, 1.0]), (first_two, [-1.0, -1.0, 0.0]),
                )
            ])  # fmt: skip

        first = jax.jacfwd(found)
        second = jax.jacfwd(first)
        return [d(0.0) for d in (first, second, jax.jacfwd(second))]

    for gap in (0.0, 40.0, 80.0):
        p = 1 / (1 + np.exp(gap) + np.exp(gap - 1))
        bends = [-p * (1 - p), -p * (1 - p) * (1 - 2 * p)]
        expected = [[own - p, *bends] for own in (0, 1, 0, 0)]
        found = np.transpose(slopes(jnp.array([gap, gap - 1, 0.0], jnp.float32)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 if gap == 0 else 0)


def test_references_are_the_nearest_by_score_and_never_the_class_itself():
    scores = np.array([[1, 0, 2, -5, 1], [0, 0, 0, 9, -np.inf]], np.float32)
    for count in (1, 3, 9):
        aim = aims.resolve(targets.contrast(nearest=count), jnp.asarray(scores))
        assert aim.class_index.tolist() == [2, 3]
        expected = [
            oracles.nearest(row, top, count) for row, top in zip(scores, (2, 3), strict=True)
        ]
        assert aim.about.tolist() == expected


def test_what_is_explained_where_nothing_is_named():
    chosen = lambda target, s: aims.resolve(target, jnp.asarray(s)).class_index.tolist()  # noqa: E731
    assert chosen(targets.binary(), [[-0.5], [0.5]]) == [0, 1]
    assert chosen(targets.regression(), [[-0.5], [0.5]]) == [0, 0]
    assert chosen(targets.any_of([1, 2]), [[9.0, 1.0, 2.0], [9.0, 2.0, 1.0]]) == [2, 1]
    assert chosen(targets.any_of([[1], [2]]), [[9.0, 1.0, 2.0], [9.0, 2.0, 1.0]]) == [1, 2]


def test_a_map_of_a_contrast_is_the_contrast_of_maps():
    """HiResCAM is linear in ``u``; each image has its own top class and references."""
    split, method = jaxcam.Split(jnp.tanh, lambda a, x: jnp.sin(3 * a).mean((1, 2))), (
        jaxcam.methods.hires_cam())  # fmt: skip
    signed = [jaxcam.cam(split, DENSE, method, c).signed for c in range(3)]
    found = jaxcam.cam(split, DENSE, method, targets.contrast(gamma=0.5, nearest=1))
    for image, c in enumerate(found.target.tolist()):
        (d,) = oracles.nearest(np.asarray(found.scores[image]), c, 1)
        expected = signed[c][image] - 0.5 * signed[d][image]
        np.testing.assert_allclose(found.signed[image], expected, atol=1e-6)
        own = targets.contrast(c, np.array([[d], [d]]), gamma=0.5)
        alone = jaxcam.cam(split, DENSE, method, own, chunk_size=1).signed
        np.testing.assert_allclose(alone[image], expected, atol=1e-6)


def test_the_sides_of_a_logit_and_which_samples_keep_theirs():
    method = jaxcam.smooth(jaxcam.methods.grad_cam(), num_samples=4, noise_level=2.0)
    bent = jaxcam.Split(jnp.tanh, lambda a, x: jnp.sin(3 * binary(a, x)))
    found = jaxcam.cam(bent, DENSE, method, targets.binary(), key=jax.random.key(0))
    assert found.target.tolist() == (found.scores[:, 0] > 0).astype(int).tolist()
    key, own = jax.random.key(0), []
    for image, side in zip(DENSE, found.target.tolist(), strict=True):
        noisy = [noise.sample(key, n, jnp.asarray(image), jnp.float32(2.0)) for n in range(4)]
        logits = [float(bent.scores(jnp.tanh(x)[None], 0)[0, 0]) for x in noisy]
        own.append(np.mean([(logit > 0) == side for logit in logits]))
    assert found.diagnostics.top_class_kept.tolist() == own
    assert 0 < np.mean(own) < 1


@pytest.mark.parametrize(("target", "shape", "words"), [
    (targets.contrast(), (2, 1), "two classes or more; got one score, and no other"),
    (targets.rest(), (2, 1), "two classes or more; got one score, whose softmax"),
    (targets.contrast(0, [[1], [2], [1]]), (2, 3), r"\[m\], or \[2, m\].*got shape \(3, 1\)"),
    (targets.binary(), (2, 3), r"one logit, scores \[batch, 1\]; got .*\(2, 3\)"),
    (targets.regression(), (2, 3), r"the output that is explained; got none, of 3"),
    (targets.regression(0), (2, 3, 3), r"outputs \[batch, outputs\]"),
    (targets.any_of([0]), (2, 3, 3), r"scores \[batch, classes\]"),
])  # fmt: skip
def test_other_scores_than_theirs_are_refused(target, shape, words):
    with pytest.raises(JaxcamError, match=words):
        aims.resolve(target, jnp.zeros(shape))


@pytest.mark.parametrize(("target", "words"), [
    (targets.contrast(0, [3]), "'contrast': needs a class index from 0 to 2; got 3"),
    (targets.contrast(0, [1, -1]), "from 0 to 2; got -1"),
    (targets.contrast(1, [2, 1]), "other classes; got class 1 against itself"),
    (targets.contrast([0, 2], [[1], [2]]), "class 2 against itself"),
    (targets.any_of([2, 7]), "'any_of': needs a class index from 0 to 2; got 7"),
    (targets.regression(3), "from 0 to 2; got 3"),
    (targets.binary(2), "from 0 to 1; got 2"),
])  # fmt: skip
def test_classes_that_are_none_of_them_are_refused(target, words):
    with pytest.raises(JaxcamError, match=words):
        targets.check_class(targets.as_target(target), 3)


def test_a_top_class_against_itself_is_refused_by_a_call():
    split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2)) + jnp.array([[0.0, 9.0, 0.0]]))
    with pytest.raises(JaxcamError, match="class 1 against itself"):
        jaxcam.cam(split, DENSE, jaxcam.methods.grad_cam(), targets.contrast(None, [1]))


@pytest.mark.parametrize(("make", "words"), [
    (lambda: targets.contrast(0, [1], gamma=-1), "a gamma of 0 or more; got -1"),
    (lambda: targets.contrast(0, [1], gamma=[1.0]), "a gamma of 0 or more"),
    (lambda: targets.contrast(0, nearest=0), "nearest of at least 1; got 0"),
    (lambda: targets.contrast(0, []), r"class indices \[m\]"),
    (lambda: targets.contrast(0, 1), r"class indices \[m\], or \[batch, m\]; got 1"),
    (lambda: targets.any_of([0.5]), "integer class indices"),
    (lambda: targets.any_of([True, False]), "integer class indices"),
    (lambda: targets.regression(scale=0), "a scale above 0; got 0"),
    (lambda: targets.regression(scale=np.nan), "a scale above 0; got nan"),
])  # fmt: skip
def test_options_of_targets_that_are_none(make, words):
    with pytest.raises(JaxcamError, match=words):
        make()


def test_inside_jit_a_wrong_class_among_others_gives_nan():
    @jax.jit
    def slopes(others, side):
        against = targets.contrast(0, gamma=jnp.float32(0.5)).log_score
        among = [targets.any_of([0], probability=p).log_score for p in (False, True)]
        own = targets.binary(0).log_score
        found = [jax.grad(u)(SCORES, Aim(jnp.int32(0), others)) for u in (against, *among)]
        return [jnp.isnan(slope).any() for slope in (*found, jax.grad(own)(SCORES, Aim(side)))]

    fine, wrong, own = (
        [bool(nan) for nan in slopes(jnp.array(others), side)]
        for others, side in (([1, 2], 0), ([1, 3], 2), ([1, 0], -1))
    )
    assert (fine, wrong, own) == ([False] * 4, [True] * 4, [True, False, False, True])
