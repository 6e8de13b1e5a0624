"""The order of work: what waits for a child or for a time, and what becomes of it when its outcome is there.

    backlog    waits for a child          timers     waits for a time
    blocked    waits for other jobs       expiries   fails if it has not started at a time

The rules of retry and crash are taskq's; here they are applied. For the dispatcher's thread alone.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from taskq.errors import PoolBroken
from taskq.executors.pool import payloads
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.functions import BATCH_BYTES
from taskq.executors.pool.jobs import DEFAULTS, LocalJob, PoolJob
from taskq.failure import Failure
from taskq.job import ENDED
from taskq.retry import ASKS, after_crash, after_error
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from taskq.executors.pool.batches import Batch, WorkItem
    from taskq.options import JobOptions

#: How a job that cancels itself fails (see `JobContext.cancelled`).
_CANCELLED = "taskq.errors.JobCancelled"
#: What stands in the descriptions of failures that may be no end, whatever the policy.
_MARKS = _CANCELLED.encode(), ASKS.encode()


class Scheduler:
    """Keep all work that is not in the hands of a child."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.timers = Timers()
        #: Jobs that fail when they have not started at a time.
        self.expiries = Timers()
        self.outcomes = Outcomes(self.backlog, self.timers)
        #: How many jobs wait for other jobs; these put them into the backlog when they end.
        self.blocked = 0
        self._broken: str | None = None

    def add(self, item: WorkItem) -> None:
        """Queue work."""
        if self._broken is None:
            self.backlog.add(item)
        else:
            self.fail(item, self._broken)

    def add_due(self, now: float) -> None:
        """Queue the work whose time has come."""
        for item in self.timers.take(now):
            if not isinstance(item, MapChunk):
                item.waiting = None
            self.add(item)

    def next_due(self) -> float | None:
        """Return when the next work is due, or the next job expires."""
        due, expiry = self.timers.due, self.expiries.due
        return due if expiry is None else expiry if due is None else min(due, expiry)

    @property
    def is_empty(self) -> bool:
        """Whether no work waits."""
        return not (len(self.backlog) or self.blocked or self.timers.has_open_work())

    def jobs(self) -> set[PoolJob]:
        """Return the jobs that wait for a child or for a time."""
        return {item for item in (*self.backlog, *self.timers) if isinstance(item, PoolJob)}

    def drop_waiting(self) -> None:
        """Cancel all that has not been handed to a child."""
        for item in self._take_waiting():
            if isinstance(item, MapChunk):
                item.sink.cancel()
            elif not item.done():
                item.withdraw()

    def drop_jobs(self, which: Callable[[PoolJob], bool]) -> None:
        """Cancel those jobs in the backlog for which `which` is true."""
        for item in list(self.backlog):
            if isinstance(item, PoolJob) and which(item) and not item.done():
                item.withdraw()

    def break_down(self, message: str, in_flight: list[WorkItem]) -> None:
        """Fail everything there is and everything that comes: nothing can be run any more."""
        self._broken = message
        for item in [*self._take_waiting(), *in_flight]:
            self.fail(item, message)

    def _take_waiting(self) -> list[WorkItem]:
        return [*self.backlog.clear(), *self.timers.clear()]

    def fail(self, item: WorkItem, message: str) -> None:
        """Fail work because nothing can run it any more."""
        batch = item if isinstance(item, MapChunk) else CallBatch(item.function, [item])
        self.outcomes.broken(batch, message)


class Backlog:
    """Items in the order in which they start: by queue, in it by priority, then first come, first served.

    It is true when there is something that may start: items of paused queues count only for `len`.
    """

    def __init__(self) -> None:
        #: Rank of each queue that was named or had an item: the lowest comes first.
        self._ranks: dict[str, int] = {}
        self._ranked = True
        #: By the rank of their queue and their priority, negated: so they sort in the order in which they start.
        self._buckets: dict[tuple[int, int], deque[WorkItem]] = {}
        self._order: list[tuple[int, int]] = []
        #: The bucket of items without options, which most are.
        self._plain: deque[WorkItem] | None = None
        self.paused: set[str] = set()

    def prefer(self, queues: Iterable[str] | None) -> None:
        """Take these queues first, in this order; others in the order in which they turn up. Before any item.

        None: all are one line, and none can be paused.
        """
        self._ranked = queues is not None
        self._ranks = {name: rank for rank, name in enumerate(dict.fromkeys(queues or ()))}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def __bool__(self) -> bool:
        return any(map(self._buckets.__getitem__, self._open())) if self.paused else any(self._buckets.values())

    def __iter__(self) -> Iterator[WorkItem]:
        for key in self._order:
            yield from self._buckets[key]

    def _open(self) -> list[tuple[int, int]]:
        """Return the keys of the buckets of which work may be taken."""
        if not self.paused:
            return self._order
        shut = {self._ranks.get(name) for name in self.paused}
        return [key for key in self._order if key[0] not in shut]

    def add(self, item: WorkItem) -> None:
        """Put an item at the end of its bucket."""
        self._bucket(item).append(item)

    def put_back(self, items: Iterable[WorkItem]) -> None:
        """Put items that were taken before at the front of their buckets, in their order."""
        for item in reversed(list(items)):
            self._bucket(item).appendleft(item)

    def _bucket(self, item: WorkItem) -> deque[WorkItem]:
        options = item.options
        if options is None or options is DEFAULTS:
            if self._plain is None:
                self._plain = self._bucket_of(DEFAULTS)
            return self._plain
        return self._bucket_of(options)

    def _bucket_of(self, options: JobOptions) -> deque[WorkItem]:
        rank = self._ranks.setdefault(options.queue, len(self._ranks)) if self._ranked else 0
        key = rank, -options.priority
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = deque()
            self._order = sorted(self._buckets)
        return bucket

    def take(self, batches: int) -> Batch | None:
        """Return the next work for a child, or None, when so many batches can be out. Skips work that was given up."""
        for key in self._open():
            bucket = self._buckets[key]
            while bucket:
                item = bucket.popleft()
                if isinstance(item, MapChunk):
                    if not item.abandoned:
                        return item
                elif item.future_state not in ENDED:
                    return self._calls(item, bucket, batches)
        return None

    @staticmethod
    def _calls(first: PoolJob, bucket: deque[WorkItem], batches: int) -> CallBatch:
        """Join jobs that follow the first one and are like it, as many as its function's pace says."""
        jobs, function = [first], first.function
        if not joinable(first):
            return CallBatch(function, jobs)
        size = len(first.payload)
        for _ in range(min(function.sizer.share(len(bucket) + 1, batches) - 1, len(bucket))):
            following = bucket[0]
            if not isinstance(following, PoolJob) or following.function is not function or not joinable(following):
                break
            size += len(following.payload)
            if following.options is not first.options or size > BATCH_BYTES:  # a batch has one policy for all its jobs
                break
            bucket.popleft()
            if following.future_state not in ENDED:
                jobs.append(following)
        return CallBatch(function, jobs)

    def clear(self) -> list[WorkItem]:
        """Take everything out."""
        items = list(self)
        for bucket in self._buckets.values():
            bucket.clear()
        return items


def joinable(job: PoolJob) -> bool:
    """Tell whether a job may share a batch: it has no time limits, and has killed no process."""
    options = job.options
    return not (job.isolated or job.bare_encoding is not None) and (
        options is None or options is DEFAULTS or (options.timeout is None and options.soft_timeout is None)
    )


class Timers:
    """Items that wait for a time on the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WorkItem]] = []
        self._tie = count()
        #: When the next item is due.
        self.due: float | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[WorkItem]:
        return (item for _, _, item in self._heap)

    def add(self, due: float, item: WorkItem) -> None:
        """Keep an item until `due` (seconds)."""
        heapq.heappush(self._heap, (due, next(self._tie), item))
        self.due = self._heap[0][0]

    def has_open_work(self) -> bool:
        """Return whether an item is still wanted: jobs that were cancelled or expired stay until their time."""
        return any(isinstance(item, MapChunk) or not item.done() for _, _, item in self._heap)

    def take(self, now: float) -> list[WorkItem]:
        """Return and forget the items that are due."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[2])
        self.due = self._heap[0][0] if self._heap else None
        return found

    def clear(self) -> list[WorkItem]:
        """Take everything out."""
        items = [item for _, _, item in sorted(self._heap)]
        self._heap.clear()
        self.due = None
        return items


class Outcomes:
    """Settle the jobs of batches; in the dispatcher's thread only."""

    def __init__(self, backlog: Backlog, timers: Timers) -> None:
        self._backlog = backlog
        self._timers = timers

    def record(self, batch: Batch, at: int, jobs: int, encoding: int, data: bytes) -> None:
        """Take what a child recorded for `jobs` jobs of a batch, from the one at `at`."""
        if encoding != payloads.FAILURE:
            batch.function.sizer.observe_bytes(jobs, len(data))
            batch.record(at, jobs, encoding, data)
        elif batch.options.retry is not None or any(data.find(mark) >= 0 for mark in _MARKS):
            self._failed(batch, at, data)
        else:
            batch.record(at, jobs, encoding, data)

    def _failed(self, batch: Batch, at: int, data: bytes) -> None:
        failure, _ = payloads.unpack_failure(data)
        if failure.type == _CANCELLED and batch.is_asked_to_stop(at):
            batch.drop(at)
        elif not self._try_again(batch, at, failure):
            batch.record(at, 1, payloads.FAILURE, data)

    def _try_again(self, batch: Batch, at: int, failure: Failure) -> bool:
        if failure.again is not None and not batch.is_rerun_here(at):
            return False
        again = after_error(batch.options.retry, batch.retries(at), failure, random.random)
        if again is None or batch.abandoned:
            return False
        item = batch.again(at, counted=again.counted)
        if isinstance(item, LocalJob) and again.delay > 0:
            item.waiting = State.SCHEDULED
        self._timers.add(monotonic() + again.delay, item)
        return True

    def timed_out(self, batch: Batch, at: int) -> None:
        """Note that the job was killed at its timeout."""
        failure = Failure.timed_out(batch.options.timeout or 0.0)
        if not self._try_again(batch, at, failure):
            batch.record(at, 1, payloads.FAILURE, payloads.pack_failure(failure))

    @staticmethod
    def is_last_crash(batch: Batch, at: int) -> bool:
        """Tell whether one more death of its process fails the job."""
        return not after_crash(batch.history(at)[1] + 1, batch.options.max_crashes)

    def suspect(self, batch: Batch, start: int, stop: int) -> None:
        """Run jobs again, one by one, of which one killed its process; each counts a crash, but none fails by it."""
        items: list[WorkItem] = []
        for at in range(start, stop):
            last = self.is_last_crash(batch, at)
            items += batch.singles(at, at + 1) if last else [batch.again(at, crashed=True)]
        self._backlog.put_back(items)

    def crashed(self, batch: Batch, at: int, exitcode: int | None) -> None:
        """Note that the job's process died while it ran."""
        if not self.is_last_crash(batch, at):
            self._backlog.put_back([batch.again(at, crashed=True)])
        else:
            crashes = batch.count_crash(at)
            batch.record(at, 1, payloads.FAILURE, payloads.pack_failure(Failure.crashed(exitcode, crashes)))

    @staticmethod
    def broken(batch: Batch, message: str) -> None:
        """Fail every job of a batch because the pool cannot run anything."""
        error = PoolBroken(message)
        data = payloads.pack_failure(Failure.from_exception(error), error)
        for at in range(len(batch)):
            batch.record(at, 1, payloads.FAILURE, data)
