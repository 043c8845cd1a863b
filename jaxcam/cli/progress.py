"""What a person who waits sees: on standard error, and only where that is a terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
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
    with _bar(name) as (display, task):
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


@contextmanager
def counted(name: str, things: str) -> Iterator[Callback]:
    """Give a callback ``(done, total)`` that is first called with what was done before.

    Rate and time left are those of what is done behind the first step, which is compiled.
    """
    with _bar(name) as (display, task):
        steps: list[tuple[float, int]] = []

        def show(done: int, total: int) -> None:
            if not steps or done > steps[-1][1]:
                steps.append((time.perf_counter(), done))
            if len(steps) == 1:
                display.update(task, total=total)
                display.reset(task, completed=done, total=total, pace=f"{done}/{total}")
                return
            (began, first), (now, last) = steps[1], steps[-1]
            pace = f"{done}/{total}"
            if now > began:
                pace += f", {(last - first) / (now - began):.1f} {things}/s"
            phase = "finishing" if done == total else "explaining"
            display.update(task, completed=done, description=f"{name}: {phase}", pace=pace)

        yield show


@contextmanager
def _bar(name: str) -> Iterator[tuple[Progress, TaskID]]:
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
        yield display, display.add_task(f"{name}: compiling", total=None, pace="")
