"""What a person who waits sees: on standard error, and only where that is a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxcam.cam import Progress as Callback


@contextmanager
def shown(name: str) -> Iterator[Callback]:
    """Give a callback ``(done, total)`` for the library; the display leaves when it ends.

    The first step includes its compilation, so rate and time left are those of the others.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as display:
        task = display.add_task(f"{name}: compiling", total=None, pace="")
        began = 0.0

        def show(done: int, total: int) -> None:
            nonlocal began
            now, pace = time.perf_counter(), f"{done}/{total}"
            if done < 1:
                return  # the first step has yet to be compiled
            if done == 1:
                began = now
                display.update(task, total=total)
            else:
                pace += f", {(done - 1) / (now - began):.1f}/s"
            phase = "finishing" if done == total else "sampling"
            display.update(task, completed=done, description=f"{name}: {phase}", pace=pace)

        yield show
