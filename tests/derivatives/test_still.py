"""Zero stays zero where a derivative is infinite, and what moves there is not hidden.

A channel that ReLU switches off everywhere is compared with the same network without it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tails
from engines import derive, relative_error
from jax import lax

import jaxcam
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.traced import trace

SHAPE = (3, 2, 4)
DEAD = 2
LIVE = [0, 1, 3]


def weights(name, like, *shape):
    return jnp.asarray(tails.normal(name, *shape), like.dtype)


def norm(x):
    return jnp.sqrt((x**2).sum((0, 1)))


def response(x):
    """Global response normalisation (ConvNeXt-V2), then pooling."""
    size = jnp.sqrt((x**2).sum((0, 1), keepdims=True))
    return (x * (size / (size.mean(-1, keepdims=True) + 1e-6)) + x).mean((0, 1))


def rooted(x):
    """Guarded after the fact, as it is often written: the root of zero is passed all the same."""
    pooled = x.mean((0, 1))
    return jnp.where(pooled > 0, jnp.sqrt(pooled), jnp.zeros_like(pooled))


HEADS = {  # that see each channel by itself
    "l2": norm,
    "deviation": lambda x: x.std((0, 1)),
    "gem": lambda x: (x**3).mean((0, 1)) ** (1 / 3),
    "rooted": rooted,
    "product": lambda x: jnp.exp(jnp.log1p(x).sum((0, 1)) / 6) - 1 + norm(x),
}


def score(head, channels, rectify=jax.nn.relu):
    """Give ``u`` of the channels that are left, all rectified, of which one is always off."""

    def u(a):
        off = jnp.asarray([-100.0 if k == DEAD else 0.0 for k in channels], a.dtype)
        x = head(rectify(a + off[None, None]))
        return jnp.tanh(x @ weights("head", a, 4, 3)[np.asarray(channels)] / 4).sum()

    return u


def point():
    return tails.normal("alive", *SHAPE)


@pytest.mark.parametrize("rectify", [jax.nn.relu, lambda x: jnp.maximum(x, 0)], ids=("relu", "max"))
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_dead_channel_changes_nothing_for_the_others(head, rectify):
    a = point()
    truth = oracles.brute_force(score(head, LIVE), a[..., LIVE])
    found = derive(score(head, [0, 1, 2, 3], rectify), a)
    for ours, theirs in zip(found, truth, strict=True):
        assert relative_error(np.asarray(ours)[..., LIVE], theirs) < 1e-10
        assert not np.asarray(ours)[..., DEAD].any()


def test_a_dead_channel_of_a_response():
    """Against the same with a bias under the root that is too small to count."""
    a = point()

    def nearly(x):
        size = jnp.sqrt((x**2).sum((0, 1), keepdims=True) + 1e-30)
        return (x * (size / (size.mean(-1, keepdims=True) + 1e-6)) + x).mean((0, 1))

    truth = oracles.brute_force(score(nearly, [0, 1, 2, 3]), a)
    with jax.enable_x64(True):
        found = jaxcam.log_derivatives(
            score(response, [0, 1, 2, 3]), jnp.asarray(a), engine="adjoint"
        )
    for ours, theirs in zip(found, truth, strict=True):
        assert relative_error(ours, theirs) < 1e-10


SWITCHED = {
    "relu": lambda x: jnp.sqrt(jax.nn.relu(x)),
    "max": lambda x: jnp.log1p(jnp.sqrt(jnp.maximum(2 * x, 0))),
    "mask": lambda x: jnp.cbrt(x * (x > 0).astype(x.dtype)),
    "where": lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 0)), 0),
    "power": lambda x: jax.nn.relu(x) ** 0.5 * x,
    "clip": lambda x: jnp.arccos(jnp.clip(3 * x, -1, 1)),
    "by hand": lambda x: jax.scipy.special.xlogy(jax.nn.relu(x), jax.nn.relu(x)),
}


@pytest.mark.parametrize("f", SWITCHED.values(), ids=SWITCHED)
def test_what_is_switched_off_place_by_place_moves_nothing(f):
    """Places where it is on, by the same function without the switch; zero where it is off."""
    a = tails.normal("switched", 3, 4)
    on = np.abs(a) < 1 / 3 if f is SWITCHED["clip"] else a > 0

    def u(a):
        return jnp.tanh(f(a) @ weights("switched", a, 4, 2)).sum()

    def without(a):
        return jnp.tanh(jnp.where(jnp.asarray(on), f(jnp.where(jnp.asarray(on), a, 0.1)), fixed)
                        @ weights("switched", a, 4, 2)).sum()  # fmt: skip

    with jax.enable_x64(True):
        fixed = f(jnp.asarray(a))
    found = derive(u, a)
    for ours, theirs in zip(found, oracles.brute_force(without, a), strict=True):
        assert relative_error(ours, theirs) < 1e-10


def test_what_a_maximum_switches_off_moves_nothing_without_tangents_either():
    """One gradient, and nested ones, against tangents: above they are held against the truth."""

    def u(a):
        rectified = jnp.minimum(jnp.cbrt(jnp.maximum(jnp.zeros_like(a), a)), 0.7)
        return jnp.tanh(jnp.sqrt(jnp.maximum(2 * a, 0.0)) + rectified).sum()

    with jax.enable_x64(True):
        a = jnp.asarray(tails.normal("switched", 3, 4))
        truth = jaxcam.log_derivatives(u, a, engine="adjoint")
        found = jaxcam.log_derivatives(u, a, engine="directional")
        first = choose("auto", trace(u, a), order=1).derive(a)[0].u1
    assert np.isfinite(truth).all()
    assert (truth[0] == 0).any()
    for ours, theirs in zip((first, *found), (truth[0], *truth), strict=True):
        assert relative_error(ours, np.asarray(theirs)) < 1e-10


def test_what_a_maximum_switches_off_reaches_nothing_through_a_loop():
    def u(a):
        return jnp.tanh(lax.scan(lambda c, x: (c + jnp.sqrt(x), None), 0.0, jax.nn.relu(a))[0])

    a = jnp.array([-1.0, 4.0])
    u1, *_ = jaxcam.log_derivatives(u, a, engine="adjoint")
    np.testing.assert_allclose(u1, [0, (1 - np.tanh(2) ** 2) / 4], rtol=1e-5)


@pytest.mark.parametrize("how", ["rsqrt", "div"])
def test_a_constant_position_of_a_layer_norm_with_a_tiny_epsilon(how):
    """The third derivative of ``1 / sqrt`` at 1e-12 is 2e42: beyond float32, times zero."""
    a = tails.normal("constant position", 6, 4)
    a[2] = 0

    def u(x):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True) + 1e-12
        scale = lax.rsqrt(variance) if how == "rsqrt" else 1 / jnp.sqrt(variance)
        return (centred * scale * weights("layer norm", x, 6, 4)).sum()

    found = jaxcam.log_derivatives(u, jnp.asarray(a, jnp.float32), engine="adjoint")
    for ours, theirs in zip(found, oracles.brute_force(u, a), strict=True):
        assert relative_error(ours, theirs) < 1e-4


def test_what_really_moves_is_not_hidden():
    """The slope of a root at zero along itself is infinite; along everything else it is nothing.

    A norm of nothing has a kink: no second derivative along what it is the norm of.
    """
    a = jnp.array([[4.0, 0.0, 1.0]])
    for found in jaxcam.log_derivatives(lambda a: jnp.sqrt(a).sum(), a, engine="adjoint"):
        np.testing.assert_array_equal(np.isfinite(found), [[True, False, True]])
    u1, u2, _ = jaxcam.log_derivatives(lambda a: norm(a[None]).sum(), a, engine="adjoint")
    np.testing.assert_array_equal(u1, [[1, 0, 1]])
    np.testing.assert_array_equal(np.isfinite(u2), [[True, False, True]])


def test_what_the_score_does_not_see_is_nothing():
    a, seen = jnp.array([[4.0, 0.0, 1.0]]), jnp.array([[1.0], [0.0], [1.0]])
    for found in jaxcam.log_derivatives(lambda a: (jnp.sqrt(a) @ seen).sum(), a, engine="adjoint"):
        np.testing.assert_array_equal(found == 0, [[False, True, False]])


MASK = np.array([1.0, 0, 1, 1, 0, 1])[:, None] * np.ones((6, 4))
STEEP = {  # infinite slopes at zero, and a mask behind them
    "root": lambda a, mask: jnp.sqrt(a) * mask,
    "chain": lambda a, mask: jnp.sin(2 * jnp.cbrt(a)) * mask + jnp.sqrt(a) * mask,
    "norm": lambda a, mask: jnp.sqrt((a**2).sum(-1, keepdims=True)) * mask,
    "comparison": lambda a, mask: a**0.5 * (a > 0).astype(a.dtype),
    "indices": lambda a, mask: jnp.sqrt(a)[np.array([0, 2, 3, 5])],
    "weights": lambda a, mask: mask[:, 0] @ jnp.arccos(1 - a),
}


@pytest.mark.parametrize("f", STEEP.values(), ids=STEEP)
def test_what_a_mask_takes_away_is_nothing(f):
    """Against the same where the masked places are ones, away from what is infinite."""
    a = MASK * np.abs(tails.normal("masked", 6, 4))

    def u(a):
        return jnp.tanh(f(a, jnp.asarray(MASK, a.dtype)) @ weights("masked", a, 4, 3)).sum() ** 2

    def away(a):
        mask = jnp.asarray(MASK, a.dtype)
        values = f(a + 0.5 * (1 - mask), mask)
        values = values * mask if values.shape == mask.shape else values
        return jnp.tanh(values @ weights("masked", a, 4, 3)).sum() ** 2

    truth = [v * MASK for v in oracles.brute_force(away, a)]
    found = derive(u, a)
    with jax.enable_x64(True):
        first = choose("auto", trace(u, jnp.asarray(a)), order=1).derive(jnp.asarray(a))[0].u1
    for ours, theirs in zip((first, *found), (truth[0], *truth), strict=True):
        assert relative_error(ours, theirs) < 1e-9


def test_what_is_squared_behind_a_mask_is_seen_and_what_is_not_masked_stays_infinite():
    a = jnp.array([[4.0, 0.0, 0.0]])
    mask = jnp.array([[1.0, 0.0, 1.0]])
    for found in jaxcam.log_derivatives(lambda a: (jnp.sqrt(a) * mask).sum(), a, engine="adjoint"):
        np.testing.assert_array_equal(np.isfinite(found), [[True, True, False]])
    # No first derivative by sqrt(a) at zero, but a second one: the root there is not unseen.
    _, u2, _ = jaxcam.log_derivatives(lambda a: (jnp.sqrt(a) ** 2).sum(), a, engine="adjoint")
    np.testing.assert_array_equal(np.isfinite(u2), [[True, False, False]])


def test_guarded_products_can_be_differentiated():
    """Where all is finite, zeros do not stop the derivative of a derivative."""

    def total(scale, a):
        return jaxcam.log_derivatives(
            lambda a: (scale * jnp.log(1 + a**2)).sum(), a, engine="adjoint"
        ).u3.sum()

    a, h = tails.normal("twice", 2, 3), 1e-4
    a[0, 0] = 0
    with jax.enable_x64(True):
        scale = jnp.zeros(())
        slope = jax.grad(total)(scale, jnp.asarray(a))
        difference = (total(scale + h, jnp.asarray(a)) - total(scale - h, jnp.asarray(a))) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-8)


def test_a_part_of_a_split_that_is_not_the_first_is_guarded_too():
    """A power of what may be zero, behind the second of two parts of different sizes."""
    a = tails.normal("split and guarded", 5, 2)

    def u(a):
        part = jnp.split(a, [2])[1]
        return jnp.tanh((1 + part**2) ** part).sum() ** 2

    found = derive(u, a)
    for ours, theirs in zip(found, oracles.brute_force(u, a), strict=True):
        assert relative_error(ours, theirs) < 1e-10
