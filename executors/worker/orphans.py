"""Orphans: processes that jobs have left, and that a worker which is process 1 of a container inherits.

job ──starts──▶ program ──starts──▶ another, and ends ──▶ the other is process 1's child, and its zombie at its end
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["reaped"]

#: Seconds between two looks. What is a zombie at two of them, nobody else waits for.
_EVERY: Final = 1.0


@contextmanager
def reaped() -> Iterator[None]:
    """Reap what has no other parent during the block, if this is process 1."""
    if os.getpid() != 1:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_reap, args=(over,), name="taskq-reaper", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _reap(over: threading.Event) -> None:
    before: set[int] = set()
    while not over.wait(_EVERY):
        found = _zombies() - _own()
        for pid in found & before:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        before = found


def _own() -> set[int]:
    """Return the processes that multiprocessing waits for."""
    helpers: tuple[Any, ...] = (
        forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]  # noqa: SLF001  # nothing public tells
        resource_tracker._resource_tracker._pid,  # type: ignore[attr-defined]  # noqa: SLF001  # as above
    )
    children = multiprocessing.process._children  # type: ignore[attr-defined]  # noqa: SLF001  # active_children() waits
    return {pid for pid in (*helpers, *(child.pid for child in list(children))) if pid is not None}


def _zombies() -> set[int]:
    """Return our children that have ended and were not waited for."""
    found = set()
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                text = (place / "stat").read_text(encoding="utf-8", errors="replace")
                state, parent = text.rpartition(")")[2].split()[:2]
                if (state, parent) == ("Z", "1"):
                    found.add(int(place.name))
    return found
