"""A worker's place in a store in memory."""

from __future__ import annotations

import itertools
import math
import select
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from taskq.serving import QueueOrder
from taskq.states import TERMINAL, State
from taskq.store import Claim, ControlRequest, JobOutcome, PollResult, Remains, WorkerRecord, WorkerSession
from taskq.testing.jobs import LOG_LIMIT, Jobs, Row

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskq.store import ProgressUpdate

__all__ = ["MemoryWorkerSession"]

#: Seconds between two looks of a worker that waits for a job or for its descriptor.
LOOK_S = 0.005


class MemoryWorkerSession(WorkerSession):
    """A worker's place in the store; made by `MemoryStore.join`."""

    def __init__(self, jobs: Jobs, record: WorkerRecord) -> None:
        self.name = record.name
        self.record = record
        self._order = QueueOrder(record.queues, record.serving.strategy)
        self._jobs = jobs
        self._beat = jobs.monotonic()
        self._told: set[tuple[str, bool]] = set()
        self._sign(record)

    def _sign(self, record: WorkerRecord) -> None:
        now = self._jobs.now()
        self.record = replace(record, started_at=record.started_at or now, seen_at=now)

    def is_alive(self) -> bool:
        """Whether it has renewed within the lease."""
        return self._jobs.monotonic() - self._beat <= self._jobs.lease

    def die(self) -> None:
        """Look as a worker does whose process was killed: it is not heard of again, and the next sweep finds it."""
        self._beat = -math.inf

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs of this queue."""
        return not self.record.queues or queue in self.record.queues

    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        jobs = self._jobs
        with jobs.changed:
            fenced = [update.id for update in updates if not self._note(update)]
            self._order.told(outcomes)
            fenced += [outcome.id for outcome in outcomes if not self._apply(outcome)]
            if want:
                jobs.promote()
            claims = self._order.take(want, self._claims)
            requests = self._requests()
            jobs.changed.notify_all()
        return PollResult(claims=claims, control_requests=requests, fenced=fenced)

    def _held(self, job_id: str, token: str) -> Row | None:
        row = self._jobs.rows.get(job_id)
        return row if row is not None and row.token == token else None

    def _note(self, news: ProgressUpdate | JobOutcome) -> bool:
        row = self._held(news.id, news.token)
        if row is None:
            return False
        if row.state is State.RUNNING:
            row.record.progress = news.progress if news.progress is not None else row.record.progress
            row.record.meta = news.meta if news.meta is not None else row.record.meta
            taken = news.log[: LOG_LIMIT - len(row.log)]
            row.log += taken
            row.left_out += len(news.log) - len(taken)
        return True

    def _apply(self, outcome: JobOutcome) -> bool:
        row = self._held(outcome.id, outcome.token)
        if row is None or not self._note(outcome):
            return self._is_repeated(outcome)
        if row.state is not State.RUNNING:
            return True
        if outcome.refused:
            outcome = self._refused(row, outcome)
        record = row.record
        record.attempts = max(0, record.attempts + (outcome.attempts - 1 if outcome.started else -1))
        record.crashes += outcome.crashes
        if outcome.state in TERMINAL:
            self._jobs.end(row, outcome.state, result=outcome.result, failure=outcome.failure)
        elif row.wanted is not None:
            self._jobs.end(row, State.CANCELLED)
        else:
            record.retries += outcome.state is State.SCHEDULED and outcome.counted
            self._jobs.put_back(row, outcome.delay)
        return True

    def _is_repeated(self, outcome: JobOutcome) -> bool:
        """Return whether this was told before: the call may be repeated."""
        row = self._jobs.rows.get(outcome.id)
        return row is not None and row.token == f"{outcome.token}."

    def _refused(self, row: Row, outcome: JobOutcome) -> JobOutcome:
        row.refusers.add(self.name)
        row.record.refusal = outcome.failure
        if self._jobs.others(row, self.name) - row.refusers:
            row.refused_at = None
            return replace(outcome, state=State.QUEUED, delay=0.0)
        row.refused_at = self._jobs.now() if row.refused_at is None else row.refused_at
        return outcome

    def _claims(self, queues: Sequence[str], want: int) -> list[Claim]:
        """Take jobs of these queues in their order; one whose next crash is its last is taken by itself."""
        jobs = self._jobs
        claims: list[Claim] = []
        for row in itertools.islice(jobs.waiting(self, queues), want):
            if row.is_last_chance:
                if not jobs.running(self.name):
                    claims.append(jobs.claim(row, self))
                break
            claims.append(jobs.claim(row, self))
        return claims

    def _requests(self) -> list[ControlRequest]:
        found = [(row.token, bool(row.wanted), row) for row in self._jobs.running(self.name) if row.wanted is not None]
        fresh = [(token, kill, row) for token, kill, row in found if (token, kill) not in self._told]
        self._told |= {(token, kill) for token, kill, _ in fresh}
        return [ControlRequest(job_id=row.record.id, kill=kill, seal=row.seal) for _, kill, row in fresh]

    def claim_one(self, job_id: str) -> Claim | None:
        jobs = self._jobs
        with jobs.changed:
            jobs.promote()
            row = jobs.rows.get(job_id)
            return None if row is None or row.state is not State.QUEUED else jobs.claim(row, self)

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        with self._jobs.changed:
            lost = self._lost(claims)
            for job_id, _ in claims:
                if job_id not in lost:
                    row = self._jobs.rows[job_id]
                    row.begun, row.suspect = True, False
            return lost

    def _lost(self, claims: Collection[tuple[str, str]]) -> list[str]:
        rows = [(job_id, self._held(job_id, token)) for job_id, token in claims]
        return [job_id for job_id, row in rows if row is None or row.state is not State.RUNNING]

    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        jobs = self._jobs
        with jobs.changed:
            self._beat = jobs.monotonic()
            self._sign(record)
            jobs.sessions[self.name] = self
            return self._lost(held)

    def remains(self) -> Remains:
        jobs = self._jobs
        with jobs.changed:
            mine = [row for row in jobs.rows.values() if self.serves(row.record.queue)]
            blocked = any(row.state is State.BLOCKED and self._waits_for_others(row) for row in mine)
            running = any(row.state is State.RUNNING for row in mine)
            if blocked or running or any(jobs.waiting(self, self.record.queues)):
                return Remains(busy=True)
            later = [row.record for row in mine if row.state is State.SCHEDULED]
            again = [(record.due_at or 0.0) - jobs.now() for record in later if record.attempts]
            first, last = (min(again), max(again)) if again else (0.0, 0.0)
            due = any((record.due_at or 0.0) <= jobs.now() for record in later)
            return Remains(busy=due, scheduled=len(later), again=len(again), first=first, last=last)

    def _waits_for_others(self, row: Row) -> bool:
        """Return whether a job waits, by whatever way, for one that runs or that a worker serves."""
        rows = [self._jobs.rows[job_id] for job_id in row.record.depends_on if job_id in self._jobs.rows]
        return any(
            other.state is State.RUNNING
            or (other.state is State.BLOCKED and self._waits_for_others(other))
            or (
                other.state is State.QUEUED
                and other.record.queue not in self._jobs.paused
                and any(session.serves(other.record.queue) for session in self._jobs.sessions.values())
            )
            for other in rows
        )

    def run_maintenance(self) -> int:
        jobs = self._jobs
        with jobs.changed:
            dead = [name for name, other in jobs.sessions.items() if other is not self and not other.is_alive()]
            put_back = sum([jobs.bury(name) for name in dead])
            jobs.promote()
            jobs.changed.notify_all()
            return put_back

    def wait(self, timeout: float, wake_fd: int) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_wanted():
            left = min(LOOK_S, deadline - time.monotonic())
            if left <= 0 or (wake_fd >= 0 and select.select([wake_fd], [], [], 0)[0]):
                return
            with self._jobs.changed:
                self._jobs.changed.wait(left)

    def _is_wanted(self) -> bool:
        jobs = self._jobs
        with jobs.changed:
            jobs.promote()
            wants = any((row.token, bool(row.wanted)) not in self._told for row in self._wanted())
            return wants or any(jobs.waiting(self, self.record.queues))

    def _wanted(self) -> list[Row]:
        return [row for row in self._jobs.running(self.name) if row.wanted is not None]

    def leave(self) -> None:
        jobs = self._jobs
        with jobs.changed:
            if jobs.sessions.get(self.name) is not self:
                return
            for row in jobs.running(self.name):
                if row.wanted is not None:
                    jobs.end(row, State.CANCELLED)
                else:
                    row.record.attempts = max(0, row.record.attempts - 1)
                    jobs.put_back(row)
            jobs.bury(self.name)
            jobs.changed.notify_all()
