"""Taylor-CAM against the series in float64, against true removals, and against HiResCAM."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.tree_util import Partial
from networks import affine, convolve, images, pooled_head, relu, smooth, weights

import jaxcam
from jaxcam import targets
from jaxcam.errors import JaxcamError
from jaxcam.methods import grad_cam_pp, taylor_cam
from jaxcam.types import Derivatives

KEY = jax.random.key(3)
ORDERS = (1, 2, 3)


def relative(ours, truth) -> float:
    truth = np.asarray(truth, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - truth).max() / np.abs(truth).max())


def log_score(split, x, kind="exp_logit", index=1):
    """``u`` of one image's activations, as the oracles take it."""
    return oracles.log_score(
        lambda a: split.scores(a[None], jnp.asarray(x, a.dtype)[None])[0], index, kind
    )


def activations(split, x) -> np.ndarray:
    return np.asarray(split.features(jnp.asarray(x)[None]))[0]


def effects(result, a) -> np.ndarray:
    """What the map sums: an effect for each element."""
    return np.asarray(result.weights[0]) * a


# what it is


@pytest.mark.parametrize("kind", [pytest.param("exp_logit", marks=pytest.mark.slow), "softmax"])
def test_it_is_the_oracles(kind):
    with jax.enable_x64(True):
        split, x = smooth(), images(2, dtype=np.float64)
        a = activations(split, x[1])
        truth = oracles.brute_force(log_score(split, x[1], kind), a)
        target = getattr(targets, kind)(1)
        for order in ORDERS:
            result = jaxcam.cam(split, x, taylor_cam(order=order), target)
            assert result.weights.shape == split.features(x).shape
            assert relative(result.weights[1] * a, oracles.taylor(truth, a, order)) < 1e-12
            assert relative(result.map[1], oracles.taylor_cam(truth, a, order)) < 1e-12
            assert result.diagnostics.poles is None


def exponential(w, a, x):
    """All of its derivatives are there at zero, too; GELU's third is not."""
    return pooled_head(w, jnp.exp(convolve(a, w.second)))


@pytest.mark.slow
def test_the_remainder_shrinks_as_the_next_power_of_the_activations():
    """The remainder is O(a^(order + 1)): halving the activations halves it that many times."""
    with jax.enable_x64(True):
        x, remainders = images(dtype=np.float64), []
        for size in (1 / 16, 1 / 32):
            split = jaxcam.Split(
                lambda x, size=size: size * smooth().features(x), Partial(exponential, weights())
            )
            a = activations(split, x[0])
            truth = oracles.removals(log_score(split, x[0]), a)
            found = (jaxcam.cam(split, x, taylor_cam(order=order), 1) for order in ORDERS)
            remainders.append([np.abs(effects(result, a) - truth).max() for result in found])
    halvings = np.log2(np.divide(*remainders))
    np.testing.assert_allclose(halvings, [2, 3, 4], atol=0.15)


def cubic(w, a, x):
    """Of degree three in each element, with products of different elements."""
    flat = a.reshape(len(a), -1)
    shifted = jnp.roll(flat, 1, axis=1)
    return (flat**3 + 2 * flat**2 * shifted - flat * shifted) @ jnp.asarray(w, a.dtype)


def test_of_a_cubic_the_third_order_is_the_removal():
    w = np.random.default_rng(1).normal(size=(80, 5))
    split, x = smooth()._replace(scores=Partial(cubic, w)), images(dtype=np.float64)
    with jax.enable_x64(True):
        a = activations(split, x[0])
        truth = oracles.removals(log_score(split, x[0]), a)
        found = [effects(jaxcam.cam(split, x, taylor_cam(order=order), 1), a) for order in ORDERS]
    assert relative(found[2], truth) < 1e-12
    assert relative(found[1], truth) > 1e-2
    assert relative(found[0], truth) > 1e-2


def test_behind_an_affine_tail_every_order_is_the_removal():
    with jax.enable_x64(True):
        split, x = affine(), images(dtype=np.float64)
        a = activations(split, x[0])
        truth = oracles.removals(log_score(split, x[0]), a)
        for order in ORDERS:
            result = jaxcam.cam(split, x, taylor_cam(order=order), 1)
            assert relative(effects(result, a), truth) < 1e-12


@pytest.mark.parametrize("network", [smooth, relu])
def test_the_first_order_is_hirescam(network):
    split, x = network(), images()
    a = split.features(jnp.asarray(x))
    g = jax.grad(lambda a: split.scores(a, x)[0, 1])(a)
    hires = np.asarray(jax.nn.relu((g * a).sum(-1)))
    result = jaxcam.cam(split, x, taylor_cam(order=1), 1)
    assert relative(result.map, hires) < 1e-5
    assert result.diagnostics.report.engine == "gradient"  # one pass, whatever the tail


# targets


@pytest.mark.parametrize("network", [smooth, relu, affine])
def test_a_raw_logit_is_explained_as_its_exponential(network):
    """Both remove from ``u = S_c``; on piecewise affine tails orders two and three add zero."""
    one, other = (
        jaxcam.cam(network(), images(), taylor_cam(), target(1))
        for target in (targets.logit, targets.exp_logit)
    )
    assert one.map.max() > 0
    assert relative(one.signed, other.signed) < 1e-6


def test_the_words_about_alpha_are_left_out():
    """Behind a global mean alpha is constant over positions; here there is no alpha."""
    notes = [
        jaxcam.cam(affine(), images(), method, 1).diagnostics.report.notes
        for method in (taylor_cam(), grad_cam_pp())
    ]
    assert not any("alpha" in note for note in notes[0])
    assert any("alpha" in note for note in notes[1])


# subsets


def test_a_partition_sums_to_the_layer():
    split, x = smooth(), images(2)

    def run(**subset):
        return jaxcam.cam(split, x, taylor_cam(), 1, **subset)

    layer, shape = run(), split.features(x).shape
    half = np.random.default_rng(0).random(shape[1:]) > 0.5
    assert relative(run(neurons=half).signed + run(neurons=~half).signed, layer.signed) < 1e-5
    alone = [run(channels=[k]) for k in range(shape[-1])]
    assert relative(sum(one.signed for one in alone), layer.signed) < 1e-5
    expected = (layer.weights * split.features(x))[..., 2]
    assert relative(alone[2].signed, expected) < 1e-6


# noise


def test_without_noise_smoothing_changes_nothing():
    method = jaxcam.smooth(taylor_cam(), num_samples=3, noise_level=0.0)
    plain = jaxcam.cam(smooth(), images(), taylor_cam(), 1)
    limit = jaxcam.cam(smooth(), images(), method, 1, key=KEY)
    assert limit.diagnostics.report.averaged
    assert relative(limit.weights, plain.weights) < 1e-5
    assert relative(limit.map, plain.map) < 1e-5


@pytest.mark.parametrize("sample_weights", ["exact", "uniform"])
def test_smoothed_it_averages_the_derivatives_of_the_log_score(sample_weights):
    with jax.enable_x64(True):
        split, x = smooth(), images(dtype=np.float64)
        method = jaxcam.smooth(taylor_cam(), num_samples=4, sample_weights=sample_weights)
        result = jaxcam.cam(split, x, method, 1, key=KEY)
        level = jnp.asarray(0.15)
        noisy = [
            np.asarray(jaxcam.pipeline.noise.sample(KEY, n, jnp.asarray(x[0]), level))
            for n in range(4)
        ]
        points = [activations(split, x_n) for x_n in noisy]
        scores = [log_score(split, x_n) for x_n in noisy]
        heights = [float(u(jnp.asarray(a))) for u, a in zip(scores, points, strict=True)]
        clean = activations(split, x[0])
        derive = oracles.differentiated(lambda a, x_n: log_score(split, x_n)(a))
        triples = [derive(a, x_n) for a, x_n in zip(points, noisy, strict=True)]
    temper = {"exact": 1.0, "uniform": 0.0}[sample_weights]
    means, _ = oracles.averaged(list(zip(heights, triples, strict=True)), temper)
    assert relative(result.map[0], oracles.taylor_cam(means, clean, 3)) < 1e-10
    assert result.diagnostics.standard_error.shape == result.map.shape
    assert np.asarray(result.diagnostics.standard_error).max() > 0


# transformations and numbers


def test_jit_and_vmap_give_the_same():
    split, x = smooth(), images(4).reshape(2, 2, 5, 4, 2)
    run = lambda x: jaxcam.cam(split, x, taylor_cam(), 1).map  # noqa: E731
    plain = run(x[1])
    assert relative(jax.jit(run)(x[1]), plain) < 1e-5
    assert relative(jax.vmap(run)(jnp.asarray(x))[1], plain) < 1e-5


def test_it_is_differentiable():
    with jax.enable_x64(True):
        x = jnp.asarray(images(dtype=np.float64))

        def loss(split, x):
            return (jaxcam.cam(split, x, taylor_cam(), 1).signed ** 2).sum()

        by_split, by_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(smooth(), x)
        direction = np.random.default_rng(0).normal(size=x.shape)
        rise = (loss(smooth(), x + 1e-5 * direction) - loss(smooth(), x - 1e-5 * direction)) / 2e-5
        assert np.isclose((by_x * direction).sum(), rise, rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_split))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(by_split)) > 0


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_square_of_an_activation_need_not_fit(scale):
    """By hand, in any unit: 1e10 - 1e-10 1e20 / 2 + 1e-30 1e40 / 6, where 1e40 is infinity."""
    units = (1e10 / scale, 1e-10 / scale**2, 1e-30 / scale**3)
    d = Derivatives(*(jnp.full((1, 1), v, jnp.float32) for v in units))
    a = jnp.full((1, 1), 1e20, jnp.float32)
    for order, by_hand in zip(ORDERS, (1, 1 - 1 / 2, 1 - 1 / 2 + 1 / 6), strict=True):
        weights, poles = taylor_cam(order=order).weigh(d, a, jnp.float32(scale))
        assert poles is None
        assert np.asarray(weights)[0, 0] == pytest.approx(1e10 * by_hand, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_scores_of_any_size_fit_into_single_precision(factor):
    """Their cubes and squares would not: neither may be formed on the way."""
    scaled = weights()._replace(head=weights().head * np.float32(factor))
    split = smooth()._replace(scores=Partial(smooth().scores.func, scaled))
    plain, other = (jaxcam.cam(s, images(), taylor_cam(), 1) for s in (smooth(), split))
    assert relative(np.asarray(other.signed, np.float64) / factor, plain.signed) < 1e-4


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_activations_of_any_size_fit_into_single_precision(factor):
    """The network's units are a matter of taste: derivatives of order k carry ``factor^-k``."""
    other = jaxcam.Split(
        lambda x: smooth().features(x) * factor, lambda a, x: smooth().scores(a / factor, x)
    )
    plain, scaled = (jaxcam.cam(s, images(), taylor_cam(), 1) for s in (smooth(), other))
    assert relative(scaled.signed, plain.signed) < 1e-4


@pytest.mark.parametrize("order", [0, 4, -1, 2.5, "3", None])
def test_other_orders_are_refused(order):
    with pytest.raises(JaxcamError, match="taylor_cam: needs order 1, 2 or 3; got"):
        taylor_cam(order=order)
