"""The store in memory."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from taskq import connect, envelope, perform
from taskq.codec import encode
from taskq.errors import BackendUnavailable, ConfigError, DecodeError, JobCancelled, JobExists, UnknownTask
from taskq.failure import Failure
from taskq.retry import after_error
from taskq.states import TERMINAL, Reason, State
from taskq.store import Claim, Finding, JobOutcome, JobRecord, QueueRecord, Store, WorkerRecord
from taskq.testing.jobs import Jobs
from taskq.testing.session import MemoryWorkerSession
from taskq.testing.subscription import MemorySubscription

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskq.store import JobQuery, NewJob

__all__ = ["MemoryStore", "open_memory"]

#: Why a job has failed of which this is raised, where it is not the task's own error.
REASONS: dict[type[BaseException], Reason] = {UnknownTask: Reason.UNKNOWN_TASK, DecodeError: Reason.UNDECODABLE}

#: Jobs that `run_jobs` takes at once.
AHEAD = 8

_numbers = itertools.count(1)
_stores: WeakValueDictionary[str, MemoryStore] = WeakValueDictionary()


def open_memory(url: str) -> MemoryStore:
    """Return the store of this process that has this URL; what `memory://` in a URL calls.

    Raises:
        BackendUnavailable: there is none.
    """
    found = _stores.get(url)
    if found is None:
        raise BackendUnavailable(f"{url}: there is no such store in this process: make a taskq.testing.MemoryStore")
    return found


class MemoryStore(Store):
    """Keep jobs in this process. `clock` gives the seconds since 1970, `monotonic` those by which workers die."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = self.source = f"memory://{next(_numbers)}"
        self._jobs = Jobs(clock, monotonic)
        _stores[self.url] = self
        connect.STORES.setdefault("memory", "taskq.testing:open_memory")

    @property
    def lease(self) -> float:
        """Seconds until a worker that does not renew is taken for dead."""
        return self._jobs.lease

    @lease.setter
    def lease(self, seconds: float) -> None:
        self._jobs.lease = seconds

    # -- jobs

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        with self._jobs.changed:
            added: list[str] = []
            try:
                ids = [self._jobs.put(job, reply_to, added) for job in jobs]
            except JobExists:
                for job_id in added:
                    del self._jobs.rows[job_id]
                raise
            self._jobs.changed.notify_all()
            return ids

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        with self._jobs.changed:
            rows = [self._jobs.visible(job_id) for job_id in ids]
            return [None if row is None else _copy(row.record, payload=payload) for row in rows]

    def find(self, query: JobQuery) -> list[JobRecord]:
        with self._jobs.changed:
            found = [
                _copy(row.record, payload=False)
                for row in sorted(self._jobs.rows.values(), key=lambda row: -row.number)
                if (not query.states or row.state in query.states)
                and query.queue in (None, row.record.queue)
                and query.task in (None, row.record.task)
                and not self._jobs.is_over(row)
            ]
            return found[query.offset : query.offset + query.limit]

    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] = MappingProxyType({})
    ) -> list[State | None]:
        with self._jobs.changed:
            for row in filter(None, map(self._jobs.rows.get, ids)):
                if row.state is State.RUNNING:
                    row.wanted, row.seal = bool(row.wanted) or kill, seals.get(row.record.id, b"")
                elif row.state not in TERMINAL:
                    self._jobs.end(row, State.CANCELLED)
            self._jobs.changed.notify_all()
            return [self._jobs.rows[job_id].state if job_id in self._jobs.rows else None for job_id in ids]

    def retry(self, ids: Sequence[str]) -> list[bool]:
        with self._jobs.changed:
            done = [self._jobs.retry(self._jobs.visible(job_id)) for job_id in ids]
            self._jobs.changed.notify_all()
            return done

    def remove(self, ids: Sequence[str]) -> list[bool]:
        with self._jobs.changed:
            rows = [self._jobs.rows.get(job_id) for job_id in ids]
            able = [row is not None and row.state is not State.RUNNING for row in rows]
            gone = [row for row, can in zip(rows, able, strict=True) if row is not None and can]
            for row in gone:
                if row.state not in TERMINAL:
                    self._jobs.end(row, State.CANCELLED)
            for row in gone:
                self._jobs.rows.pop(row.record.id, None)
            self._jobs.changed.notify_all()
            return able

    def log(self, job_id: str, offset: int = 0) -> bytes:
        with self._jobs.changed:
            row = self._jobs.rows.get(job_id)
            if row is None:
                return b""
            more = row.left_out and row.state in TERMINAL
            text = row.log + (f"\n... {row.left_out:,} bytes left out ...\n".encode() if more else b"")
            return text[offset:]

    # -- queues and workers

    def queues(self) -> list[QueueRecord]:
        with self._jobs.changed:
            served = {name for session in self._jobs.sessions.values() for name in session.record.queues}
            names = {row.record.queue for row in self._jobs.rows.values()} | self._jobs.paused | served
            return [self._jobs.queue(name) for name in sorted(names)]

    def workers(self) -> list[WorkerRecord]:
        with self._jobs.changed:
            return [session.record for _, session in sorted(self._jobs.sessions.items()) if session.is_alive()]

    def pause(self, queue: str) -> None:
        with self._jobs.changed:
            self._jobs.paused.add(queue)

    def resume(self, queue: str) -> None:
        with self._jobs.changed:
            self._jobs.paused.discard(queue)
            self._jobs.changed.notify_all()

    def doctor(self) -> list[Finding]:
        return [Finding(topic="memory", level="ok", text=f"{len(self._jobs.rows)} jobs in the memory of this process")]

    # -- for clients and workers

    def subscribe(self) -> MemorySubscription:
        made = MemorySubscription(self._jobs, str(next(_numbers)))
        with self._jobs.changed:
            self._jobs.subscriptions[made.reply_to] = made
        return made

    def join(self, record: WorkerRecord) -> MemoryWorkerSession:
        with self._jobs.changed:
            before = self._jobs.sessions.get(record.name)
            if before is not None and before.is_alive():
                raise ConfigError(f"a worker named {record.name!r} is at work here already: choose another --name")
            self._jobs.bury(record.name)
            made = self._jobs.sessions[record.name] = MemoryWorkerSession(self._jobs, record)
            return made

    def close(self) -> None:
        """Keep everything: whoever has the store goes on with it."""

    def run_jobs(self, *, imports: Sequence[str] = ()) -> int:
        """Run all jobs that wait, in this thread; return how many attempts that took.

        Retries and what dependencies release run too; what is due later waits. It runs @task functions of modules
        that are imported, and what `imports` names as `taskq worker --import` does. Nothing is killed and nothing times
        out here.
        """
        if imports:
            perform.allow(list(imports))
        session = self.join(WorkerRecord(name=f"run-jobs-{next(_numbers)}", host="", pid=0, queues=(), processes=1))
        count = 0
        try:
            while claims := session.poll([], [], AHEAD).claims:
                for claim in claims:
                    count += 1
                    session.poll([self._performed(claim)], [], 0)
        finally:
            session.leave()
        return count

    def _performed(self, claim: Claim) -> JobOutcome:
        """Run a claimed job, unless it was cancelled since; return what becomes of it."""
        if self._jobs.rows[claim.id].wanted is not None:
            return JobOutcome(id=claim.id, token=claim.token, state=State.CANCELLED)
        try:
            result = _result_of(claim)
        except JobCancelled:
            return JobOutcome(id=claim.id, token=claim.token, state=State.CANCELLED)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            failure = Failure.from_exception(error, REASONS.get(type(error), Reason.ERROR))
            again = after_error(self._jobs.rows[claim.id].options.retry, claim.retries, failure, lambda: 0.0)
            found = JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure.changed(again=None))
            if again is not None:
                found.state, found.delay, found.counted = State.SCHEDULED, again.delay, again.counted
            return found
        return JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=result)


def _copy(record: JobRecord, *, payload: bool) -> JobRecord:
    return replace(record) if payload else replace(record, envelope=b"", result=None)


def _result_of(claim: Claim) -> bytes:
    if envelope.head(claim.envelope).kind == envelope.CHUNK:
        return encode(perform.perform_chunk(claim.envelope, claim.id, claim.attempt))
    results = envelope.pack_results(claim.results)
    return perform.perform_call(claim.envelope, claim.id, claim.attempt, results)
