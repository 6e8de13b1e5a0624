"""News of ended jobs from a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.states import TERMINAL
from taskq.store import Ended, News, Subscription

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
        self._asked: set[str] = set()
        self._awaited: set[str] = set()
        self._news: dict[str, Ended] = {}
        self._woken = self._closed = False

    def hear(self, record: JobRecord, *, ours: bool) -> None:
        """Take note of an end; `ours`: of a job that was put with this address."""
        if ours or record.id in self._awaited:
            self._awaited.discard(record.id)
            self._news[record.id] = _ended(record)
            self._jobs.changed.notify_all()

    def ask(self, ids: Collection[str]) -> None:
        with self._jobs.changed:
            self._asked.update(ids)
            self._jobs.changed.notify_all()

    def forget(self, ids: Collection[str]) -> None:
        with self._jobs.changed:
            self._awaited.difference_update(ids)
            self._asked.difference_update(ids)

    def wait(self, timeout: float | None) -> News:
        with self._jobs.changed:
            self._jobs.changed.wait_for(lambda: self._woken or self._closed or self._news or self._asked, timeout)
            self._woken = False
            news = News()
            for job_id in self._asked:
                self._answer(job_id, news)
            self._asked.clear()
            news.ended, self._news = list(self._news.values()), {}
            return news

    def _answer(self, job_id: str, news: News) -> None:
        row = self._jobs.rows.get(job_id)
        if row is None:
            news.missing += [] if job_id in self._news else [job_id]
        elif row.state in TERMINAL:
            self._news[job_id] = _ended(row.record)
        else:
            self._awaited.add(job_id)
            news.waiting.append(job_id)

    def wake(self) -> None:
        with self._jobs.changed:
            self._woken = True
            self._jobs.changed.notify_all()

    def close(self) -> None:
        with self._jobs.changed:
            self._closed = True
            self._jobs.subscriptions.pop(self.reply_to, None)
            self._jobs.changed.notify_all()


def _ended(record: JobRecord) -> Ended:
    return Ended(
        id=record.id,
        state=record.state,
        result=record.result,
        failure=record.failure,
        attempts=record.attempts,
        crashes=record.crashes,
    )
