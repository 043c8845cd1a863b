"""The processes of a run: who is who, by `jax.distributed`, and who is still there, by locks.

Processes meet once, at the start, and then leave `jax.distributed` before anything is computed.
Its runtime would end every process by ``abort()`` with a stack trace as soon as one dies, where
chunks are independent of each other and each process can say what happened and end in order.

What they share from then on is the run's folder. Each holds a lock (``flock``) on a file of its
own in it, which the system frees when the process dies, whatever it died of: no clock, no
threads, no process taken for dead because its machine is busy. What locks cannot show is a process
that hangs.
"""

import errno
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jax
from jax.extend.backend import clear_backends

from jaxcam.errors import fail
from jaxcam.sweep.folder import PARTS

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
POLL = 0.2


class Launch(NamedTuple):
    """How processes find each other; ``coordinator`` is the address of process 0.

    With None for the first three, as `jax.distributed` finds out by itself. wait: how many seconds
    the others may take.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    wait: float = 300


class Crew(NamedTuple):
    """One process among ``processes``, with a lock in the folder ``out``."""

    out: Path
    process: int
    processes: int

    def check(self) -> None:
        """Refuse to go on if one of the others has ended before the run is complete."""
        others = (i for i in range(self.processes) if i != self.process)
        gone = [i for i in others if not _held(_lock(self.out, i))]
        if gone:
            who = " and ".join(map(str, gone))
            fail(
                f"process {self.process} of the sweep", needs="all of the others to the end",
                got=f"process {who} dead",
                remedy="What was written stays: start all again with --resume.",
            )  # fmt: skip

    def wait(self, ready: Callable[[], bool], told: Callable[[], None] = lambda: None) -> None:
        """Wait for something that others do, as long as they are there."""
        while not ready():
            told()
            try:
                self.check()
            except ValueError:
                if not ready():  # else they have done it and left in the meantime
                    raise
                return
            time.sleep(POLL)


@contextmanager
def gathered(out: Path, launch: Launch | None) -> Iterator[Crew]:
    """Meet the others, and hold a lock in the folder until the end; alone if ``launch`` is None."""
    made = not out.exists()
    if launch is None:
        crew, lock = Crew(out, 0, 1), _take(out, 0)
    else:
        crew, lock = _met(out, launch)
    try:
        yield crew
    finally:
        _lock(out, crew.process).unlink(missing_ok=True)
        os.close(lock)
        # A run that was refused leaves nothing; a folder with something in it stays.
        with suppress(OSError):
            (out / PARTS).rmdir()
            if made:
                out.rmdir()


def _met(out: Path, launch: Launch) -> tuple[Crew, int]:
    """Meet: nobody leaves before everybody is there and holds a lock."""
    check(launch)
    with _deadline(launch):
        try:
            jax.distributed.initialize(
                launch.coordinator, launch.processes, launch.process,
                initialization_timeout=int(launch.wait) + 60,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            got = str(error).splitlines()[0].rstrip(".")
            remedy = (
                "Outside of clusters that JAX knows, give --coordinator, --processes and "
                "--process; the coordinator's port must be free on process 0."
            )
            fail("jax.distributed", needs="processes that meet", got=got, remedy=remedy)
        try:
            if launch.process is not None and launch.processes is not None:
                crew = Crew(out, launch.process, launch.processes)
            else:
                crew = Crew(out, jax.process_index(), jax.process_count())
            lock = _take(out, crew.process)
        finally:
            jax.distributed.shutdown()  # waits for the others
            # Asking who one is has made a device client that shares its compiler's work with the
            # others', who will not be there. The next client is this process's own.
            clear_backends()
    return crew, lock


def check(launch: Launch) -> None:
    """Refuse an address that does not exist before anybody waits for it."""
    if launch.coordinator is not None:
        host, _, port = launch.coordinator.rpartition(":")
        try:
            socket.getaddrinfo(host.strip("[]"), int(port))
        except OSError as error:
            fail("--coordinator", needs="the HOST:PORT of process 0", got=launch.coordinator,
                 remedy=f"{error.strerror}.")  # fmt: skip


@contextmanager
def _deadline(launch: Launch) -> Iterator[None]:
    """End the process, with words, if the others do not come: JAX would by ``abort()``."""

    def give_up() -> None:
        print(
            f"jaxcam: error: the processes have not met within {launch.wait:g} seconds. Are all of "
            "them started, with the same coordinator and the same number of processes, and has "
            "none refused?",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(2)

    timer = threading.Timer(launch.wait, give_up)
    timer.daemon = True
    timer.start()
    # JAX waits outside of Python, where Ctrl-C would not be heard before it returns.
    quits = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    quits = quits and threading.current_thread() is threading.main_thread()
    if quits:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        timer.cancel()
        if quits:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _lock(out: Path, index: int) -> Path:
    return out / PARTS / f"process-{index}.lock"


def _take(out: Path, index: int) -> int:
    path = _lock(out, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if error.errno in NO_LOCKS:
            got = f"{error.strerror} for {path}"
            remedy = "Write to another file system, and copy the result."
            fail("--out", needs="a file system with locks (flock)", got=got, remedy=remedy)
        remedy = "Wait for it to end, or choose another folder."
        fail("--out", needs="a folder of its own", got=f"another sweep at work in {out}",
             remedy=remedy)  # fmt: skip
    return opened


def _held(path: Path) -> bool:
    """Say whether some process holds a lock."""
    try:
        opened = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False
