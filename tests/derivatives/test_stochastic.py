"""Random probes: exact on average, and no further off than they say."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import rows
import tails

import jaxcam
from jaxcam.derivatives.stochastic import one_probe, products
from jaxcam.jaxprs.merge import merged

BY_NAME = {tail.name: tail for tail in tails.TAILS}
# Two layers, elements that mix at every position and across them, a loop, a rule written by hand.
SMOOTH = ("convs_silu", "layernorm_gap", "fc_gelu", "attention", "scan_gelu", "custom_vjp_silu")


def log_score(name, kind="softmax"):
    return oracles.log_score(BY_NAME[name].scores, tails.CLASS, kind)


def mixing(a):
    """Mix four elements so that no derivative across them is zero."""
    w = jnp.asarray(tails.normal("mixing", 4, 6), a.dtype)
    return jnp.exp(jnp.tanh(a.reshape(-1) @ w).sum() / 4) + a.prod()


@functools.cache
def every_probe():
    """Estimate with each of the 3^4 probes of four elements: the whole distribution."""
    a = tails.normal("point of mixing", 2, 2)
    with jax.enable_x64(True):
        a = jnp.asarray(a)
        program = merged(products(mixing, a), a)
        thirds = jnp.asarray(list(itertools.product(range(3), repeat=4)), jnp.int32)
        samples = jax.jit(jax.vmap(functools.partial(one_probe, program)))(thirds.reshape(-1, 2, 2))
        flat = a.reshape(-1)
        second = jax.hessian(lambda v: mixing(v.reshape(2, 2)))(flat)
        third = jax.jacfwd(jax.hessian(lambda v: mixing(v.reshape(2, 2))))(flat)
    return *(np.asarray(v).reshape(81, 4) for v in samples), np.asarray(second), np.asarray(third)


def test_mean_over_every_probe_is_the_derivative():
    u2, u3, second, third = every_probe()
    np.testing.assert_allclose(u2.mean(0), np.einsum("ii->i", second), rtol=1e-11)
    np.testing.assert_allclose(u3.mean(0), np.einsum("iii->i", third), rtol=1e-11)


def test_variance_over_every_probe_is_the_stated_one():
    u2, u3, second, third = every_probe()
    others = [[j for j in range(4) if j != i] for i in range(4)]
    of_u2 = [sum(second[i, j] ** 2 for j in others[i]) / 2 for i in range(4)]
    pairs = [sum((third[i, j, j] + 2 * third[i, i, j]) ** 2 for j in others[i]) for i in range(4)]
    triples = [
        sum(third[i, j, k] ** 2 for j, k in itertools.combinations(others[i], 2)) for i in range(4)
    ]
    np.testing.assert_allclose(u2.var(0), of_u2, rtol=1e-10)
    np.testing.assert_allclose(u3.var(0), np.array(pairs) / 2 + 2 * np.array(triples), rtol=1e-10)


KEYS = 300


@functools.cache
def many(name):
    """Estimate with many keys, and give the truth."""
    u, a = log_score(name), tails.point(BY_NAME[name])
    call = functools.partial(jaxcam.stochastic_derivatives, u, probes=32)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), KEYS)
        run = jax.jit(lambda a, keys: jax.lax.map(lambda key: call(a, key=key), keys))
        found, errors = run(jnp.asarray(a), keys)
    return jax.tree.map(np.asarray, (found, errors)), oracles.brute_force(u, a)


@rows.table("name", SMOOTH, ("fc_gelu",))
def test_unbiased_over_many_keys(name):
    """The mean over keys is within its own standard error: as a whole, and no element far off."""
    (found, _), truth = many(name)
    np.testing.assert_allclose(found.u1[0], truth[0], rtol=1e-9, atol=1e-12)
    for estimates, exact in ((found.u2, truth[1]), (found.u3, truth[2])):
        error = estimates.std(0, ddof=1) / np.sqrt(KEYS)
        z = (estimates.mean(0) - exact) / np.maximum(error, 1e-12)
        assert abs(z).max() < 5
        assert np.sqrt((z**2).mean()) < 1.6
        # The test can see: a quarter of the derivative would make that figure 1.8.
        assert np.linalg.norm(exact) / 4 > 1.5 * np.linalg.norm(error)


@rows.table("name", SMOOTH, ("fc_gelu",))
def test_standard_errors_cover_the_truth_as_often_as_they_say(name):
    """19 times out of 20 for a normal distribution, a little less for 32 discrete probes."""
    (found, errors), truth = many(name)
    for order in (1, 2):
        # Rounding is not noise: where nothing mixes, every probe gives the derivative itself.
        noisy = errors[order].mean(0) > 1e-9 * abs(truth[order]).max()
        inside = abs(found[order] - truth[order]) <= 1.96 * errors[order]
        assert noisy.mean() > 0.5
        assert 0.9 < inside[:, noisy].mean() < 0.97
        spread = found[order].std(0, ddof=1)[noisy]
        np.testing.assert_allclose((errors[order] ** 2).mean(0)[noisy] ** 0.5, spread, rtol=0.3)


def test_no_error_where_elements_do_not_mix():
    with jax.enable_x64(True):
        a = jnp.asarray(tails.normal("alone", 3, 4))
        found, errors = jaxcam.stochastic_derivatives(
            lambda a: jnp.sin(a).sum(), a, key=jax.random.key(0), probes=2
        )
    for ours, exact in zip(found, (np.cos(a), -np.sin(a), -np.cos(a)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-12)
    assert max(abs(np.asarray(error)).max() for error in errors) < 1e-12


@pytest.mark.slow
def test_chunk_size_and_jit_change_nothing_but_rounding():
    u, key = log_score("fc_gelu"), jax.random.key(1)
    with jax.enable_x64(True):
        a = jnp.asarray(tails.point(BY_NAME["fc_gelu"]))
        call = functools.partial(jaxcam.stochastic_derivatives, u, probes=10)
        whole = call(a, key=key)
        for chunk_size in (1, 4, 100):  # one, no divisor of 10, more than there are
            again = jax.jit(functools.partial(call, chunk_size=chunk_size))(a, key=key)
            for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-14)
        other = jax.jit(call)(a, key=jax.random.key(2))
    assert not np.allclose(other.derivatives.u2, whole.derivatives.u2)


def test_vmap_is_each_example_alone():
    u, a = log_score("fc_gelu"), tails.point(BY_NAME["fc_gelu"]).astype(np.float32)
    call = functools.partial(jaxcam.stochastic_derivatives, u, probes=4)
    keys = jax.random.split(jax.random.key(0), 2)
    run = jax.jit(lambda a, key: call(a, key=key))
    batched = jax.jit(jax.vmap(run))(jnp.stack([a, -a]), keys)
    for n, example in enumerate((a, -a)):
        alone = run(jnp.asarray(example), keys[n])
        for ours, theirs in zip(jax.tree.leaves(batched), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours[n], theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_gives_single_precision():
    u, a = log_score("fc_gelu"), jnp.asarray(tails.point(BY_NAME["fc_gelu"]), "bfloat16")
    run = jax.jit(functools.partial(jaxcam.stochastic_derivatives, u, probes=4))
    found = run(a, key=jax.random.key(0))
    assert {v.dtype for v in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(found))


@pytest.mark.parametrize("probes", [1, 0, -3, 2.5])
def test_refuses_a_number_of_probes_that_has_no_spread(probes):
    with pytest.raises(jaxcam.JaxcamError, match="at least 2"):
        jaxcam.stochastic_derivatives(jnp.sum, jnp.ones(3), key=jax.random.key(0), probes=probes)


def test_refuses_what_has_no_derivatives():
    key = jax.random.key(0)
    with pytest.raises(jaxcam.JaxcamError, match="stochastic_derivatives: needs floating"):
        jaxcam.stochastic_derivatives(jnp.sum, jnp.ones(3, int), key=key)
    with pytest.raises(jaxcam.JaxcamError, match="chunk_size"):
        jaxcam.stochastic_derivatives(jnp.sum, jnp.ones(3), key=key, chunk_size=0)
