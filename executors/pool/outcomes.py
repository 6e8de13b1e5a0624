"""What becomes of a job: its outcome is recorded, or it is run again. The rules are taskq's; here they are applied."""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING

from taskq.errors import PoolBroken
from taskq.executors.pool import payloads
from taskq.failure import Failure
from taskq.retry import after_crash, after_error

if TYPE_CHECKING:
    from taskq.executors.pool.backlog import Backlog, Timers
    from taskq.executors.pool.batches import Batch, WorkItem

#: How a job that cancels itself fails (see `JobContext.cancelled`).
_CANCELLED = "taskq.errors.JobCancelled"


class Outcomes:
    """Settle the jobs of batches; in the dispatcher's thread only."""

    def __init__(self, backlog: Backlog, timers: Timers) -> None:
        self._backlog = backlog
        self._timers = timers

    def record(self, batch: Batch, at: int, jobs: int, encoding: int, data: bytes) -> None:
        """Take what a child recorded for `jobs` jobs of a batch, from the one at `at`."""
        if encoding != payloads.FAILURE:
            batch.function.sizer.observe_bytes(jobs, len(data))
            batch.record(at, jobs, encoding, data)
        elif batch.options.retry is not None or data.find(_CANCELLED.encode()) >= 0:
            self._failed(batch, at, data)
        else:
            batch.record(at, jobs, encoding, data)

    def _failed(self, batch: Batch, at: int, data: bytes) -> None:
        failure, _ = payloads.unpack_failure(data)
        if failure.type == _CANCELLED and batch.is_asked_to_stop(at):
            batch.drop(at)
        elif not self._try_again(batch, at, failure):
            batch.record(at, 1, payloads.FAILURE, data)

    def _try_again(self, batch: Batch, at: int, failure: Failure) -> bool:
        attempt, crashes = batch.history(at)
        delay = after_error(batch.options.retry, attempt - 1 - crashes, failure, random.random)
        if delay is None or batch.abandoned:
            return False
        self._timers.add(monotonic() + delay, batch.again(at, crashed=False))
        return True

    def timed_out(self, batch: Batch, at: int) -> None:
        """Take note that the job was killed at its timeout."""
        failure = Failure.timed_out(batch.options.timeout or 0.0)
        if not self._try_again(batch, at, failure):
            batch.record(at, 1, payloads.FAILURE, payloads.pack_failure(failure))

    @staticmethod
    def is_last_crash(batch: Batch, at: int) -> bool:
        """Tell whether one more death of its process fails the job."""
        return not after_crash(batch.history(at)[1] + 1, batch.options.max_crashes)

    def suspect(self, batch: Batch, start: int, stop: int) -> None:
        """Run jobs again, one by one, of which one killed its process; each counts a crash, but none fails by it."""
        entries: list[WorkItem] = []
        for at in range(start, stop):
            last = self.is_last_crash(batch, at)
            entries += batch.singles(at, at + 1) if last else [batch.again(at, crashed=True)]
        self._backlog.put_back(entries)

    def crashed(self, batch: Batch, at: int, exitcode: int | None) -> None:
        """Take note that the job's process died while it ran."""
        if not self.is_last_crash(batch, at):
            self._backlog.put_back([batch.again(at, crashed=True)])
        else:
            crashes = batch.count_crash(at)
            batch.record(at, 1, payloads.FAILURE, payloads.pack_failure(Failure.crashed(exitcode, crashes)))

    @staticmethod
    def broken(batch: Batch, message: str) -> None:
        """Fail every job of a batch because the pool cannot run anything."""
        error = PoolBroken(message)
        data = payloads.pack_failure(Failure.from_exception(error), error)
        for at in range(len(batch)):
            batch.record(at, 1, payloads.FAILURE, data)
