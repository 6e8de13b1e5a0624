"""The parent's books: all work that has no outcome yet, and where it is.

    backlog    waits for a child          timers    waits for a time
    children      in the hands of a child    blocked   waits for other jobs (only counted: their callbacks bring them)

Written by the dispatcher's thread alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.executors.pool.backlog import Backlog, Timers
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.outcomes import Outcomes
from taskq.states import State

if TYPE_CHECKING:
    from taskq.executors.pool.batches import WorkItem
    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.pool.jobs import LocalJob


class Books:
    """Know every job that has no outcome yet."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.timers = Timers()
        #: Jobs that fail when they have not started at a time.
        self.expiries = Timers()
        self.outcomes = Outcomes(self.backlog, self.timers)
        self.children: dict[int, ChildHandle] = {}  # by the socket's descriptor
        self.blocked = 0
        self._broken: str | None = None

    def add(self, entry: WorkItem) -> None:
        """Queue work."""
        if self._broken is None:
            self.backlog.add(entry)
        else:
            self._fail(entry, self._broken)

    def add_due(self, now: float) -> None:
        """Queue the work whose time has come."""
        for entry in self.timers.take(now):
            if not isinstance(entry, MapChunk):
                entry.waiting = None
            self.add(entry)

    def next_due(self) -> float | None:
        """Return when the next work is due, or the next job expires."""
        due = self.timers.next_due()
        if not self.expiries:
            return due
        expiry = self.expiries.next_due()
        return expiry if due is None or expiry is None else min(due, expiry)

    def block(self, jobs: int) -> None:
        """Count jobs that wait for other jobs."""
        self.blocked += jobs

    @property
    def busy(self) -> bool:
        """Whether a child has work."""
        return any(child.frames for child in self.children.values())

    @property
    def awaits_start(self) -> bool:
        """Whether work waits for a child that has begun and is not ready."""
        return bool(self.backlog) and any(not child.ready for child in self.children.values())

    @property
    def empty(self) -> bool:
        """Whether every job has its outcome."""
        return not (len(self.backlog) or self.blocked or self.busy or self.timers.has_open_work())

    def find_child(self, job: LocalJob) -> tuple[ChildHandle, int] | None:
        """Return the child that has a job in its hands, and the job's sequence number there."""
        for child in self.children.values():
            if (seq := child.find_job(job)) is not None:
                return child, seq
        return None

    def state_of(self, job: LocalJob) -> State:
        """Return where a job that has not ended stands. One that its child may start any moment counts as running."""
        if job.waiting is not None:
            return job.waiting
        found = self.find_child(job)
        if found is None:
            return State.QUEUED
        child, seq = found
        return State.RUNNING if seq < max(child.claim, child.done + 1) else State.QUEUED

    def progress_of(self, job: LocalJob) -> tuple[int, int | None] | None:
        """Return what a job said last of its progress, and remember it."""
        found = self.find_child(job)
        if found is not None:
            job.last_progress = found[0].progress_at(found[1]) or job.last_progress
        return job.last_progress

    def drop_waiting(self) -> None:
        """Cancel all that has not been handed to a child."""
        for entry in self._take_waiting():
            if isinstance(entry, MapChunk):
                entry.sink.cancel()
            elif not entry.done():
                entry.withdraw()

    def take_unfinished(self, child: ChildHandle) -> list[WorkItem]:
        """Take all that has no outcome out of the hands of a child that will report nothing more."""
        entries: list[WorkItem] = []
        while child.frames:
            frame = child.frames.popleft()
            entries += frame.batch.part(frame.settled, frame.cut)
        return entries

    def break_down(self, message: str) -> None:
        """Fail everything there is and everything that comes: nothing can be run any more."""
        self._broken = message
        entries = self._take_waiting()
        for child in self.children.values():
            entries += self.take_unfinished(child)
        for entry in entries:
            self._fail(entry, message)

    def _take_waiting(self) -> list[WorkItem]:
        return [*self.backlog.clear(), *self.timers.clear()]

    def _fail(self, entry: WorkItem, message: str) -> None:
        batch = entry if isinstance(entry, MapChunk) else CallBatch(entry.function, [entry])
        self.outcomes.broken(batch, message)
