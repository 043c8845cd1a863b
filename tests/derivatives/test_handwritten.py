"""Derivatives written by hand: right by every engine that takes them, refused by the others.

The truth is what nested `jax.grad` of the score gives, whatever the author meant.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import rows
import tails
from engines import relative_error
from jax import lax
from test_exact import EXACT

import jaxcam
from jaxcam.derivatives.engines import adjoint
from jaxcam.derivatives.traced import trace

SHAPE = (3, 2)


def by_rule(function, rule, **options):
    made = jax.custom_jvp(function, **options)
    made.defjvp(rule)
    return made


def step(x):
    return jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x))


def nearest(x):
    return jnp.round(x)


def squares(f):
    """Read out something in which a value meets its own tangent."""
    return lambda a: (
        (f(a) @ jnp.asarray(tails.normal("by hand", 2, 3), a.dtype)) ** 2 + f(a).sum()
    ).sum()


def looped(f):
    return lambda a: lax.scan(lambda c, _: (f(c) + c / 2, None), a, None, length=2)[0]


# Rules that give the plain value, of which JAX then takes another derivative.

spike = by_rule(step, lambda p, t: (step(p[0]), t[0] / (1 + p[0] ** 2)))
rounded = by_rule(nearest, lambda p, t: (jnp.round(p[0]), t[0]))
reversal = by_rule(lambda x: x, lambda p, t: (p[0], -t[0] / 2))
sign_like_tanh = by_rule(jnp.sign, lambda p, t: (jnp.sign(p[0]), t[0] * (1 - jnp.tanh(p[0]) ** 2)))
sloped = by_rule(jnp.tanh, lambda p, t: (jnp.tanh(p[0]), t[0] * jnp.exp(-(p[0] ** 2))))
gate_of_two = by_rule(
    lambda x, y: x * y, lambda p, t: (p[0] * p[1], t[0] * p[1] + 0.5 * t[1] * p[0])
)
row_softmax = by_rule(
    lambda x: jax.nn.softmax(x, -1),
    lambda p, t: (jax.nn.softmax(p[0], -1), t[0] * jax.nn.softmax(p[0], -1)),
)
# The slope is itself a function with another slope: the third derivative alone has two tangents.
slope_of_a_slope = by_rule(jnp.sin, lambda p, t: (slope_of_a_slope(p[0]), t[0] * sloped(p[0])))
with_static = by_rule(
    lambda power, x: x**power,
    lambda power, p, t: (p[0] ** power, t[0] * power),
    nondiff_argnums=(0,),
)


def symbolic_rule(primals, tangents):
    (x,), (t,) = primals, tangents
    given = jnp.zeros_like(x) if type(t) is jax.custom_derivatives.SymbolicZero else t
    return jnp.round(x), given * jnp.cos(x)


symbolic = jax.custom_jvp(nearest)
symbolic.defjvp(symbolic_rule, symbolic_zeros=True)

DIFFER = {
    "spike": squares(spike),
    "straight_through": squares(rounded),
    "reversed_gradient": lambda a: jnp.tanh(reversal(a) @ jnp.ones((2, 2), a.dtype)).sum(),
    "binary": squares(lambda x: sign_like_tanh(jnp.sin(2 * x))),
    "another_slope": squares(sloped),
    "two_operands": squares(lambda x: gate_of_two(x, jnp.tanh(x))),
    "one_of_two_operands": squares(lambda x: gate_of_two(jnp.ones_like(x), x)),
    "rows": squares(row_softmax),
    "third_alone": squares(slope_of_a_slope),
    "static_argument": squares(functools.partial(with_static, 3)),
    "symbolic_zeros": squares(symbolic),
    "in_jit": squares(jax.jit(spike)),
    "in_remat": squares(jax.checkpoint(lambda x: spike(x) + x)),
    "in_scan": squares(looped(spike)),
    "in_cond": squares(lambda x: lax.cond(x.sum() > -9, rounded, jnp.tanh, x)),
    "in_vmap": squares(jax.vmap(sloped)),
}

# Rules that give the function itself, or a value whose derivative is seen to be the rule's.

softplus = by_rule(
    lambda x: jnp.log1p(jnp.exp(x)), lambda p, t: (softplus(p[0]), t[0] / (1 + jnp.exp(-p[0])))
)
plain_sine = by_rule(jnp.sin, lambda p, t: (jnp.sin(p[0]), t[0] * jnp.cos(p[0])))
exponential = by_rule(jnp.exp, lambda p, t: (exponential(p[0]), exponential(p[0]) * t[0]))
half_reversed = by_rule(lambda x: 1 * x, lambda p, t: (half_reversed(p[0]), -t[0] / 2))
product = by_rule(lambda x, y: x * y, lambda p, t: (product(*p), p[1] * t[0] + p[0] * t[1]))
safe_root = by_rule(
    lambda x: jnp.sqrt(jnp.where(x > 0, x, jnp.ones_like(x))),
    lambda p, t: (safe_root(p[0]), t[0] / (2 * safe_root(p[0]))),
)

AGREE = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "log_sigmoid": jax.nn.log_sigmoid,
    "logaddexp": lambda x: jnp.logaddexp(x, x**2),
    "log_ndtr": jax.scipy.special.log_ndtr,
    "sinc": jnp.sinc,
    "xlogy": lambda x: jax.scipy.special.xlogy(2 + x, 3 + jnp.sin(x)),
    "softplus": softplus,
    "plain_value_of_that_slope": plain_sine,
    "its_own_slope": exponential,
    "rule_of_itself_with_another_slope": half_reversed,
    "two_operands": lambda x: product(x, jnp.tanh(x)),
    "safe_root": lambda x: safe_root(1 + x**2),
    "straight_through": tails.straight_through,
    "in_scan": looped(softplus),
    "in_remat": jax.checkpoint(softplus),
}


def point():
    return tails.normal("point by hand", *SHAPE)


def check(u, how="jit"):
    """Hold every exact engine that applies against nested gradients."""
    a = point()
    truth = oracles.brute_force(u, a)
    applying = []
    with jax.enable_x64(True):
        traced = trace(u, jnp.asarray(a))
        for engine in EXACT:
            if engine.prove(traced, engine.name).applies:
                call = functools.partial(jaxcam.log_derivatives, u, engine=engine.name)
                found = (jax.jit(call) if how == "jit" else call)(jnp.asarray(a))
                assert max(map(relative_error, found, truth)) < 1e-10, engine.name
                applying.append(engine.name)
    return applying


@rows.table("u", DIFFER, ("spike", "rows", "third_alone", "symbolic_zeros", "in_scan"))
def test_a_plain_value_is_refused_where_one_tangent_would_serve_all_levels(u):
    applying = check(u)
    assert "directional" in applying
    assert not {"adjoint", "peeled"}.intersection(applying)
    words = adjoint.prove(trace(u, jnp.asarray(point(), jnp.float32))).words
    assert "custom_jvp" in words


@rows.table("f", AGREE, ("relu6", "xlogy", "softplus", "rule_of_itself_with_another_slope"))
def test_a_rule_of_the_function_itself_stays_proved(f):
    assert {"adjoint", "directional"}.issubset(check(squares(f)))


def test_a_rule_on_weights_alone_is_no_obstacle():
    """Quantised weights do not depend on ``a``: their straight-through rule is never asked."""

    def u(a):
        weights = rounded(3 * jnp.asarray(tails.normal("quantised", 2, 3), a.dtype))
        return jnp.tanh(a @ weights).sum()

    assert "adjoint" in check(u, how="eager")


def test_what_is_refused_names_the_function():
    words = adjoint.prove(trace(squares(spike), jnp.asarray(point(), jnp.float32))).words
    assert "step" in words, words
    found = jaxcam.check_derivatives(squares(rounded), jnp.asarray(point(), jnp.float32))
    assert found.engine == "affine"  # read off the gradient that JAX makes: the truth is 0 too
    np.testing.assert_array_less(found.errors, 1e-6)
