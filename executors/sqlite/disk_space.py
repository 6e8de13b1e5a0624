"""Disk space that is kept for those who have jobs already: the last of it is not for new ones.

    reserve + some for the outcome of each job that has not ended     new jobs leave it free
    half of the reserve                                               results leave it free, for outcomes without them

The checkpoints that give room back need some too.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

from taskq.errors import StoreFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["DiskSpace"]

#: Bytes, and the part of the file system, that new jobs leave free: the smaller one.
RESERVE, RESERVE_PART = 16 * 1024 * 1024, 0.1

#: Bytes that the outcome of a job takes without its result: in its row, in the indexes, in pages that are split,
#: and in the log. 750 were seen.
OUTCOME = 1000
#: Seconds for which a count of the jobs that have not ended is good.
COUNTED_S = 1.0

#: Bytes above the reserve from which a look is good for these seconds and these bytes of jobs.
PLENTY = 256 * 1024 * 1024
FRESH_S, FRESH_BYTES = 0.1, 1024 * 1024


class DiskSpace:
    """Know whether there is room on a file's disk; safe from threads."""

    def __init__(self, path: Path, unused: Callable[[], int], unfinished: Callable[[], int]) -> None:
        """Look after a file.

        `unused` tells how many bytes in it are free for new jobs, less those that its log will still add to it;
        `unfinished`, how many jobs in it have not ended.
        """
        self._path = path
        self._unused = unused
        self._unfinished = unfinished
        self._counted = -math.inf
        self._count = 0
        self._looked = -math.inf
        self._put = 0
        self._is_short = False

    def is_short(self) -> bool:
        """Return whether there is so little that the log should be kept short: it must not take the last of it."""
        if time.monotonic() - self._looked > FRESH_S:
            self._look()
        return self._is_short

    def fits(self, size: int) -> bool:
        """Return whether results of so many bytes leave the room that is for outcomes without any."""
        if not self.is_short():
            return True
        free, reserve = self._look()
        return free + self._unused() - 2 * size >= reserve / 2 + self._for_outcomes(0)

    def _for_outcomes(self, count: int) -> int:
        """Return how many bytes the outcomes of all jobs take at most, with `count` new ones."""
        if time.monotonic() - self._counted > COUNTED_S:
            self._counted, self._count = time.monotonic(), self._unfinished()
        self._count += count
        return OUTCOME * self._count

    def check(self, size: int, count: int = 1) -> bool:
        """See whether so many bytes of `count` new jobs may come; return whether there is little more room than that.

        Raises:
            StoreFull: less than the reserve would stay free.
        """
        self._put += size
        if not self._is_short and self._put < FRESH_BYTES and time.monotonic() - self._looked < FRESH_S:
            return False
        free, reserve = self._look()
        if self._is_short:
            reserve += self._for_outcomes(count)
        # An envelope is written to the log and then to the database.
        if free - 2 * size < reserve and free + self._unused() - 2 * size < reserve:
            raise StoreFull(
                f"{self._path}: {free:,} bytes are free on its disk, and the last {reserve:,.0f} are kept for the "
                "results of jobs that are there already: free some, then submit again"
            )
        return self._is_short

    def _look(self) -> tuple[int, float]:
        """Return how many bytes are free, and how many are not for new jobs."""
        self._looked, self._put = time.monotonic(), 0
        try:
            found = os.statvfs(self._path)
        except OSError:
            return 1 << 62, 0.0  # whatever it is, the write will say it better
        free = found.f_bavail * found.f_frsize
        reserve = min(RESERVE, RESERVE_PART * found.f_blocks * found.f_frsize)
        self._is_short = free - reserve < PLENTY
        return free, reserve
