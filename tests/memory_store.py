"""A store in memory, as plain as can be, for tests of what stands in front of a store; and a worker thread for it.

It keeps what it is told in dicts under one lock. It is no model of speed: everybody is woken at every change.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from taskq import envelope, perform
from taskq.codec import encode
from taskq.context import provide
from taskq.errors import BackendUnavailable, DecodeError, JobCancelled, JobExists, UnknownTask
from taskq.failure import Failure
from taskq.retry import after_error
from taskq.states import TERMINAL, Reason, State
from taskq.store import Finding, JobRecord, NewJob, News, QueueRecord, Store, Subscription, WorkerRecord, WorkerSession
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskq.options import JobOptions


class MemoryStore(Store):
    """Keep jobs in this process. `fail_next` makes the next calls raise; `puts` counts."""

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self.changed = threading.Condition(threading.RLock())
        self.records: dict[str, JobRecord] = {}
        self.options: dict[str, JobOptions] = {}
        self.logs: dict[str, bytes] = {}
        self.paused: set[str] = set()
        self.control_requests: set[str] = set()
        self.puts: list[int] = []
        self.calls: list[str] = []
        self.fail_next = 0
        self.lose_reply = False
        self.subscriptions: list[MemorySubscription] = []
        #: The jobs of each `reply_to` whose end was not told there.
        self.sent_to: dict[str, dict[str, None]] = {}
        self.workers_now: list[WorkerRecord] = []
        self.closed = False

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_next:
            self.fail_next -= 1
            raise BackendUnavailable(f"{self.url} cannot be reached: this is a test")

    # -- jobs

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        self._enter("put")
        with self.changed:
            before = dict(self.records), dict(self.options)
            try:
                ids = [self._put(new, reply_to) for new in jobs]
            except JobExists:
                self.records, self.options = before
                raise
            self.puts.append(len(jobs))
            self.changed.notify_all()
        if self.lose_reply:
            self.lose_reply = False
            raise BackendUnavailable("the reply was lost: this is a test")
        return ids

    def _put(self, new: NewJob, reply_to: str) -> str:
        options = new.options
        taken = new.id if new.id in self.records else self._holder_of(options.key)
        if taken is not None:
            if options.if_exists == "reject":
                raise JobExists(f"job {taken} is there already", job_id=taken)
            return taken
        now = time.time()
        delay = options.delay or (options.at.timestamp() - now if options.at else 0.0)
        record = JobRecord(
            id=new.id,
            task=new.task,
            state=State.SCHEDULED if delay > 0 else State.QUEUED,
            queue=options.queue,
            priority=options.priority,
            label=new.label,
            key=options.key,
            submitted_at=now,
            due_at=now + delay if delay > 0 else None,
            expires_at=None if options.expires is None else now + options.expires,
            depends_on=new.depends_on,
            envelope=new.envelope,
        )
        self.options[new.id] = options
        self.records[new.id] = record
        self.sent_to.setdefault(reply_to, {})[new.id] = None
        if new.depends_on:
            self.records[new.id] = replace(record, state=State.BLOCKED)
            self._unblock()
        return new.id

    def _holder_of(self, key: str | None) -> str | None:
        holders = (found.id for found in self.records.values() if found.key == key and found.state not in TERMINAL)
        return None if key is None else next(holders, None)

    def _unblock(self) -> None:
        for record in list(self.records.values()):
            if record.state is not State.BLOCKED:
                continue
            needed = {job_id: self.records.get(job_id) for job_id in record.depends_on}
            bad = [
                job_id for job_id, found in needed.items() if found is None or found.state in TERMINAL - {"succeeded"}
            ]
            if bad:
                found = needed[bad[0]]
                cause = None if found is None else found.failure
                failure = Failure.dependency(bad[0], cause, cancelled=found is not None and found.state == "cancelled")
                self.end(record.id, State.FAILED, failure=failure)
            elif all(found is not None and found.state is State.SUCCEEDED for found in needed.values()):
                self.records[record.id] = replace(record, state=State.QUEUED)

    def end(self, job_id: str, state: State, **facts: Any) -> None:
        """Record how a job ended."""
        with self.changed:
            self.records[job_id] = replace(self.records[job_id], state=state, ended_at=time.time(), **facts)
            self._unblock()
            self.changed.notify_all()

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        self._enter("get")
        with self.changed:
            found = [self.records.get(job_id) for job_id in ids]
        if payload:
            return found
        return [None if record is None else replace(record, envelope=b"", result=None) for record in found]

    def cancel(self, ids: Sequence[str], *, kill: bool = False) -> list[State | None]:
        self._enter("cancel")
        with self.changed:
            for job_id in ids:
                record = self.records.get(job_id)
                if record is not None and record.state is State.RUNNING:
                    self.control_requests.add(job_id)
                elif record is not None and record.state not in TERMINAL:
                    self.end(job_id, State.CANCELLED)
            return [None if job_id not in self.records else self.records[job_id].state for job_id in ids]

    def retry(self, ids: Sequence[str]) -> list[bool]:
        raise NotImplementedError

    def remove(self, ids: Sequence[str]) -> list[bool]:
        self._enter("remove")
        with self.changed:
            return [self.records.pop(job_id, None) is not None for job_id in ids]

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return self.logs.get(job_id, b"")[offset:]

    # -- queues and workers

    def queues(self) -> list[QueueRecord]:
        return [QueueRecord(name=name, counts={}, paused=True) for name in sorted(self.paused)]

    def workers(self) -> list[WorkerRecord]:
        return self.workers_now

    def pause(self, queue: str) -> None:
        self.paused.add(queue)

    def resume(self, queue: str) -> None:
        with self.changed:
            self.paused.discard(queue)
            self.changed.notify_all()

    def doctor(self) -> list[Finding]:
        return []

    def subscribe(self) -> Subscription:
        self._enter("subscribe")
        subscription = MemorySubscription(self)
        self.subscriptions.append(subscription)
        return subscription

    def join(self, record: WorkerRecord) -> WorkerSession:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True

    # -- for the worker thread

    def claim(self) -> JobRecord | None:
        """Take the next job; called with the lock held."""
        now = time.time()
        for record in list(self.records.values()):
            if record.state not in TERMINAL and record.expires_at is not None and record.expires_at <= now:
                if record.state is not State.RUNNING:
                    self.end(record.id, State.FAILED, failure=Failure.expired())
            elif record.state is State.SCHEDULED and record.due_at is not None and record.due_at <= now:
                self.records[record.id] = replace(record, state=State.QUEUED)
        waiting = [
            found for found in self.records.values() if found.state is State.QUEUED and found.queue not in self.paused
        ]
        if not waiting:
            return None
        first = max(waiting, key=lambda found: found.priority)
        running = replace(first, state=State.RUNNING, attempts=first.attempts + 1, started_at=now)
        self.records[first.id] = running
        return running

    def list(self, **_filters: Any) -> list[JobRecord]:
        with self.changed:
            return list(self.records.values())


class MemorySubscription(Subscription):
    """Look at the records whenever something has changed."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.reply_to = f"subscription-{len(store.subscriptions)}"
        self._asked: deque[str] = deque()
        self._awaited: set[str] = set()
        self._woken = False
        self.closed = False

    def ask(self, ids: Collection[str]) -> None:
        self._store._enter("ask")
        self._asked.extend(ids)

    def wait(self, timeout: float | None) -> News:
        with self._store.changed:
            self._store.changed.wait_for(lambda: self._woken or self._asked or self._ready(), timeout)
            self._woken = False
            news = News(ended=[ended_of(job_id, self._store.records[job_id]) for job_id in self._ready()])
            while self._asked:
                self._answer(self._asked.popleft(), news)
            self._awaited.difference_update(ended.id for ended in news.ended)
            own = self._store.sent_to.get(self.reply_to, {})
            for ended in news.ended:
                own.pop(ended.id, None)
        return news

    def _answer(self, job_id: str, news: News) -> None:
        record = self._store.records.get(job_id)
        self._awaited.add(job_id)
        if record is None:
            news.missing.append(job_id)
        elif record.state not in TERMINAL:
            news.waiting.append(job_id)
        elif all(ended.id != job_id for ended in news.ended):
            news.ended.append(ended_of(job_id, record))

    def _ready(self) -> list[str]:
        records = self._store.records
        known = [*self._awaited, *self._store.sent_to.get(self.reply_to, {})]
        return [job_id for job_id in dict.fromkeys(known) if job_id in records and records[job_id].state in TERMINAL]

    def wake(self) -> None:
        with self._store.changed:
            self._woken = True
            self._store.changed.notify_all()

    def close(self) -> None:
        self.closed = True


class MemoryWorker:
    """Run a store's jobs in a thread of this process; killing is beyond it. Use it with `with`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping = True
        with self._store.changed:
            self._store.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        store = self._store
        while not self._stopping:
            with store.changed:
                record = store.claim()
                if record is None:
                    store.changed.wait(0.01)
                    continue
            self._perform(record)

    def _perform(self, record: JobRecord) -> None:
        store = self._store
        try:
            result = self._result_of(record)
        except JobCancelled:
            store.end(record.id, State.CANCELLED)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
            self._failed(record, error)
        else:
            store.end(record.id, State.SUCCEEDED, result=result)
        finally:
            provide(None)

    def _result_of(self, record: JobRecord) -> bytes:
        head = envelope.head(record.envelope)
        if head.kind == envelope.CHUNK:
            return encode(perform.perform_chunk(record.envelope, record.id, record.attempts))
        needed = {job_id: self._store.records[job_id].result or b"" for job_id in record.depends_on}
        results = envelope.pack_results(needed)
        return perform.perform_call(record.envelope, record.id, record.attempts, results)

    def _failed(self, record: JobRecord, error: BaseException) -> None:
        reasons = {UnknownTask: Reason.UNKNOWN_TASK, DecodeError: Reason.UNDECODABLE}
        failure = Failure.from_exception(error, reasons.get(type(error), Reason.ERROR))  # type: ignore[arg-type]
        policy = self._store.options[record.id].retry
        delay = after_error(policy, record.retries, failure, lambda: 0.0)
        if delay is None:
            self._store.end(record.id, State.FAILED, failure=failure)
        else:
            with self._store.changed:
                self._store.records[record.id] = replace(record, state=State.QUEUED, retries=record.retries + 1)
                self._store.changed.notify_all()
