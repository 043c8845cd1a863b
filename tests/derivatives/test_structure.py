"""The proofs never claim too much: not on the tails, not on programs made up at random.

What is proved of a score is held against brute force. A proof may be refused where it would have
held; where that happens on a tail it is listed here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tails
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcam.derivatives.engines import affine
from jaxcam.derivatives.proof import Structure, analyse
from jaxcam.derivatives.traced import trace
from jaxcam.jaxprs.dependence import Dependence
from jaxcam.jaxprs.interpret import run

MAY_BE_REFUSED = {"cond"}
"""Piecewise affine tails whose proof may not be found; that of every other one is."""

SHAPE = (4, 2)  # positions, channels


POOLED = {"gap_dense", "sum_pool", "gap_layernorm"}
"""Tails that see the activations only through sums over all positions."""


def every_tail(test):
    return pytest.mark.parametrize("tail", tails.TAILS, ids=lambda tail: tail.name)(test)


def largest(*values) -> float:
    """Give the largest absolute value; NaN if there is one, which compares false with any bound."""
    return np.max(np.abs(values))


def check_claims(u, a, brute_force=oracles.brute_force) -> Structure:
    """Hold every claim about ``u`` against brute force at ``a``."""
    with jax.enable_x64(True):
        found = analyse(trace(u, jnp.asarray(a)))
    assert found.error is None
    if found.gradient is not Dependence.VARYING or found.pooled:
        check_derivatives(found, *brute_force(u, a))
    if found.gradient is Dependence.NONE:
        np.testing.assert_array_equal(gradient(u, a), gradient(u, 3 * a[::-1] - 0.1))
    if found.score is not Dependence.VARYING:
        assert not gradient(u, a).any()
    return found


def gradient(u, a):
    with jax.enable_x64(True):
        return np.asarray(jax.grad(u)(jnp.asarray(a)))


def check_derivatives(found, u1, u2, u3):
    """``u2 = u3 = 0`` where the gradient is called flat; all positions alike if called pooled."""
    if found.gradient is not Dependence.VARYING:
        assert largest(u2, u3) <= 1e-10 * largest(u1)
    if found.pooled:
        for derivative in (u1, u2, u3):
            first = derivative[(0,) * (u1.ndim - 1)]
            assert largest(derivative - first) <= 1e-10 * largest(u1, derivative)


@every_tail
def test_tail_is_proved_when_it_is_piecewise_affine(tail):
    """Both ways: the table is checked by brute force, and the proof by the table."""
    u = oracles.log_score(tail.scores, tails.CLASS, "exp_logit")
    u1, u2, u3 = truth = tails.truth(tail, "exp_logit")
    assert (largest(u2, u3) <= 1e-12 * largest(u1)) == tail.piecewise_affine
    found = check_claims(u, tails.point(tail), lambda u, a: truth)
    claimed = found.gradient is not Dependence.VARYING
    assert claimed == tail.piecewise_affine or (tail.name in MAY_BE_REFUSED and not claimed)
    assert (found.gradient is Dependence.NONE) == tail.affine
    assert found.pooled == (tail.name in POOLED)


@every_tail
def test_softmax_is_never_piecewise_affine(tail):
    u = oracles.log_score(tail.scores, tails.CLASS, "softmax")
    found = analyse(trace(u, jnp.asarray(tails.point(tail), jnp.float32)))
    assert found.score is found.gradient is Dependence.VARYING
    assert found.pooled == (tail.name in POOLED)
    if found.pooled:
        check_derivatives(found, *tails.truth(tail, "softmax"))


# Scores that invite a false proof. All are second-order somewhere that is easy to overlook.


@jax.custom_jvp
def sign_with_slope(x):
    """Give the sign, with the derivative of the identity."""
    return jnp.sign(x)


sign_with_slope.defjvps(lambda dx, out, x: dx)


@jax.custom_jvp
def rule_in_a_rule(x):
    """Give the identity, whose derivative is a sign that has a slope of its own."""
    return 1 * x


rule_in_a_rule.defjvps(lambda dx, out, x: dx * sign_with_slope(x))


@jax.custom_vjp
def rule_in_a_reverse_rule(x):
    """The same by a reverse rule."""
    return x


rule_in_a_reverse_rule.defvjp(lambda x: (x, x), lambda x, g: (g * sign_with_slope(x),))
round_by_hand = tails.written_by_hand(jnp.round, jnp.ones_like)


def written_to_a_reference(a):
    cell = jax.new_ref(jnp.zeros_like(a))
    cell[...] = a
    return (cell[...] ** 2).sum()


def multiplied_in_a_loop(a):
    """Carry (x, y) -> (y, x y) three times: y is multiplied by ``a`` only on the second turn."""
    start = (a, jnp.ones_like(a))
    return lax.scan(lambda c, _: ((c[1], c[0] * c[1]), None), start, None, length=3)[0][1].sum()


def scaled_by_a_gathered_value(a):
    return (a[jnp.argmax(a[:, 0])][None] * a).sum()


def solved(a):
    return jnp.linalg.solve(jnp.eye(4, dtype=a.dtype) + a @ a.T, jnp.ones(4, a.dtype)).sum()


def square_root_by_iteration(a):
    """Newton's method on x^2 = a^2 + 1 with a fixed number of steps."""
    goal = a**2 + 1
    return lax.fori_loop(0, 4, lambda _, x: (x + goal / x) / 2, goal).sum()


def gated(a):
    """A gate that is itself piecewise affine: the product is not."""
    return (a * jax.nn.hard_sigmoid(a)).sum()


CURVED = (
    lambda a: (sign_with_slope(a) ** 2).sum(),
    lambda a: rule_in_a_rule(a).sum(),
    lambda a: rule_in_a_reverse_rule(a).sum(),
    lambda a: (round_by_hand(3 * a) ** 2).sum(),
    written_to_a_reference,
    multiplied_in_a_loop,
    scaled_by_a_gathered_value,
    solved,
    square_root_by_iteration,
    gated,
    lambda a: jnp.where(a > 0, a, a**2).sum(),
    lambda a: lax.cond(a.sum() > 100, lambda x: x, lambda x: x**2, a).sum(),
    lambda a: lax.cumlogsumexp(a).sum(),
    lambda a: lax.reduce_precision(a**2, 8, 7).sum(),
    lambda a: jnp.real(jnp.exp(lax.complex(a, a))).sum(),
    jnp.linalg.norm,
    jax.nn.logsumexp,
    lambda a: (jnp.sort(a, 0)[1:] ** 2).sum(),
    lambda a: ((a - jnp.floor(a)) ** 2).sum(),
    lambda a: (a * a.sum(0, keepdims=True)).sum(),
    jax.checkpoint(lambda x: (x * jax.checkpoint(jnp.tanh)(x)).sum()),
    lambda a: jax.vmap(lambda row: (row * row[::-1]).sum() ** 2)(a).sum(),
)


@pytest.mark.parametrize("u", CURVED)
def test_curved_scores_are_not_proved(u):
    a = tails.normal("curved", *SHAPE)
    with jax.enable_x64(True):
        found, proof = analyse(trace(u, jnp.asarray(a))), affine.prove(trace(u, jnp.asarray(a)))
    assert found.error is None
    assert found.gradient is Dependence.VARYING
    assert not proof.applies
    if u is not written_to_a_reference:  # nested gradients of references need jax 0.12
        u1, u2, u3 = oracles.brute_force(u, a)
        assert largest(u2, u3) > 1e-3 * largest(u1)


@jax.custom_jvp
def not_a_gradient(a):
    return a.sum()


not_a_gradient.defjvp(
    lambda p, t: (not_a_gradient(*p), t[0].sum() * (p[0][0, 0] ** 2 + 3 * p[0][1, 0]))
)


@jax.custom_jvp
def another_value(x):
    return x**2


another_value.defjvp(lambda p, t: (p[0] ** 2, t[0]))


@pytest.mark.parametrize(
    "u", [not_a_gradient, lambda a: another_value(a).sum() ** 2], ids=("curl", "value")
)
def test_equal_gradients_of_a_rule_by_hand_may_change_differently(u):
    """Nothing is called pooled: second derivatives differ from position to position."""
    found = check_claims(u, tails.normal("by hand", *SHAPE))
    assert not found.pooled


def test_printing_is_no_obstacle():
    """An operation without a result says nothing about the score."""

    def u(a):
        jax.debug.print("{}", a.sum())
        return rectified(a)

    def rectified(a):
        return jax.nn.relu(a).sum()

    a = jnp.ones(SHAPE)
    assert analyse(trace(u, a)) == analyse(trace(rectified, a))


# Programs at random: every operation maps values of SHAPE to a value of SHAPE.

MIX = {name: tails.normal(name, n, n) / n for name, n in (("channels", 2), ("positions", 4))}


def weights(name, like):
    return jnp.asarray(MIX[name], like.dtype)


def convolve(x):
    kernel = jnp.asarray(tails.normal("kernel", 3, 2, 2) / 3, x.dtype)
    axes = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x[None], kernel, (1,), "SAME", dimension_numbers=axes)[0]


def window_max(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 1), (1, 1), "SAME")


def everywhere(row, like):
    return jnp.broadcast_to(row, like.shape)


def looped(step):
    return lambda x: lax.scan(lambda c, _: (step(c), None), x, None, length=2)[0]


PIECEWISE_AFFINE = {
    "channels": lambda x, y, z: x @ weights("channels", x),
    "positions": lambda x, y, z: weights("positions", x) @ x,
    "convolve": lambda x, y, z: convolve(x),
    "pool": lambda x, y, z: everywhere(x.mean(0, keepdims=True), x),
    "pool_channels": lambda x, y, z: everywhere(x.sum(1, keepdims=True), x),
    "turn": lambda x, y, z: x[::-1].T.reshape(4, 2),
    "cumsum": lambda x, y, z: jnp.cumsum(x, 0) / 2,
    "add": lambda x, y, z: x + y,
    "subtract": lambda x, y, z: x - 0.7 * y + 0.1,
    "concatenate": lambda x, y, z: jnp.concatenate([x[:2], y[2:]]),
    "relu": lambda x, y, z: jax.nn.relu(x),
    "abs": lambda x, y, z: jnp.abs(x),
    "maximum": lambda x, y, z: jnp.maximum(x, y),
    "minimum": lambda x, y, z: jnp.minimum(x, y),
    "where": lambda x, y, z: jnp.where(x > y, x, z),
    "clip": lambda x, y, z: jnp.clip(x, -0.5, 0.5),
    "sign": lambda x, y, z: jnp.sign(x),
    "floor": lambda x, y, z: jnp.floor(3 * x),
    "window_max": lambda x, y, z: window_max(x),
    "global_max": lambda x, y, z: everywhere(x.max(0, keepdims=True), x),
    "sort": lambda x, y, z: jnp.sort(x, 0),
    "integer": lambda x, y, z: (4 * x).astype(jnp.int32).astype(x.dtype),
    "slice": lambda x, y, z: everywhere(x[jnp.argmax(y[:, 0])][None], x),
    "gather": lambda x, y, z: x[jnp.argsort(y[:, 0])],
    "scatter": lambda x, y, z: x.at[jnp.argsort(y[:, 0])[:2]].set(z[2:]),
    "straight_through": lambda x, y, z: tails.straight_through(2 * x),
    "stop_gradient": lambda x, y, z: lax.stop_gradient(x),
    "cond": lambda x, y, z: lax.cond(y.sum() > 0, jax.nn.relu, jnp.negative, x),
    "scan": lambda x, y, z: looped(lambda c: jax.nn.relu(convolve(c)))(x),
    "remat": lambda x, y, z: jax.checkpoint(lambda c: jax.nn.relu(convolve(c)))(x),
    "custom_vjp": lambda x, y, z: tails.relu_by_hand(x),
    "round_by_hand": lambda x, y, z: round_by_hand(3 * x),
    "gate": lambda x, y, z: x * (y > z).astype(x.dtype),
    "detached_gate": lambda x, y, z: x * jnp.tanh(lax.stop_gradient(y)),
    "sign_gate": lambda x, y, z: x * jnp.sign(y),
}  # fmt: skip
CURVED_STEPS = {
    "tanh": lambda x, y, z: jnp.tanh(x),
    "gelu": lambda x, y, z: jax.nn.gelu(x),
    "exp": lambda x, y, z: jnp.exp(jnp.clip(x, -2, 2)),
    "square": lambda x, y, z: x**2,
    "multiply": lambda x, y, z: x * y,
    "divide": lambda x, y, z: x / (1 + y**2),
    "softmax": lambda x, y, z: jax.nn.softmax(x, 0),
    "scan_multiply": lambda x, y, z: looped(lambda c: c * jnp.tanh(c))(x),
    "remat_tanh": lambda x, y, z: jax.checkpoint(jnp.tanh)(x),
    "sign_with_slope": lambda x, y, z: sign_with_slope(x),
    "rule_in_a_rule": lambda x, y, z: rule_in_a_rule(x),
    "custom_vjp_silu": lambda x, y, z: tails.silu_by_hand(x),
}  # fmt: skip
STEPS = PIECEWISE_AFFINE | CURVED_STEPS


def read_out(x):
    return x.sum(0) @ jnp.asarray(tails.normal("readout", 2), x.dtype)


def program(lines, steps=STEPS, read_out=read_out):
    """Make ``u(a)`` of lines ``(operation, i, j, k)``; operands are the values so long ago."""

    def u(a):
        values = [a]
        for name, *ago in lines:
            operands = (values[-1 - min(back, len(values) - 1)] for back in ago)
            values.append(steps[name](*operands))
        return read_out(values[-1])

    return u


@pytest.mark.parametrize("name", STEPS)
def test_each_operation_is_never_claimed_wrongly(name):
    """Alone; after pooling; and squared, where the gradient is the operation's own value."""
    step, pool, square = (name, 0, 0, 0), ("pool", 0, 0, 0), ("square", 0, 0, 0)
    for chosen in ([step], [pool, step], [step, square]):
        check_claims(program(chosen), tails.normal("program", *SHAPE))


def lines(*names, least=1, most=6):
    back = st.integers(0, 3)
    line = st.tuples(st.sampled_from(sorted(names)), back, back, back)
    return st.lists(line, min_size=least, max_size=most)


PROGRAMS = st.one_of(
    lines(*PIECEWISE_AFFINE),
    st.tuples(lines(*PIECEWISE_AFFINE, most=3), lines("multiply", "square", most=1)).map(
        lambda two: two[0] + two[1]
    ),
    lines(*STEPS),
)
"""Nothing smooth; a product of what is not smooth, where a missed factor shows; anything."""


@pytest.mark.slow
def test_programs_at_random_are_never_claimed_wrongly():
    found = []

    @settings(max_examples=200, derandomize=True, deadline=None, database=None)
    @given(PROGRAMS)
    def check(chosen):
        found.append(check_claims(program(chosen), tails.normal("program", *SHAPE)))

    check()
    varying = [structure.gradient is Dependence.VARYING for structure in found]
    assert len(found) >= 100
    assert min(sum(varying), len(found) - sum(varying)) >= 40
    assert sum(structure.pooled for structure in found) >= 10


@jax.custom_jvp
def own_forward_rule(x):
    return jnp.sin(x)


own_forward_rule.defjvp(lambda values, tangents: (jnp.sin(*values), 7 * tangents[0]))


@jax.custom_vjp
def own_backward_rule(x):
    return jnp.sin(x)


own_backward_rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (7 * cotangent,))


@pytest.mark.parametrize("function", [own_forward_rule, own_backward_rule, jnp.sort])
def test_one_equation_is_run_as_jax_runs_it(function):
    """Of primitives that hold functions too: their values, and the derivatives they define."""
    x = jnp.array([0.5, -1.0, 2.0])
    (equation,) = jax.make_jaxpr(function)(x).eqns
    alone = jax.jit(lambda x: run(equation, [x])[0])
    np.testing.assert_array_equal(alone(x), jax.jit(function)(x))
    weights = jnp.array([1.0, 2.0, 3.0])
    gradient = jax.grad(lambda x: (alone(x) * weights).sum())(x)
    np.testing.assert_array_equal(gradient, jax.grad(lambda x: (function(x) * weights).sum())(x))
