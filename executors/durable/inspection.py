"""What a client of a store sees of its jobs, queues and workers, and does with many jobs at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from taskq import survey
from taskq.errors import JobNotFound, RetryRefused
from taskq.executor import Executor
from taskq.states import RETRIED
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from taskq.executor import Selection
    from taskq.executors.durable.job import DurableJob, WeakHandles
    from taskq.executors.durable.listener import ResultListener
    from taskq.records import JobInfo, QueueInfo, WorkerInfo
    from taskq.store import JobRecord, Store

__all__ = ["StoreInspection", "not_found"]


class StoreInspection(Executor):
    """The part of the executor that looks and acts."""

    store: Store
    _handles: WeakHandles

    @abstractmethod
    def look_up(self, job: DurableJob, *, payload: bool = False) -> JobRecord | None:
        """Return what the store knows of a job now; None: nothing."""

    @abstractmethod
    def _handle(self, job_id: str) -> DurableJob:
        """Return the handle of a job."""

    @abstractmethod
    def _listener_if_open(self) -> ResultListener:
        """Return the listener; raise QueueClosed after the end."""

    def jobs(self, wanted: Selection) -> list[JobInfo]:
        return [survey.job_info(record) for record in survey.select(self.store, wanted)]

    def queues(self) -> list[QueueInfo]:
        return survey.queue_infos(self.store)

    def workers(self) -> list[WorkerInfo]:
        return [survey.worker_info(record) for record in self.store.workers()]

    def retry_all(self, wanted: Selection) -> int:
        listener = self._listener_if_open()
        records = list(survey.select(self.store, wanted))
        for record in records:
            self._detach(record, listener)
        return sum(again for _, again in survey.retry_all(self.store, records))

    def purge(self, wanted: Selection) -> int:
        return survey.purge(self.store, wanted)

    def info_of(self, job: DurableJob) -> JobInfo:
        record = self.look_up(job, payload=True)
        if record is None:
            raise not_found(job.id, self.store)
        return survey.job_info(record, self._handle)

    def retry(self, job: DurableJob) -> DurableJob:
        listener = self._listener_if_open()
        record = self.look_up(job)
        if record is None:
            raise not_found(job.id, self.store)
        if record.state not in RETRIED:
            raise RetryRefused(f"job {job.id} is {record.state}: only what failed or was cancelled can be run again")
        job.on_ended(ended_of(job.id, record))
        self._detach(record, listener)
        if not self.store.retry([job.id])[0]:
            why = "a new job has its key, or another program has done so"
            raise RetryRefused(f"job {job.id} cannot be run again: {why}: look at queue.jobs()")
        return self._handle(job.id)

    def _detach(self, record: JobRecord, listener: ResultListener) -> None:
        """Have the handle of a job that is going to be run again keep its outcome, and the next one get the next."""
        job = self._handles.get(record.id)
        if job is not None:
            job.on_ended(ended_of(record.id, record))
        listener.doubt(record.id)
        self._handles.drop([record.id])


def not_found(job_id: str, store: Store) -> JobNotFound:
    """Return the error for an id that a store does not have."""
    return JobNotFound(f"there is no job {job_id!r} in {store.url}: it never was, or is no longer kept")
