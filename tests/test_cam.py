"""The drivers, against the oracles and against the limits that every map must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import CLASSES, affine, images, relu, smooth, weights

import jaxcam
from jaxcam import noise, targets
from jaxcam.methods import grad_cam, grad_cam_pp

KEY = jax.random.key(3)
TIGHT = 1e-9  # float64
LOOSE = 2e-4  # float32


def relative(ours, truth) -> float:
    truth = np.asarray(truth, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - truth).max() / np.abs(truth).max())


def one(split):
    """The split's functions on one example, as the oracles take them."""
    return (
        lambda x: split.features(jnp.asarray(x)[None])[0],
        lambda a, x: split.scores(a[None], jnp.asarray(x)[None])[0],
    )


@pytest.fixture(scope="module", params=["exp_logit", "softmax"])
def truth(request):
    """The oracle's means for one image, four samples, both ways to weigh them."""
    with jax.enable_x64(True):
        split, x = smooth(), images(2, dtype=np.float64)
        noisy = [np.asarray(noise.sample(KEY, n, jnp.asarray(x[1]), jnp.asarray(0.15)))
                 for n in range(4)]  # fmt: skip
        explained = {
            how: oracles.smooth_grad_cam_pp(
                noisy, x[1], *one(split), 2, kind=request.param, sample_weights=how
            )
            for how in ("exact", "uniform")
        }
        return request.param, split, x, explained


@pytest.mark.parametrize("sample_weights", ["exact", "uniform"])
@pytest.mark.parametrize(("numerator", "poles"), [("d2", "raw"), ("d2", "bounded"), ("d1", "raw")])
def test_smoothed_map_is_the_oracles(truth, numerator, poles, sample_weights):
    kind, split, x, explained = truth
    means = explained[sample_weights].means
    with jax.enable_x64(True):
        clean = np.asarray(split.features(jnp.asarray(x)))[1]
        expected = oracles.grad_cam_pp(*means, clean, numerator=numerator, poles=poles)
        result = jaxcam.smooth_grad_cam_pp(
            split, x, getattr(targets, kind)(2), key=KEY, num_samples=4,
            numerator=numerator, poles=poles, sample_weights=sample_weights,
        )  # fmt: skip
    assert relative(result.map[1], expected.map) < TIGHT
    assert relative(result.weights[1], expected.weights) < TIGHT
    if sample_weights == "exact":
        found = result.diagnostics.effective_samples[1]
        assert np.isclose(found, explained["exact"].effective_samples, rtol=1e-12)


def test_the_map_is_told_apart_from_the_peers():
    """If anybody makes our map agree with a published fault, this fails."""
    split, x = relu(), images()
    result = jaxcam.cam(split, x, grad_cam_pp(), 2)
    a = np.asarray(split.features(x))[0]
    g = np.asarray(jax.grad(lambda a: split.scores(a, x)[0, 2])(jnp.asarray(a)[None]))[0]
    ours = np.asarray(result.weights[0])
    assert relative(ours, oracles.grad_cam_pp(g, g**2, g**3, a).weights) < 1e-5
    faulty = {
        "alpha never normalised": oracles.torchcam_grad_cam_pp(g),
        "mean for sum": oracles.xplique_grad_cam_pp(g, a),
        "alpha sums to one": oracles.tf_keras_vis_grad_cam_pp(g, a, 0.0),
        "additive eps": oracles.pytorch_grad_cam_grad_cam_pp(g * 1e-3, a * 1e3),
    }
    for fault, theirs in faulty.items():
        direction = theirs / np.abs(theirs).max()
        assert relative(ours / np.abs(ours).max(), direction) > 1e-2, fault


def test_the_smoothed_map_is_told_apart_from_torchcams():
    split, x = relu(), images()
    features, scores = one(split)
    noisy = [np.asarray(noise.sample(KEY, n, jnp.asarray(x[0]), jnp.asarray(0.3, np.float32)))
             for n in range(4)]  # fmt: skip
    activations = [np.asarray(features(x_n)) for x_n in noisy]
    gradients = [
        np.asarray(jax.grad(lambda a, x_n=x_n: scores(a, x_n)[2])(jnp.asarray(a)))
        for a, x_n in zip(activations, noisy, strict=True)
    ]
    clean = np.asarray(features(x[0]))
    theirs = oracles.torchcam_smooth_grad_cam_pp(gradients, activations, clean)
    ours = jaxcam.smooth_grad_cam_pp(
        split, x, 2, key=KEY, num_samples=4, noise_level=0.3, sample_weights="uniform",
        engine="power",
    )  # fmt: skip
    assert relative(ours.map[0] / ours.map[0].max(), theirs.map / theirs.map.max()) > 1e-2


def test_grad_cam_is_the_oracles():
    split, x = smooth(), images()
    a = np.asarray(split.features(x))[0]
    g = np.asarray(jax.grad(lambda a: split.scores(a[None], x)[0, 1])(jnp.asarray(a)))
    expected = oracles.grad_cam(g, a)
    result = jaxcam.cam(split, x, grad_cam(), 1)
    assert relative(result.weights[0], expected.weights) < 1e-5
    assert relative(result.map[0], expected.map) < 1e-5
    assert result.diagnostics.poles is None


# Limits.


@pytest.mark.parametrize("network", [smooth, relu])
def test_one_noiseless_sample_is_grad_cam_pp(network):
    plain = jaxcam.cam(network(), images(), grad_cam_pp(), 1)
    limit = jaxcam.smooth_grad_cam_pp(
        network(), images(), 1, key=KEY, num_samples=1, noise_level=0.0
    )
    assert relative(limit.map, plain.map) < 1e-6
    assert limit.diagnostics.standard_error is None


def test_affine_tail_ignores_noise_and_takes_no_noisy_pass():
    calls = [
        jaxcam.smooth_grad_cam_pp(affine(), images(), 1, key=jax.random.key(n), noise_level=level)
        for n, level in enumerate((0.0, 0.1, 5.0))
    ]
    assert all((c.map == calls[0].map).all() for c in calls)
    report = calls[0].diagnostics.report
    assert report.engine == "affine"
    assert not report.noisy
    assert any("noise cannot change this map" in note for note in report.notes)
    assert any("alpha is constant over positions" in note for note in report.notes)
    assert calls[0].diagnostics.effective_samples is None


def test_noise_is_not_skipped_when_the_gradient_depends_on_the_input_alone():
    """The gradient is constant in A, yet a gate computed from x makes the noise matter."""
    gated = jaxcam.Split(relu().features, lambda a, x: (a * x[..., :1]).mean((1, 2)))
    result = jaxcam.smooth_grad_cam_pp(gated, images(), 1, key=KEY, num_samples=3)
    assert result.diagnostics.report.noisy
    assert not any("noise cannot" in note for note in result.diagnostics.report.notes)


def test_all_ones_is_the_layer_and_a_partition_sums_to_it():
    split, x = smooth(), images(2)

    def run(**subset):
        return jaxcam.smooth_grad_cam_pp(split, x, 1, key=KEY, num_samples=2, **subset)

    layer = run()
    shape = split.features(x).shape
    assert relative(run(neurons=np.ones(shape[1:], bool)).map, layer.map) < 1e-6
    half = np.random.default_rng(0).random(shape[1:]) > 0.5
    both = run(neurons=half).signed + run(neurons=~half).signed
    assert relative(both, layer.signed) < 1e-5
    alone = [run(channels=np.arange(4) == k) for k in range(4)]
    assert (run(channels=[2]).map == alone[2].map).all()
    assert relative(sum(one.signed for one in alone), layer.signed) < 1e-5
    expected = layer.weights[:, 2][:, None, None] * split.features(x)[..., 2]
    assert relative(alone[2].signed, expected) < 1e-6


@pytest.mark.parametrize("target", [targets.exp_logit, targets.softmax])
def test_a_shift_of_all_logits_changes_nothing(target):
    plain = smooth()
    shifted = plain._replace(scores=lambda a, x: plain.scores(a, x) + 100.0)
    run = lambda s: jaxcam.smooth_grad_cam_pp(s, images(), target(1), key=KEY, num_samples=3)  # noqa: E731
    assert relative(run(shifted).map, run(plain).map) < LOOSE


def test_channels_permute_with_their_weights():
    w, order, x = weights(), np.array([2, 0, 3, 1]), images()
    mixed = w._replace(first=w.first[..., order], second=w.second[..., order, :])
    split = jaxcam.Split(
        jax.tree_util.Partial(smooth().features.func, mixed),
        lambda a, x: smooth().scores(a[..., np.argsort(order)], x),
    )
    plain = jaxcam.smooth_grad_cam_pp(smooth(), x, 1, key=KEY, num_samples=2)
    permuted = jaxcam.smooth_grad_cam_pp(split, x, 1, key=KEY, num_samples=2)
    assert relative(permuted.weights, plain.weights[:, order]) < LOOSE
    assert relative(permuted.map, plain.map) < LOOSE


@pytest.mark.parametrize("network", [smooth, relu])
def test_a_batch_gives_each_image_what_it_gets_alone(network):
    x, classes = images(3), np.array([1, 0, 4])
    together = jaxcam.smooth_grad_cam_pp(network(), x, classes, key=KEY, num_samples=5)
    for b in range(3):
        alone = jaxcam.smooth_grad_cam_pp(
            network(), x[b : b + 1], int(classes[b]), key=KEY, num_samples=5
        )
        assert relative(together.map[b], alone.map[0]) < LOOSE
        assert int(together.target[b]) == classes[b]


def test_a_key_per_image_gives_each_its_own_noise():
    x = np.repeat(images(1), 2, axis=0)
    keys = jax.random.split(KEY, 2)
    run = lambda x, key: jaxcam.smooth_grad_cam_pp(relu(), x, 1, key=key, num_samples=4).map  # noqa: E731
    shared, own = run(x, KEY), run(x, keys)
    assert relative(shared[0], shared[1]) < 1e-6
    assert relative(own[0], own[1]) > 1e-4
    assert relative(own[1], run(x[1:], keys[1])[0]) < LOOSE


@pytest.mark.parametrize(("network", "sizes"), [(relu, (1, 3, 100)), (smooth, (13, 1000))])
def test_the_chunk_size_changes_nothing(network, sizes):
    with jax.enable_x64(True):
        results = [
            jaxcam.smooth_grad_cam_pp(
                network(), images(dtype=np.float64), 1, key=KEY, num_samples=7, chunk_size=size
            )
            for size in (None, *sizes)
        ]
    for other in results[1:]:
        assert relative(other.map, results[0].map) < 1e-12
        assert relative(other.diagnostics.standard_error,
                        results[0].diagnostics.standard_error) < 1e-9  # fmt: skip
        assert np.allclose(other.diagnostics.top_class_kept, results[0].diagnostics.top_class_kept)


def test_the_same_key_gives_the_same_bits_and_another_does_not():
    run = lambda key: jaxcam.smooth_grad_cam_pp(relu(), images(), 1, key=key, num_samples=3).map  # noqa: E731
    assert (run(KEY) == run(KEY)).all()
    assert (run(KEY) == run(jax.random.wrap_key_data(jax.random.key_data(KEY)))).all()
    assert (run(KEY) != run(jax.random.key(4))).any()
    old_style = jax.random.PRNGKey(3)
    assert (run(old_style) == run(KEY)).all()


def test_progress_runs_the_same_program_chunk_by_chunk():
    seen = []
    run = lambda **how: jaxcam.smooth_grad_cam_pp(  # noqa: E731
        relu(), images(), 1, key=KEY, num_samples=7, chunk_size=3, **how
    )
    shown = run(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert relative(shown.map, run().map) < 1e-5


@pytest.mark.parametrize("size", [(9,), (4, 3, 3)])
def test_one_and_three_spatial_axes(size):
    with jax.enable_x64(True):
        head = np.abs(weights().head[:2].astype(np.float64))
        split = jaxcam.Split(
            jax.nn.softplus, lambda a, x: jax.nn.silu(a.reshape(len(a), -1, 2)).mean(1) @ head
        )
        x = images(2, size=size, dtype=np.float64)
        result = jaxcam.smooth_grad_cam_pp(split, x, 1, key=KEY, num_samples=2)
        assert result.map.shape == (2, *size)
        plain = jaxcam.cam(split, x, grad_cam_pp(), 1)
        a = np.asarray(split.features(jnp.asarray(x)))[0]
        u = lambda a: split.scores(a[None], x[:1])[0, 1]  # noqa: E731
    d = oracles.bell(*oracles.brute_force(u, a))
    assert relative(plain.map[0], oracles.grad_cam_pp(*d, a, poles="bounded").map) < TIGHT


def test_the_top_class_is_taken_per_image_from_the_clean_input():
    x = images(4, seed=2)
    result = jaxcam.cam(relu(), x, grad_cam_pp())
    scores = relu().scores(relu().features(x), x)
    assert (result.target == scores.argmax(-1)).all()
    assert len(set(result.target.tolist())) > 1
    assert result.scores.shape == (4, CLASSES)
