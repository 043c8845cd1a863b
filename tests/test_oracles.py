"""The oracles on cases small enough to do by hand, so that they too can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import peers
import pytest

# One channel at two positions: its gradient, and activations whose sum is 4.
G = np.array([[2.0], [1.0]])
A = np.array([[1.0], [3.0]])


def close(ours, by_hand):
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9, atol=1e-14)


def test_brute_force_of_a_polynomial():
    """``p^3 q + 2 q^2`` at (2, 3): along p 3p^2 q, 6pq, 6q; along q p^3 + 4q, 4, 0."""
    found = oracles.brute_force(lambda a: a[0] ** 3 * a[1] + 2 * a[1] ** 2, np.array([2.0, 3.0]))
    close(found, [[36, 20], [36, 4], [18, 0]])


def test_brute_force_keeps_the_shape():
    found = oracles.brute_force(lambda a: jnp.sum(a**3), np.arange(1.0, 7).reshape(1, 2, 3))
    close(found[1], [[[6, 12, 18], [24, 30, 36]]])
    close(found[2], np.full((1, 2, 3), 6))


def test_brute_force_of_log_softmax():
    """``p = 3/4, q = 1/4``: u1 = 1 - p, -q; u2 = -pq twice; u3 = -pq (1 - 2p), -pq (1 - 2q)."""
    u = oracles.log_score(lambda a: a, 0, "softmax")
    found = oracles.brute_force(u, np.array([np.log(3.0), 0.0]))
    close(found, [[1 / 4, -1 / 4], [-3 / 16, -3 / 16], [3 / 32, -3 / 32]])


def test_brute_force_of_an_elementwise_function():
    """At 0.5 with y = tanh: 1 - y^2, -2y(1 - y^2), (1 - y^2)(6y^2 - 2)."""
    y = np.tanh(0.5)
    found = oracles.brute_force(lambda a: 5 * jnp.tanh(a[0]), np.array([0.5]))
    slope = 1 - y**2
    close(np.ravel(found), [5 * slope, -10 * y * slope, 5 * slope * (6 * y**2 - 2)])


def test_log_score():
    with jax.enable_x64(True):
        logits = jnp.log(jnp.array([1.0, 4.0, 3.0], jnp.float64))
        close(oracles.log_score(lambda a: a, 1, "exp_logit")(logits), np.log(4))
        close(oracles.log_score(lambda a: a, 1, "softmax")(logits), np.log(1 / 2))
    with pytest.raises(ValueError, match="other"):
        oracles.log_score(lambda a: a, 1, "other")


def test_bell():
    close(oracles.bell(2.0, 3.0, 5.0), [2, 3 + 4, 5 + 18 + 8])


def test_bell_is_the_derivative_of_the_exponential():
    """Of Y = e^{u}, with u = p^3 q: brute force on Y itself, divided by Y."""
    a, u = np.array([0.7, 0.3]), lambda a: a[0] ** 3 * a[1]
    y = np.exp(a[0] ** 3 * a[1])
    through_y = oracles.brute_force(lambda a: jnp.exp(u(a)), a)
    close(oracles.bell(*oracles.brute_force(u, a)), np.array(through_y) / y)


def test_alpha():
    """Position 0: 2 / (4 + 4 (1/2)) = 1/3; position 1: 0/0 = 0. As printed: 5 / 6."""
    d1, d2, d3 = np.array([[5.0], [1.0]]), np.array([[2.0], [0.0]]), np.array([[0.5], [0.0]])
    close(oracles.alpha(d1, d2, d3, A), [[1 / 3], [0]])
    close(oracles.alpha(d1, d2, d3, A, "d1"), [[5 / 6], [0]])


def test_alpha_sums_each_channel_alone():
    """Channels with sums 4 and 40, D2 = D3 = 1: 1 / (2 + 4) and 1 / (2 + 40)."""
    one = np.ones((2, 2))
    close(oracles.alpha(one, one, one, np.hstack([A, 10 * A]))[0], [1 / 6, 1 / 42])


@pytest.mark.parametrize(
    ("d2", "d3", "raw", "bounded"),
    [
        (1.0, 1.0, 1 / 6, 1 / 6),  # r = 6
        (1.0, -0.4, 2.5, 1.0),  # r = 0.4: above one
        (1.0, -1.0, -0.5, 1.0),  # r = -2: behind the pole
        (-1.0, 1.0, -0.5, 1.0),  # the same with D2 < 0
        (-1.0, 0.0, 0.5, 0.5),  # r = 2: D2 < 0 by itself is healthy
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_bounded_alpha(d2, d3, raw, bounded):
    args = (np.ones((2, 1)), np.full((2, 1), d2), np.full((2, 1), d3), A)
    close(oracles.alpha(*args)[0, 0], raw)
    close(oracles.bounded_alpha(*args)[0, 0], bounded)


def test_bounded_alpha_as_printed():
    """D1 = 2, D2 = 1, D3 = 1: raw 2 / 6; bounded D1^2 / D2 = 4 to 1, so (1/6) / 2."""
    d1, one = np.full((2, 1), 2.0), np.ones((2, 1))
    close(oracles.alpha(d1, one, one, A, "d1")[0, 0], 1 / 3)
    close(oracles.bounded_alpha(d1, one, one, A, "d1")[0, 0], 1 / 12)


def test_grad_cam():
    """Weights 3/2 and -2: at the two positions 3/2 - 4 < 0 and 9/2 - 2."""
    d1 = np.array([[2.0, -1.0], [1.0, -3.0]])
    found = oracles.grad_cam(d1, np.array([[1.0, 2.0], [3.0, 1.0]]))
    close(found.weights, [1.5, -2])
    close(found.map, [0, 2.5])


def test_grad_cam_pp():
    """D_k = g^k: alpha = 1 / (2 + 4 g) = 1/10, 1/6; w = 2/10 + 1/6 = 11/30; map = w A."""
    found = oracles.grad_cam_pp(G, G**2, G**3, A)
    close(found.weights, [11 / 30])
    close(found.map, [11 / 30, 33 / 30])


def test_grad_cam_pp_drops_negative_gradients():
    g = np.array([[2.0], [-1.0]])
    close(oracles.grad_cam_pp(g, g**2, g**3, A).weights, [2 / 10])


def test_removals():
    """``p^3 q + 2 q^2`` at (2, 3) is 42; without p it is 18, without q 0."""
    found = oracles.removals(lambda a: a[0] ** 3 * a[1] + 2 * a[1] ** 2, np.array([2.0, 3.0]))
    close(found, [24, 42])


def test_taylor():
    """Of the same: along p 36 2, 36 4 / 2, 18 8 / 6; along q 20 3, 4 9 / 2, 0."""
    a = np.array([2.0, 3.0])
    d = (np.array([36.0, 20.0]), np.array([36.0, 4.0]), np.array([18.0, 0.0]))
    for order, by_hand in enumerate([[72, 60], [72 - 72, 60 - 18], [72 - 72 + 24, 42]], start=1):
        close(oracles.taylor(d, a, order), by_hand)


def test_taylor_cam():
    """Two positions of two channels: effects 1 + 6 and 4 - 12."""
    d = (np.array([[1.0, 3.0], [2.0, -4.0]]),) * 3
    close(oracles.taylor_cam(d, np.array([[1.0, 2.0], [2.0, 3.0]]), 1), [7, 0])


HALF_SQUARE = {"features": lambda x: x, "scores": lambda a, x: a.reshape(1) ** 2 / 2, "index": 0}
S = np.sqrt(2 * np.log(3))  # e^{S^2 / 2} = 3


def test_smooth_grad_cam_pp():
    """Weigh ``a = 0, S`` by 1 and 3: D1 = 3S/4, D2 = 1 + 3SS/4, D3 = 9S/4 + 3SSS/4."""
    noisy, clean = [np.array([[0.0]]), np.array([[S]])], np.array([[2.0]])
    found = oracles.smooth_grad_cam_pp(noisy, clean, **HALF_SQUARE)
    d1, d2, d3 = 3 * S / 4, 1 + 3 * S**2 / 4, 9 * S / 4 + 3 * S**3 / 4
    close(np.ravel(found.means), [d1, d2, d3])
    close(found.weights, [d2 / (2 * d2 + 2 * d3) * d1])
    close(found.map, 2 * found.weights)
    close(found.effective_samples, 16 / 10)


def test_smooth_grad_cam_pp_with_uniform_weights():
    """Weights 1 and 1: D1 = S / 2, D2 = 1 + S^2 / 2, D3 = (3S + S^3) / 2."""
    noisy, clean = [np.array([[0.0]]), np.array([[S]])], np.array([[2.0]])
    found = oracles.smooth_grad_cam_pp(noisy, clean, temper=0.0, **HALF_SQUARE)
    close(np.ravel(found.means), [S / 2, 1 + S**2 / 2, (3 * S + S**3) / 2])
    close(found.effective_samples, 2)


def test_smooth_grad_cam_pp_survives_large_scores():
    """Raise the scores by 1000: the factor e^1000 cancels."""
    noisy, clean = [np.array([[0.0]]), np.array([[S]])], np.array([[2.0]])
    raised = HALF_SQUARE | {"scores": lambda a, x: 1000 + a.reshape(1) ** 2 / 2}
    found, plain = (oracles.smooth_grad_cam_pp(noisy, clean, **n) for n in (raised, HALF_SQUARE))
    np.testing.assert_allclose(found.weights, plain.weights, rtol=1e-10)


def test_smooth_grad_cam_pp_passes_each_input_to_the_scores():
    """With ``u = a x`` and features 1, u1 = x_n, so paths around the layer see the noisy input."""
    noisy = [np.array([[1.0]]), np.array([[3.0]])]
    network = {"features": jnp.ones_like, "scores": lambda a, x: (a * x).reshape(1), "index": 0}
    found = oracles.smooth_grad_cam_pp(noisy, noisy[0], temper=0.0, **network)
    close(np.ravel(found.means), [2, 5, 14])


def test_without_noise_smooth_is_grad_cam_pp():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 3))
    mix = rng.normal(size=(12, 4))
    network = {"features": jnp.tanh, "scores": lambda a, x: jnp.sin(a.reshape(-1)) @ mix}
    found = oracles.smooth_grad_cam_pp([x, x], x, index=1, kind="softmax", **network)
    u = oracles.log_score(lambda a: jnp.sin(a.reshape(-1)) @ mix, 1, "softmax")
    clean = np.tanh(x)
    once = oracles.grad_cam_pp(*oracles.bell(*oracles.brute_force(u, clean)), clean)
    np.testing.assert_allclose(found.map, once.map, rtol=1e-10)


def shape_of(weights):
    """Free weights from their scale, which no picture shows."""
    return weights / abs(weights).max()


@pytest.mark.parametrize(
    "peer",
    [
        peers.torch_cam_pp,
        lambda g, a: peers.torch_cam_smooth_pp([g], [a], a, [0]),
        lambda g, a: peers.pytorch_grad_cam_pp(g / 1000, a),
        peers.tf_keras_vis_pp,
        peers.xplique_pp,
    ],
    ids=["torchcam", "torchcam_smooth", "pytorch_grad_cam", "tf_keras_vis", "xplique"],
)
def test_each_peer_is_told_apart(peer):
    """On a generic gradient every peer's weights differ from ours by over 1 %, scale aside."""
    rng = np.random.default_rng(7)
    g, a = rng.normal(size=(4, 4, 6)), rng.uniform(size=(4, 4, 6))
    ours = oracles.grad_cam_pp(g, g**2, g**3, a).weights
    assert abs(shape_of(peer(g, a).weights) - shape_of(ours)).max() > 0.01


def test_torchcam_smooth_takes_the_map_from_the_last_sample():
    """Other samples before it change its map only through alpha; ours changes with every one."""
    rng = np.random.default_rng(8)
    gradients, noisy = rng.uniform(0.1, 1, (3, 4, 4, 2)), rng.uniform(size=(3, 4, 4, 2))
    clean = noisy.mean(0)
    theirs = peers.torch_cam_smooth_pp(gradients, noisy, clean, [0, 0, 0])
    close(theirs.map, oracles.weighted_map(theirs.weights, noisy[-1]))
    means = [(gradients**p).mean(0) for p in (1, 2, 3)]
    ours = oracles.grad_cam_pp(*means, clean)
    assert abs(shape_of(theirs.map) - shape_of(ours.map)).max() > 0.01
