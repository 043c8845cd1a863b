"""Every method of the catalogue, against its slow definition, and what all of them must keep."""

import functools
import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import affine, images, pointwise, pointwise_weights, smooth, weights

import jaxcam
from jaxcam import methods, targets
from jaxcam.contracts import Game, Gradient
from jaxcam.errors import JaxcamError
from jaxcam.methods.catalogue import ROWS, rows
from jaxcam.methods.rise import drawn as mask_drawn
from jaxcam.pipeline import games, noise, path

KEY = jax.random.key(3)
CLASS, SAMPLES, NODES = 1, 3, 4
OPTIONS = {
    "smooth_grad_cam_pp": {"num_samples": SAMPLES},
    "integrated_gradients": {"num_nodes": NODES},
    "integrated_grad_cam": {"num_nodes": NODES},
    "ss_cam": {"num_samples": SAMPLES, "noise_level": 0.5},
    "is_cam": {"num_steps": 3},
    "rise": {"num_masks": 7, "cells": 2, "probability": 0.4},
    "occlusion": {"window": (3, 2), "stride": (2, 1)},
    "smooth_grad": {"num_samples": SAMPLES},
    "smooth_grad_squared": {"num_samples": SAMPLES},
    "var_grad": {"num_samples": SAMPLES},
    "shapley": {"num_permutations": SAMPLES},
}
RECTIFIED = {"guided_backprop", "deconvolution", "guided_grad_cam"}


def cut(at: str, name: str = "") -> jaxcam.Split:
    """Cut a network at a layer, or at its input: one that the method can serve."""
    split = pointwise() if name in RECTIFIED else affine() if name == "cam" else smooth()
    if at == "layer":
        return split
    return jaxcam.Split(lambda x: x, lambda a, x: split.scores(split.features(a), a))


class Truth:
    """What the oracles are given: the second of two images, at a layer or at the input."""

    def __init__(self, at: str, name: str = ""):
        self.split, self.x = cut(at, name), images(2, dtype=np.float64)
        self.image = self.x[1]
        self.a = np.asarray(self.split.features(jnp.asarray(self.x)))[1]

    def scores(self, a: jax.Array) -> jax.Array:
        return self.split.scores(a[None], jnp.asarray(self.image)[None])[0]

    @functools.cached_property
    def behind(self) -> Callable:
        """Give the scores of a changed image, one compilation for many of them."""
        run = jax.jit(lambda x: self.split.scores(self.split.features(x[None]), x[None])[0])
        return lambda x: np.asarray(run(jnp.asarray(x)))

    def behind_of_class(self, x: np.ndarray) -> np.ndarray:
        return self.behind(x)[CLASS]

    def u(self, a: jax.Array) -> jax.Array:
        return self.scores(a)[CLASS]

    @functools.cached_property
    def d(self) -> oracles.Triple:
        return oracles.bell(*oracles.brute_force(self.u, self.a))


def smoothed(truth: Truth) -> np.ndarray:
    noisy = [
        np.asarray(noise.sample(KEY, n, jnp.asarray(truth.image), jnp.asarray(0.15)))
        for n in range(SAMPLES)
    ]
    return oracles.smooth_grad_cam_pp(
        noisy, truth.image, lambda x: truth.split.features(x[None])[0],
        lambda a, x: truth.split.scores(a[None], x[None])[0], CLASS, poles="bounded",
    ).map  # fmt: skip


def gradients(truth: Truth, form: str) -> np.ndarray:
    x = jnp.asarray(truth.image)
    noisy = [np.asarray(noise.sample(KEY, n, x, jnp.asarray(0.15))) for n in range(SAMPLES)]

    def at(x: np.ndarray) -> np.ndarray:
        return oracles.gradient(lambda a: truth.split.scores(a[None], a[None])[0, CLASS], x)

    return oracles.moments([at(x) for x in noisy], form)


def rectified(truth: Truth, rule: str) -> np.ndarray:
    """By hand, of `pointwise`: its mean and head pass back the same to every position."""
    *inner, head = (w.astype(np.float64) for w in pointwise_weights())
    last = head[:, CLASS] / math.prod(truth.image.shape[:-1])
    return oracles.rectified_gradient(inner, truth.image, last, rule)


def guided_cam(truth: Truth) -> np.ndarray:
    cam = oracles.grad_cam(oracles.gradient(truth.u, truth.a), truth.a).map
    return cam * abs(rectified(truth, "guided")).max(axis=-1)


def integrated(truth: Truth) -> np.ndarray:
    where, weights = np.polynomial.legendre.leggauss(NODES)
    nodes = list(zip((where + 1) / 2, weights / 2, strict=True))
    black = np.asarray(truth.split.features(jnp.zeros((1, *truth.image.shape))))[0]
    return oracles.integrated(truth.u, truth.a, black, nodes)


def integrated_cam(truth: Truth) -> np.ndarray:
    where, weights = np.polynomial.legendre.leggauss(NODES)
    nodes = list(zip((where + 1) / 2, weights / 2, strict=True))
    return oracles.integrated_grad_cam(
        lambda x: truth.split.features(x[None])[0],
        lambda a, x: truth.split.scores(a[None], x[None])[0, CLASS], truth.image, nodes,
    )  # fmt: skip


def walked(truth: Truth) -> np.ndarray:
    """Walk the permutations that the library draws, both ways."""
    black = np.asarray(truth.split.features(jnp.zeros((1, *truth.image.shape))))[0]
    places = list(np.ndindex(truth.a.shape[:-1]))
    drawn = [np.asarray(games.order(KEY, n, len(places))) for n in range(SAMPLES)]
    orders = [[places[i] for i in one] for some in drawn for one in (some, some[::-1])]
    worth = oracles.coalition_worth(truth.u, truth.a, black)
    return oracles.walked(worth, orders, truth.a.shape[:-1])


def noisy_masks(truth: Truth) -> np.ndarray:
    (*size, _), count = truth.image.shape, truth.a.shape[-1]
    draw = noise.SCHEMES["independent"].draw
    drawn = [
        np.stack([draw(KEY, i * count + k, tuple(size), jnp.float64) for k in range(count)], -1)
        for i in range(SAMPLES)
    ]
    return oracles.ss_cam(truth.behind_of_class, truth.image, truth.a, 0.5 * np.stack(drawn))


def random_masks(truth: Truth) -> np.ndarray:
    how = {"cells": 2, "probability": 0.4}
    size = truth.image.shape[:-1]
    drawn = [jax.device_get(mask_drawn(KEY, n, size, **how)) for n in range(7)]
    return oracles.rise(truth.behind, CLASS, truth.image, drawn, 0.4)


TRUTHS = {
    "smooth_grad_cam_pp": smoothed,
    "grad_cam_pp": lambda t: oracles.grad_cam_pp(*t.d, t.a, poles="bounded").map,
    "cam": lambda t: oracles.weighted_map(weights().head[:, CLASS], t.a),
    "grad_cam": lambda t: oracles.grad_cam(t.d[0], t.a).map,
    "grad_cam_plus": lambda t: oracles.grad_cam_plus(t.d[0], t.a),
    "xgrad_cam": lambda t: oracles.xgrad_cam(t.u, t.a),
    "hires_cam": lambda t: oracles.hires_cam(t.u, t.a),
    "integrated_gradients": integrated,
    "integrated_grad_cam": integrated_cam,
    "layer_cam": lambda t: oracles.layer_cam(t.d[0], t.a),
    "grad_cam_elementwise": lambda t: oracles.grad_cam_elementwise(t.d[0], t.a),
    "eigen_cam": lambda t: oracles.principal(t.a),
    "eigen_grad_cam": lambda t: oracles.principal(oracles.gradient(t.u, t.a) * t.a),
    "kpca_cam": lambda t: oracles.kernel_principal(
        t.a, lambda p, q: math.tanh(p @ q / t.a.shape[-1] + 1)
    ),
    "fem": lambda t: oracles.fem(t.a, 2),
    "taylor_cam": lambda t: oracles.taylor_cam(oracles.brute_force(t.u, t.a), t.a, 3),
    "recipro_cam": lambda t: oracles.recipro_cam(t.scores, CLASS, t.a),
    "shapley": walked,
    "shapley_cam": lambda t: oracles.shapley_cam(t.u, t.a),
    "ablation_cam": lambda t: oracles.ablation_cam(t.u, t.a),
    "occlusion": lambda t: oracles.occlusion(t.u, t.a, (3, 2), (2, 1), 0),
    "score_cam": lambda t: oracles.score_cam(t.behind, CLASS, t.image, t.a),
    "ss_cam": noisy_masks,
    "is_cam": lambda t: oracles.is_cam(t.behind_of_class, t.image, t.a, (1 / 3, 2 / 3, 1)),
    "abs_cam": lambda t: oracles.abs_cam(t.behind, CLASS, t.image, t.d[0], t.a),
    "fd_cam": lambda t: oracles.fd_cam(t.u, t.d[0], t.a, 0.5),
    "rise": random_masks,
    "sensitivity_map": lambda t: oracles.sensitivity_map(t.u, t.a),
    "gradient_x_input": lambda t: oracles.hires_cam(t.u, t.a),
    "smooth_grad": lambda t: gradients(t, "mean"),
    "smooth_grad_squared": lambda t: gradients(t, "square"),
    "var_grad": lambda t: gradients(t, "variance"),
    "guided_backprop": lambda t: abs(rectified(t, "guided")).max(axis=-1),
    "deconvolution": lambda t: abs(rectified(t, "deconvolution")).max(axis=-1),
    "guided_grad_cam": guided_cam,
    "class_gradient": lambda t: oracles.class_gradient(t.u, t.a),
}


def explain(row, split, x, **more):
    method = row.make(**OPTIONS.get(row.name, {}))
    return jaxcam.cam(split, x, method, targets.exp_logit(CLASS), key=KEY, **more)


# Of higher order: test_transformations.py differentiates them, once and not three times.
DEAR = {"smooth_grad_cam_pp", "grad_cam_pp", "taylor_cam"}


@pytest.fixture(scope="module", params=ROWS, ids=[row.name for row in ROWS])
def explained(request):
    """Explain in float64, and differentiate a sum over the map by the network's weights."""
    row = request.param
    with jax.enable_x64(True):
        truth = Truth(row.at, row.name)
        x = jnp.asarray(truth.x)

        @jax.jit
        def run(scale, x):
            split = truth.split
            scaled = jaxcam.Split(split.features, lambda a, x: scale * split.scores(a, x))
            result = explain(row, scaled, x)
            return result.map.sum(), result

        if row.name in DEAR:
            return row, truth, run(jnp.ones(()), x)[1], None
        slope, result = jax.grad(run, has_aux=True)(jnp.ones(()), x)
        return row, truth, result, slope


def test_it_is_the_oracles_inside_jit(explained):
    row, truth, result, _ = explained
    with jax.enable_x64(True):
        expected = np.maximum(TRUTHS[row.name](truth), 0)
    assert result.map.shape == truth.x.shape[:-1]
    assert result.map.dtype == np.float64
    np.testing.assert_allclose(result.map[1], expected, rtol=0, atol=1e-9 * expected.max())
    assert expected.max() > 0


def test_the_map_is_differentiable_by_the_weights(explained):
    row, truth, _, slope = explained

    def total(scale):
        split = truth.split
        scaled = jaxcam.Split(split.features, lambda a, x: scale * split.scores(a, x))
        return float(explain(row, scaled, jnp.asarray(truth.x)).map.sum())

    method = row.make()
    if isinstance(method, Gradient) and method.order == 0:  # of activations alone
        assert slope == 0
        return
    if row.name != "grad_cam":  # the same way for all: one is held against differences
        assert slope is None or (np.isfinite(slope) and slope != 0)
        return
    with jax.enable_x64(True):
        apart = (total(1 + 1e-5) - total(1 - 1e-5)) / 2e-5
    assert np.isclose(slope, apart, rtol=1e-6)


@pytest.fixture(scope="module", params=ROWS, ids=[row.name for row in ROWS])
def called(request):
    """Call it as users do, in float32, on two images."""
    row = request.param
    split, x = cut(request.param.at, request.param.name), images(2)
    return row, split, x, explain(row, split, x)


def test_neither_neighbours_nor_chunks_change_a_map(called):
    row, split, x, result = called
    alone = explain(row, split, x[1:], chunk_size=2)
    np.testing.assert_allclose(alone.map[0], result.map[1], atol=2e-5 * result.map[1].max())
    again = explain(row, split, x)
    assert (again.map == result.map).all()


# Whose sign says for or against: of -u the map is the negative one.
SIGNED = {
    "cam", "grad_cam", "xgrad_cam", "hires_cam", "integrated_gradients", "taylor_cam",
    "gradient_x_input", "ablation_cam", "occlusion", "shapley", "shapley_cam",
    "integrated_grad_cam",
}  # fmt: skip


def test_a_sign_is_shown_where_it_has_a_meaning(called):
    row, split, x, result = called
    assert row.make().has_sign == (row.name in SIGNED)
    if row.name not in SIGNED:
        with pytest.raises(
            JaxcamError, match=f"{row.make().name}: .* for signed=True; got one of sizes"
        ):
            explain(row, split, x, signed=True)
        return
    method = row.make(**OPTIONS.get(row.name, {}))
    against = jaxcam.cam(split, x, method, targets.counterfactual(CLASS), key=KEY, signed=True)
    top = abs(result.signed).max()
    np.testing.assert_allclose(against.map, -result.signed, atol=1e-5 * top)
    assert (against.map == against.signed).all()
    assert (result.map == np.maximum(result.signed, 0)).all()


def test_it_says_what_it_did(called):
    row, _, x, result = called
    d = result.diagnostics
    assert d.finite.all()
    assert not d.blank.any()
    assert d.report.proof
    assert (result.target == CLASS).all()
    assert result.scores.shape == (len(x), 5)
    assert row.title
    assert row.source
    method = row.make()
    averaged = isinstance(method, Game) or (
        isinstance(method, Gradient) and method.points is not None
    )
    assert d.report.averaged == averaged
    assert (d.num_samples is not None) == averaged


def test_what_is_negative_everywhere_is_blank_or_shown():
    split = jaxcam.Split(lambda x: x, lambda a, x: -(a**3).sum(axis=1))
    with pytest.warns(jaxcam.JaxcamWarning, match="image .* is blank: the sum of weighted"):
        jaxcam.cam(split, CUBES, methods.hires_cam())
    result = jaxcam.cam(split, CUBES, methods.hires_cam(), signed=True)
    np.testing.assert_allclose(result.map, -3 * CUBES[..., 0] ** 3, rtol=1e-6)
    assert not result.diagnostics.blank.any()


def test_errors_of_a_signed_map_are_those_of_all_of_it():
    method = jaxcam.smooth(methods.grad_cam(), num_samples=16, sample_weights="uniform")
    split, x = smooth(), images(1)
    for_, all_ = (
        jaxcam.cam(split, x, method, CLASS, key=KEY, signed=signed) for signed in (False, True)
    )
    below = all_.map < -3 * all_.diagnostics.standard_error
    assert below.any()
    assert (all_.diagnostics.standard_error[below] > 0).all()
    assert (for_.diagnostics.standard_error[below] == 0).mean() > 0.5
    worst = all_.diagnostics.standard_error.max((1, 2)) / abs(all_.map).max((1, 2))
    np.testing.assert_allclose(all_.diagnostics.relative_error, worst, rtol=1e-6)


# the catalogue


def test_every_public_method_has_a_row_and_every_row_a_truth():
    helpers = {"make", "names", "peers"}
    made = {maker.__name__ for row in ROWS for maker in row.makers}
    assert set(methods.__all__) - helpers <= made
    assert rows().keys() == TRUTHS.keys()
    assert methods.names() == tuple(rows())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_options_are_those_of_its_functions_and_documented(row):
    for maker in row.makers:
        assert row.options.items() >= {
            (p.name, p.default)
            for p in inspect.signature(maker).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        for name in row.options.keys() & inspect.signature(maker).parameters.keys():
            assert name in maker.__doc__
    assert row.make().name == row.makers[0]().name


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gradcam", {}, "Nearest: grad_cam"),
        ("grad_cam", {"poles": "raw"}, "needs options of none; got poles"),
        ("grad_cam_pp", {"pole": "raw"}, "options of numerator, poles"),
    ],
)
def test_unknown_names_and_options(name, options, words):
    with pytest.raises(JaxcamError, match=words):
        methods.make(name, **options)


# the wrappers


def test_a_wrapper_takes_a_gradient_method_that_is_not_averaged_yet():
    with pytest.raises(JaxcamError, match="needs a method that weighs derivatives; got recipro"):
        jaxcam.smooth(methods.recipro_cam())
    with pytest.raises(JaxcamError, match="averaged over smoothing"):
        jaxcam.integrate(jaxcam.smooth(methods.grad_cam()))
    with pytest.raises(JaxcamError, match=r"order one.*grad_cam_pp of order 3"):
        jaxcam.integrate(methods.grad_cam_pp())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_nodes": 0}, "num_nodes of at least 1"),
        ({"num_nodes": True}, "num_nodes of at least 1"),
        ({"rule": "simpson"}, "rule 'auto' or 'gauss' or 'midpoint'"),
        ({"at": "head"}, "at 'layer' or 'input'"),
        ({"baseline": ("activations", np.zeros(4)), "at": "input"}, "with at='layer'"),
    ],
)
def test_options_of_a_path_that_are_none(options, words):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.integrate(methods.hires_cam(), **options)


@pytest.mark.parametrize("rule", path.RULES)
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_nodes_integrate_what_they_should(rule, count):
    """Gauss is exact up to degree ``2 n - 1``, midpoints up to one; both are symmetric."""
    where, weights = path.nodes(rule, count)
    for degree in range(2 * count if rule == path.GAUSS else 2):
        assert np.isclose((weights * where**degree).sum(), 1 / (degree + 1), rtol=1e-12)
    np.testing.assert_allclose(where + where[::-1], 1, atol=1e-15)


def cubes() -> jaxcam.Split:
    return jaxcam.Split(lambda x: x, lambda a, x: (a**3).sum(axis=1))


CUBES = jnp.array([[[1.0], [2.0], [3.0]], [[0.5], [0.0], [2.0]]])


def test_a_path_divides_the_whole_difference_and_says_so():
    result = jaxcam.cam(cubes(), CUBES, jaxcam.integrate(methods.hires_cam(), num_nodes=2))
    d = result.diagnostics
    np.testing.assert_allclose(result.signed, CUBES[..., 0] ** 3, rtol=1e-5)
    np.testing.assert_allclose(d.total, (CUBES**3).sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(d.completeness, 1, rtol=1e-5)
    assert (d.gap < 1e-5).all()
    assert (d.num_samples == 2).all()
    assert d.standard_error is None
    assert d.top_class_kept is None


@pytest.mark.parametrize(
    "start", [jnp.ones(1), jnp.ones((3, 1)), jnp.ones((2, 3, 1))], ids=["k", "one", "each"]
)
def test_a_path_from_activations(start):
    method = jaxcam.integrate(methods.hires_cam(), num_nodes=2, baseline=("activations", start))
    result = jaxcam.cam(cubes(), CUBES, method, chunk_size=1)
    np.testing.assert_allclose(result.signed, CUBES[..., 0] ** 3 - 1, rtol=1e-5, atol=1e-6)


def test_a_path_from_an_input_goes_through_the_layer():
    """At the layer ``a = 2 x``; from ones, of one image or of each."""
    double = jaxcam.Split(lambda x: 2 * x, lambda a, x: (a**3).sum(axis=1))
    for black in (jnp.ones((3, 1)), jnp.ones_like(CUBES)):
        for at in path_places():
            method = jaxcam.integrate(methods.hires_cam(), num_nodes=2, baseline=black, at=at)
            signed = jaxcam.cam(double, CUBES, method).signed
            np.testing.assert_allclose(signed, 8 * (CUBES[..., 0] ** 3 - 1), rtol=1e-5, atol=1e-5)


def path_places():
    return ("layer", "input")


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        (jnp.ones((4, 1)), r"an input of shape \(3, 1\)"),
        (("activations", jnp.ones(2)), r"activations of shape \(3, 1\), \(1,\) or"),
        ((jnp.ones((3, 1)), jnp.ones((3, 1))), "as many arrays as x has"),
    ],
)
def test_a_baseline_of_another_shape(baseline, words):
    with pytest.raises(JaxcamError, match=words):
        jaxcam.cam(cubes(), CUBES, jaxcam.integrate(methods.hires_cam(), baseline=baseline))


def test_a_baseline_with_the_same_score_and_a_gap_that_stays_are_said():
    centred = jaxcam.Split(lambda x: x, lambda a, x: (a**2).mean(axis=1))
    method = jaxcam.integrate(methods.hires_cam(), baseline=-CUBES)
    with pytest.warns(jaxcam.JaxcamWarning, match="the same at the baseline"):
        jaxcam.cam(centred, CUBES, method)

    def normalised(a, x):
        return (a / jnp.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-12))[:, 0]

    method = jaxcam.integrate(methods.hires_cam(), baseline=("activations", jnp.zeros(1)))
    with pytest.warns(
        jaxcam.JaxcamWarning, match=r"16 nodes leave a gap of 1.*\n?.*baseline is zero activations"
    ):
        jaxcam.cam(jaxcam.Split(lambda x: x, normalised), CUBES[:1], method)


@pytest.mark.parametrize(
    ("act", "rule"),
    [(jax.nn.gelu, "gauss"), (jax.nn.softplus, "gauss"), (jax.nn.relu, "midpoint"),
     (lambda a: jnp.maximum(a, 0) ** 2, "midpoint"), (jax.nn.relu6, "midpoint")],
    ids=["gelu", "softplus", "relu", "maximum", "relu6"],
)  # fmt: skip
def test_nodes_follow_what_is_on_the_way(act, rule):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2)), jnp.float32)
    split = jaxcam.Split(lambda x: x, lambda a, x: act(a - 0.7).sum(axis=1) @ weights)
    for target in (targets.exp_logit(0), targets.softmax(0)):
        report = jax.eval_shape(
            lambda x, t=target: jaxcam.cam(split, x, jaxcam.integrate(methods.hires_cam()), t),
            CUBES,
        ).diagnostics.report
        assert report.rule == rule


def test_where_the_gradient_is_proved_constant_no_nodes_are_run():
    split = jaxcam.Split(lambda x: x**2, lambda a, x: 3 * a.sum(axis=1))
    result = jaxcam.cam(split, CUBES, jaxcam.integrate(methods.hires_cam()))
    assert not result.diagnostics.report.averaged
    assert result.diagnostics.num_samples is None
    assert (result.diagnostics.gap < 1e-6).all()


def test_additive_maps_say_how_much_of_the_score_they_account_for():
    """Of a sum of cubes gradient times activation is three times what there is beside zeros."""
    for method, share in ((methods.hires_cam(), 3), (methods.gradient_x_input(), 3),
                          (methods.taylor_cam(order=3), 1)):  # fmt: skip
        d = jaxcam.cam(cubes(), CUBES, method).diagnostics
        np.testing.assert_allclose(d.total, (CUBES**3).sum((1, 2)), rtol=1e-6)
        np.testing.assert_allclose(d.completeness, share, rtol=1e-5)
        np.testing.assert_allclose(d.gap, share - 1, atol=1e-5)
    assert jaxcam.cam(cubes(), CUBES, methods.grad_cam()).diagnostics.total is None


def test_positions_are_not_feature_maps():
    with pytest.raises(JaxcamError, match="it weighs positions"):
        jaxcam.cam(smooth(), images(), methods.recipro_cam(), channels=[0])


def test_recipro_cam_lets_neighbours_pass():
    """A bell of one at its middle, and of a half on each side."""
    split = jaxcam.Split(lambda x: x, lambda a, x: jnp.concatenate([a.sum(1), -a.sum(1)], -1))
    plain, bell = (
        jaxcam.cam(split, CUBES, methods.recipro_cam(gaussian=g), 0).map[0] for g in (False, True)
    )
    sums = np.array([1 + 1, 2 + 0.5 + 1.5, 3 + 1.0])
    np.testing.assert_allclose(plain, jax.nn.sigmoid(2 * CUBES[0, :, 0]), rtol=1e-6)
    np.testing.assert_allclose(bell, jax.nn.sigmoid(2 * sums), rtol=1e-6)
