"""A store, its workers and a client, and the account of every job: none lost, every extra run tied to a fault.

fleet = Fleet(url, folder)        fleet.start() ──▶ WorkerProcess, as many as wanted
jobs = fleet.submit(ledger, 100)  each notes "start N" and "end N" in the ledger, and gives N
pids = fleet.pids(worker)         just before the fault
excuse = fleet.excuse(pids, jobs) just after it: what ran there and had not ended may run again
check(jobs, ledger, [excuse])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskq import State, TaskQueue
from taskq.connect import open_store
from taskq.states import TERMINAL
from tests.sample_tasks import note_and_nap
from tests.waiting import eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskq import Job
    from taskq.store import JobRecord
    from tests.ledger import Ledger

#: The shortest lease there is, so that a dead worker is missed soon.
QUICK = "?lease=3"

#: Seconds for one job's result under faults: below the 60 s of a test, far above a lease and a sweep.
PATIENCE = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """What a fault may have run again: the processes that it hit, and the jobs that had not ended by then."""

    pids: frozenset[int]
    open: frozenset[str]


class Fleet:
    """One store, with a client on it and workers that tests start."""

    def __init__(self, url: str, folder: Path, *, client_url: str | None = None) -> None:
        """Prepare it; `client_url`: the store as the client reaches it, where that is another way."""
        self.url = url
        self.folder = folder
        self.workers: list[WorkerProcess] = []
        self.queue = TaskQueue(client_url or url)

    def prepare(self, url: str | None = None, **settings: Any) -> WorkerProcess:
        """Return one more worker, which is not started yet."""
        self.workers.append(WorkerProcess(url or self.url, self.folder, look_at=self.url, **settings))
        return self.workers[-1]

    def start(self, url: str | None = None, **settings: Any) -> WorkerProcess:
        """Start one more worker, and wait until the store knows it."""
        worker = self.prepare(url, **settings)
        worker.start()
        worker.wait_until_ready()
        return worker

    def close(self) -> None:
        """End everything, whatever still runs."""
        for worker in self.workers:
            worker.close()
        if hasattr(self, "queue"):
            self.queue.shutdown(wait=False)
            del self.queue  # without a worker some jobs may never end: then it goes when nobody holds it

    # -- jobs

    def submit(self, ledger: Ledger, count: int, seconds: float = 0.02, **options: Any) -> list[Job[Any]]:
        """Submit so many short jobs, numbered from 0."""
        calls = [(ledger.path, number, seconds) for number in range(count)]
        return self.queue.options(**options).submit_many(note_and_nap, calls)

    def records(self, ids: Sequence[str]) -> list[JobRecord | None]:
        """Return what the store knows of jobs."""
        store = open_store(self.url)
        try:
            return store.get(ids)
        finally:
            store.close()

    def record(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job that must be there."""
        found = self.records([job_id])[0]
        assert found is not None, f"the store has lost job {job_id}"
        return found

    def has_ended(self, job_id: str) -> bool:
        """Return whether the store says that a job has ended."""
        return self.record(job_id).state in TERMINAL

    def pids(self, worker: WorkerProcess) -> frozenset[int]:
        """Return the processes of a worker, for the excuse of a fault that is about to hit it."""
        return frozenset(seen.pid for seen in worker.left())

    def excuse(self, pids: frozenset[int], jobs: Sequence[Job[Any]]) -> Excuse:
        """Return what may run again of what ran in these processes: asked when they can tell nothing any more."""
        records = self.records([job.id for job in jobs])
        ended = {found.id for found in records if found is not None and found.state in TERMINAL}
        return Excuse(pids=pids, open=frozenset(job.id for job in jobs) - ended)


def wait_for_starts(ledger: Ledger, count: int) -> None:
    """Wait until so many jobs have started."""
    eventually(lambda: total_starts(ledger) >= count, f"{count} jobs to start")


def total_starts(ledger: Ledger) -> int:
    """Return how many starts the ledger holds."""
    return sum(text.startswith("start ") for text in ledger.texts())


def check(jobs: Sequence[Job[Any]], ledger: Ledger, excuses: Sequence[Excuse] = ()) -> int:
    """Fail unless every job has its own result, and every extra run an excuse; return how many ran again."""
    for number, job in enumerate(jobs):
        assert job.result(timeout=PATIENCE) == number
        assert job.state is State.SUCCEEDED
    doubled = 0
    for number, job in enumerate(jobs):
        runs = ledger.pids(f"start {number}")
        assert runs, f"job {number} has a result and never ran"
        excused = [pid for pid in runs if any(pid in excuse.pids and job.id in excuse.open for excuse in excuses)]
        assert len(runs) - len(excused) <= 1, f"job {number} ran in {runs}, of which the faults explain {excused}"
        doubled += len(runs) > 1
    return doubled
