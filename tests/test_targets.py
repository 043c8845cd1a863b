"""Targets: their values, their precision, and the classes they accept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import targets
from jaxcam.errors import JaxcamError

SCORES = jnp.array([1.0, -2.0, 0.5])


def value(target, index=0, scores=SCORES):
    return target.log_score(scores, jnp.int32(index))


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
    resolve = lambda t: targets.resolve(targets.as_target(t), scores).tolist()  # noqa: E731
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
        targets.resolve(targets.as_target(np.array([0, 1, 2])), jnp.zeros((2, 3)))


def test_a_class_out_of_range_inside_jit_gives_nan_and_not_another_class():
    assert np.isnan(jax.jit(lambda i: targets.exp_logit().log_score(SCORES, i))(7))
