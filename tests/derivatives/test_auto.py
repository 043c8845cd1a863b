"""What `explain_engine` says is what is done, and the ranking is that of operations counted."""

import math

import jax
import jax.numpy as jnp
import oracles
import pytest
import tails

import jaxcam
from jaxcam.derivatives import auto
from jaxcam.derivatives.traced import trace

SOME = [
    tail
    for tail in tails.TAILS
    if tail.name
    in {"gap_dense", "convs_relu", "convs_gelu_tanh", "fc_gelu", "gap_layernorm", "layernorm_gap",
        "custom_vjp_silu", "squeeze_excite", "conv1d_gelu", "attention"}
]  # fmt: skip


@pytest.mark.parametrize("kind", ["exp_logit", "softmax"])
@pytest.mark.parametrize("tail", SOME, ids=lambda tail: tail.name)
def test_what_is_explained_is_what_is_taken(tail, kind):
    u = oracles.log_score(tail.scores, tails.CLASS, kind)
    a = jax.ShapeDtypeStruct(tail.shape, jnp.float32)
    decision = jaxcam.explain_engine(u, a)
    chosen = auto.choose("auto", trace(u, a))
    assert decision.chosen == chosen.name
    assert {c.engine.name for c in decision.candidates} == {e.name for e in auto.ENGINES}
    for candidate in decision.candidates:
        assert candidate.proof.words
        assert (candidate.operations is not None) == candidate.proof.applies
        if candidate.proof.applies:
            assert auto.choose(candidate.name, trace(u, a)).name == candidate.name
        else:
            with pytest.raises(jaxcam.NotProved):
                auto.choose(candidate.name, trace(u, a))
    serving = [c for c in decision.candidates if c.engine.exact and c.proof.applies]
    single = [c for c in serving if c.engine.single]
    assert decision.chosen in {c.name for c in single or cheapest(serving)}


def cheapest(candidates):
    least = min(c.operations for c in candidates)
    return [c for c in candidates if c.operations == least]


@pytest.mark.parametrize("tail", SOME[:3], ids=lambda tail: tail.name)
def test_the_table_has_a_line_for_each_engine(tail):
    u = oracles.log_score(tail.scores, tails.CLASS, "exp_logit")
    decision = jaxcam.explain_engine(u, jax.ShapeDtypeStruct(tail.shape, jnp.float32))
    head, *lines = str(decision).splitlines()
    assert head.split() == ["engine", "exact", "applies", "operations", "why"]
    assert len(lines) == len(decision.candidates)
    assert [line.split()[0].endswith("*") for line in lines].count(True) == 1
    for line, candidate in zip(lines, decision.candidates, strict=True):
        assert line.split()[0].rstrip("*") == candidate.name
        assert line.endswith(candidate.proof.words)


def counted(u, *shape):
    """Give the operations of every exact engine that applies."""
    decision = jaxcam.explain_engine(u, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {
        c.engine.name: c.operations
        for c in decision.candidates
        if c.engine.exact and c.operations is not None
    }


def test_an_affine_score_costs_the_product_of_its_gradient():
    """``a[1, m] W[m, n] v[n]``: backward ``2mn``; the gradient does not need the way forward."""
    m, n = 64, 32
    w, v = jnp.ones((m, n)), jnp.ones((n,))
    found = counted(lambda a: (a @ w @ v).sum(), 1, m)
    assert found["affine"] == pytest.approx(2 * m * n, rel=0.15)


def test_directional_pays_for_each_element():
    """Each element passes forward at the least: ``2mn`` for each of ``m``."""
    m, n = 64, 32
    w = jnp.ones((m, n))
    found = counted(lambda a: jnp.tanh(a @ w).sum(), 1, m)
    assert found["directional"] >= m * 2 * m * n
    assert found["adjoint"] <= 25 * m * n  # one row of W an element, and one pass


def test_the_convolution_counts_once_for_each_number_of_its_result():
    """Doubling the outputs of the only convolution doubles what one gradient costs."""

    def u(width):
        return lambda a: tails.conv(a, "one", width).sum()

    one, two = (counted(u(width), 8, 8, 16)["affine"] for width in (32, 64))
    assert 1.8 < two / one < 2.1
    products = 2 * 8 * 8 * 32 * 9 * 16
    assert products < one < 2.5 * products


def test_loops_count_as_often_as_they_turn():
    def u(turns):
        def scores(a):
            step = lambda c, _: (jnp.tanh(tails.conv(c, "loop", a.shape[-1])), None)  # noqa: E731
            return jax.lax.scan(step, a, None, length=turns)[0].sum()

        return scores

    few, many = (counted(u(turns), 4, 4, 8)["directional"] for turns in (2, 8))
    assert 3 < many / few < 4.2


@pytest.mark.parametrize(("side", "factor"), [(4, 2), (12, 5)])
def test_small_tangents_save_more_on_larger_maps(side, factor):
    tail = next(t for t in tails.TAILS if t.name == "convs_gelu_tanh")
    found = counted(lambda a: tail.scores(a)[0], side, side, 8)
    assert found["adjoint"] * factor < found["directional"]


def test_explained_for_activations_in_half_precision():
    u = oracles.log_score(SOME[2].scores, tails.CLASS, "softmax")
    a = jnp.asarray(tails.point(SOME[2]), jnp.bfloat16)
    decision = jaxcam.explain_engine(u, a)
    assert decision.chosen == jaxcam.explain_engine(u, a.astype(jnp.float32)).chosen
    assert all(math.isfinite(c.operations) for c in decision.candidates if c.proof.applies)
