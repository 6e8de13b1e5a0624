"""The registry of local jobs: which are known by their ids, and which `key` or `job_id` is taken.

by id      as long as somebody holds the job; one with a `job_id` of its own, until its time is over
by key     until the job has ended
"""

from __future__ import annotations

import heapq
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from taskq.errors import JobExists
from taskq.locks import CallLock

if TYPE_CHECKING:
    from taskq.executors.pool.jobs import LocalJob
    from taskq.options import JobOptions

__all__ = ["JobRegistry", "is_over"]

_DAY: Final = 86_400.0


class JobRegistry:
    """Know jobs by their names. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = CallLock()
        self._known: weakref.WeakValueDictionary[str, LocalJob] = weakref.WeakValueDictionary()
        self._named: dict[str, LocalJob] = {}
        self._keys: dict[str, LocalJob] = {}
        #: When which named jobs are to be forgotten.
        self._leaving: list[tuple[float, str]] = []

    def remember(self, job: LocalJob) -> None:
        """Keep a job findable, as long as a handle to it exists."""
        self._known[job.id] = job

    def find(self, job_id: str) -> LocalJob | None:
        """Return the job of an id, unless it is no longer kept."""
        job = self._known.get(job_id)
        return None if job is None or is_over(job) else job

    def admit(self, job: LocalJob, options: JobOptions) -> LocalJob:
        """Give a job the names that its options say; return it, or the job that has them already.

        Raises:
            JobExists: there is one, and the options say to reject the new one then.
        """
        with self._lock:
            self._forget_old()
            taken = self._holder(options)
            if taken is not None:
                return _answer(taken, options)
            if options.job_id is not None:
                job.take_id(options.job_id)
                self._named[options.job_id] = job
                self.remember(job)
            if options.key is not None:
                self._keys[options.key] = job
        job.add_done_callback(lambda ended: self._ended(cast("LocalJob", ended), options))
        return job

    def succeed(self, old: LocalJob, job: LocalJob, options: JobOptions) -> bool:
        """Give a job the names of one that ended and is run again; return whether nothing has them by now."""
        with self._lock:
            holder = None if options.key is None else self._keys.get(options.key)
            if (holder is not None and not holder.done()) or self._known.get(old.id) is not old:
                return False
            job.take_id(old.id)
            self.remember(job)
            if options.job_id is not None:
                self._named[options.job_id] = job
            if options.key is not None:
                self._keys[options.key] = job
        if options.key is not None or options.job_id is not None or options.result_ttl is not None:
            job.add_done_callback(lambda ended: self._ended(cast("LocalJob", ended), options))
        return True

    def forget(self, job: LocalJob) -> None:
        """Have a job be found no more."""
        job.over_at = monotonic()
        with self._lock:
            if self._named.get(job.id) is job:
                del self._named[job.id]

    def dismiss(self, job: LocalJob, options: JobOptions) -> None:
        """Take back the names of a job that was not begun."""
        with self._lock:
            if options.key is not None and self._keys.get(options.key) is job:
                del self._keys[options.key]
            if options.job_id is not None and self._named.get(options.job_id) is job:
                del self._named[options.job_id]

    def _holder(self, options: JobOptions) -> LocalJob | None:
        if options.job_id is not None and (job := self._named.get(options.job_id)) is not None:
            return job
        job = None if options.key is None else self._keys.get(options.key)
        return None if job is None or job.done() else job

    def _ended(self, job: LocalJob, options: JobOptions) -> None:
        job.over_at = monotonic() + _time_kept(job, options)
        with self._lock:
            if options.key is not None and self._keys.get(options.key) is job:
                del self._keys[options.key]
            if options.job_id is not None:
                heapq.heappush(self._leaving, (job.over_at, options.job_id))

    def _forget_old(self) -> None:
        now = monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            self._named.pop(heapq.heappop(self._leaving)[1], None)


def is_over(job: LocalJob) -> bool:
    """Tell whether a job is no longer to be found."""
    return job.over_at is not None and monotonic() >= job.over_at


def _time_kept(job: LocalJob, options: JobOptions) -> float:
    if options.result_ttl is not None:
        return options.result_ttl
    return 7 * _DAY if job.has_failed else _DAY


def _answer(taken: LocalJob, options: JobOptions) -> LocalJob:
    if options.if_exists == "return":
        return taken
    named = f"the id {taken.id}" if options.job_id == taken.id else f"the key {options.key!r}: it is job {taken.id}"
    message = f"there is a job with {named}; give another one, or if_exists='return' for a handle to that job"
    raise JobExists(message, job_id=taken.id)
