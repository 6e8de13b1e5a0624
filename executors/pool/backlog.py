"""The work that waits for a child, by queue and priority; and the work that waits for a time."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from taskq.executors.pool.batch_sizer import FRAME_BYTES
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.jobs import DEFAULTS, LocalJob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskq.executors.pool.batches import Batch, WorkItem
    from taskq.options import JobOptions


class Backlog:
    """Entries in the order in which they start: by queue, in it by priority, then first come, first served.

    It is true when there is something that may start: entries of paused queues count only for `len`.
    """

    def __init__(self) -> None:
        #: Rank of each queue that was named or had an entry: the lowest comes first.
        self._ranks: dict[str, int] = {}
        #: By the rank of their queue and their priority, negated: so they sort in the order in which they start.
        self._lines: dict[tuple[int, int], deque[WorkItem]] = {}
        self._order: list[tuple[int, int]] = []
        #: The line of entries without options, which most are.
        self._plain: deque[WorkItem] | None = None
        self.paused: set[str] = set()

    def prefer(self, queues: Iterable[str]) -> None:
        """Take these queues first, in this order; others in the order in which they turn up. Before any entry."""
        self._ranks = {name: rank for rank, name in enumerate(dict.fromkeys(queues))}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return any(map(self._lines.__getitem__, self._open())) if self.paused else any(self._lines.values())

    def __iter__(self) -> Iterator[WorkItem]:
        for key in self._order:
            yield from self._lines[key]

    def _open(self) -> list[tuple[int, int]]:
        """Return the keys of the lines of which work may be taken."""
        if not self.paused:
            return self._order
        shut = {self._ranks.get(name) for name in self.paused}
        return [key for key in self._order if key[0] not in shut]

    def add(self, entry: WorkItem) -> None:
        """Put an entry at the end of its line."""
        self._line(entry).append(entry)

    def put_back(self, entries: Iterable[WorkItem]) -> None:
        """Put entries that were taken before at the front of their lines, in their order."""
        for entry in reversed(list(entries)):
            self._line(entry).appendleft(entry)

    def _line(self, entry: WorkItem) -> deque[WorkItem]:
        options = entry.options
        if options is None or options is DEFAULTS:
            if self._plain is None:
                self._plain = self._line_of(DEFAULTS)
            return self._plain
        return self._line_of(options)

    def _line_of(self, options: JobOptions) -> deque[WorkItem]:
        rank = self._ranks.setdefault(options.queue, len(self._ranks))
        key = rank, -options.priority
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = deque()
            self._order = sorted(self._lines)
        return line

    def take(self, frames: int) -> Batch | None:
        """Return the next work for a child, or None, when so many frames can be out. Skips what nobody waits for."""
        for key in self._open():
            line = self._lines[key]
            while line:
                entry = line.popleft()
                if isinstance(entry, MapChunk):
                    if not entry.abandoned:
                        return entry
                elif not entry.done():
                    return self._calls(entry, line, frames)
        return None

    @staticmethod
    def _calls(first: LocalJob, line: deque[WorkItem], frames: int) -> CallBatch:
        """Join jobs that follow the first one and are like it, as many as its function's pace says."""
        jobs, function = [first], first.function
        if not joinable(first):
            return CallBatch(function, jobs)
        size = len(first.payload)
        for _ in range(min(function.sizer.share(len(line) + 1, frames) - 1, len(line))):
            following = line[0]
            if not isinstance(following, LocalJob) or following.function is not function or not joinable(following):
                break
            size += len(following.payload)
            if following.options is not first.options or size > FRAME_BYTES:  # a frame has one policy for all its jobs
                break
            line.popleft()
            if not following.done():
                jobs.append(following)
        return CallBatch(function, jobs)

    def clear(self) -> list[WorkItem]:
        """Take everything out."""
        entries = list(self)
        for line in self._lines.values():
            line.clear()
        return entries


def joinable(job: LocalJob) -> bool:
    """Tell whether a job may share a frame: it has no time limits, and has killed no process."""
    options = job.options
    return not (job.isolated or job.bare_encoding is not None) and (
        options is None or options is DEFAULTS or (options.timeout is None and options.soft_timeout is None)
    )


class Timers:
    """Entries that wait for a time on the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WorkItem]] = []
        self._tie = count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, entry: WorkItem) -> None:
        """Keep an entry until `due` (seconds)."""
        heapq.heappush(self._heap, (due, next(self._tie), entry))

    def has_open_work(self) -> bool:
        """Return whether an entry is still wanted: jobs that were cancelled or expired stay until their time."""
        return any(isinstance(entry, MapChunk) or not entry.done() for _, _, entry in self._heap)

    def next_due(self) -> float | None:
        """Return when the next entry is due."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Iterator[WorkItem]:
        """Yield and forget the entries that are due."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    def clear(self) -> list[WorkItem]:
        """Take everything out."""
        entries = [entry for _, _, entry in sorted(self._heap)]
        self._heap.clear()
        return entries
