"""Find what a test left behind: processes, threads, descriptors, semaphores, files, signal handlers, a set-up log.

    before = take()  ──▶  the test  ──▶  settle(before) ──▶ [] or one line for each leak

Things may end asynchronously (a thread that is about to return, a child that is being reaped), so `settle` polls
with a bound. multiprocessing's forkserver and resource tracker, each started once and kept until the interpreter
ends, are known by pid, descriptor and folder, and are no leaks.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing import process, shared_memory
from pathlib import Path

from taskq import log
from tests.processes import Seen, descendants, singleton_descriptors, singleton_folder

#: Seconds given to what ends by itself; a pool's processes need one or two on a loaded machine.
GRACE = 30.0

#: Seconds between two looks.
INTERVAL = 0.02

#: prctl's PR_SET_CHILD_SUBREAPER.
SUBREAPER = 36

#: Where Linux keeps named semaphores and shared memory.
SHARED_MEMORY = Path("/dev/shm")

#: Beginnings of the names in it that are ours: see `mark_shared_memory`.
SEMAPHORE_PREFIX = f"mp-t{os.getpid()}"
BLOCK_PREFIX = f"psm{os.getpid()}_"
OURS = (f"sem.{SEMAPHORE_PREFIX}", BLOCK_PREFIX)

#: Signals whose handlers a test that comes later may rely on.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What this process holds at one moment; every mapping leads from an identity to words about it."""

    processes: dict[object, str]
    threads: dict[object, str]
    descriptors: dict[object, str]
    shared: dict[object, str]
    files: dict[object, str]
    handlers: dict[object, str]
    logs: dict[object, str]

    def kinds(self) -> dict[str, dict[object, str]]:
        """Return the mappings by the name to use in a message."""
        return {
            "process": self.processes,
            "thread": self.threads,
            "descriptor": self.descriptors,
            "shared memory or semaphore": self.shared,
            "temporary file": self.files,
            "signal handler": self.handlers,
            "log set up": self.logs,
        }

    def kinds_of_descriptors(self) -> Counter[str]:
        """Count descriptors by what they lead to, without its number: "pipe:[]", "socket:[]", "anon_inode:[pidfd]"."""
        return Counter(re.sub(r"\d+", "", words.partition(" -> ")[2]) for words in self.descriptors.values())


def take() -> Snapshot:
    """Look at everything that a test may leave behind."""
    return Snapshot(
        processes=_processes(),
        threads={(thread.ident, thread.name): repr(thread) for thread in threading.enumerate()},
        descriptors=_descriptors(),
        shared=_shared(),
        files=_files(),
        handlers={(number, str(signal.getsignal(number))): _handler(number) for number in SIGNALS},
        logs=_logs(),
    )


def settle(before: Snapshot, *, by_count: bool = False, kept: tuple[str, ...] = (), grace: float = GRACE) -> list[str]:
    """Return what is there beyond `before` once things have had time to end; an empty list is what tests want.

    `by_count` compares how many there are, not which: for tests that share a pool whose processes may be replaced.
    `kept`: ends of the names of files whose descriptors are not looked at now, but later.
    """
    deadline = time.monotonic() + grace
    leaks = _compare(before, take(), by_count=by_count, kept=kept)
    while leaks and time.monotonic() < deadline:
        gc.collect()
        time.sleep(INTERVAL)
        leaks = _compare(before, take(), by_count=by_count, kept=kept)
    return leaks


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, which would go to init and out of sight; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def mark_shared_memory() -> None:
    """Give named semaphores and shared memory a prefix that tells ours from those of others on this machine."""
    config = process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public tells
    config["semprefix"] = f"/{SEMAPHORE_PREFIX}"
    shared_memory._SHM_NAME_PREFIX = f"/{BLOCK_PREFIX}"  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public tells


def _compare(before: Snapshot, after: Snapshot, *, by_count: bool, kept: tuple[str, ...]) -> list[str]:
    leaks = []
    for kind, found in after.kinds().items():
        then = _without(before.kinds()[kind], kept)
        now = _without(found, kept)
        fresh = [words for identity, words in now.items() if identity not in then]
        if fresh and (not by_count or len(now) > len(then)):
            count = f" ({len(then)} before, {len(now)} now, among them)" if by_count else ""
            leaks += [f"{kind} left behind{count}: {words}" for words in fresh]
    return leaks


def _without(found: dict[object, str], kept: tuple[str, ...]) -> dict[object, str]:
    return {identity: words for identity, words in found.items() if not words.endswith(kept)} if kept else found


def _processes() -> dict[object, str]:
    if sys.platform != "linux":
        return {}
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}  # orphans among them, which are adopted
    seen = descendants()
    if _reap_adopted(seen):
        seen = descendants()
    return {(one.pid, one.started): one.describe() for one in seen}


def _reap_adopted(those: list[Seen]) -> bool:
    """Take the exit status of adopted orphans, as init would; multiprocessing's own children are left to it."""
    known = {child.pid for child in process._children}  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public tells
    ended = [one.pid for one in those if one.state == "Z" and one.parent == os.getpid() and one.pid not in known]
    for pid in ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return bool(ended)


def _descriptors() -> dict[object, str]:
    found: dict[object, str] = {}
    known = singleton_descriptors()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/dev/fd/{name}")
            if int(name) not in known:
                found[name, target] = f"{name} -> {target}"
    return found


def _shared() -> dict[object, str]:
    if not SHARED_MEMORY.is_dir():
        return {}
    return {name: name for name in os.listdir(SHARED_MEMORY) if name.startswith(OURS)}


def _files() -> dict[object, str]:
    """List the folder of temporary files, which is the test session's own (see conftest)."""
    root = tempfile.gettempdir()
    known = {os.path.basename(singleton_folder() or "")}
    return {name: os.path.join(root, name) for name in os.listdir(root) if name not in known}


def _handler(number: signal.Signals) -> str:
    return f"{number.name} -> {signal.getsignal(number)}"


def _logs() -> dict[object, str]:
    """Tell who would receive a log line: a test that comes later may hold that nobody does."""
    structlog = sys.modules.get("structlog")
    chosen = {"taskq": f"taskq.log, as {log.chosen_format()}"} if log.chosen_format() is not None else {}
    configured = {"structlog": "structlog"} if structlog is not None and structlog.is_configured() else {}
    return {**chosen, **configured}
