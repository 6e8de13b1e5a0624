"""News of ended jobs from a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.failure import Failure
from taskq.states import TERMINAL, State
from taskq.store import Ended, Subscription

if TYPE_CHECKING:
    from collections.abc import Collection

    from taskq.store import JobRecord
    from taskq.testing.jobs import Jobs

__all__ = ["MemorySubscription"]


class MemorySubscription(Subscription):
    """Hear of jobs that end; made by `MemoryStore.subscribe`."""

    def __init__(self, jobs: Jobs, reply_to: str) -> None:
        self.reply_to = reply_to
        self._jobs = jobs
        self._changed = jobs.changed
        self._expected: set[str] = set()
        self._news: dict[str, Ended] = {}
        self._early: dict[str, Ended] = {}
        self._woken = self._closed = False

    def hear(self, record: JobRecord, *, ours: bool) -> None:
        """Take note of an end; `ours`: of a job that was put with this address, and may be expected later."""
        if record.id in self._expected:
            self._news[record.id] = _ended(record)
        elif ours:
            self._early[record.id] = _ended(record)

    def expect(self, ids: Collection[str]) -> None:
        with self._changed:
            for job_id in ids:
                self._expected.add(job_id)
                if job_id in self._early:
                    self._news[job_id] = self._early.pop(job_id)
            self._changed.notify_all()

    def forget(self, ids: Collection[str]) -> None:
        with self._changed:
            for job_id in ids:
                self._expected.discard(job_id)
                self._news.pop(job_id, None)

    def wait(self, timeout: float | None) -> list[Ended]:
        with self._changed:
            self._changed.wait_for(lambda: self._woken or self._closed or bool(self._look()), timeout)
            self._woken = False
            news = list(self._look().values())
            self.forget([ended.id for ended in news])
            return news

    def _look(self) -> dict[str, Ended]:
        for job_id in self._expected - self._news.keys():
            row = self._jobs.rows.get(job_id)
            if row is None:
                self._news[job_id] = Ended(id=job_id, state=State.FAILED, failure=Failure.lost())
            elif row.state in TERMINAL:
                self._news[job_id] = _ended(row.record)
        return self._news

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._jobs.subscriptions.pop(self.reply_to, None)
            self._changed.notify_all()


def _ended(record: JobRecord) -> Ended:
    return Ended(
        id=record.id,
        state=record.state,
        result=record.result,
        failure=record.failure,
        attempts=record.attempts,
        crashes=record.crashes,
    )
