"""What `explain_engine` says is what is done, and the ranking is that of operations counted."""

import math

import jax
import jax.numpy as jnp
import oracles
import pytest
import rows
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


@pytest.mark.parametrize("kind", ["exp_logit", pytest.param("softmax", marks=pytest.mark.slow)])
@rows.table(
    "tail",
    {tail.name: tail for tail in SOME},
    ("gap_dense", "convs_relu", "fc_gelu", "gap_layernorm", "squeeze_excite"),
)
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


def in_a_loop_by_hand(a):
    """Nothing differentiates this: a loop without a count, with a hand-written reverse rule."""
    return jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, tails.silu_by_hand(c[1])), (0, a)
    )[1].sum()


def test_a_score_that_nothing_differentiates_is_refused_in_words():
    a = jnp.ones((2, 2, 3))
    decision = jaxcam.explain_engine(in_a_loop_by_hand, a)
    assert decision.chosen is None
    assert not any(c.proof.applies for c in decision.candidates)
    assert "*" not in str(decision)
    for engine in ("auto", "directional", "exponential"):
        with pytest.raises(jaxcam.JaxcamError, match="while"):
            jaxcam.log_derivatives(in_a_loop_by_hand, a, engine=engine)


@pytest.mark.parametrize("engine", ["auto", "adjoint", "directional"])
def test_a_score_is_traced_once(engine):
    """And checked once: every engine asks the jaxpr, not Python."""
    calls = []

    def u(a):
        calls.append(a)
        return jax.nn.logsumexp(jnp.tanh(a).mean((0, 1)))

    auto.choose(engine, trace(u, jnp.ones((3, 3, 4)))).derive(jnp.ones((3, 3, 4)))
    assert len(calls) == 1


def test_context_is_an_argument_of_the_program():
    """What was traced for one context serves another."""

    def u(a, w):
        return jnp.tanh(a @ w).sum(), w.sum()

    a, w = (jnp.asarray(tails.normal(name, *shape), jnp.float32)
            for name, shape in (("a", (3, 2, 4)), ("w", (4, 5))))  # fmt: skip
    for engine in ("auto", "adjoint", "peeled", "directional", "power"):
        traced = trace(u, a, jnp.zeros_like(w))
        try:
            choice = auto.choose(engine, traced)
        except jaxcam.NotProved:
            assert engine == "peeled"
            continue
        found, more = choice.derive(a, w)
        expected = jaxcam.log_derivatives(lambda a: u(a, w)[0], a, engine=engine)
        for ours, theirs in zip(found, expected, strict=True):
            assert jnp.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert jnp.allclose(more, w.sum())


def test_an_engine_that_fails_without_a_word_is_at_fault_and_another_serves(monkeypatch):
    def broken(traced, *arguments):
        raise KeyError("waist")

    def u(a):
        return jnp.tanh(a @ jnp.ones((3, 2))).sum()

    faulty = [e._replace(derive=broken) if e.name == "adjoint" else e for e in auto.ENGINES]
    monkeypatch.setattr(auto, "ENGINES", tuple(faulty))
    a = jnp.ones((4, 3))
    with pytest.warns(jaxcam.errors.FaultWarning, match="KeyError: 'waist'"):
        decision = jaxcam.explain_engine(u, a)
    assert "report it" in str(decision)
    assert decision.chosen != "adjoint"
    with pytest.warns(jaxcam.errors.FaultWarning), pytest.raises(jaxcam.NotProved, match="fault"):
        auto.choose("adjoint", trace(u, a))


def test_nothing_leaks_from_a_trace():
    """``auto`` asks all engines."""
    with jax.checking_leaks():
        jaxcam.log_derivatives(lambda a: jnp.tanh(a.sum(0)).sum(), jnp.ones((2, 2)))
