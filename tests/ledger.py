"""The ledger: a file to which every start of a job appends one line, so that lost and doubled runs can be counted.

Jobs write with one `write` to a descriptor opened O_APPEND, which no other process can tear apart, and which
is in the kernel's hands when the job's process is killed right behind it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: who wrote it, when (CLOCK_MONOTONIC, the same in all processes), and what."""

    pid: int
    at: float
    text: str


def note(path: str, text: str) -> None:
    """Append a line to the ledger at `path`; called in jobs."""
    line = f"{os.getpid()} {time.monotonic()!r} {text}\n".encode()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)


class Ledger:
    """Read in the test what jobs wrote; `path` is what the jobs are given."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def entries(self) -> list[Entry]:
        """Return all lines, in the order in which they were written."""
        with open(self.path, encoding="utf-8") as lines:
            parts = [line.rstrip("\n").split(" ", 2) for line in lines]
        return [Entry(pid=int(pid), at=float(at), text=text) for pid, at, text in parts]

    def texts(self) -> list[str]:
        """Return what was written, without who and when."""
        return [entry.text for entry in self.entries()]

    def counts(self) -> Counter[str]:
        """Return how often each text was written."""
        return Counter(self.texts())

    def pids(self, text: str | None = None) -> list[int]:
        """Return who wrote, or who wrote this text."""
        return [entry.pid for entry in self.entries() if text is None or entry.text == text]
