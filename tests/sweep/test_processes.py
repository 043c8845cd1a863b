"""Sweeps as processes: killed, resumed, several at a time on loopback, and left alone by others."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam import bundled
from jaxcam.cli import main

ROOT = str(Path(jaxcam.__file__).parents[1])  # it may not be installed
QUICK = ("--method", "grad_cam", "--model", "relu", "--layer", "block4")
SLOWLY = """
import os, signal, sys, threading, time
from jaxcam.cli import main

# A shell starts what runs behind it with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
slow, after, delay, number = map(float, sys.argv[1:5])
chunks = 0


def begin():
    timer = threading.Timer(delay, os.kill, (os.getpid(), int(number)))
    timer.daemon = True
    timer.start()


def slowly(draft, path, replace=os.replace):
    global chunks
    time.sleep(slow / 2)
    replace(draft, path)
    chunks += str(path).endswith(".npz")
    if number and after and chunks == after:
        begin()
    time.sleep(slow / 2)


os.replace = slowly
if number and not after:
    begin()
sys.exit(main(sys.argv[5:]))
"""
"""The command, where putting a file in place takes a while, and which ends by a signal at a moment
that its own clock tells: that of a test may stand still on a busy machine."""


class Ends(NamedTuple):
    """When: so many chunks, and then seconds, from its beginning."""

    after: int
    delay: float
    signal: int = signal.SIGKILL


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for i in range(30):
        scene = bundled.scene(i % 10).image[..., 0] * draw.uniform(0.5, 1)
        Image.fromarray(np.round(255 * scene).astype(np.uint8)).save(f"photos/{i:02d}.png")
    Path("photos/07.png").write_bytes(Path("photos/07.png").read_bytes()[:99])
    return tmp_path


@pytest.fixture
def running():
    """Start processes that do not outlive the test."""
    started = []

    def start(
        *words: object, seconds: float = 0, ends: Ends | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        moment = [
            str(int(value) if isinstance(value, int) else value) for value in ends or (0,) * 3
        ]
        command = [sys.executable, "-c", SLOWLY, str(seconds), *moment, "sweep", "photos"]
        command += map(str, words)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # JAX warns of proxies, which are of no use on loopback.
        usual = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment = usual | {"PYTHONPATH": ROOT} | environment
        started.append(subprocess.Popen(command, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def undisturbed(*words: object) -> dict[str, bytes]:
    assert main(["sweep", "photos", "--out", "whole", *map(str, words)]) == 1
    return contents("whole")


def parts(folder: str = "out") -> list[str]:
    return sorted(path.name for path in Path(folder, "parts").glob("*.npz"))


def ours(said: str) -> list[str]:
    """Leave out what JAX's runtime may have to say of its own."""
    return [line for line in said.splitlines() if line.startswith("jaxcam: ")]


def address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


# killed


def test_a_killed_sweep_goes_on_where_it_was(capsys, photos, running):
    words = ("--out", "out", *QUICK, "--batch", 2)
    expected = undisturbed(*words[2:])
    killed = running(*words, seconds=0.3, ends=Ends(2, 0.2))
    assert killed.wait() == -signal.SIGKILL
    there = {name: Path("out/parts", name).stat().st_mtime_ns for name in parts()}
    assert 1 < len(there) < 15
    seen = []

    def write(out, number, part, write=jaxcam.sweep.folder.write_part):
        seen.append(f"{number:06d}.npz")
        now = {name: Path("out/parts", name).stat().st_mtime_ns for name in there}
        assert now == there
        write(out, number, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxcam.sweep.folder, "write_part", write)
        assert main(["sweep", "photos", *map(str, words), "--resume"]) == 1
    assert not set(seen) & set(there)
    assert len(seen) + len(there) == 15
    assert contents("out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_sweep_killed_at_ten_random_moments_equals_the_undisturbed_one(
    seed, capsys, photos, running
):
    words = ("--out", "out", *QUICK, "--batch", 1)
    expected = undisturbed(*words[2:])
    draw, moments = random.Random(seed), []
    for _ in range(10):
        there = parts()
        # Some chunks on, or at any moment, which is likely to be while it begins.
        ends = Ends(draw.randint(1, 2), draw.uniform(0, 0.4))
        ends = ends if draw.random() < 0.7 else Ends(0, draw.uniform(0, 3))
        process = running(*words, "--resume", seconds=0.3, ends=ends)
        assert process.wait() == -signal.SIGKILL, process.communicate()
        assert set(there) <= set(parts())
        assert not Path("out", "table.csv").exists()
        moments.append(len(parts()))
    assert len(set(moments)) > 5, moments
    last = running(*words, "--resume")
    assert last.wait() == 1, last.communicate()
    assert contents("out") == expected


# several


def pair(
    running, *words: object, seconds: float = 0, ends: dict[int, Ends] | None = None
) -> list[subprocess.Popen[str]]:
    where = ("--coordinator", address(), "--processes", 2)
    when = ends or {}
    return [
        running(*words, *where, "--process", i, seconds=seconds, ends=when.get(i)) for i in range(2)
    ]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(capsys, photos, running):
    words = ("--out", "out", "--layer", "block4", "--samples", 3, "--model", "relu", "--batch", 3)
    expected = undisturbed(*words[2:])
    first, second = pair(running, *words)
    (out, said), (silent, nothing) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (1, 1), (said, nothing)
    assert re.search(r"^processes +2$", out, re.MULTILINE)
    assert (silent, ours(nothing)) == ("", [])
    assert len(ours(said)) == 1
    maps, whole = np.load("out/maps.npy"), np.load("whole/maps.npy")
    np.testing.assert_allclose(maps, whole, rtol=1e-6)
    assert contents("out") == expected  # more than was asked for


@pytest.mark.slow
def test_a_cluster_that_jax_knows_needs_no_addresses(capsys, photos, running):
    words = ("--out", "out", *QUICK, "--batch", 2)
    expected = undisturbed(*words[2:])
    port = address().rpartition(":")[2]
    slurm = {"SLURM_JOB_ID": port, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
             "SLURM_LOCALID": "0"}  # fmt: skip
    both = [
        running(*words, "--distributed", "--json", **slurm, SLURM_PROCID=str(i)) for i in range(2)
    ]
    (out, said), (silent, _) = (process.communicate() for process in both)
    assert [process.returncode for process in both] == [1, 1], said
    assert '"processes": 2' in out
    assert silent == ""
    assert contents("out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_dies_the_other_says_so_and_the_sweep_goes_on(
    victim, capsys, photos, running
):
    words = ("--out", "out", *QUICK, "--batch", 2)
    expected = undisturbed(*words[2:])
    both = pair(running, *words, seconds=0.5, ends={victim: Ends(2, 0.1)})
    assert both[victim].wait() == -signal.SIGKILL
    out, said = both[1 - victim].communicate(timeout=60)
    assert (both[1 - victim].returncode, out) == (2, "")
    assert ours(said) == [
        f"jaxcam: error: process {1 - victim} of the sweep: needs all of the others to the end; "
        f"got process {victim} dead. What was written stays: start all again with --resume."
    ]
    there = parts()
    assert 0 < len(there) < 15
    both = pair(running, *words, "--resume")
    assert [process.wait() for process in both] == [1, 1]
    assert contents("out") == expected


@pytest.mark.slow
def test_processes_that_disagree_end(photos, running):
    words = ("--out", "out", "--model", "relu", "--layer", "block4", "--coordinator", address(),
             "--processes", 2)  # fmt: skip
    first = running(*words, "--process", 0, seconds=1)
    second = running(*words, "--process", 1, "--seed", 1, seconds=1)
    said = second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert "needs the settings of the run in out; got --seed 1, where it has 0" in said
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 2
    assert "got process 1 dead" in said


def test_processes_that_do_not_meet_end_with_words(photos, running):
    waiting = running("--out", "out", *QUICK, "--coordinator", address(), "--processes", 2,
                      "--process", 1, "--wait", 2)  # fmt: skip
    out, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (2, "")
    assert re.fullmatch(
        r"jaxcam: error: the processes have not met within 2 seconds\. [^\n]*\n", said
    )
    assert not Path("out").exists()


@pytest.mark.slow
def test_every_device_of_a_process_works_and_changes_nothing(capsys, photos, running):
    words = ("--out", "out", *QUICK, "--batch", 3)
    undisturbed(*words[2:])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=3"
    several = running(*words, XLA_FLAGS=flags)
    said = several.communicate()[1]
    assert several.returncode == 1, said
    np.testing.assert_allclose(np.load("out/maps.npy"), np.load("whole/maps.npy"), rtol=1e-6)


@pytest.mark.slow
def test_an_interrupted_process_says_what_to_do(photos, running):
    ends = Ends(1, 0.1, signal.SIGINT)
    process = running("--out", "out", *QUICK, "--batch", 2, seconds=0.5, ends=ends)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said == "jaxcam: interrupted: what was written stays, and --resume goes on with it\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["parts", "plan.json"]
