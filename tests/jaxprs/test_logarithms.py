"""Logarithms of probabilities that a network computed: their digits, and what is left alone.

The truth is written in `mpmath`, sixty digits, and differentiated there numerically.
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
from mpmath import mp

from jaxcam.derivatives.traced import trace
from jaxcam.jaxprs.logarithms.rewriting import exact_logarithms

LOGITS = np.array([0.25, 1.0, -0.5, 0.125, -1.25])
ALONG = np.array([-0.75, -1.25, 0.5, 0.25, 0.375])  # the line that is differentiated along
SURE = (1, 8, 40, 90)  # 1 - p of the largest: .5, 3e-3, 1e-13, 3e-30
CLASSES = (1, 3)  # the largest, and another


def by_hand(z):
    powers = jnp.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def careless(z):
    return jnp.exp(z) / jnp.exp(z).sum()


def rows(z):
    return jnp.stack([z, -z])


def renormalised(p):
    return p / p.sum()


def from_odds(odds):
    return odds / (1 + odds)


def label_loss(z, c):  # as optax writes it
    chosen = jnp.take_along_axis(z, jnp.asarray(c)[None], axis=-1)[0]
    return jax.nn.logsumexp(z, axis=-1) - chosen


def shares(z):
    largest = max(z)
    powers = [mp.exp(v - largest) for v in z]
    return [power / mpmath.fsum(powers) for power in powers]


def log_share(z, c):
    return mp.log(shares(z)[c])


def sigmoid(v):
    return 1 / (1 + mp.exp(-v))


def log_sigmoid(z, c):
    return mp.log(sigmoid(z[c]))


def others(z, c):
    p = shares(z)
    return mpmath.fsum(p[j] for j in range(len(p)) if j != c)


softmax, OUT = jax.nn.softmax, 4
FORMS = {
    "softmax": (lambda z, c: jnp.log(softmax(z))[c], log_share),
    "of a batch": (lambda z, c: jnp.log(softmax(z[None]))[0, c], log_share),
    "picked before": (lambda z, c: jnp.log(softmax(z)[c]), log_share),
    "by hand": (lambda z, c: jnp.log(by_hand(z))[c], log_share),
    "by hand, never by zero": (
        lambda z, c: jnp.log((powers := jnp.exp(z)) / (powers.sum() + 1e-6))[c],
        lambda z, c: z[c] - mp.log(mpmath.fsum(map(mp.exp, z)) + mp.mpf(1e-6))),
    "by hand, unshifted": (lambda z, c: jnp.log(careless(z - z[1]))[c], log_share),
    "in calls": (lambda z, c: jnp.log(jax.jit(jax.checkpoint(softmax))(z))[c], log_share),
    "log_softmax": (lambda z, c: jax.nn.log_softmax(z)[c], log_share),
    "twice": (lambda z, c: jnp.log(softmax(jax.nn.log_softmax(z)))[c], log_share),
    "logsumexp": (lambda z, c: z[c] - jax.nn.logsumexp(z), log_share),
    "loss of a label": (lambda z, c: -label_loss(z, c), log_share),
    "centred": (lambda z, c: -jax.nn.logsumexp(z - z[c]), log_share),
    "over two axes": (
        lambda z, c: jnp.log(softmax(z.reshape(1, 5), axis=(0, 1)))[0, c], log_share),
    "of rows": (lambda z, c: jnp.log(softmax(rows(z)))[0, c], log_share),
    "of columns": (lambda z, c: jax.nn.log_softmax(rows(z).T, axis=0)[c, 0], log_share),
    "logsumexp of rows": (
        lambda z, c: (rows(z) - jax.nn.logsumexp(rows(z), 1, keepdims=True))[0, c], log_share),
    "temperature": (lambda z, c: jnp.log(softmax(z / 2))[c],
                    lambda z, c: log_share([v / 2 for v in z], c)),
    "temperature of p": (lambda z, c: jnp.log(renormalised(jnp.sqrt(softmax(z))))[c],
                         lambda z, c: log_share([v / 2 for v in z], c)),
    "plus eps": (lambda z, c: jnp.log(softmax(z) + 1e-8)[c],
                 lambda z, c: mp.log(shares(z)[c] + mp.mpf(1e-8))),
    "smoothed labels": (lambda z, c: jnp.log(0.75 * softmax(z) + 0.0625)[c],
                        lambda z, c: mp.log(mp.mpf(0.75) * shares(z)[c] + mp.mpf(0.0625))),
    "clipped": (lambda z, c: jnp.log(jnp.clip(softmax(z), 1e-35, 1.0))[c], log_share),
    "bits": (lambda z, c: jnp.log2(softmax(z))[c], lambda z, c: log_share(z, c) / mp.log(2)),
    "masked": (lambda z, c: jnp.log(softmax(jnp.where(jnp.arange(5) == OUT, -jnp.inf, z)))[c],
               lambda z, c: log_share(z[:OUT], c)),
    "where": (lambda z, c: jnp.log(softmax(z, where=jnp.arange(5) != OUT))[c],
              lambda z, c: log_share(z[:OUT], c)),
    "largest": (lambda z, c: jnp.log(softmax(z).max()), lambda z, c: log_share(z, 1)),
    "complement": (lambda z, c: jnp.log(1 - softmax(z))[c], lambda z, c: mp.log(others(z, c))),
    "odds": (lambda z, c: jax.scipy.special.logit(softmax(z))[c],
             lambda z, c: mp.log(shares(z)[c] / others(z, c))),
    "hierarchy": (lambda z, c: jnp.log(softmax(z)[c] * jax.nn.sigmoid(z[1])),
                  lambda z, c: log_share(z, c) + log_sigmoid(z, 1)),
    "probability": (lambda z, c: softmax(z)[c], lambda z, c: shares(z)[c]),
    "sigmoid": (lambda z, c: jnp.log(jax.nn.sigmoid(z))[c], log_sigmoid),
    "sigmoid by hand": (lambda z, c: jnp.log(1 / (1 + jnp.exp(-z)))[c], log_sigmoid),
    "sigmoid of odds": (lambda z, c: jnp.log(from_odds(jnp.exp(z)))[c], log_sigmoid),
    "log_sigmoid": (lambda z, c: jax.nn.log_sigmoid(z)[c], log_sigmoid),
    "other side": (lambda z, c: jnp.log(1 - jax.nn.sigmoid(-z))[c], log_sigmoid),
    "log1p": (lambda z, c: jnp.log1p(-jax.nn.sigmoid(-z))[c], log_sigmoid),
    "pair": (lambda z, c: jnp.log(jnp.stack([1 - (p := jax.nn.sigmoid(z[c])), p]))[1], log_sigmoid),
}  # fmt: skip


def derivatives(form):
    """Give ``u``, its gradient, and three derivatives along the line, of the rewritten score."""

    def found(z, c):
        score = trace(form, z, c)

        def line(t):
            return score(z + t * jnp.asarray(ALONG, z.dtype), c)[0]

        def slope(t):
            return jax.jvp(line, (t,), (jnp.ones_like(t),))

        def curvature(t):
            return jax.jvp(slope, (t,), (jnp.ones_like(t),))

        zero = jnp.zeros((), z.dtype)
        ((u, u1), (_, u2)), (_, (_, u3)) = jax.jvp(curvature, (zero,), (jnp.ones_like(zero),))
        return u, jax.grad(lambda z: score(z, c)[0])(z), jnp.stack([u1, u2, u3])

    return found


@pytest.fixture(scope="module")
def ours():
    """All forms at all confidences and classes, in float32, by one compiled program."""
    every = jax.jit(
        lambda z, c: {name: derivatives(form)(z, c) for name, (form, _) in FORMS.items()},
        compiler_options=oracles.PLAIN,
    )
    points = [(gain, c) for gain in SURE for c in CLASSES]
    return {
        (gain, c): jax.device_get(every(jnp.float32(gain * LOGITS), jnp.int32(c)))
        for gain, c in points
    }


@pytest.mark.parametrize("name", FORMS)
def test_every_digit_is_kept(name, ours):
    with mp.workdps(60):
        for (gain, c), found in ours.items():
            u, gradient, slopes = true_derivatives(FORMS[name][1], gain, c)
            np.testing.assert_allclose(found[name][0], u, rtol=1e-5, atol=1e-37)
            for ours_, true in ((found[name][1], gradient), (found[name][2], slopes)):
                largest = max(abs(true))
                np.testing.assert_allclose(
                    ours_, true, rtol=1e-4, atol=float(1e-5 * largest) + 1e-37
                )


def true_derivatives(form, gain, c):
    z = [mp.mpf(v) for v in gain * LOGITS]

    def line(t):
        return form([v + t * mp.mpf(d) for v, d in zip(z, ALONG, strict=True)], c)

    def moved(j):
        return lambda t: form([v + t * (i == j) for i, v in enumerate(z)], c)

    u, *slopes = (mp.factorial(k) * v for k, v in enumerate(mp.taylor(line, 0, 3)))
    gradient = [mp.diff(moved(j), 0) for j in range(len(z))]
    return float(u), np.array(gradient, float), np.array(slopes, float)


# What looks like one of them and is none, and what must not be looked into.


@jax.custom_jvp
def _softmax(z):
    return jax.nn.softmax(z)


@_softmax.defjvp
def _straight_through(primals, tangents):
    return _softmax(*primals), tangents[0]


def over(z, axis):
    powers = jnp.exp(z)
    return powers, powers.sum(axis=axis)


def twice_logged(z):
    return z - jnp.log(jnp.log(over(z, 1)[1]))[:, None]


SQUARE = np.random.default_rng(0).normal(size=(3, 3))
LOOKALIKES = {
    "sum of the other axis": lambda z: jnp.log(over(z, 0)[0] / over(z, 0)[1][:, None]),
    "sum of another row": lambda z: jnp.log(over(z, 1)[0] / over(z, 1)[1][::-1, None]),
    "element of another row": lambda z: jnp.log(over(z, 1)[0][::-1] / over(z, 1)[1][:, None]),
    "transposed": lambda z: jnp.log(over(z, 1)[0].T / over(z, 1)[1][:, None]),
    "sum of others": lambda z: jnp.log(jnp.exp(z) / jnp.exp(2 * z).sum(1, keepdims=True)),
    "logsumexp of the other axis": lambda z: z - jax.nn.logsumexp(z, 0)[:, None],
    "logsumexp of others": lambda z: z - jax.nn.logsumexp(2 * z, 1, keepdims=True),
    "two logarithms": lambda z: twice_logged(z + 2),
    "shifted by another": lambda z: z - (
        jnp.log(jnp.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(0))[:, None],
    "shifted, moved": lambda z: z - (
        jnp.log(jnp.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1)[::-1])[:, None],
    "two minus p": lambda z: jnp.log(2 - softmax(z)),
    "stopped": lambda z: jnp.log(jax.lax.stop_gradient(softmax(z)) + z**2),
    "a rule of the user's": lambda z: jnp.log(_softmax(z)),
    "filled with zeros": lambda z: jnp.log(
        1 + softmax(z).at[jnp.array([2, 5])].get(mode="fill", fill_value=0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_keep_their_values(name):
    def u(z):
        found = LOOKALIKES[name](z)
        return jnp.vdot(found, jnp.cos(jnp.arange(found.size, dtype=z.dtype)).reshape(found.shape))

    with jax.enable_x64(True):
        same_value_and_gradient(u, u, jnp.asarray(SQUARE))


def same_value_and_gradient(ours_, plain, z):
    """Ours rewritten, and the other as it is."""

    def both(z):
        score = trace(ours_, z)
        return jax.value_and_grad(lambda z: score(z)[0])(z), jax.value_and_grad(plain)(z)

    found, expected = jax.jit(both)(z)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-14)
    assert np.isfinite(found[1]).all()


# What is infinite for what was not picked.


def sparse(z):
    return renormalised(jax.nn.relu(z))


SINGULAR_ELSEWHERE = {
    "logarithm": jnp.log,
    "of a batch": lambda p: jnp.log(p[None])[0],
    "odds": lambda p: jnp.log(p / (1 - p)),
    "root": jnp.sqrt,
    "power": lambda p: p**0.25 / 2,
    "quotient": lambda p: 1 - 1 / p,
    "temperature": lambda p: jnp.log(p) / 2 + 1,
    "jitted": jax.jit(jnp.log),
}


@pytest.mark.parametrize("name", SINGULAR_ELSEWHERE)
def test_what_is_picked_is_picked_before(name):
    f = SINGULAR_ELSEWHERE[name]
    with jax.enable_x64(True):
        z = jnp.asarray(LOGITS)
        assert not np.isfinite(jax.grad(lambda z: f(sparse(z))[1])(z)).all()
        alone = lambda z: f(sparse(z)[1:2])[0]  # noqa: E731
        same_value_and_gradient(lambda z: f(sparse(z))[1], alone, z)
        same_value_and_gradient(lambda z: f(sparse(z)).at[jnp.argmax(z)].get(), alone, z)


def test_a_program_without_a_logarithm_is_the_very_same():
    closed = jax.make_jaxpr(lambda z: jnp.sin(softmax(z) @ z).sum())(LOGITS)
    assert exact_logarithms(closed) is closed
    closed = jax.make_jaxpr(lambda z: jnp.log(1 + z**2)[0])(LOGITS[:1])
    assert exact_logarithms(closed) is closed


def test_calls_keep_their_names_and_dead_operations_go():
    closed = jax.make_jaxpr(lambda z: jnp.log(softmax(jax.nn.silu(z)))[1])(LOGITS)
    equations = exact_logarithms(closed).jaxpr.eqns
    assert equations[0].params["name"] == "silu"
    assert "div" not in {equation.primitive.name for equation in equations}
