"""A store in memory, at the level of records: what commands show and move can be tested without a worker or a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskq.codec import encode
from taskq.failure import Failure
from taskq.states import TERMINAL, Reason, State
from taskq.store import Finding, JobRecord, News, QueueRecord, Store, Subscription, WorkerRecord
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from taskq.store import JobQuery, NewJob, WorkerSession

#: The moment at which everything is looked at.
NOW = 1_790_000_000.0

WAITING = frozenset({State.QUEUED, State.SCHEDULED, State.BLOCKED})


class FakeSubscription(Subscription):
    """Tell at once of what has ended, and of nothing else."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._ids: set[str] = set()

    def ask(self, ids: Collection[str]) -> None:
        self._ids |= set(ids)

    def wait(self, timeout: float | None) -> News:
        found = [self._store.jobs[job_id] for job_id in self._ids if self._store.jobs[job_id].state in TERMINAL]
        self._ids -= {record.id for record in found}
        return News(ended=[ended_of(record.id, record) for record in found])

    def wake(self) -> None:
        """Nobody sleeps."""

    def close(self) -> None:
        """Nothing is held."""


class FakeStore(Store):
    """Keep records in a dict, oldest first. `before` is called with the name of each method that changes something."""

    def __init__(self, *records: JobRecord, url: str = "sqlite:///home/ann/queue.db") -> None:
        self.url = url
        self.jobs = {record.id: record for record in records}
        self.put_jobs: dict[str, NewJob] = {}
        self.paused: set[str] = set()
        self.living: list[WorkerRecord] = []
        self.logs: dict[str, bytes] = {}
        self.findings: list[Finding] = []
        self.before: Callable[[str], None] = lambda _: None

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        self.before("put")
        keys = {record.key: record.id for record in self.jobs.values() if record.key and record.state not in TERMINAL}
        stand = []
        for job in jobs:
            job_id = keys.get(job.options.key, job.id)
            stand.append(job_id)
            if job_id == job.id and job.id not in self.jobs:
                self.put_jobs[job.id] = job
                self.jobs[job.id] = _record(job)
        return stand

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        return [self.jobs.get(job_id) for job_id in ids]

    def find(self, query: JobQuery) -> list[JobRecord]:
        found = [
            record
            for record in reversed(self.jobs.values())
            if (not query.states or record.state in query.states) and query.queue in (None, record.queue)
        ]
        return found[query.offset : query.offset + query.limit]

    def cancel(self, ids: Sequence[str], *, kill: bool = False) -> list[State | None]:
        self.before("cancel")
        for job_id in ids:
            if job_id in self.jobs and self.jobs[job_id].state in WAITING:
                self.jobs[job_id] = replace(self.jobs[job_id], state=State.CANCELLED)
        return [self.jobs[job_id].state if job_id in self.jobs else None for job_id in ids]

    def retry(self, ids: Sequence[str]) -> list[bool]:
        self.before("retry")
        able = [self.jobs[job_id].state in (State.FAILED, State.CANCELLED) for job_id in ids]
        for job_id, can in zip(ids, able, strict=True):
            if can:
                self.jobs[job_id] = replace(self.jobs[job_id], state=State.QUEUED, failure=None)
        return able

    def remove(self, ids: Sequence[str]) -> list[bool]:
        self.before("remove")
        able = [job_id in self.jobs and self.jobs[job_id].state is not State.RUNNING for job_id in ids]
        for job_id, can in zip(ids, able, strict=True):
            if can:
                del self.jobs[job_id]
        return able

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return self.logs.get(job_id, b"")[offset:]

    def queues(self) -> Sequence[QueueRecord]:  # type: ignore[override]
        names = {record.queue for record in self.jobs.values()} | self.paused
        return [self._queue(name) for name in sorted(names)]

    def _queue(self, name: str) -> QueueRecord:
        mine = [record for record in self.jobs.values() if record.queue == name]
        waiting = [record.submitted_at or NOW for record in mine if record.state is State.QUEUED]
        counts = Counter(record.state for record in mine)
        return QueueRecord(name=name, counts=counts, oldest_at=min(waiting, default=None), paused=name in self.paused)

    def workers(self) -> Sequence[WorkerRecord]:  # type: ignore[override]
        return self.living

    def pause(self, queue: str) -> None:
        self.before("pause")
        self.paused.add(queue)

    def resume(self, queue: str) -> None:
        self.before("resume")
        self.paused.discard(queue)

    def doctor(self) -> Sequence[Finding]:  # type: ignore[override]
        return self.findings

    def subscribe(self) -> Subscription:
        return FakeSubscription(self)

    def join(self, record: WorkerRecord) -> WorkerSession:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


def _record(job: NewJob) -> JobRecord:
    at = job.options.at
    return JobRecord(
        id=job.id,
        task=job.task,
        state=State.BLOCKED if job.depends_on else State.SCHEDULED if at else State.QUEUED,
        queue=job.options.queue,
        priority=job.options.priority,
        label=job.label,
        key=job.options.key,
        submitted_at=NOW,
        due_at=None if at is None else at.timestamp(),
        expires_at=None if job.options.expires is None else NOW + job.options.expires,
        depends_on=job.depends_on,
        envelope=job.envelope,
    )


# --- a store with one job of every kind


def job_id(number: int) -> str:
    """Return an id as taskq makes them."""
    return f"01KB2Z7XSGD0MB3V6RYA4F{number:04}"


def sample_jobs() -> list[JobRecord]:
    """Return one job of every state, the oldest first."""
    return [
        _job(
            1,
            "shop.images:thumbnail",
            State.SUCCEEDED,
            label="thumbnail('a.jpg', size=128)",
            attempts=1,
            submitted_at=NOW - 4000,
            started_at=NOW - 3990,
            ended_at=NOW - 3989.25,
            result=encode({"width": 128, "height": 96}),
            worker="web-1-4711",
        ),
        _job(
            2,
            "shop.mail:send",
            State.FAILED,
            queue="mail",
            label="send('ann@example.org')",
            attempts=3,
            retries=2,
            submitted_at=NOW - 900,
            started_at=NOW - 300,
            ended_at=NOW - 299.5,
            failure=Failure(
                reason=Reason.ERROR, type="OSError", message="no route to host", traceback="Traceback ...\n"
            ),
            worker="web-1-4711",
        ),
        _job(
            3,
            "shop.images:convert",
            State.FAILED,
            label="convert('b.tiff')",
            attempts=3,
            crashes=3,
            submitted_at=NOW - 700,
            started_at=NOW - 100,
            ended_at=NOW - 40,
            failure=Failure.crashed(-9, 3),
            worker="web-2-815",
        ),
        _job(4, "shop.images:convert", State.CANCELLED, submitted_at=NOW - 600, ended_at=NOW - 590),
        _job(
            5,
            "taskq.shell:run_command",
            State.RUNNING,
            label="ffmpeg -i in.mov out.mp4",
            attempts=1,
            submitted_at=NOW - 500,
            started_at=NOW - 83,
            worker="web-1-4711",
            progress=(40, 100),
            meta=encode({"frame": 1200}),
        ),
        _job(
            6,
            "shop.reports:monthly",
            State.RUNNING,
            queue="reports",
            attempts=2,
            priority=5,
            submitted_at=NOW - 30,
            started_at=NOW - 1.25,
            worker="web-2-815",
            progress=(7, None),
        ),
        _job(7, "shop.images:thumbnail", State.QUEUED, label="thumbnail('c.jpg')", submitted_at=NOW - 20),
        _job(
            8,
            "shop.reports:nightly",
            State.SCHEDULED,
            queue="reports",
            key="nightly",
            submitted_at=NOW - 10,
            due_at=NOW + 7200,
            expires_at=NOW + 10_800,
        ),
        _job(
            9,
            "shop.reports:total",
            State.BLOCKED,
            queue="reports",
            submitted_at=NOW - 5,
            depends_on=(job_id(6), job_id(8)),
        ),
    ]


def _job(number: int, task: str, state: State, **fields: Any) -> JobRecord:
    return JobRecord(id=job_id(number), task=task, state=state, **fields)


def sample_workers() -> list[WorkerRecord]:
    """Return two workers, one of which stops."""
    return [
        WorkerRecord(
            name="web-1-4711",
            host="web-1",
            pid=4711,
            queues=("default", "mail"),
            processes=4,
            version="0.1.0",
            started_at=NOW - 7200,
            seen_at=NOW - 2,
            running=1,
            succeeded=1234,
            failed=5,
        ),
        WorkerRecord(
            name="web-2-815",
            host="web-2",
            pid=815,
            queues=("reports",),
            processes=2,
            version="0.1.0",
            started_at=NOW - 60,
            seen_at=NOW - 0.5,
            running=1,
            succeeded=3,
            failed=1,
            stopping=True,
        ),
    ]


def sample_store() -> FakeStore:
    """Return a store with something of everything."""
    store = FakeStore(*sample_jobs())
    store.living = sample_workers()
    store.paused.add("mail")
    store.logs[job_id(5)] = b"frame=1199\nframe=1200\n"
    store.findings = [
        Finding(topic="version", level="ok", text="SQLite 3.40.1, schema 1"),
        Finding(
            topic="room",
            level="problem",
            text="12 MB are left on the disk of the queue file",
            cure="make room on /home, or move the file with taskq transfer",
        ),
    ]
    return store
