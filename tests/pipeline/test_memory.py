"""What is in flight at once fits the memory, however many samples and images there are."""

import gc
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rows
from networks import images, normal, relu, weights

import jaxcam
from jaxcam.arrays import memory
from jaxcam.pipeline import program as explain

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
    return normal((2, 64, 64, 2))


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


def test_masks_of_a_thousand_feature_maps_take_the_memory_of_one_chunk():
    """Score-CAM's are of the input's size, for each of the layer's maps; its gradient's too."""
    x = normal((1, 128, 128, 2))

    def features(x):
        return jax.nn.relu(x.reshape(1, 4, 32, 4, 32, 2).mean((2, 4)))

    def signed(x, count):
        kernel = jnp.linspace(-1.0, 1.0, 2 * count).reshape(2, count)
        split = jaxcam.Split(lambda x: features(x) @ kernel, lambda a, x: a.max((1, 2)))
        return jaxcam.cam(split, x, jaxcam.methods.score_cam(), 1, chunk_size=4).signed

    few, many, back = (
        bytes_of(function, x)
        for function in (
            lambda x: signed(x, 16), lambda x: signed(x, 1024),
            jax.grad(lambda x: signed(x, 1024).sum()),
        )
    )  # fmt: skip
    mask = x.nbytes / 2
    assert many - few < 0.02 * 1024 * mask
    assert back < 0.2 * 1024 * mask


def chunked(x, method, chunk_size, **how):
    return jaxcam.cam(relu(), x, method, 1, key=KEY, chunk_size=chunk_size, **how)


METHODS = {
    "plain": jaxcam.methods.grad_cam(),
    "many passes": jaxcam.methods.taylor_cam(),
    "smoothed": jaxcam.smooth(jaxcam.methods.grad_cam_pp(), num_samples=3),
}


@pytest.mark.parametrize("name", ["plain", "smoothed"])
def test_many_images_take_the_memory_of_one(name):
    x = jnp.tile(large()[:1], (24, 1, 1, 1))
    one, all_of_them = (
        bytes_of(lambda x: chunked(x, METHODS[name], 1).map, x) for x in (x[:1], x)
    )  # fmt: skip
    assert all_of_them < 1.5 * one


def test_auto_takes_fewer_images_at_once_where_memory_is_short(monkeypatch):
    x = jnp.tile(large()[:1], (24, 1, 1, 1))
    single = bytes_of(lambda x: chunked(x, METHODS["plain"], 1).map, x)
    monkeypatch.setattr(memory, "budget", lambda: 1)
    assert bytes_of(lambda x: chunked(x, METHODS["plain"], "auto").map, x) < 1.5 * single


def test_a_gradient_through_many_images_takes_the_memory_of_one():
    x, kernel = jnp.tile(large()[:1], (24, 1, 1, 1)), weights().first

    def loss(kernel, x):
        w = weights()._replace(first=kernel)
        split = jaxcam.Split(
            jax.tree_util.Partial(relu().features.func, w),
            jax.tree_util.Partial(relu().scores.func, w),
        )
        found = jaxcam.cam(split, x, METHODS["plain"], 1, chunk_size=1)
        return (found.map**2).sum()

    few, many = (bytes_of(jax.grad(loss), kernel, x) for x in (x[:2], x))
    # What is kept of each image is its map, and the map's own gradient.
    assert many - few <= 22 * 2 * x[0, :, :, 0].nbytes


@rows.table("name", list(METHODS), ("smoothed",))
def test_a_batch_in_chunks_of_images_gives_what_it_gives_at_once(name):
    """Three images two at a time, or one by one; with a class, a mask and a key for each."""
    x, keys = images(3), jax.random.split(KEY, 3)
    mask = np.random.default_rng(1).random((3, 5, 4, 4)) > 0.3
    run = lambda size: jaxcam.cam(  # noqa: E731
        relu(), x, METHODS[name], np.array([1, 0, 4]), key=keys, neurons=mask, chunk_size=size
    )
    whole, parts = run(1000), run(2 if name != "smoothed" else 6)
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)
    assert parts.diagnostics.report == whole.diagnostics.report


def test_removals_in_chunks_of_images_are_the_same():
    run = lambda size: jaxcam.check_removal(relu(), images(3), 1, samples=8, chunk_size=size)  # noqa: E731
    whole, parts = run(1000), run(2)
    assert (whole.elements == parts.elements).all()
    np.testing.assert_allclose(parts.removal, whole.removal, rtol=1e-4, atol=1e-6)


def test_progress_counts_the_chunks_of_all_images():
    seen = []
    tell = lambda done, total: seen.append((done, total))  # noqa: E731
    shown = chunked(images(2), METHODS["smoothed"], 2, progress=tell)
    assert seen == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4), (4, 4)]
    np.testing.assert_allclose(
        shown.map, chunked(images(2), METHODS["smoothed"], 2).map, rtol=1e-4, atol=1e-6
    )


def test_programs_of_networks_that_are_gone_are_freed(monkeypatch):
    from jaxcam.pipeline import compiled as programs

    monkeypatch.setattr(programs, "NETWORKS", 2)
    job = lambda: NamedTuple("Job", [("shared", object), ("target", object)])(  # noqa: E731
        jax.tree_util.Partial(lambda x: x + 1), None
    )
    run = programs.of_network(lambda job, x: job.shared(x), static=())
    live = lambda: len(jax.devices()[0].client.live_executables())  # noqa: E731
    gc.collect()
    before = live()
    for _ in range(6):
        run(job(), jnp.ones(3)).block_until_ready()
    gc.collect()
    assert live() - before <= 2
