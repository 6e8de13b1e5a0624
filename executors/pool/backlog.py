"""The work that waits for a child, by priority; and the work that waits for a time."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from executors.pool.jobs import DEFAULTS, LocalJob
from executors.pool.work import Calls, Chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from executors.pool.work import Batch, Entry


class Backlog:
    """Entries in the order in which they start: higher priority first, then first come, first served."""

    def __init__(self) -> None:
        self._lines: dict[int, deque[Entry]] = {0: deque()}
        self._order: list[int] = [0]

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def __iter__(self) -> Iterator[Entry]:
        for priority in self._order:
            yield from self._lines[priority]

    def add(self, entry: Entry) -> None:
        """Put an entry at the end of its line."""
        self._line(entry).append(entry)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put entries that were taken before at the front of their lines, in their order."""
        for entry in reversed(list(entries)):
            self._line(entry).appendleft(entry)

    def _line(self, entry: Entry) -> deque[Entry]:
        options = entry.options
        priority = 0 if options is None else options.priority
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = deque()
            self._order = sorted(self._lines, reverse=True)
        return line

    def take(self, children: int) -> Batch | None:
        """Return the next work for one of so many hungry children, or None. Skips what nobody waits for any more."""
        for priority in self._order:
            line = self._lines[priority]
            while line:
                entry = line.popleft()
                if isinstance(entry, Chunk):
                    if not entry.gone:
                        return entry
                elif not entry.done():
                    return self._calls(entry, line, children)
        return None

    @staticmethod
    def _calls(first: LocalJob, line: deque[Entry], children: int) -> Calls:
        """Join jobs that follow the first one and are like it, as many as its function's pace says."""
        jobs, function = [first], first.function
        if not joinable(first):
            return Calls(function, jobs)
        share = -(-(len(line) + 1) // children)
        for _ in range(min(function.pace.frame(), share) - 1):
            following = line[0]
            if not isinstance(following, LocalJob) or following.function is not function or not joinable(following):
                break
            line.popleft()
            if not following.done():
                jobs.append(following)
        return Calls(function, jobs)

    def clear(self) -> list[Entry]:
        """Take everything out."""
        entries = list(self)
        for line in self._lines.values():
            line.clear()
        return entries


def joinable(job: LocalJob) -> bool:
    """Tell whether a job may share a frame: it has no time limits, and has killed no process."""
    options = job.options
    return not (job.alone or job.raw) and (
        options is None or options is DEFAULTS or (options.timeout is None and options.soft_timeout is None)
    )


class Timers:
    """Entries that wait for a time on the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._tie = count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, entry: Entry) -> None:
        """Keep an entry until `due` (seconds)."""
        heapq.heappush(self._heap, (due, next(self._tie), entry))

    def next_due(self) -> float | None:
        """Return when the next entry is due."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Iterator[Entry]:
        """Yield and forget the entries that are due."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    def clear(self) -> list[Entry]:
        """Take everything out."""
        entries = [entry for _, _, entry in sorted(self._heap)]
        self._heap.clear()
        return entries
