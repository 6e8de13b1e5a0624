"""Snapshots of a store with the rate at which jobs end, taken by a thread, so that a slow store freezes no screen.

    app ── order(...), detail ──▶ Watcher's thread ──▶ store
        ◀── latest, message ────  └── changed() after each look: wakes the app

Orders are carried out in the order of the keys; one that fails for an absent store is tried again with the next look.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from taskq.cli.exits import sentence
from taskq.errors import BackendUnavailable, TaskqError
from taskq.states import TERMINAL, State
from taskq.survey import as_it_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = ["Detail", "Order", "Snapshot", "Throughput", "Watcher", "look"]

#: Jobs of a panel that are asked for: more than fit any screen.
JOBS = 100

#: Queues that are looked at.
QUEUES = 500

#: Samples that the sparkline may show.
SAMPLES = 120

#: Seconds over which ends are counted for a rate: longer than workers take between two reports.
WINDOW = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One job looked at closely, with the end of what it has written. `record` None: it is no longer kept."""

    record: JobRecord | None
    log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was seen. `rates`: jobs ended per second, the newest last. `trouble`: why this is not fresh."""

    url: str
    now: float
    queues: Sequence[QueueRecord] = ()
    workers: Sequence[WorkerRecord] = ()
    running: Sequence[JobRecord] = ()
    failed: Sequence[JobRecord] = ()
    rates: Sequence[float] = ()
    detail: Detail | None = None
    trouble: str = ""

    def count(self, *states: State) -> int:
        """Return how many jobs of all queues are in these states."""
        return sum(record.counts.get(state, 0) for record in self.queues for state in states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a key asks of the store: "cancel", "kill", "retry", "pause" or "resume"."""

    verb: str
    target: str


def look(store: Store, throughput: Throughput, detail: Detail | None = None) -> Snapshot:
    """Return what there is now."""
    workers, now = store.workers(), time.time()
    queues = as_it_runs(store.some_queues(QUEUES)[0], workers)
    return Snapshot(
        url=store.url,
        now=now,
        queues=queues,
        workers=workers,
        running=store.list(states=(State.RUNNING,), limit=JOBS),
        failed=store.list(states=(State.FAILED,), limit=JOBS),
        rates=throughput.add(now, queues, workers),
        detail=detail,
    )


class Throughput:
    """The number of jobs that end per second.

    By the workers' own counts, which come every few seconds; and by the counts of ended jobs in the store, which are
    there at once, but miss what is forgotten at its end. Both can only be too low, so the higher one is taken.
    """

    def __init__(self) -> None:
        self._ended: deque[tuple[float, int]] = deque()
        self._reports: dict[str, deque[tuple[float, int]]] = {}
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def add(self, now: float, queues: Sequence[QueueRecord], workers: Sequence[WorkerRecord]) -> tuple[float, ...]:
        """Take what was seen now; return the rates so far, the newest last."""
        ended = sum(record.counts.get(state, 0) for record in queues for state in TERMINAL)
        seen = _speed(self._ended, now, ended)
        reported = 0.0
        for worker in workers:
            reports = self._reports.setdefault(worker.name, deque())
            done = worker.succeeded + worker.failed
            reported += _speed(reports, worker.seen_at, done) if now - worker.seen_at < WINDOW else 0.0
        for name in self._reports.keys() - {worker.name for worker in workers}:
            del self._reports[name]
        self._rates.append(max(seen, reported))
        return tuple(self._rates)


def _speed(samples: deque[tuple[float, int]], now: float, count: int) -> float:
    """Add a sample, forget those beyond the window but for one; return the growth per second between the ends."""
    if not samples or now > samples[-1][0]:
        samples.append((now, count))
    while len(samples) > 2 and samples[1][0] <= now - WINDOW:  # noqa: PLR2004 - a speed needs two
        samples.popleft()
    (began, before), (ended, after) = samples[0], samples[-1]
    return max(0.0, (after - before) / (ended - began)) if ended > began else 0.0


#: Bytes of a log that are kept for the screen.
LOG_KEPT = 1 << 16

#: Seconds that the thread gets to end; one that hangs in a store does not keep the program.
JOIN = 2.0


class Watcher:
    """Look at a store every so many seconds while inside `with`. `latest` and `message` are new after `changed`."""

    def __init__(self, store: Store, every: float, changed: Callable[[], None]) -> None:
        self._store = store
        self._every = every
        self._changed = changed
        self._throughput = Throughput()
        self._orders: deque[Order] = deque()
        self._wake, self._ended = Event(), False
        self._detail: str | None = None
        self._log_of: str | None = None
        self._log, self._offset = b"", 0
        self.latest = Snapshot(url=store.url, now=time.time(), trouble="looking ...")
        self.message = ""
        self._thread = Thread(target=self._run, name="taskq-top", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(JOIN)

    def order(self, order: Order) -> None:
        """Have this done soon, and look again."""
        self._orders.append(order)
        self._wake.set()

    def show(self, job_id: str | None) -> None:
        """Look at this job closely from now on; None: at none."""
        if job_id != self._detail:
            self._detail = job_id
            self._wake.set()

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            try:
                self._turn()
            except TaskqError as exc:
                self.latest = replace(self.latest, trouble=sentence(exc))
            self._changed()
            self._wake.wait(self._every)

    def _turn(self) -> None:
        while self._orders:
            try:
                self.message = self._obey(self._orders[0])
            except BackendUnavailable:
                raise
            except TaskqError as exc:
                self.message = sentence(exc)
            self._orders.popleft()
        self.latest = look(self._store, self._throughput, self._look_closely())

    def _obey(self, order: Order) -> str:
        """Do what a key asks for; return what came of it."""
        name = order.target
        if order.verb in ("pause", "resume"):
            (self._store.pause if order.verb == "pause" else self._store.resume)(name)
            return f"queue {name} is {'paused' if order.verb == 'pause' else 'running again'}"
        if order.verb == "retry":
            (again,) = self._store.retry([name])
            return f"{name} is queued again" if again else f"{name} has neither failed nor been cancelled"
        (state,) = self._store.cancel([name], kill=order.verb == "kill")
        if state is State.RUNNING:
            return f"{name} {'will be killed' if order.verb == 'kill' else 'was asked to stop; K kills it'}"
        return f"{name} is {state or 'gone'}"

    def _look_closely(self) -> Detail | None:
        job_id = self._detail
        if job_id is None:
            return None
        if job_id != self._log_of:
            self._log_of, self._log, self._offset = job_id, b"", 0
        (record,) = self._store.get([job_id])
        piece = self._store.log(job_id, self._offset)
        self._offset += len(piece)
        self._log = (self._log + piece)[-LOG_KEPT:]
        return Detail(record=record, log=self._log)
