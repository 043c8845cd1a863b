"""The same map on one device and on many; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxcam

CASES = (
    "odd_number/samples", "odd_number/elements", "odd_number/explicit_mesh",
    "fewer_than_devices/samples", "fewer_than_devices/all_three", "antithetic/samples",
    "antithetic/auto_mesh", "directional/elements", "directional/batch",
    "power/batch_and_samples", "classes_and_neurons/batch",
    "classes_and_neurons/batch_and_samples", "tolerance/batch_and_samples", "committed/samples",
    "inside_jit/samples", "own_shard_map", "explicit_images", "region_for_all", "region_for_each",
    "region_on_top",
)  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    script = Path(__file__).parent / "on_devices.py"
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.xdist_group("devices")  # one process measures them all
@pytest.mark.parametrize("case", CASES)
def test_eight_devices_give_what_one_gives(measured, case):
    found = measured[case]
    assert found.pop("brightest") > 0
    assert found.pop("samples") == 0
    assert found.pop("error") < 1e-4  # a difference of nearly equal numbers
    assert max(found.values()) < 1e-6, found


@pytest.mark.slow
@pytest.mark.xdist_group("devices")
def test_a_method_without_noise(measured):
    assert measured["not_smoothed/batch"]["map"] < 1e-6
    assert measured["devices_used"] == 2


def blank(images=2):
    split = jaxcam.Split(lambda x: x, lambda a, x: jnp.tanh(a.mean((1, 2))))
    return split, jnp.ones((images, 2, 2, 3))


def mesh():
    return jax.make_mesh((1,), ("one",))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (jaxcam.spread, "batch, samples or elements"),
        (lambda: jaxcam.spread(samples=jax.device_count() + 1), r"jax.device_count\(\)"),
        (lambda: jaxcam.spread(samples=0), "a number of devices"),
        (lambda: jaxcam.spread(samples="one"), "name its axis"),
        (lambda: jaxcam.spread(mesh(), samples="two"), "'one'"),
        (lambda: jaxcam.spread(mesh(), samples=1), "an axis of the mesh"),
        (lambda: jaxcam.spread(mesh(), samples="one", batch="one"), "more axes"),
    ],
)
def test_what_is_refused(ask, words):
    with pytest.raises(jaxcam.JaxcamError, match=words):
        ask()


def test_progress_needs_one_device():
    with pytest.raises(jaxcam.JaxcamError, match="progress"):
        jaxcam.smooth_grad_cam_pp(
            *blank(), key=jax.random.key(0), spread=jaxcam.spread(samples=1),
            progress=lambda done, total: None,
        )  # fmt: skip


def test_a_batch_that_does_not_divide():
    """Two devices are not there; a mesh that says so is enough for the refusal."""
    split, x = blank(3)
    two = jax.sharding.AbstractMesh((2,), ("images",))
    with pytest.raises(jaxcam.JaxcamError, match="a multiple of 2 images"):
        jaxcam.smooth_grad_cam_pp(
            split, x, key=jax.random.key(0), spread=jaxcam.spread(two, batch="images")
        )


def test_a_mesh_of_one_device_is_that_device():
    split, x = blank()
    key = jax.random.key(0)
    ours = jaxcam.smooth_grad_cam_pp(split, x, key=key, spread=jaxcam.spread(samples=1))
    truth = jaxcam.smooth_grad_cam_pp(split, x, key=key)
    assert jnp.allclose(ours.map, truth.map, rtol=1e-6)
    assert ours.diagnostics.report == truth.diagnostics.report
