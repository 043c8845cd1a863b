"""What a run leaves on disk, each file in full or not at all.

    plan.json            what the run is
    parts/000012.npz     a chunk that is done
    maps.npy, table.csv  the result, once every chunk is; the table comes last

A file is written as a draft, flushed to the disk and put in place, so that a process that is killed
at any moment leaves finished files and drafts, and the next one writes over the drafts.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcam.errors import JaxcamError, fail
from jaxcam.sweep.plan import Plan, check_same, chunks, decoded, encoded

PLAN, MAPS, TABLE, PARTS = "plan.json", "maps.npy", "table.csv", "parts"
DTYPE = np.dtype("<f4")


class Part(NamedTuple):
    """A chunk: ``maps: [images, height, width]``, and a row of the table for each image."""

    maps: NDArray[np.float32]
    rows: list[list[str]]


def check(out: Path, plan: Plan, *, resume: bool) -> bool:
    """Refuse a folder that a run must not write to; say whether this run is complete in it."""
    if out.exists() and not out.is_dir():
        fail("--out", needs="a folder", got=f"the file {out}", remedy="Choose another name.")
    there = [name for name in (PLAN, MAPS, TABLE) if (out / name).exists()]
    there += [PARTS] if done(out) else []
    if not there:
        return False
    if PLAN not in there:
        remedy = "Choose another folder: these files are of no sweep that is known here."
        fail("--out", needs="a folder without results", got=f"{out} with {there[0]}", remedy=remedy)
    if not resume:
        state = "complete" if complete(out) else "unfinished"
        remedy = "Add --resume to go on with it, or choose another folder."
        fail("--out", needs="a folder without results", got=f"a sweep, {state}", remedy=remedy)
    check_same(plan, read_plan(out), str(out))
    return complete(out)


def complete(out: Path) -> bool:
    """Say whether the result is there."""
    return (out / TABLE).exists() and (out / MAPS).exists()


def read_plan(out: Path) -> Plan:
    """Read what the run in a folder is."""
    return decoded((out / PLAN).read_bytes(), str(out / PLAN))


def write_plan(out: Path, plan: Plan) -> None:
    """Write down what a run is, unless it is there."""
    if not (out / PLAN).exists():
        with drafted(out / PLAN) as file:
            file.write(encoded(plan))


def done(out: Path) -> set[int]:
    """List the chunks that are there."""
    names = os.listdir(out / PARTS) if (out / PARTS).exists() else ()
    return {int(name[:-4]) for name in names if name.endswith(".npz")}


def write_part(out: Path, chunk: int, part: Part) -> None:
    """Write a chunk."""
    rows = np.frombuffer(json.dumps(part.rows).encode(), np.uint8)
    held = io.BytesIO()
    np.savez(held, maps=part.maps.astype(DTYPE), rows=rows)
    with drafted(_part(out, chunk)) as file:
        file.write(held.getvalue())


def read_part(out: Path, chunk: int) -> Part:
    """Read a chunk back."""
    path = _part(out, chunk)
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Part(stored["maps"], json.loads(stored["rows"].tobytes()))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise JaxcamError(
            f"{path}: needs a chunk as it was written; got {type(error).__name__}: {error}. "
            "Delete the file and go on with --resume."
        ) from error


def assemble(out: Path, plan: Plan, columns: Sequence[str], shape: Sequence[int]) -> None:
    """Put all chunks together, one in memory at a time.

    Bytes are appended to a plain file: on a disk that is full, writing to a file mapped into memory
    kills the process without a word.
    """
    header = {"descr": DTYPE.str, "fortran_order": False, "shape": (len(plan.images), *shape)}
    with drafted(out / TABLE) as table, drafted(out / MAPS) as maps:
        np.lib.format.write_array_header_1_0(maps, header)
        table.write(_lines([columns]))
        for chunk, _ in enumerate(chunks(plan)):
            part = read_part(out, chunk)
            maps.write(part.maps.astype(DTYPE).tobytes())
            table.write(_lines(part.rows))


def remove_parts(out: Path) -> None:
    """Remove what the result has made superfluous. Others may still hold a file in there."""
    shutil.rmtree(out / PARTS, ignore_errors=True)


def read_table(out: Path) -> Iterator[dict[str, str]]:
    """Read the table, a dictionary for each image."""
    with (out / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield from csv.DictReader(file)


@contextmanager
def drafted(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears in full when the block ends, and not at all if it fails."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync(path.parent)  # or its name is lost with the power
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise JaxcamError(
                f"{path}: {error.strerror or error}. What was written stays as it is: make room or "
                "mend the folder, and go on with --resume."
            ) from error
        raise


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _part(out: Path, chunk: int) -> Path:
    return out / PARTS / f"{chunk:06d}.npz"


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    held = io.StringIO(newline="")
    csv.writer(held, lineterminator="\n").writerows(rows)
    return held.getvalue().encode("utf-8", errors="surrogateescape")  # as the names of files are
