"""What is on disk: in full or not at all, at whatever moment the process ends."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxcam.errors import JaxcamError
from jaxcam.sweep import folder
from jaxcam.sweep import plan as plans
from jaxcam.sweep.folder import Part

COLUMNS = ("image", "error")


@pytest.fixture
def plan(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * i)
    return plans.make_plan(paths, {"seed": 0, "layer": "block3"}, batch=2)


def part(rows: range) -> Part:
    maps = np.stack([np.full((2, 3), row, np.float32) for row in rows])
    return Part(maps, [[f'{row}, "quoted"\n{row}', "é" if row == 3 else ""] for row in rows])


def everything(out: Path, plan: plans.Plan) -> None:
    """Do what a run does to its folder; what is there is not written again."""
    folder.check(out, plan, resume=True)
    (out / folder.PARTS).mkdir(parents=True, exist_ok=True)
    folder.write_plan(out, plan)
    if not folder.complete(out):
        ready = folder.done(out)
        for number, rows in enumerate(plans.chunks(plan)):
            if number not in ready:
                folder.write_part(out, number, part(rows))
        folder.assemble(out, plan, COLUMNS, (2, 3))
    folder.remove_parts(out)


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_the_result_opens_without_us(tmp_path, plan):
    everything(tmp_path / "out", plan)
    assert set(contents(tmp_path / "out")) == {"plan.json", "maps.npy", "table.csv"}
    maps = np.load(tmp_path / "out" / "maps.npy", mmap_mode="r")
    assert (maps.shape, maps.dtype) == ((5, 2, 3), np.float32)
    np.testing.assert_array_equal(maps, np.concatenate([part(range(5)).maps]))
    rows = list(folder.read_table(tmp_path / "out"))
    assert [list(row.values()) for row in rows] == part(range(5)).rows


def test_a_plan_comes_back_as_it_was(tmp_path, plan):
    odd = plan._replace(images=((os.fsdecode(b"\xff.png"), 3), ("é\n.png", 4)))
    for one in (plan, odd):
        assert plans.decoded(plans.encoded(one), "x") == one
    table = Part(np.zeros((2, 2, 3), np.float32), [[name, ""] for name, _ in odd.images])
    (tmp_path / "parts").mkdir()
    folder.write_part(tmp_path, 0, table)
    folder.assemble(tmp_path, odd, COLUMNS, (2, 3))
    assert [row["image"] for row in folder.read_table(tmp_path)] == [name for name, _ in odd.images]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_plan_that_is_none_is_refused(content, tmp_path, plan):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(JaxcamError, match=r"plan\.json: needs the plan of a sweep; got"):
        folder.check(tmp_path, plan, resume=True)


# killed at every moment

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import test_folder as tests
from jaxcam.sweep import folder
from jaxcam.sweep import plan as plans

out, content = Path(sys.argv[1]), sys.stdin.buffer.read()
plan = plans.decoded(content, "")


def killed_at(step: int) -> int:
    # A child of a process that has yet to use JAX; the step-th call about the disk is its last.
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    taken = 0

    def watched(name, call):
        def before(*words, **options):
            nonlocal taken
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **options)

        setattr(os, name, before)

    for name in ("fsync", "replace", "unlink", "rmdir", "mkdir", "open", "close"):
        watched(name, getattr(os, name))
    tests.everything(out, plan)
    os._exit(0)


assert killed_at(0) == 0
final = tests.contents(out)
for step in range(1, 1000):
    shutil.rmtree(out, ignore_errors=True)
    status = killed_at(step)
    print(step, status, flush=True)
    for name, content in tests.contents(out).items() if out.exists() else ():
        if name in final:  # what was put in place is whole
            assert content == final[name], name
        elif name.endswith(".npz"):
            folder.read_part(out, int(Path(name).stem))
    if status:
        tests.everything(out, plan)
    assert tests.contents(out) == final
    if not status:
        break
"""


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bytes(tmp_path, plan):
    root = Path(folder.__file__).parents[2]
    path = os.pathsep.join([str(root), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "out")], input=plans.encoded(plan),
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().split("\n")
    killed = sum(line.endswith(f" {-signal.SIGKILL}") for line in lines)
    assert killed > 20, lines  # moments, and not one


# full disks


@pytest.mark.parametrize("name", ["plan.json", "parts/000001.npz", "maps.npy", "table.csv"])
def test_a_full_disk_leaves_what_was_written_and_the_rest_follows(name, tmp_path, plan):
    everything(tmp_path / "undisturbed", plan)
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / f"{name}.draft").symlink_to("/dev/full")  # the system's own error
    with pytest.raises(JaxcamError, match=re.escape(f"{name}: {os.strerror(errno.ENOSPC)}")):
        everything(out, plan)
    assert not [path for path in out.rglob("*") if path.suffix == ".draft"]
    for number in folder.done(out):
        folder.read_part(out, number)
    assert len(folder.done(out)) == {"plan.json": 0, "parts/000001.npz": 1}.get(name, 3)
    everything(out, plan)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_chunk_that_was_damaged_is_named(tmp_path, plan):
    (tmp_path / "parts").mkdir()
    folder.write_part(tmp_path, 0, part(range(2)))
    path = tmp_path / "parts" / "000000.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(JaxcamError, match=r"000000\.npz: needs a chunk as it was written"):
        folder.assemble(tmp_path, plan, COLUMNS, (2, 3))
