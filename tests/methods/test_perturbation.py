"""Methods of queries: their options, and what each refuses. What all must keep: test_methods.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import methods, targets
from jaxcam.errors import JaxcamError

X = np.random.default_rng(2).normal(size=(2, 5, 4, 2)).astype(np.float32)
HEAD = np.random.default_rng(3).normal(size=(5, 4, 2, 2)).astype(np.float32)


def linear() -> jaxcam.Split:
    """Cut at the input; scores are sums by weights of their own for each place."""
    return jaxcam.Split(lambda x: x, lambda a, x: jnp.einsum("bijk,ijkc->bc", a, HEAD))


def explained(method, target=0, split=None):
    return jaxcam.cam(split or linear(), jnp.asarray(X), method, target)


# outcomes


def test_a_probability_is_that_of_a_class_among_several():
    margin = targets.custom(lambda scores: scores[0] - scores[1])
    with pytest.raises(JaxcamError, match=r"recipro_cam: .* of a class; got a target of none"):
        explained(methods.recipro_cam(), margin)
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
