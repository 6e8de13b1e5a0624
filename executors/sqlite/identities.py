"""Whether the files that a process has open are still those that stand at their names.

    queue.db · -wal · -shm · -inbox · -lock     deleted, renamed or replaced: what is written to them, nobody will read

A folder's change time moves whenever a name in it comes, goes or changes. So one look at the folder tells that all is
as it was; only where it moved are the files themselves looked at. A change time is trusted when it is old enough that
no later change can bear the same.
"""

from __future__ import annotations

import os
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FILE", "INBOX", "LOCK", "LOG", "MEMORY", "FileIdentities"]

#: The endings of the files; the first is the queue file itself.
FILE, LOG, MEMORY, INBOX, LOCK = "", "-wal", "-shm", "-inbox", "-lock"

#: Nanoseconds after which a change time comes no second time: clocks of file systems tick in steps of up to 10 ms.
SETTLED_NS: Final = 100_000_000

#: Seconds after which the files are looked at in any case: a folder does not know that one above it was renamed.
LOOK_S: Final = 0.25


class FileIdentities:
    """Know the files behind the names of one queue; made under the lock, when all of them are open."""

    def __init__(self, path: Path, descriptors: Mapping[str, int]) -> None:
        """Learn what stands at the names, and what is open, where there is a descriptor.

        Raises:
            OSError: a file is missing.
        """
        self._path = str(path)
        self._known = {ending: _identity(os.fstat(descriptor)) for ending, descriptor in descriptors.items()}
        for ending in (FILE, MEMORY):
            self._known[ending] = self._found(ending)
        self._trusted = 0
        self._look_at = 0.0
        self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the folder's descriptor back. Safe to call twice."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    def in_place(self) -> bool:
        """Return whether all files are in their places; not, when they were closed."""
        now = monotonic()
        try:
            changed_at = os.fstat(self._folder).st_ctime_ns
        except OSError:
            return False
        if changed_at == self._trusted and now < self._look_at:
            return True
        if self.changed():
            return False
        if time_ns() - changed_at > SETTLED_NS:
            self._trusted, self._look_at = changed_at, now + LOOK_S
        return True

    def changed(self) -> list[str]:
        """Return the endings of the files that are not in their places; a queue file that was emptied is not."""
        return [ending for ending, known in self._known.items() if self._at(ending) != known]

    def is_missing(self, ending: str) -> bool:
        """Return whether nothing stands at a name."""
        return self._at(ending) is None

    def _at(self, ending: str) -> tuple[int, int] | None:
        try:
            return self._found(ending)
        except OSError:
            return None

    def _found(self, ending: str) -> tuple[int, int]:
        found = os.stat(self._path + ending)  # noqa: PTH116 - the path is text, for speed
        return (0, 0) if ending == FILE and not found.st_size else _identity(found)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
