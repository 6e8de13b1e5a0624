"""Look at processes from outside, through /proc: who descends from whom, who is left of a session, who is frozen."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing import forkserver, process, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from taskq.executors.pool import processes as pool_processes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Position of the fields of /proc/PID/stat that are read here, counted behind the command in brackets.
STATE, PARENT, SESSION, STARTED = 0, 1, 3, 19

#: prctl's PR_SET_PDEATHSIG; the library is loaded before any fork, since loading takes locks.
DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

#: Sessions of the servers and workers that tests share: those who started them end them, so they are nobody's leak.
servers: set[int] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process as /proc showed it; `started` (ticks) tells two processes of one pid apart."""

    pid: int
    parent: int
    session: int
    state: str
    started: int

    def describe(self) -> str:
        """Return a line for a failure message."""
        return f"process {self.pid} ({self.state}, parent {self.parent}): {command_of(self.pid)}"


def die_with_parent() -> None:
    """Have this process, which is about to be a server or a worker, killed when the tests' own process ends; Linux."""
    if _libc is not None:
        _libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def take_signals(ignored: Collection[int] = ()) -> None:
    """Have this process, which is about to be a program under test, take the signals that end programs.

    Under nohup, or behind a script's &, the tests' own process ignores some, and its children would inherit that.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)


def look(pid: int) -> Seen | None:
    """Return what /proc says of a process, or None when there is none; zombies are there, in state Z."""
    try:  # hundreds of thousands of times in a run: by system calls, without a file object
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return Seen(
        pid=pid,
        parent=int(fields[PARENT]),
        session=int(fields[SESSION]),
        state=fields[STATE].decode(),
        started=int(fields[STARTED]),
    )


def everyone() -> list[Seen]:
    """Return all processes of the machine that can be seen from here."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [seen for seen in found if seen is not None]


def descendants(root: int | None = None) -> list[Seen]:
    """Return all processes below `root` (this one), zombies included, the long-lived singletons and servers not."""
    children: defaultdict[int, list[Seen]] = defaultdict(list)
    for seen in everyone():
        children[seen.parent].append(seen)
    found: list[Seen] = []
    queue = [root or os.getpid()]
    while queue:
        below = children[queue.pop()]
        found += below
        queue += [seen.pid for seen in below]
    keep = singletons()
    return [seen for seen in found if seen.pid not in keep and seen.session not in servers]


def singletons() -> set[int]:
    """Return the pids of the helpers that multiprocessing starts once and keeps until the interpreter ends."""
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001  # nothing public tells
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)  # noqa: SLF001  # nothing public tells
    return {pid for pid in (server, tracker) if pid is not None}


def singleton_descriptors() -> set[int]:
    """Return the descriptors by which this process holds those helpers."""
    alive = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)  # noqa: SLF001  # nothing public tells
    tracker = getattr(resource_tracker._resource_tracker, "_fd", None)  # noqa: SLF001  # nothing public tells
    way = getattr(pool_processes, "_way_to_server", None)
    return {fd for fd in (alive, tracker, way) if fd is not None}


def singleton_folder() -> str | None:
    """Return the folder in which multiprocessing keeps the forkserver's socket until the interpreter ends."""
    folder = process.current_process()._config.get("tempdir")  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public tells
    return None if folder is None else str(folder)


def of_session(session: int) -> list[Seen]:
    """Return the living processes of a session, zombies not."""
    return [seen for seen in everyone() if seen.session == session and seen.state != "Z"]


def command_of(pid: int) -> str:
    """Return a process's command line, or what the kernel calls it."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line or Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return "(gone)"


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    seen = look(pid)
    return seen is not None and seen.state != "Z"


def is_frozen(pid: int) -> bool:
    """Return whether a process is stopped by SIGSTOP."""
    seen = look(pid)
    return seen is not None and seen.state == "T"


def end(those: Iterable[Seen]) -> None:
    """Kill processes of a session, at once."""
    for seen in those:
        with contextlib.suppress(ProcessLookupError):
            os.kill(seen.pid, signal.SIGKILL)


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process below this one, and only to such a one; return whether it was sent."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if all(seen.pid != pid or seen.state == "Z" for seen in descendants()):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
