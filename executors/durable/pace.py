"""How many items of a map go into one job of a store, by what was measured of those before."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

#: Nanoseconds of work in one chunk: some hundred times what a store and a worker need for a job.
TARGET_NS: Final = 50_000_000
#: Items in a chunk at the most: beyond, the cost of a job is nothing any more, and a window of them grows large.
CHUNK_MAX: Final = 4096
#: Bytes of a chunk's items, or of its results.
CHUNK_BYTES: Final = 64 * 1024
#: A chunk holds at most this many times the items of the largest one that came back, and one slow chunk counts at
#: most so much.
STEP: Final = 2
SLOW_STEP: Final = 4
#: Weight of the newest chunk in the running mean.
WEIGHT: Final = 0.3
#: Nanoseconds of work that lie ready for each process, so that it does not run dry while this side reads and sends.
AHEAD_NS: Final = 150_000_000
#: Chunks that lie ready for each process, at least and at the most.
AHEAD_MIN, AHEAD_MAX = 3, 16
#: Items on their way at the most.
ITEMS_AHEAD: Final = 80_000


class Pace:
    """What was measured of one map."""

    def __init__(self) -> None:
        #: Nanoseconds per item, running mean; None: no chunk is back yet.
        self.ns: float | None = None
        self._bytes = 0.0
        self._known_to = 0

    def observe(self, items: int, elapsed_ns: int, result_bytes: int) -> None:
        """Take note of a chunk that is back."""
        sample = elapsed_ns / items
        if self.ns is None:
            self.ns = sample
        else:
            self.ns += WEIGHT * (min(sample, SLOW_STEP * self.ns) - self.ns)
        self._known_to = max(items, self._known_to)
        self.observe_bytes(items, result_bytes)

    def observe_bytes(self, items: int, size: int) -> None:
        """Take note of the bytes that so many items or results took."""
        sample = size / items
        self._bytes = max(sample, self._bytes + WEIGHT * (sample - self._bytes))

    def chunk(self) -> int:
        """Return how many items the next chunk should hold."""
        if self.ns is None:
            return 1
        items = min(TARGET_NS / max(self.ns, 1.0), STEP * self._known_to, CHUNK_MAX)
        if self._bytes:
            items = min(items, CHUNK_BYTES / self._bytes)
        return max(1, int(items))

    def ahead(self, items: int, processes: int) -> int:
        """Return how many chunks of so many items may be on their way to so many processes."""
        work = max((self.ns or TARGET_NS) * items, 1.0)
        each = min(max(AHEAD_NS / work, AHEAD_MIN), AHEAD_MAX)
        return max(2, min(int(each * processes), ITEMS_AHEAD // items))
