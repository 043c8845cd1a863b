"""What is in flight at once fits the memory, however many samples there are."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import images, relu, weights

import jaxcam
from jaxcam import explain, memory

KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def one_program(monkeypatch):
    """One program with what surrounds it, traced anew by every test."""
    from jaxcam.cam import cam

    monkeypatch.setitem(cam.__globals__, "_explain", explain.explain)


def smoothed(x, num_samples, chunk_size="auto", split=None):
    return jaxcam.smooth_grad_cam_pp(
        relu() if split is None else split, x, 1,
        key=KEY, num_samples=num_samples, chunk_size=chunk_size,
    ).map  # fmt: skip


def bytes_of(function, *arguments):
    """Ask the compiler for the scratch memory of a program."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def large():
    return jax.random.normal(jax.random.key(0), (2, 64, 64, 2))


def test_the_budget_is_a_share_of_what_the_machine_has():
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.budget() == int(memory.SHARE * has)


def test_an_accelerator_says_how_much_it_has(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 300}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert memory.budget() == int(memory.SHARE * 1000)


def test_a_system_that_does_not_say_sets_no_limit(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert memory.budget() > 2**60


def test_auto_takes_fewer_samples_at_once_where_memory_is_short(monkeypatch):
    x = large()
    chosen, single = (bytes_of(lambda x, s=s: smoothed(x, 24, s), x) for s in ("auto", 1))
    assert chosen > 1.3 * single
    monkeypatch.setattr(memory, "budget", lambda: 1)
    assert bytes_of(lambda x: smoothed(x, 24), x) == single


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [5, 24])
def test_how_many_are_taken_at_once_changes_nothing_but_rounding(monkeypatch, num_samples):
    x = images()
    free = smoothed(x, num_samples)
    monkeypatch.setattr(memory, "budget", lambda: 1)
    np.testing.assert_allclose(smoothed(x, num_samples), free, rtol=1e-4, atol=1e-6)


def test_what_is_asked_for_is_not_cut(monkeypatch):
    x = large()
    asked = bytes_of(lambda x: smoothed(x, 24, 4), x)
    monkeypatch.setattr(memory, "budget", lambda: 1)
    assert bytes_of(lambda x: smoothed(x, 24, 4), x) == asked


def test_a_thousand_samples_take_the_memory_of_one_chunk():
    x = large()
    few, many = (bytes_of(lambda x, n=n: smoothed(x, n), x) for n in (16, 1000))
    assert many - few < 16 * 1000  # the numbers of the samples


def loss(kernel, x, num_samples, chunk_size=4):
    """A number that training could minimize, of the weights before the layer."""
    w = weights()._replace(first=kernel)
    split = jaxcam.Split(
        jax.tree_util.Partial(relu().features.func, w),
        jax.tree_util.Partial(relu().scores.func, w),
    )
    return (smoothed(x, num_samples, chunk_size, split) ** 2).sum()


def test_a_gradient_through_a_thousand_samples_takes_the_memory_of_one_chunk():
    x, kernel = large(), weights().first
    gradient = jax.grad(loss)
    few, many = (
        bytes_of(lambda k, x, n=n: gradient(k, x, n), kernel, x) for n in (16, 1000)
    )  # fmt: skip
    assert many < 1.2 * few


@pytest.mark.slow
def test_a_gradient_through_the_samples_is_that_of_the_loss():
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(images(dtype=np.float64)), weights().first.astype(np.float64)
        found = jax.grad(loss)(kernel, x, 6)
        step = 1e-6 * np.random.default_rng(0).normal(size=kernel.shape)
        change = (loss(kernel + step, x, 6) - loss(kernel - step, x, 6)) / 2
        np.testing.assert_allclose((found * step).sum(), change, rtol=1e-5)
        np.testing.assert_allclose(jax.grad(loss)(kernel, x, 6, 6), found, rtol=1e-9)
