"""The check of removals: against removals by loop in float64, and by what must make it fail."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import affine, images, relu, smooth

import jaxcam
from jaxcam import targets
from jaxcam.errors import JaxcamError, NotProved
from jaxcam.methods import taylor_cam
from jaxcam.metrics import removal

ALL = 5 * 4 * 4  # elements of the networks' layer


def log_score(split, x, kind="exp_logit", index=1):
    return oracles.log_score(
        lambda a: split.scores(a[None], jnp.asarray(x, a.dtype)[None])[0], index, kind
    )


def activations(split, x) -> np.ndarray:
    return np.asarray(split.features(jnp.asarray(x)[None]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exp_logit", "softmax"])
def test_effects_are_the_oracles(kind):
    with jax.enable_x64(True):
        split, x = smooth(), images(2, dtype=np.float64)
        check = jaxcam.check_removal(split, x, getattr(targets, kind)(1), samples=30, chunk_size=7)
        assert check.elements.shape == (2, 30)
        for b in range(2):
            a, u, chosen = activations(split, x[b]), log_score(split, x[b], kind), check.elements[b]
            assert len(set(chosen.tolist())) == 30
            truth, d = oracles.removals(u, a), oracles.brute_force(u, a)
            np.testing.assert_allclose(check.removal[b], truth.ravel()[chosen], atol=1e-14)
            for k in (1, 2, 3):
                expected = oracles.taylor(d, a, k).ravel()[chosen]
                np.testing.assert_allclose(check.taylor[b, k - 1], expected, atol=1e-14)
                removals = truth.ravel()[chosen]
                error = np.linalg.norm(expected - removals) / np.linalg.norm(removals)
                assert check.l2_error[b, k - 1] == pytest.approx(error, rel=1e-9)
    assert set(check.elements[0]) != set(check.elements[1])
    assert check.engine in ("powered", "adjoint")
    assert "bend" in check.proof


def test_the_effects_are_those_that_the_map_sums():
    split, x = smooth(), images()
    check = jaxcam.check_removal(split, x, 1, samples=10**6)
    assert sorted(check.elements[0]) == list(range(ALL))
    effects = np.zeros(ALL, np.float32)
    effects[check.elements[0]] = check.taylor[0, 2]
    signed = jaxcam.cam(split, x, taylor_cam(), 1).signed[0]
    np.testing.assert_allclose(effects.reshape(5, 4, 4).sum(-1), signed, rtol=1e-4, atol=1e-5)


def test_measures_by_hand():
    """Errors 0, 3, -4 and 0 of effects 1, 2, 10 and -4; the element at zero counts for nothing."""
    truth, taylor = np.array([1.0, 2.0, 10.0, -4.0, 0.0]), np.array([1.0, 5.0, 6.0, -4.0, 0.0])
    there = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    measured = removal._nearness(there[None], np.stack([taylor, truth])[None], truth[None])
    l2, median, correlation = measured
    assert l2[0] == pytest.approx([5 / 11, 0])
    assert median[0] == pytest.approx([1.5 / 3, 0])
    assert correlation[0] == pytest.approx([np.corrcoef(taylor[:4], truth[:4])[0, 1], 1])


def test_measures_where_nothing_has_an_effect_are_absolute():
    nothing = np.zeros((1, 2))
    l2, median, correlation = removal._nearness(np.ones((1, 2)), np.array([[[3.0, 4.0]]]), nothing)
    assert (l2[0, 0], median[0, 0]) == (5, 3.5)
    assert np.isnan(correlation[0, 0])


def test_elements_that_are_zero_already_come_last():
    """A ReLU layer is full of zeros, whose removal says nothing."""
    split, x = relu(), images()
    a = activations(split, x[0]).ravel()
    alive = int((a != 0).sum())
    assert 0 < alive < ALL
    few = jaxcam.check_removal(split, x, 1, samples=alive)
    assert (a[few.elements[0]] != 0).all()
    every = jaxcam.check_removal(split, x, 1, samples=ALL)
    assert every.l2_error == pytest.approx(few.l2_error, rel=1e-4)
    assert every.median_error == pytest.approx(few.median_error, rel=1e-2)  # rounding


def test_the_seed_draws_the_elements():
    draw = lambda seed: jaxcam.check_removal(relu(), images(), 1, samples=9, seed=seed).elements  # noqa: E731
    assert (draw(1) == draw(1)).all()
    assert set(draw(1)[0]) != set(draw(2)[0])


def test_behind_piecewise_affine_tails_the_orders_agree_and_kinks_remain():
    kinked = jaxcam.check_removal(relu(), images(), 1)
    assert kinked.engine == "affine"
    assert (kinked.l2_error == kinked.l2_error[:, :1]).all()
    assert kinked.l2_error.min() > 1e-3
    flat = jaxcam.check_removal(affine(), images(), 1)
    assert flat.l2_error.max() < 1e-5
    assert flat.correlation == pytest.approx(np.ones((1, 3)))


def test_fewer_orders():
    check = jaxcam.check_removal(smooth(), images(2), order=1)
    assert check.l2_error.shape == check.median_error.shape == check.correlation.shape == (2, 1)
    assert check.taylor.shape == (2, 1, ALL)
    assert check.engine == "gradient"


def test_an_assumption_is_seen_to_be_wrong():
    """The papers' closed form stops at first order, and says so here."""
    assumed = jaxcam.check_removal(smooth(), images(), 1, engine="exponential")
    exact = jaxcam.check_removal(smooth(), images(), 1)
    assert assumed.l2_error[0, 2] > 2 * exact.l2_error[0, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "samples of at least 1; got 0"),
        ({"samples": 2.5}, "samples of at least 1; got 2.5"),
        ({"order": 4}, "order 1, 2 or 3; got 4"),
        ({"target": 9}, "from 0 to 4; got 9"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"x": images()[0, 0]}, "check_removal: needs x of shape"),
    ],
)
def test_refuses(options, words):
    call = {"x": images(), "target": 1} | options
    with pytest.raises(JaxcamError, match=words):
        jaxcam.check_removal(relu(), **call)


def test_refuses_what_is_not_proved_and_what_is_not_finite():
    with pytest.raises(NotProved, match="affine"):
        jaxcam.check_removal(smooth(), images(), engine="affine")
    # Fine as it is, but the network divides by what is removed.
    ratio = jaxcam.Split(lambda x: jnp.abs(x) + 1, lambda a, x: (1 / a).sum((1, 2)))
    with pytest.raises(JaxcamError, match="finite effects"):
        jaxcam.check_removal(ratio, images(), 1)
