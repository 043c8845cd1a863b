"""The drivers, against the oracles and against the limits that every map must keep."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import peers
import pytest
import rows
from networks import CLASSES, affine, images, relu, smooth, weights

import jaxcam
from jaxcam import targets
from jaxcam.errors import JaxcamWarning
from jaxcam.methods import grad_cam, grad_cam_pp
from jaxcam.pipeline import average, noise

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


TEMPERS = {"exact": 1.0, "uniform": 0.0, 0.4: 0.4}


@pytest.fixture(scope="module", params=["exp_logit", "softmax"])
def truth(request):
    """The oracle's means for one image, four samples, every way to weigh them."""
    with jax.enable_x64(True):
        split, x = smooth(), images(2, dtype=np.float64)
        noisy = [np.asarray(noise.sample(KEY, n, jnp.asarray(x[1]), jnp.asarray(0.15)))
                 for n in range(4)]  # fmt: skip
        samples = oracles.sampled(noisy, *one(split), 2, request.param)
        explained = {how: oracles.averaged(samples, temper) for how, temper in TEMPERS.items()}
        return request.param, split, x, explained


WAYS = {
    f"{numerator}-{poles}-{how}": (numerator, poles, how)
    for numerator, poles in (("d2", "raw"), ("d2", "bounded"), ("d1", "raw"))
    for how in TEMPERS
}


@rows.table("way", WAYS, ("d2-raw-exact", "d2-bounded-uniform", "d1-raw-0.4"))
def test_smoothed_map_is_the_oracles(truth, way):
    kind, split, x, explained = truth
    numerator, poles, sample_weights = way
    means, effective = explained[sample_weights]
    with jax.enable_x64(True):
        clean = np.asarray(split.features(jnp.asarray(x)))[1]
        expected = oracles.grad_cam_pp(*means, clean, numerator=numerator, poles=poles)
        result = jaxcam.smooth_grad_cam_pp(
            split, x, getattr(targets, kind)(2), key=KEY, num_samples=4,
            numerator=numerator, poles=poles, sample_weights=sample_weights,
        )  # fmt: skip
    assert relative(result.map[1], expected.map) < TIGHT
    assert relative(result.weights[1], expected.weights) < TIGHT
    found = result.diagnostics.effective_samples[1]
    assert np.isclose(found, effective, rtol=1e-12)
    assert (result.diagnostics.num_samples == 4).all()


def test_the_map_is_told_apart_from_the_peers():
    """If anybody makes our map agree with a published fault, this fails."""
    split, x = relu(), images()
    result = jaxcam.cam(split, x, grad_cam_pp(), 2)
    a = np.asarray(split.features(x))[0]
    g = np.asarray(jax.grad(lambda a: split.scores(a, x)[0, 2])(jnp.asarray(a)[None]))[0]
    ours = np.asarray(result.weights[0])
    assert relative(ours, oracles.grad_cam_pp(g, g**2, g**3, a).weights) < 1e-5
    faulty = {
        "alpha never normalised": peers.torch_cam_pp(g, a),
        "mean for sum": peers.xplique_pp(g, a),
        "alpha sums to one": peers.tf_keras_vis_pp(g, a),
        "additive eps": peers.pytorch_grad_cam_pp(g * 1e-3, a * 1e3),
    }
    for fault, theirs in faulty.items():
        direction = theirs.weights / np.abs(theirs.weights).max()
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
    theirs = peers.torch_cam_smooth_pp(gradients, activations, clean, [0] * 4)
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


@pytest.mark.parametrize("network", [pytest.param(smooth, marks=pytest.mark.slow), relu])
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
    assert not report.averaged
    assert any("noise cannot change this map" in note for note in report.notes)
    assert any("alpha is constant over positions" in note for note in report.notes)
    assert calls[0].diagnostics.effective_samples is None


def test_noise_is_not_skipped_when_the_gradient_depends_on_the_input_alone():
    """The gradient is constant in A, yet a gate computed from x makes the noise matter."""
    gated = jaxcam.Split(relu().features, lambda a, x: (a * x[..., :1]).mean((1, 2)))
    result = jaxcam.smooth_grad_cam_pp(gated, images(), 1, key=KEY, num_samples=3)
    assert result.diagnostics.report.averaged
    assert not any("noise cannot" in note for note in result.diagnostics.report.notes)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("target", [targets.exp_logit, targets.softmax])
def test_a_shift_of_all_logits_changes_nothing(target):
    plain = smooth()
    shifted = plain._replace(scores=lambda a, x: plain.scores(a, x) + 100.0)
    run = lambda s: jaxcam.smooth_grad_cam_pp(s, images(), target(1), key=KEY, num_samples=3)  # noqa: E731
    assert relative(run(shifted).map, run(plain).map) < LOOSE


@pytest.mark.slow
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


@pytest.mark.parametrize("network", [pytest.param(smooth, marks=pytest.mark.slow), relu])
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


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (relu, (1, 3)),
        pytest.param(relu, (100,), marks=pytest.mark.slow),
        pytest.param(smooth, (13, 1000), marks=pytest.mark.slow),
    ],
)
def test_the_chunk_size_changes_nothing(network, sizes):
    with jax.enable_x64(True):
        results = [
            jaxcam.smooth_grad_cam_pp(
                network(), images(dtype=np.float64), 1, key=KEY, num_samples=7, chunk_size=size
            )
            for size in ("auto", *sizes)
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


@pytest.mark.parametrize("size", [(9,), pytest.param((4, 3, 3), marks=pytest.mark.slow)])
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


# Schemes of noise, and sampling up to a tolerance.


def smoothed(x, network=relu, **options):
    return jaxcam.smooth_grad_cam_pp(network(), x, 1, key=KEY, **options)


# The other schemes by the slow tests: the noise itself is tested in test_noise.
SCHEMES = [
    "antithetic",
    *(pytest.param(name, marks=pytest.mark.slow) for name in noise.SCHEMES if name != "antithetic"),
]


@pytest.mark.parametrize("scheme", SCHEMES[:1] + SCHEMES[2:])
def test_a_map_of_a_scheme_is_the_oracles_of_its_samples(scheme):
    """Five samples: the last of them without its partner."""
    with jax.enable_x64(True):
        split, x, level = smooth(), images(dtype=np.float64), jnp.asarray(0.15)
        noisy = [np.asarray(noise.sample(KEY, n, jnp.asarray(x[0]), level, scheme))
                 for n in range(5)]  # fmt: skip
        means = oracles.smooth_grad_cam_pp(noisy, x[0], *one(split), 1).means
        clean = np.asarray(split.features(jnp.asarray(x)))[0]
        result = smoothed(x, smooth, num_samples=5, scheme=scheme)
    assert relative(result.map[0], oracles.grad_cam_pp(*means, clean, poles="bounded").map) < TIGHT


@pytest.mark.parametrize("chunk", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_map_of_a_scheme_does_not_depend_on_the_chunks(scheme, chunk):
    whole = smoothed(images(2), num_samples=21, scheme=scheme)
    parts = smoothed(images(2), num_samples=21, scheme=scheme, chunk_size=chunk)
    assert relative(parts.map, whole.map) < 1e-5
    error = whole.diagnostics.standard_error
    assert relative(parts.diagnostics.standard_error, error) < 1e-3


@pytest.mark.parametrize(("scheme", "unit"), [("independent", 1), ("antithetic", 2)])
def test_an_error_needs_two_units(scheme, unit):
    few, enough = (smoothed(images(), num_samples=unit + i, scheme=scheme) for i in (0, 1))
    assert few.diagnostics.standard_error is None
    assert few.diagnostics.relative_error is None
    assert enough.diagnostics.standard_error.shape == enough.map.shape


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["independent", "antithetic"])
def test_two_standard_errors_cover_the_map_of_all_the_noise(scheme):
    """Two hundred keys at once, against 16,384 samples."""
    keys, how = jax.random.split(jax.random.key(8), 200), {"scheme": scheme, "noise_level": 0.1}
    truth = smoothed(images(), num_samples=16_384, chunk_size=64, **how).map
    found = jaxcam.smooth_grad_cam_pp(
        relu(), np.repeat(images(), 200, axis=0), 1, key=keys, num_samples=64, **how
    )
    error = found.diagnostics.standard_error
    covered = (jnp.abs(found.map - truth) <= 2 * error)[:, truth[0] > 0]
    assert 0.93 <= covered.mean() <= 0.98
    wider = average.WIDER[-1]
    ratio = ((error / wider) ** 2).sum() / ((found.map - truth) ** 2).sum()
    assert 0.7 < ratio < 1.4


@pytest.fixture(scope="module")
def reached():
    """Three images of which each needs its own number of samples."""
    x = images(3) * np.array([0.2, 1.0, 2.0], np.float32).reshape(3, 1, 1, 1)
    return x, smoothed(x, tolerance=0.03, max_samples=5000)


@pytest.mark.slow
def test_a_tolerance_is_reached_with_no_more_samples_than_it_takes(reached):
    x, found = reached
    d = found.diagnostics
    assert (d.relative_error <= 0.03).all()
    assert len(set(d.num_samples.tolist())) > 1
    assert d.num_samples.max() < 5000
    top = found.map.max(axis=(1, 2))
    assert np.allclose(d.relative_error, d.standard_error.max(axis=(1, 2)) / top, rtol=1e-5)
    # The same samples, asked for by number; and 32 fewer, or a quarter, would not have done.
    for b, n in enumerate(d.num_samples.tolist()):
        same = smoothed(x[b : b + 1], num_samples=n)
        assert relative(found.map[b], same.map[0]) < 1e-5
        if n > 32:
            fewer = smoothed(x[b : b + 1], num_samples=max(32, n - max(32, n // 4)))
            assert fewer.diagnostics.relative_error[0] > 0.025


@pytest.mark.parametrize("chunk_size", [3, 64])
def test_where_an_image_stops_depends_on_neither_neighbours_nor_chunks(reached, chunk_size):
    x, found = reached
    for b in range(3):
        how = {"tolerance": 0.03, "max_samples": 5000, "chunk_size": chunk_size}
        alone = smoothed(x[b : b + 1], **how)
        assert alone.diagnostics.num_samples[0] == found.diagnostics.num_samples[b]
        assert relative(alone.map[0], found.map[b]) < 1e-5
        error = found.diagnostics.standard_error[b]
        assert relative(alone.diagnostics.standard_error[0], error) < 1e-3


def test_a_tolerance_is_reached_while_somebody_watches(reached):
    x, found = reached
    seen = []
    watched = smoothed(
        x, tolerance=0.03, max_samples=5000, progress=lambda *step: seen.append(step)
    )
    assert (watched.diagnostics.num_samples == found.diagnostics.num_samples).all()
    assert relative(watched.map, found.map) < 1e-5
    rounds = -(-int(found.diagnostics.num_samples.max()) // 32)
    assert seen[0] == (0, -(-5000 // 32))
    assert seen[-1] == (rounds, rounds)
    assert [done for done, _ in seen] == list(range(rounds + 1))


@pytest.mark.slow
def test_engines_that_take_samples_one_by_one_stop_too():
    x = images(2) * np.array([0.05, 1.0], np.float32).reshape(2, 1, 1, 1)
    found = smoothed(x, smooth, tolerance=0.2, max_samples=70, engine="directional")
    taken = found.diagnostics.num_samples
    same = smoothed(x[:1], smooth, num_samples=int(taken[0]), engine="directional")
    assert relative(found.map[0], same.map[0]) < 1e-5


def test_the_most_samples_are_kept_and_told():
    with pytest.warns(JaxcamWarning, match=r"max_samples=50 left .* image \[0\] .* 1e-06"):
        found = smoothed(images(), tolerance=1e-6, max_samples=50)
    assert (found.diagnostics.num_samples == 50).all()
    assert relative(found.map, smoothed(images(), num_samples=50).map) < 1e-5


def test_a_few_samples_that_carry_the_map_are_told():
    split = relu()._replace(scores=lambda a, x: 40 * relu().scores(a, x))
    run = lambda **how: jaxcam.smooth_grad_cam_pp(split, images(), 1, key=KEY, **how)  # noqa: E731
    with pytest.warns(JaxcamWarning, match=r"effective samples of 25 .* image \[0\].*temper"):
        found = run()
    assert found.diagnostics.effective_samples[0] < 25 / 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(sample_weights="uniform").diagnostics.effective_samples[0] == 25
        traced = jax.jit(lambda x: jaxcam.smooth_grad_cam_pp(split, x, 1, key=KEY).map)
        assert relative(traced(images()), found.map) < LOOSE


def test_tempered_weights_go_from_uniform_to_exact():
    runs = [smoothed(images(), sample_weights=t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    shares = [float(run.diagnostics.effective_samples[0]) for run in runs]
    assert shares == sorted(shares, reverse=True)
    assert (runs[0].map == smoothed(images(), sample_weights="uniform").map).all()
    assert (runs[-1].map == smoothed(images()).map).all()
