"""The engine of small tangents, whatever stands in a tail: right, or a refusal in words."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import programs
import pytest
import tails
import test_structure
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from programs import conv, dense, spatial_mean

import jaxcam
from jaxcam.derivatives import adjoint, sweep
from jaxcam.derivatives.auto import ENGINES
from jaxcam.errors import JaxcamError, NotProved

QUICK = {"xla_backend_optimization_level": 0}  # compiles faster; what is computed is the same


def table(rows):
    return pytest.mark.parametrize("row", rows.values(), ids=rows)


def scored(layers):
    """Give ``u``: read out all numbers that ``layers(a)`` makes, each with its own weight."""
    return lambda a: programs.read_out(layers(a))


def point(*shape):
    return tails.normal("point of the adjoint", *shape)


def derive(u, a, *, engine="adjoint", how="jit", **options):
    """Run an engine in float64."""
    call = functools.partial(jaxcam.log_derivatives, u, engine=engine, **options)
    with jax.enable_x64(True):
        run = jax.jit(call, compiler_options=QUICK) if how == "jit" else call
        return [np.asarray(v) for v in run(jnp.asarray(a))]


def assert_close(ours, theirs, bound=1e-10):
    """Compare ``u1, u2, u3``, each relative to its largest; NaN is far from anything."""
    largest = max(abs(t).max() for t in theirs)
    for x, y in zip(ours, theirs, strict=True):
        size = max(abs(y).max(), 1e-6 * largest, 1e-30)  # zero up to rounding is zero
        assert abs(np.asarray(x, np.float64) - y).max() <= bound * size


# Which of the named forms is proved, and what speaks against one by one operation.

PLACES = tails.normal("places", 6, 6, 1)


def normalised(x):
    return programs.normalise(x, -1)


FORMS = {
    "gap_layernorm_dense": ("peeled", lambda a: normalised(spatial_mean(a))),
    "gap_dense_softmax": ("peeled", lambda a: jax.nn.log_softmax(dense(spatial_mean(a), "s"))),
    "conv_gap_tanh": ("peeled", lambda a: jnp.tanh(spatial_mean(conv(a, "one", padding=(2, 2))))),
    "conv_act": ("powered", lambda a: jax.nn.gelu(conv(a, "one"))),
    "dense_act_dense": ("powered", lambda a: dense(jax.nn.gelu(dense(a.reshape(-1), "h")), "o")),
    "two_acts_apart": ("powered", lambda a: jnp.tanh(conv(a, "one")) + jax.nn.silu(a)),
    "layernorm": ("coloured", normalised),
    "pointwise_mlp": (
        "coloured", lambda a: jnp.tanh(conv(jax.nn.gelu(conv(a, "one", size=1)), "two", size=1))
    ),
    "two_convs": ("adjoint", lambda a: jax.nn.gelu(conv(jax.nn.gelu(conv(a, "one")), "two"))),
    "squeeze_excite": (
        "adjoint", lambda a: a * jnp.broadcast_to(jax.nn.sigmoid(spatial_mean(a)), a.shape)
    ),
    "convnext": ("adjoint", tails.linen(tails.ConvNeXt)),
}  # fmt: skip


@table(FORMS)
def test_the_form_is_proved(row):
    form, layers = row
    a = jnp.asarray(point(6, 6, 3), jnp.float32)
    proof = adjoint.prove(scored(layers), a)
    assert (proof.applies, proof.form) == (True, form)
    if form != "adjoint":
        asked = adjoint.prove(scored(layers), a, form)
        assert (asked.applies, asked.form) == (True, form)
        assert asked.words == proof.words


# The same tail but for one operation, and the word for it.
SPOILED = {
    "second_act": ("powered", "tanh follows gelu", lambda a: jnp.tanh(jax.nn.gelu(conv(a, "one")).sum(0))),
    "product": ("powered", "mul", lambda a: conv(a, "one") * conv(a, "two")),
    "quotient": ("powered", "div", lambda a: a / (2 + conv(a, "one"))),
    "softmax": ("powered", "softmax", lambda a: jax.nn.softmax(conv(a, "one"), 0)),
    "act_before_the_pool": (
        "peeled", "depend on the position", lambda a: jnp.tanh(spatial_mean(jnp.tanh(a)))
    ),
    "places_weighed_before_the_pool": (
        "peeled", "depend on the position",
        lambda a: jnp.tanh(spatial_mean(a * jnp.asarray(PLACES, a.dtype))),
    ),
    "windows_over_the_ends": (
        "peeled", "depend on the position", lambda a: jnp.tanh(spatial_mean(conv(a, "one")))
    ),
    "wide_kernel": ("coloured", "positions meet in gelu", lambda a: jax.nn.gelu(conv(a, "one"))),
    "norm_over_positions": (
        "coloured", "positions meet in", lambda a: programs.normalise(a, (0, 1))
    ),
}  # fmt: skip


@table(SPOILED)
def test_one_operation_too_many_is_named(row):
    form, words, layers = row
    a = jnp.asarray(point(6, 6, 3), jnp.float32)
    with pytest.raises(NotProved, match=words) as raised:
        jaxcam.log_derivatives(scored(layers), a, engine=form)
    assert f"engine={form!r}" in str(raised.value)
    assert_close(derive(scored(layers), point(4, 4, 2)) if "PLACES" not in words else [], oracles.brute_force(scored(layers), point(4, 4, 2))) if form != "peeled" else None


# Tails at random.

CASES = st.tuples(
    st.sampled_from([(4, 3, 2), (5, 2), (4, 4, 1), (1, 4, 2), (6,), (2, 2, 2, 2), (8, 1)]),
    test_structure.lines(*programs.EVERY, least=2, most=7),
)


def small_program(chosen):
    """Make ``u`` of lines; the last bends, so that what is affine before it is seen."""
    steps = programs.EVERY
    return test_structure.program((*chosen, ("tanh", 0, 0, 0)), steps, programs.read_out)


def at_least_a_map(u, shape):
    """See a vector as a map of one position."""
    return u if len(shape) > 1 else lambda a: u(a[None])


def check(case, how="jit"):
    """Hold every exact engine that applies against brute force; give the form that was proved."""
    shape, chosen = case
    u, a = at_least_a_map(small_program(chosen), shape), point(*shape)
    truth = oracles.brute_force(u, a)
    if not np.isfinite(truth).all():
        return None
    proofs = [engine.prove(u, jnp.asarray(a, jnp.float32), engine.name) for engine in ENGINES]
    for engine, proof in zip(ENGINES, proofs, strict=True):
        if engine.exact and proof.applies and engine.name != "directional":
            assert_close(derive(u, a, engine=engine.name, how=how), truth)
    forms = [p for e, p in zip(ENGINES, proofs, strict=True) if e.name == "adjoint"]
    assert all(proof.applies for proof in forms), forms[0].words
    return forms[0].form


@pytest.mark.parametrize(
    "examples", [25, pytest.param(200, marks=pytest.mark.slow)], ids=("few", "many")
)
def test_tails_at_random(examples):
    found = []

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(CASES)
    def each(case):
        found.append(check(case))

    each()
    assert found.count(None) <= len(found) / 5
    assert "adjoint" in found


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 2)], ids=str)
@pytest.mark.parametrize("name", programs.EVERY)
def test_each_step_between_two_bends(name, shape):
    """After a convolution whose windows run over the ends, and before a bend and one more."""
    check((shape, [("conv_two_wide", 0, 0, 0), ("weigh_all", 0, 0, 0), (name, 0, 1, 2)]))
    check((shape, [("silu", 0, 0, 0), ("conv", 0, 0, 0), (name, 0, 1, 2), ("conv", 0, 0, 0)]))
