"""All jobs of a store in memory, and what becomes of them; every method is called with `changed` held."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from taskq.errors import JobExists
from taskq.failure import Failure
from taskq.states import TERMINAL, State
from taskq.store import Blame, Claim, JobRecord, QueueRecord, Store, WorkerRecord, blame, ends_by_a_crash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskq.options import JobOptions
    from taskq.store import NewJob

__all__ = ["LOG_LIMIT", "Heard", "Jobs", "Row", "Signed"]

#: Seconds for which an ended job is kept where its options do not say; a failed one longer.
KEEP, KEEP_FAILED = 86_400.0, 604_800.0

#: Seconds for which even one that is kept for no time stays, for the client that waits to read it.
GRACE = 10.0

#: Bytes kept of what a job prints.
LOG_LIMIT = 1_048_576


class Signed(Protocol):
    """A worker that has signed on."""

    name: str
    record: WorkerRecord

    def is_alive(self) -> bool:
        """Whether it has renewed within the lease."""

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs of this queue."""


class Heard(Protocol):
    """A subscription that hears of ends."""

    reply_to: str

    def hear(self, record: JobRecord, *, ours: bool) -> None:
        """Take note of an end; `ours`: of a job that was put with its address."""


@dataclass(slots=True)
class Row:
    """A job, and what the store keeps of it beside its record."""

    record: JobRecord
    options: JobOptions
    number: int
    reply_to: str = ""
    token: str = ""
    #: Whether its worker has told that it begins; None: it need not tell that first.
    begun: bool | None = None
    #: Whether a worker died that had it in its hands, and perhaps had begun it.
    suspect: bool = False
    #: Whether somebody wants it cancelled while it runs, and whether at once.
    wanted: bool | None = None
    seal: bytes = b""
    refusers: set[str] = field(default_factory=set)
    refused_at: float | None = None
    log: bytes = b""
    left_out: int = 0

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def is_last_chance(self) -> bool:
        """Whether its next crash is its last, after others."""
        return self.record.crashes > 0 and ends_by_a_crash(self.record.crashes, self.options.max_crashes)

    def ttl(self) -> float:
        """Return for how many seconds it is kept once it has ended."""
        given = self.options.result_ttl
        return given if given is not None else KEEP_FAILED if self.state is State.FAILED else KEEP


class Jobs:
    """The jobs, and who is interested in them."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.now = clock
        self.monotonic = monotonic
        self.lease = Store.lease
        self.changed = threading.Condition(threading.RLock())
        self.rows: dict[str, Row] = {}
        self.order = itertools.count(1)
        self.tokens = itertools.count(1)
        self.paused: set[str] = set()
        self.sessions: dict[str, Signed] = {}
        self.subscriptions: dict[str, Heard] = {}

    def put(self, job: NewJob, reply_to: str, added: list[str]) -> str:
        options, now = job.options, self.now()
        taken = job.id if job.id in self.rows else self.holder_of(options.key)
        if taken is not None:
            # A job that has an id of its own making and finds it taken is here for the second time.
            if options.if_exists == "reject" and (taken != job.id or options.job_id is not None):
                raise JobExists(f"job {taken} is there already, or has the key {options.key!r}", job_id=taken)
            return taken
        due = now + options.delay if options.delay else options.at.timestamp() if options.at else None
        if due is not None and due <= now:
            due = None
        record = JobRecord(
            id=job.id,
            task=job.task,
            state=State.QUEUED if due is None else State.SCHEDULED,
            queue=options.queue,
            priority=options.priority,
            label=job.label,
            key=options.key,
            submitted_at=now,
            due_at=due,
            expires_at=None if options.expires is None else now + options.expires,
            depends_on=job.depends_on,
            envelope=job.envelope,
        )
        self.rows[job.id] = row = Row(record, options, next(self.order), reply_to)
        added.append(job.id)
        self.block(row)
        return job.id

    def holder_of(self, key: str | None) -> str | None:
        rows = (row.record.id for row in self.rows.values() if row.record.key == key and row.state not in TERMINAL)
        return None if key is None else next(rows, None)

    def block(self, row: Row) -> None:
        """Have a waiting job wait for those it needs, or end it when one of them will never succeed."""
        for needed in row.record.depends_on:
            found = self.rows.get(needed)
            if found is None or (found.state in TERMINAL and found.state is not State.SUCCEEDED):
                cause = Failure.lost("it is not kept here (any more)") if found is None else found.record.failure
                cancelled = found is not None and found.state is State.CANCELLED
                self.end(row, State.FAILED, failure=Failure.dependency(needed, cause, cancelled=cancelled))
                return
            if found.state is not State.SUCCEEDED:
                row.record.state = State.BLOCKED

    def visible(self, job_id: str) -> Row | None:
        row = self.rows.get(job_id)
        return None if row is None or self.is_over(row) else row

    def is_over(self, row: Row, at_least: float = 0.0) -> bool:
        """Whether a job has been kept for as long as it is to be."""
        return row.record.ended_at is not None and row.record.ended_at + max(row.ttl(), at_least) <= self.now()

    def retry(self, row: Row | None) -> bool:
        if row is None or row.state not in (State.FAILED, State.CANCELLED) or self.holder_of(row.record.key):
            return False
        old, now = row.record, self.now()
        expires = row.options.expires
        row.record = JobRecord(
            id=old.id,
            task=old.task,
            state=State.QUEUED,
            queue=old.queue,
            priority=old.priority,
            label=old.label,
            key=old.key,
            submitted_at=now,
            expires_at=None if expires is None else now + expires,
            depends_on=old.depends_on,
            envelope=old.envelope,
        )
        row.number, row.token, row.suspect, row.wanted = next(self.order), "", False, None
        row.refusers, row.refused_at, row.log, row.left_out = set(), None, b"", 0
        self.block(row)
        return True

    def queue(self, name: str) -> QueueRecord:
        rows = [row for row in self.rows.values() if row.record.queue == name]
        states = [row.state for row in rows]
        waiting = sorted((row.number, row.record.submitted_at) for row in rows if row.state is State.QUEUED)
        return QueueRecord(
            name=name,
            counts={state: states.count(state) for state in {*states}},
            oldest_at=waiting[0][1] if waiting else None,
            paused=name in self.paused,
        )

    def end(self, row: Row, state: State, *, result: bytes | None = None, failure: Failure | None = None) -> None:
        """End a job that has not ended, then those that cannot run because of it."""
        row.record = replace(row.record, state=state, ended_at=self.now(), result=result, failure=failure, refusal=None)
        row.wanted = None
        for subscription in self.subscriptions.values():
            subscription.hear(row.record, ours=subscription.reply_to == row.reply_to)
        for other in list(self.rows.values()):
            if other.state is State.BLOCKED and row.record.id in other.record.depends_on:
                self.unblock(other)

    def unblock(self, row: Row) -> None:
        due = row.record.due_at
        row.record.state = State.QUEUED if due is None or due <= self.now() else State.SCHEDULED
        self.block(row)

    def promote(self) -> None:
        """Queue what is due, fail what has expired, forget what is too old."""
        now = self.now()
        for row in list(self.rows.values()):
            record = row.record
            waits = row.state not in TERMINAL and row.state is not State.RUNNING
            if waits and record.expires_at is not None and record.expires_at <= now and not record.attempts:
                self.end(row, State.FAILED, failure=Failure.expired(row.options.expires))
            elif row.state is State.SCHEDULED and record.due_at is not None and record.due_at <= now:
                record.state = State.QUEUED
            elif self.is_over(row, GRACE) and not any(
                other.state is State.BLOCKED and record.id in other.record.depends_on for other in self.rows.values()
            ):
                del self.rows[record.id]

    def waiting(self, session: Signed, queues: Sequence[str]) -> Iterator[Row]:
        """Yield what waits in these queues, or any, for its turn and this worker, in the order of taking."""
        queued = [row for row in self.rows.values() if row.state is State.QUEUED]
        names = queues or sorted({row.record.queue for row in queued})
        for name in names:
            mine = [row for row in queued if row.record.queue == name and name not in self.paused]
            for row in sorted(mine, key=lambda row: (-row.record.priority, row.number)):
                if not (session.name in row.refusers and self.others(row, session.name) - row.refusers):
                    yield row

    def others(self, row: Row, me: str) -> set[str]:
        """Return the other workers that live and serve the queue of a job."""
        return {
            name
            for name, session in self.sessions.items()
            if name != me and session.is_alive() and not session.record.stopping and session.serves(row.record.queue)
        }

    def claim(self, row: Row, session: Signed) -> Claim:
        now = self.now()
        attempts = row.record.attempts + 1
        row.record = replace(row.record, state=State.RUNNING, attempts=attempts, started_at=now, worker=session.name)
        row.token, row.begun = f"{next(self.tokens)}", False if row.suspect or row.record.crashes else None
        return self.claim_of(row)

    def claim_of(self, row: Row) -> Claim:
        record = row.record
        needed = {job_id: self.rows[job_id].record.result for job_id in record.depends_on if job_id in self.rows}
        return Claim(
            id=record.id,
            token=row.token,
            envelope=record.envelope,
            queue=record.queue,
            attempt=record.attempts,
            crashes=record.crashes,
            suspect=row.suspect,
            retries=record.retries,
            refused_for=0.0 if row.refused_at is None else max(0.0, self.now() - row.refused_at),
            results={job_id: result for job_id, result in needed.items() if result is not None},
            meta=record.meta,
        )

    def running(self, name: str) -> list[Row]:
        return [row for row in self.rows.values() if row.state is State.RUNNING and row.record.worker == name]

    def bury(self, name: str) -> int:
        """Put the jobs of a dead worker back, those that had begun with one crash more; return how many there were."""
        self.sessions.pop(name, None)
        rows = self.running(name)
        for row in rows:
            record, limit = row.record, row.options.max_crashes
            found = blame(record.crashes, limit, begun=row.begun, suspect=row.suspect)
            record.attempts -= found is Blame.NONE
            record.crashes += found is Blame.CRASH
            row.suspect |= found is Blame.SUSPECT
            if row.wanted is not None:
                self.end(row, State.CANCELLED)
            elif found is Blame.CRASH and record.crashes >= limit:
                self.end(row, State.FAILED, failure=Failure.crashed(None, record.crashes))
            else:
                self.put_back(row)
        for row in self.rows.values():
            row.refusers.discard(name)
        return len(rows)

    def put_back(self, row: Row, delay: float = 0.0) -> None:
        due = self.now() + delay if delay > 0 else None
        row.record.state = State.QUEUED if due is None else State.SCHEDULED
        row.record.due_at = due
        row.token += "."  # what was claimed is no longer held
