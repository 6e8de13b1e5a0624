"""A store in memory, as much of one as a worker sees: it notes all that it is told, and can go away."""

from __future__ import annotations

import select
import threading
from collections import deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from taskq.codec import decode, encode
from taskq.envelope import CALL, Template
from taskq.errors import BackendUnavailable
from taskq.options import JobOptions
from taskq.states import TERMINAL, State
from taskq.store import Claim, ControlRequest, JobRecord, PollResult, Remains, WorkerSession

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskq.store import JobOutcome, ProgressUpdate, WorkerRecord


class StoreDouble:
    """Keep jobs in memory. Used by the test's thread and one worker's."""

    lease = 1.0
    heartbeat_every = 0.2
    url = "double://"
    source = "double://"
    keys: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.waiting: deque[str] = deque()
        self.due: list[tuple[float, str]] = []
        self.claims: dict[str, dict[str, Any]] = {}
        self.states: dict[str, State] = {}
        self.outcomes: dict[str, list[JobOutcome]] = {}
        self.updates: list[ProgressUpdate] = []
        self.held: dict[str, str] = {}
        self.control_requests: list[ControlRequest] = []
        self.lost: list[str] = []
        self.begun: list[str] = []
        self.records: list[WorkerRecord] = []
        self.away = False
        self.left = False
        self.polls = 0
        self.wants: list[int] = []
        self.news = threading.Event()
        self._numbers = count(1)
        self.tokens = count(1)
        self.lock = threading.RLock()

    # -- what the test does

    def call(self, task: str, *args: Any, options: JobOptions | None = None, **facts: Any) -> str:
        """Queue a call; return its id. `facts` go into its claim."""
        envelope = Template(CALL, task, options or JobOptions()).pack(encode(list(args)), encode({}))
        return self.put(envelope, **facts)

    def put(self, envelope: bytes, **facts: Any) -> str:
        job_id = f"job{next(self._numbers)}"
        with self.lock:
            self.claims[job_id] = {"envelope": envelope, "attempt": 0, "crashes": 0, "retries": 0, **facts}
            self.states[job_id] = State.QUEUED
            self.waiting.append(job_id)
            self.news.set()
        return job_id

    def state(self, job_id: str) -> State:
        return self.states[job_id]

    def last(self, job_id: str) -> JobOutcome:
        return self.outcomes[job_id][-1]

    def value(self, job_id: str) -> Any:
        outcome = self.last(job_id)
        assert outcome.state is State.SUCCEEDED, outcome
        assert outcome.result is not None
        return decode(outcome.result)

    def ended(self) -> int:
        return sum(state in TERMINAL for state in self.states.values())

    def log_of(self, job_id: str) -> bytes:
        told = [update.log for update in self.updates if update.id == job_id]
        return b"".join(told) + b"".join(outcome.log for outcome in self.outcomes.get(job_id, ()))

    # -- Store

    def join(self, record: WorkerRecord) -> WorkerSession:
        self.check()
        self.records.append(record)
        return SessionDouble(self)

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        return [JobRecord(id=name, task="", state=self.states[name]) if name in self.states else None for name in ids]

    def check(self) -> None:
        if self.away:
            raise BackendUnavailable("the double is away")

    def close(self) -> None:
        """Do nothing."""


class SessionDouble(WorkerSession):
    def __init__(self, store: StoreDouble) -> None:
        self.store = store

    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        store = self.store
        store.check()
        with store.lock:
            store.polls += 1
            store.wants.append(want)
            fenced = [outcome.id for outcome in outcomes if not self._settle(outcome)]
            store.updates += updates
            self._promote()
            claims = [self._claim(store.waiting.popleft()) for _ in range(min(want, len(store.waiting)))]
            control_requests, store.control_requests = store.control_requests, []
            return PollResult(claims=claims, control_requests=control_requests, fenced=fenced)

    def _settle(self, outcome: JobOutcome) -> bool:
        store = self.store
        if store.held.get(outcome.id) != outcome.token:
            return False
        del store.held[outcome.id]
        store.outcomes.setdefault(outcome.id, []).append(outcome)
        store.states[outcome.id] = outcome.state
        facts = store.claims[outcome.id]
        facts["attempt"] += outcome.attempts - 1 if outcome.started else -1
        facts["crashes"] += outcome.crashes
        if outcome.state is State.QUEUED and not outcome.refused:
            store.waiting.appendleft(outcome.id)
        elif outcome.state not in TERMINAL:
            facts["retries"] += outcome.state is State.SCHEDULED
            store.due.append((monotonic() + outcome.delay, outcome.id))
        return True

    def _promote(self) -> None:
        now = monotonic()
        for due, name in list(self.store.due):
            if due <= now:
                self.store.due.remove((due, name))
                self.store.states[name] = State.QUEUED
                self.store.waiting.append(name)

    def _claim(self, job_id: str) -> Claim:
        store = self.store
        token = str(next(store.tokens))
        store.held[job_id] = token
        store.states[job_id] = State.RUNNING
        store.claims[job_id]["attempt"] += 1
        told = [
            item.meta for item in (*store.updates, *store.outcomes.get(job_id, ())) if item.id == job_id and item.meta
        ]
        return Claim(id=job_id, token=token, queue="default", meta=told[-1] if told else b"", **store.claims[job_id])

    def claim_one(self, job_id: str) -> Claim | None:
        self.store.check()
        with self.store.lock:
            self._promote()
            if job_id not in self.store.waiting:
                return None
            self.store.waiting.remove(job_id)
            return self._claim(job_id)

    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        self.store.check()
        self.store.records.append(record)
        lost, self.store.lost = self.store.lost, []
        for name in lost:
            self.store.held.pop(name, None)
        return lost

    def remains(self) -> Remains:
        store = self.store
        store.check()
        with store.lock:
            again = [due - monotonic() for due, name in store.due if store.claims[name]["attempt"]]
            busy = bool(store.waiting or store.held)
            first, last = (min(again), max(again)) if again else (0.0, 0.0)
            return Remains(busy=busy, scheduled=len(store.due), again=len(again), first=first, last=last)

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        self.store.check()
        self.store.begun += [job_id for job_id, _ in claims]
        return []

    def run_maintenance(self) -> int:
        self.store.check()
        return 0

    def wait(self, timeout: float, wake_fd: int) -> None:
        self.store.check()
        deadline = monotonic() + timeout
        while not self.store.waiting and not self.store.control_requests and (left := deadline - monotonic()) > 0:
            if self.store.due:
                left = min(left, max(0.0, min(self.store.due)[0] - monotonic()))
            if select.select([wake_fd], [], [], min(left, 0.002))[0] or any(
                due <= monotonic() for due, _ in self.store.due
            ):
                return

    def leave(self) -> None:
        self.store.check()
        self.store.left = True
