"""What was seen of a store at one moment, and how fast jobs end."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskq.cli.records import as_it_runs
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.store import JobRecord, QueueRecord, Store, WorkerRecord

__all__ = ["Detail", "Snapshot", "Throughput", "look"]

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
    """Tell how many jobs end per second.

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
