"""The store in memory with eyes and hands for tests of clients: calls are counted, can fail, and jobs end on demand."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from taskq.errors import BackendUnavailable
from taskq.testing import MemoryStore, MemorySubscription

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskq.options import JobOptions
    from taskq.states import State
    from taskq.store import JobRecord, NewJob, WorkerRecord
    from taskq.testing.jobs import Jobs


class ObservedStore(MemoryStore):
    """Note what clients ask. `fail_next` makes the next calls raise, `lose_reply` the next put after it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[int] = []
        #: The options of all jobs that were ever put.
        self.options: dict[str, JobOptions] = {}
        self.calls: list[str] = []
        #: Jobs that subscriptions were asked for.
        self.asked = 0
        self.fail_next = 0
        self.lose_reply = False
        self.subscriptions: list[ObservedSubscription] = []
        self.workers_now: list[WorkerRecord] = []
        self.logs: dict[str, bytes] = {}
        self.closed = False

    def enter(self, name: str) -> None:
        """Note a call, which may have to fail."""
        self.calls.append(name)
        if self.fail_next:
            self.fail_next -= 1
            raise BackendUnavailable(f"{self.url} cannot be reached: this is a test")

    # -- what tests see and do

    @property
    def records(self) -> dict[str, JobRecord]:
        """The records of all jobs, as they are kept: a change of one is a change in the store."""
        return {job_id: row.record for job_id, row in self._jobs.rows.items()}

    @property
    def control_requests(self) -> set[str]:
        """The running jobs that somebody wants cancelled."""
        return {job_id for job_id, row in self._jobs.rows.items() if row.wanted is not None}

    @property
    def paused(self) -> set[str]:
        """The queues that are paused."""
        return self._jobs.paused

    def end(self, job_id: str, state: State, *, result: bytes | None = None, failure: Any = None, **facts: Any) -> None:
        """End a job, as a worker would."""
        with self._jobs.changed:
            row = self._jobs.rows[job_id]
            for name, value in facts.items():
                setattr(row.record, name, value)
            self._jobs.end(row, state, result=result, failure=failure)
            self._jobs.changed.notify_all()

    # -- Store

    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        self.enter("put")
        ids = super().put(jobs, reply_to=reply_to)
        self.puts.append(len(jobs))
        self.options.update((job.id, job.options) for job in jobs)
        if self.lose_reply:
            self.lose_reply = False
            raise BackendUnavailable("the reply was lost: this is a test")
        return ids

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        self.enter("get")
        return super().get(ids, payload=payload)

    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] = {}
    ) -> list[State | None]:  # it is not changed
        self.enter("cancel")
        return super().cancel(ids, kill=kill, seals=seals)

    def remove(self, ids: Sequence[str]) -> list[bool]:
        self.enter("remove")
        return super().remove(ids)

    def log(self, job_id: str, offset: int = 0) -> bytes:
        return self.logs.get(job_id, b"")[offset:]

    def workers(self) -> list[WorkerRecord]:
        return self.workers_now

    def subscribe(self) -> ObservedSubscription:
        self.enter("subscribe")
        made = ObservedSubscription(self, self._jobs)
        self.subscriptions.append(made)
        return made

    def close(self) -> None:
        self.closed = True


class ObservedSubscription(MemorySubscription):
    """Note what is asked."""

    def __init__(self, store: ObservedStore, jobs: Jobs) -> None:
        super().__init__(jobs, f"subscription-{len(store.subscriptions)}")
        jobs.subscriptions[self.reply_to] = self
        self._store = store
        self.closed = False

    def ask(self, ids: Collection[str]) -> None:
        self._store.enter("ask")
        self._store.asked += len(ids)
        super().ask(ids)

    def close(self) -> None:
        super().close()
        self.closed = True


class ThreadWorker:
    """Run a store's jobs in a thread of this process. Use it with `with`."""

    def __init__(self, store: ObservedStore) -> None:
        self._store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._store.run_jobs():
                self._stopping.wait(0.01)
