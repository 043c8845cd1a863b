"""The driver: plan, meet, explain this process's chunks, wait for the others, put together."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxcam.arrays.door import as_numpy
from jaxcam.errors import fail
from jaxcam.sweep import folder, loading, rows
from jaxcam.sweep.crew import Crew, Launch, gathered
from jaxcam.sweep.loading import Loaded, Read
from jaxcam.sweep.plan import Plan, chunks
from jaxcam.types import CAM, Report, Shared, Split, shared

Progress = Callable[[int, int], None]
Explain = Callable[[Split, Array], CAM]


class Job(NamedTuple):
    """What is done with every image.

    explain: ``(split, x) -> CAM`` of a batch, traced once; images must not depend on each other.
    read: a file as ``[*spatial, channel]``, all of one shape; it runs in several threads.
    names: of the classes. shape, dtype: of what ``read`` gives.
    """

    split: Split
    explain: Explain
    read: Read
    names: Sequence[str]
    shape: tuple[int, ...]
    dtype: Any = np.float32


class Summary(NamedTuple):
    """How a run ended.

    failed: how many images have no map. found: how many were explained before this run began.
    report: the engine and its proof, or None where nothing was left to do.
    """

    images: int
    failed: int
    found: int
    process: int
    processes: int
    report: Report | None


class _Chunk(NamedTuple):
    number: int
    images: range


def run(
    plan: Plan,
    out: Path,
    prepare: Callable[[], Job],
    *,
    resume: bool = False,
    launch: Launch | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Explain the images of a plan into the folder ``out``.

    Every process of a run calls this with the same arguments, but for ``launch``, before it uses
    JAX for anything else. Process 0 puts the result together, and the others wait for it.

    Args:
        plan: what is explained; every setting that ``prepare`` depends on must be in it.
        prepare: gives the `Job`, once the processes have met.
        resume: go on with what is in ``out``, if anything is.
        launch: how the processes find each other; None for one process.
        progress: called as ``progress(done, total)``, in images of the whole run.

    Raises:
        JaxcamError: the folder is another run's, holds results, or cannot be written; a question
            that has no answer; another process has ended. The message says which.
    """
    loading.check()
    complete = folder.check(out, plan, resume=resume)  # each of the processes, before they meet
    with gathered(out, launch) as crew:
        if complete:
            return _ended(crew, plan, len(plan.images), None)
        job = prepare()
        like = jax.ShapeDtypeStruct((plan.batch, *job.shape), job.dtype)
        explain = jax.jit(lambda network, x: job.explain(network.split(), x))
        abstract = jax.eval_shape(explain, shared(job.split), like)  # refuses what has no answer
        _begin(crew, plan)
        every, ready = chunks(plan), folder.done(out)
        before = sum(len(every[number]) for number in ready)

        def told() -> None:
            if crew.process == 0:
                done = sum(len(every[number]) for number in folder.done(out))
                progress(done, len(plan.images))

        told()
        mine = [
            _Chunk(number, images)
            for number, images in enumerate(every)
            if number % crew.processes == crew.process and number not in ready
        ]
        left = len(mine)
        for chunk, part in _explained(plan, job, explain, mine):
            left -= 1
            folder.write_part(out, chunk.number, part)
            told()
            if left:  # behind the last one the others may be through, and gone
                crew.check()
        if crew.process == 0:
            crew.wait(lambda: len(folder.done(out)) == len(every), told)
            folder.assemble(out, plan, rows.COLUMNS, abstract.map.shape[1:])
        else:
            crew.wait(lambda: folder.complete(out))
        return _ended(crew, plan, before, abstract.diagnostics.report)


def _ended(crew: Crew, plan: Plan, before: int, report: Report | None) -> Summary:
    if crew.process == 0:
        folder.remove_parts(crew.out)
    failed = sum(bool(row["error"]) for row in folder.read_table(crew.out))
    return Summary(len(plan.images), failed, before, crew.process, crew.processes, report)


def _begin(crew: Crew, plan: Plan) -> None:
    """Write the plan down, or see that process 0 has the same."""
    if crew.process == 0:
        folder.write_plan(crew.out, plan)
    else:
        crew.wait((crew.out / folder.PLAN).exists)
        folder.check_same(plan, folder.read_plan(crew.out), str(crew.out))


def _explained(
    plan: Plan, job: Job, explain: Callable[[Shared, Array], CAM], mine: list[_Chunk]
) -> Iterator[tuple[_Chunk, folder.Part]]:
    """Explain chunks on the devices of this process, one chunk on each at a time."""
    devices = jax.local_devices()
    networks = [jax.device_put(shared(job.split), device) for device in devices]
    paths = [Path(plan.images[row][0]) for chunk in mine for row in chunk.images]
    loaded = loading.ahead(paths, _reader(job), images=2 * plan.batch * len(devices))
    flying: deque[tuple[_Chunk, list[Loaded], CAM]] = deque()
    for turn, chunk in enumerate(mine):
        images = list(islice(loaded, len(chunk.images)))
        place = turn % len(devices)
        x = jax.device_put(_batch(images, plan.batch, job), devices[place])
        flying.append((chunk, images, explain(networks[place], x)))
        if len(flying) == len(devices):
            yield _landed(plan, job, *flying.popleft())
    while flying:
        yield _landed(plan, job, *flying.popleft())


def _reader(job: Job) -> Read:
    """Refuse what is no input of the network, image by image: within a program nobody could."""

    def read(path: Path) -> NDArray[Any]:
        image = as_numpy(job.read(path), str(path))
        if image.shape != job.shape:
            needs, got = f"an array {list(job.shape)}", list(image.shape)
            fail(str(path), needs=needs, got=got, remedy="Resize it when it is read.")
        if not np.isfinite(image).all():
            remedy = "Clean the image."
            fail(str(path), needs="finite values", got="NaN or infinity", remedy=remedy)
        return image

    return read


def _batch(images: list[Loaded], size: int, job: Job) -> NDArray[Any]:
    """Fill a batch up with blank images, also in place of those that could not be read."""
    x = np.zeros((size, *job.shape), job.dtype)
    for row, loaded in enumerate(images):
        if loaded.image is not None:
            x[row] = loaded.image
    return x


def _landed(
    plan: Plan, job: Job, chunk: _Chunk, images: list[Loaded], result: CAM
) -> tuple[_Chunk, folder.Part]:
    """Fetch a chunk from its device, and word it."""
    result = jax.device_get(result)
    table, maps = [], np.full((len(images), *result.map.shape[1:]), np.nan, np.float32)
    for row, (number, loaded) in enumerate(zip(chunk.images, images, strict=True)):
        name = plan.images[number][0]
        if loaded.image is None:
            table.append(rows.unread(name, loaded.error))
            continue
        one = jax.tree.map(lambda values, row=row: values[row], result)
        table.append(rows.row(name, one, job.names))
        if one.diagnostics.finite:
            maps[row] = one.map
    return chunk, folder.Part(maps, table)
