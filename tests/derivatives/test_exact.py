"""Every exact engine on every tail, against brute force in float64.

An engine that applies must be right; one that does not must say so when asked for by name. A new
engine is tested here as soon as it stands in ``ENGINES``, a new tail as soon as it is in the table.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import rows
import tails
from engines import relative_error

import jaxcam
from jaxcam.derivatives.auto import ENGINES
from jaxcam.derivatives.traced import trace
from jaxcam.errors import NotProved

EXACT = [engine for engine in ENGINES if engine.exact]
BY_ENGINE = {engine.name: engine for engine in EXACT}
KINDS = ("exp_logit", "softmax")
BOUND = {"float64": 1e-10, "float32": 1e-4}
# What differs from another in an activation that is as smooth, or in a layer that is there too.
ALIKE = {
    "convs_gelu_erf", "convs_silu", "convs_tanh", "residual_gelu", "batchnorm_gelu", "conv3d_silu",
    "layernorm_relu", "softplus", "elu", "mish", "abs", "leaky_relu", "residual_relu", "convnext",
    "squeeze_excite_hard", "remat_relu", "scan_relu", "conv3d_relu", "fc_relu", "sum_pool",
}  # fmt: skip
BY_NAME = {tail.name: tail for tail in tails.TAILS}
OF_EACH_KIND = [name for name in BY_NAME if name not in ALIKE]
# Each quick, together many minutes: by default one mode and one tail of each kind.
QUICK = ("exp_logit", "float64", "jit")
MODES = {
    QUICK: BY_NAME,
    ("softmax", "float64", "jit"): BY_NAME,
    ("softmax", "float32", "jit"): BY_NAME,
    ("exp_logit", "float32", "jit"): OF_EACH_KIND,
    ("exp_logit", "float64", "eager"): OF_EACH_KIND,
}
TOGETHER = {  # nested derivatives are dear, and share nothing with the others
    "tangents": [name for name in BY_ENGINE if name != "directional"],
    "directional": ["directional"],
}
CASES = {"-".join((*mode, name)): (*mode, BY_NAME[name]) for mode in MODES for name in MODES[mode]}
# For what does not depend on the tail: one with kinks, a smooth one, a loop.
TABLE_OF_FEW = {name: BY_NAME[name] for name in ("convs_relu", "fc_gelu", "scan_gelu")}


def named(argument, rows):
    return pytest.mark.parametrize(argument, rows, ids=lambda row: row.name)


def errors(log_derivatives, tail, kind) -> list[float]:
    """Compare ``D1, D2, D3`` of ``Y``."""
    ours = oracles.bell(*(np.asarray(u, np.float64) for u in log_derivatives))
    theirs = oracles.bell(*tails.truth(tail, kind))
    return [relative_error(x, y) for x, y in zip(ours, theirs, strict=True)]


@functools.cache
def proof(engine, tail, kind):
    """Ask an engine once whether it applies: a proof does not depend on the precision."""
    return engine.prove(traced(tail, kind), engine.name)


@functools.lru_cache(maxsize=8)
def traced(tail, kind, dtype="float32"):
    """Trace once for all engines, which share most of what there is to find out."""
    with jax.enable_x64(dtype == "float64"):
        return trace(log_score(tail, kind), jnp.asarray(tails.point(tail), dtype))


def log_score(tail, kind):
    return oracles.log_score(tail.scores, tails.CLASS, kind)


def derive(engine, tail, kind, *, dtype="float64", compiled=True, chunk_size="auto"):
    """Run an engine by its name at the tail's point."""
    u = log_score(tail, kind)

    def call(a):
        return jaxcam.log_derivatives(u, a, engine=engine.name, chunk_size=chunk_size)

    with jax.enable_x64(dtype == "float64"):
        return (jax.jit(call) if compiled else call)(jnp.asarray(tails.point(tail), dtype))


@rows.table("case", CASES, ["-".join((*QUICK, name)) for name in OF_EACH_KIND])
@rows.table("engines", TOGETHER, ("tangents",))
def test_exact_where_it_applies(engines, case):
    """Every engine that applies, in one program: they share a trace and a forward pass."""
    kind, dtype, how, tail = case
    once = traced(tail, kind, dtype)
    applying = [BY_ENGINE[name] for name in engines if proof(BY_ENGINE[name], tail, kind).applies]

    def call(a):
        return {engine.name: engine.derive(once, a)[0] for engine in applying}

    with jax.enable_x64(dtype == "float64"):
        run = jax.jit(call) if how == "jit" else call
        found = run(jnp.asarray(tails.point(tail), dtype))
    assert {v.dtype for v in jax.tree.leaves(found)} <= {jnp.dtype(dtype)}
    worst = {name: max(errors(of_one, tail, kind)) for name, of_one in found.items()}
    assert {name: error for name, error in worst.items() if not error < BOUND[dtype]} == {}


@rows.table("tail", TABLE_OF_FEW, ("fc_gelu",))
def test_by_name_is_the_engine(tail):
    """The public call gives what the engine gives, to the last bit of a compiled program."""
    applying = [engine for engine in EXACT if proof(engine, tail, "exp_logit").applies]
    for engine in applying:
        with jax.enable_x64(True):
            once, a = traced(tail, "exp_logit", "float64"), jnp.asarray(tails.point(tail))
            theirs = jax.jit(lambda a: engine.derive(once, a)[0])(a)  # noqa: B023
        for x, y in zip(derive(engine, tail, "exp_logit"), theirs, strict=True):
            np.testing.assert_array_equal(x, y)
    assert len(applying) > 1


@named("engine", EXACT)
@named("tail", tails.TAILS)
@pytest.mark.parametrize("kind", ["exp_logit", pytest.param("softmax", marks=pytest.mark.slow)])
def test_refuses_by_name_where_it_does_not_apply(engine, kind, tail):
    found = proof(engine, tail, kind)
    assert found.words
    if found.applies:
        return  # test_exact_where_it_applies
    a = jnp.asarray(tails.point(tail), jnp.float32)
    with pytest.raises(NotProved, match=re.escape(found.words)):
        jaxcam.log_derivatives(log_score(tail, kind), a, engine=engine.name)


@pytest.mark.parametrize(
    "sizes",  # one, no divisor of 48; all, more than there are
    [(1, 5), pytest.param((48, 1000), marks=pytest.mark.slow)],
    ids=("few", "many"),
)
@rows.table("tail", TABLE_OF_FEW, ("fc_gelu",))
@named("engine", EXACT)
def test_chunk_size_changes_nothing_but_rounding(engine, tail, sizes):
    if not proof(engine, tail, "exp_logit").applies:
        return  # test_refuses_by_name_where_it_does_not_apply
    whole = derive(engine, tail, "exp_logit")
    for chunk_size in sizes:
        chunked = derive(engine, tail, "exp_logit", chunk_size=chunk_size)
        assert max(map(relative_error, chunked, map(np.asarray, whole))) < 1e-13


@rows.table("tail", TABLE_OF_FEW, ("fc_gelu",))
@named("engine", EXACT)
def test_half_precision_gives_single_precision(engine, tail):
    """The network runs in bfloat16 and errs by a few per cent; its derivatives are float32."""
    if not proof(engine, tail, "exp_logit").applies:
        return  # test_refuses_by_name_where_it_does_not_apply
    found = derive(engine, tail, "exp_logit", dtype="bfloat16")
    assert {v.dtype for v in found} == {jnp.dtype("float32")}
    assert max(errors(found, tail, "exp_logit")) < 0.1


@rows.table("tail", TABLE_OF_FEW, ("scan_gelu",))
@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_exact(tail, kind):
    u, a = log_score(tail, kind), tails.point(tail)
    with jax.enable_x64(True):
        found = jax.jit(lambda a: jaxcam.log_derivatives(u, a))(jnp.asarray(a))
    assert max(errors(found, tail, kind)) < 1e-10


@rows.table("tail", TABLE_OF_FEW, ("fc_gelu",))
def test_derivatives_of_y_are_bell_polynomials(tail):
    u, a = log_score(tail, "softmax"), tails.point(tail)
    with jax.enable_x64(True):
        found = jaxcam.derivatives(u, jnp.asarray(a))
    for ours, theirs in zip(found, oracles.bell(*tails.truth(tail, "softmax")), strict=True):
        assert relative_error(ours, theirs) < 1e-10


@named("engine", [engine for engine in ENGINES if not engine.exact])
def test_closed_forms_are_powers_of_the_gradient(engine):
    """Right on a tail with kinks; on a smooth one ``u2`` and ``u3`` are left out, which is seen."""
    kinked, smooth = BY_NAME["convs_relu"], BY_NAME["fc_gelu"]
    assert max(errors(derive(engine, kinked, "exp_logit"), kinked, "exp_logit")) < 1e-10
    d1, d2, d3 = errors(derive(engine, smooth, "exp_logit"), smooth, "exp_logit")
    assert d1 < 1e-10
    assert min(d2, d3) > 0.1


SCORES = {  # with a weight as an argument; one for each kind of proof
    "affine": lambda a, w: jax.nn.relu(a @ w).sum(),
    "smooth": lambda a, w: jnp.tanh(jnp.tanh(a) @ w).sum(),
}


@pytest.mark.parametrize("score", SCORES)
@named("engine", EXACT)
def test_weights_may_be_arguments_of_jit(engine, score):
    """New weights of the same shape reuse the compiled program, and are the ones that count."""
    a, traced = tails.normal("weights a", 2, 3), []

    def call(w, a):
        traced.append(1)
        return jaxcam.log_derivatives(lambda a: SCORES[score](a, w), a, engine=engine.name)

    with jax.enable_x64(True):
        if not engine.prove(
            trace(lambda a: SCORES[score](a, jnp.ones((3, 2))), jnp.asarray(a)), engine.name
        ).applies:
            return  # test_refuses_by_name_where_it_does_not_apply
        compiled = jax.jit(call)
        for seed in range(2):
            w = jnp.asarray(tails.normal(f"weights {seed}", 3, 2))
            found = compiled(w, jnp.asarray(a))
            truth = oracles.brute_force(lambda a, w=w: SCORES[score](a, w), a)
            for ours, theirs in zip(found, truth, strict=True):
                assert relative_error(ours, theirs) < 1e-10
    assert len(traced) == 1


@rows.table("tail", TABLE_OF_FEW, ("fc_gelu",))
@named("engine", EXACT)
def test_vmap_over_a_batch_is_each_example_alone(engine, tail):
    if not proof(engine, tail, "exp_logit").applies:
        return  # test_refuses_by_name_where_it_does_not_apply
    u = log_score(tail, "exp_logit")
    with jax.enable_x64(True):
        a = jnp.asarray(tails.point(tail))
        call = functools.partial(jaxcam.log_derivatives, u, engine=engine.name)
        batched = jax.jit(jax.vmap(call))(jnp.stack([a, -a, a / 2]))
    assert max(errors([v[0] for v in batched], tail, "exp_logit")) < 1e-10
    other = oracles.brute_force(u, -tails.point(tail))
    for ours, theirs in zip(batched, other, strict=True):
        assert relative_error(ours[1], theirs) < 1e-10


def test_derivatives_can_be_differentiated():
    """The slope of ``sum(c u2)`` and ``sum(c u3)`` along ``v``, against central differences."""
    tail, h = BY_NAME["fc_gelu"], 1e-4
    u, a = log_score(tail, "softmax"), tails.point(tail)
    c, v = tails.normal("c", *a.shape), tails.normal("v", *a.shape)

    def total(order, a):
        return (jnp.asarray(c) * jaxcam.log_derivatives(u, a)[order]).sum()

    ahead, behind = (oracles.brute_force(u, a + step * v) for step in (h, -h))
    for order in (1, 2):
        with jax.enable_x64(True):
            slope = jax.jit(jax.grad(functools.partial(total, order)))(jnp.asarray(a))
        differences = (c * (ahead[order] - behind[order])).sum() / (2 * h)
        np.testing.assert_allclose((np.asarray(slope) * v).sum(), differences, rtol=1e-5)
