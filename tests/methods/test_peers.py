"""Other libraries' conventions against their oracles, and the oracles by hand.

That the oracles are what the libraries compute: tests/zoo/test_peers_parity.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import peers as theirs
import pytest
from networks import images, relu

import jaxcam
from jaxcam.errors import JaxcamError
from jaxcam.methods import grad_cam_pp, peers
from jaxcam.pipeline import noise
from jaxcam.types import Derivatives

KEY = jax.random.key(3)
METHODS = {
    "pytorch-grad-cam": (peers.pytorch_grad_cam_pp, theirs.pytorch_grad_cam_pp),
    "torch-cam": (peers.torch_cam_grad_cam_pp, theirs.torch_cam_pp),
    "torch-cam, smooth": (
        peers.torch_cam_smooth_grad_cam_pp,
        lambda g, a, **on: theirs.torch_cam_smooth_pp([g], [a], a, [0.0], **on),
    ),
    "tf-keras-vis": (peers.tf_keras_vis_grad_cam_pp, theirs.tf_keras_vis_pp),
    "xplique": (peers.xplique_grad_cam_pp, theirs.xplique_pp),
}
# One channel at two positions: its gradient, and activations whose sum is 4.
G = np.array([[2.0], [1.0]])
A = np.array([[1.0], [3.0]])


def relative(ours, truth) -> float:
    truth = np.asarray(truth, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - truth).max() / np.abs(truth).max())


def inside(split, x, index=1):
    """Give the gradient, activations and score of one image, in double precision."""
    a = jnp.asarray(split.features(jnp.asarray(x)[None]))[0]
    u, g = jax.value_and_grad(lambda a: split.scores(a[None], jnp.asarray(x)[None])[0, index])(a)
    return np.asarray(g), np.asarray(a), float(u)


@functools.cache
def network(factor):
    """Give a network with its scores in another unit, two images, and its inside for each."""
    with jax.enable_x64(True):
        split, x = relu(), images(2, dtype=np.float64)
        split = split._replace(scores=lambda a, x: factor * relu().scores(a, x))
        return split, x, [inside(split, x_i) for x_i in x]


# the methods


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_its_oracle_and_a_fault_not_ours(name):
    """Switched off, the oracle is Grad-CAM++; switched on, it is the method, and away from it.

    An eps shows where gradients are small, what is done to their third power where they are not.
    """
    ours, oracle = METHODS[name]
    split, x, within = network(1e-3 if name == "pytorch-grad-cam" else 1.0)
    with jax.enable_x64(True):
        right = jaxcam.cam(split, x, grad_cam_pp(poles="raw"), 1, engine="power")
        found = jaxcam.cam(split, x, ours(), 1, engine="power")
    for i, (g, a, _) in enumerate(within):
        with_faults, without = oracle(g, a), oracle(g, a, faults=())
        assert with_faults.map.max() > 0
        assert relative(found.weights[i], with_faults.weights) < 1e-12
        assert relative(found.map[i], with_faults.map) < 1e-12
        assert relative(right.map[i], without.map) < 1e-12
        faulty, plain = with_faults.weights, without.weights
        assert relative(faulty / faulty.max(), plain / plain.max()) > 1e-2
    assert ours() is ours()  # one object, so that nothing compiles twice


@pytest.mark.parametrize(
    ("on", "fault"),
    [
        ({"eps": 1e-8}, ("eps 1e-8",)),
        ({"third": "sum A D3"}, ("sum A D3",)),
    ],
)
def test_single_conventions_are_single_switches(on, fault):
    with jax.enable_x64(True):
        split, x, ((g, a, _), _) = network(1e-3)
        found = jaxcam.cam(split, x, peers.grad_cam_pp(**on), 1, engine="power")
    assert relative(found.weights[0], theirs.torch_cam_pp(g, a, fault).weights) < 1e-12


def test_poles_are_those_of_its_own_quotient():
    """By hand: 2 + 8 + 4 / 4 and 2 + 4 + 4 / 1; with A D3 summed, 2 + 11 / 4 and 2 + 11 / 1."""
    d = Derivatives(*(jnp.asarray(G**p, jnp.float32) for p in (1, 2, 3)))
    one, a = jnp.float32(1), jnp.asarray(A, jnp.float32)
    _, poles = peers.grad_cam_pp(eps=4.0).weigh(d, a, one)
    assert float(poles.smallest_r) == pytest.approx(2 + 4 + 4 / 1)
    _, poles = peers.grad_cam_pp(third="sum A D3").weigh(d, a, one)
    assert float(poles.smallest_r) == pytest.approx(2 + 11 / 4)
    assert float(poles.share_large) == float(poles.share_guarded) == 0
    assert peers.torch_cam_grad_cam_pp().weigh(d, a, one)[1] is None


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("name", METHODS)
def test_weights_do_not_depend_on_the_unit_of_the_derivatives(name, scale):
    """They come divided by ``scale^k``; what has a unit of its own must be brought to it."""
    ours, oracle = METHODS[name]
    rng = np.random.default_rng(0)
    g, a = rng.normal(size=(3, 4, 5)) * 1e-3, rng.uniform(size=(3, 4, 5))
    with jax.enable_x64(True):
        d = Derivatives(*(jnp.asarray((g / scale) ** p) for p in (1, 2, 3)))
        weights, _ = ours().weigh(d, jnp.asarray(a), jnp.asarray(scale))
    assert relative(weights, oracle(g, a).weights) < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_zero_gradients_weigh_nothing_and_have_derivatives(name):
    """0/0 in a feature map that the score does not see, or of which all is zero."""
    method = METHODS[name][0]()

    def total(d, a):
        return method.weigh(d, a, jnp.float32(1))[0].sum()

    g = jnp.asarray(G * [[1.0, 0.0]], jnp.float32)
    a = jnp.asarray(A * [[1.0, 1.0]], jnp.float32)
    value, slopes = jax.value_and_grad(total, argnums=(0, 1))(Derivatives(g, g**2, g**3), a)
    alone = method.weigh(Derivatives(g, g**2, g**3), a, jnp.float32(1))[0]
    assert alone[0] > 0
    assert alone[1] == 0
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"third": "sum"}, "third 'sum A' or"),
        ({"alpha": "other"}, "alpha 'quotient' or"),
        ({"eps": -1e-6}, "eps of at least 0"),
        ({"eps": float("nan")}, "eps of at least 0"),
        ({"eps": "1e-6"}, "eps of at least 0"),
    ],
)
def test_unknown_conventions_are_refused(options, needs):
    with pytest.raises(JaxcamError, match=f"peers.grad_cam_pp: needs {needs}"):
        peers.grad_cam_pp(**options)


# torch-cam's smoothing, of which only alpha is a method


@pytest.fixture(scope="module")
def samples():
    """Gradients, activations and scores of noisy inputs, and the clean activations."""
    with jax.enable_x64(True):
        split, x = relu(), images(dtype=np.float64)
        level = jnp.asarray(0.3)
        noisy = [noise.sample(KEY, n, jnp.asarray(x[0]), level) for n in range(4)]
        gradients, activations, scores = zip(*(inside(split, x_n) for x_n in noisy), strict=True)
        return gradients, activations, inside(split, x[0])[1], scores


@pytest.mark.parametrize(
    ("faults", "sample_weights"), [((), "exact"), (("e^u dropped",), "uniform")]
)
def test_without_its_faults_torch_cams_smoothing_is_ours(samples, faults, sample_weights):
    """On the same noise; ``engine="power"`` drops ``e^u`` by itself, ``exponential`` keeps it."""
    expected = theirs.torch_cam_smooth_pp(*samples, faults)
    engine = {"exact": "exponential", "uniform": "power"}[sample_weights]
    method = jaxcam.smooth(grad_cam_pp(poles="raw"), num_samples=4, noise_level=0.3)
    with jax.enable_x64(True):
        found = jaxcam.cam(relu(), images(dtype=np.float64), method, 1, key=KEY, engine=engine)
    assert relative(found.weights[0], expected.weights) < 1e-12
    assert relative(found.map[0], expected.map) < 1e-12


def test_its_alpha_can_be_smoothed_by_ours(samples):
    faults = ("sum A D3", "eps 1e-8", "e^u dropped")
    method = jaxcam.smooth(peers.torch_cam_smooth_grad_cam_pp(), num_samples=4, noise_level=0.3)
    with jax.enable_x64(True):
        x = images(dtype=np.float64)
        found = jaxcam.cam(relu(), x, method, 1, key=KEY, engine="power")
    assert relative(found.map[0], theirs.torch_cam_smooth_pp(*samples, faults).map) < 1e-12


@pytest.mark.parametrize("fault", theirs.TORCH_CAM_SMOOTH)
def test_each_fault_of_its_smoothing_changes_the_map(samples, fault):
    """Alone; what is added to the denominator shows where gradients are small."""
    small = 1e-4 if fault == "eps 1e-8" else 1.0
    gradients, activations, clean, scores = samples
    at = ([small * g for g in gradients], activations, clean, scores)
    faulty, right = (theirs.torch_cam_smooth_pp(*at, on).map for on in ((fault,), ()))
    assert relative(faulty / faulty.max(), right / right.max()) > 1e-2


# the oracles by hand


def close(ours, by_hand):
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9, atol=1e-14)


def test_the_oracles_by_hand():
    close(theirs.pytorch_grad_cam(G, A).weights, [3 / 2])
    # alpha 1 / (2 + 4 g): 1/10 and 1/6.
    close(theirs.pytorch_grad_cam_pp(G, A, ()).weights, [2 / 10 + 1 / 6])
    close(theirs.pytorch_grad_cam_pp(G, A, ()).map, [11 / 30, 33 / 30])
    # g = 0.002, 0.001: 4 / (8 + 0.032 + 1) and 1 / (2 + 0.004 + 1).
    small = theirs.pytorch_grad_cam_pp(G / 1000, A)
    close(small.weights, [0.002 * 4 / 9.032 + 0.001 / 3.004])
    close(theirs.torch_cam_pp(G, A).weights, [8 + 1])
    # sum A D3 = 8 + 3: 4 / (8 + 11) and 1 / (2 + 11).
    close(theirs.torch_cam_pp(G, A, ("sum A D3",)).weights, [2 * 4 / 19 + 1 / 13])
    # alpha 1/10 and 1/6, divided by their sum 4/15: 3/8 and 5/8.
    close(theirs.tf_keras_vis_pp(G, A).weights, [2 * 3 / 8 + 5 / 8])
    # The mean of A is 2: alpha 1/6 and 1/4.
    close(theirs.xplique_pp(G, A).weights, [2 / 6 + 1 / 4])
    # A gradient of zero weighs nothing, and a negative one only in sums.
    close(theirs.pytorch_grad_cam_pp(np.array([[-1.0], [0.0]]), A).weights, [0])
    close(theirs.tf_keras_vis_pp(np.array([[0.0], [1.0]]), A).weights, [1])


def test_the_oracle_of_its_smoothing_by_hand():
    """Means of g: 3/2, 1; of g^2: 5/2, 1; of g^3: 9/2, 1. The last g is 1, the last A 1, 2."""
    last = np.array([[1.0], [2.0]])
    given = ([G, np.ones((2, 1))], [A, last], A, [0.0, np.log(3)])
    # sum A D3 = 9/2 + 3 = 15/2.
    w = 2.5 / (5 + 7.5) + 1 / (2 + 7.5)
    found = theirs.torch_cam_smooth_pp(*given, faults=set(theirs.TORCH_CAM_SMOOTH) - {"eps 1e-8"})
    close(found.weights, [w])
    close(found.map, [w, 2 * w])
    # (sum A) D3 = 18 and 4.
    right = theirs.torch_cam_smooth_pp(*given, faults=("e^u dropped",))
    close(right.weights, [1.5 * 2.5 / (5 + 18) + 1 / (2 + 4)])
    close(right.map, [right.weights[0], 3 * right.weights[0]])
    # e^u: weights 1 and 3; means of g: 5/4, 1; of g^2: 7/4, 1; of g^3: 11/4, 1.
    weighed = theirs.torch_cam_smooth_pp(*given, faults=())
    close(weighed.weights, [1.25 * 1.75 / (3.5 + 11) + 1 / 6])


def test_the_oracles_of_scaling_by_hand():
    maps = np.array([[[1e-7, 3e-7], [2e-7, 1e-7]]])
    close(theirs.pytorch_grad_cam_scaled(maps), [[[0, 2 / 3], [1 / 3, 0]]])
    close(theirs.torch_cam_scaled(maps), [[[0, 2 / 2.1], [1 / 2.1, 0]]])
