"""RQ's own work horse, in a child of ours: it runs a job as in `rq worker`, up to the point where its end is written.

    Horse.run(job) ──▶ rq.worker.BaseWorker.perform_job ──▶ Job.perform, callbacks, handle_exception
                                                            ──▶ Horse.ending, for the finish script

What watches jobs by patching RQ's classes sees each of them: Sentry's RqIntegration, tracers, loggers of "rq.worker".
What they call is looked up by the worker's own rules, and imported by nobody. Only children that meet such jobs import
this module, which takes 100 ms.

Source: rq 3.0.0 worker/base.py perform_job, _finalize_success, _finalize_failure, handle_job_retry.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from rq.callbacks import execute_failure_callback, execute_stopped_callback, execute_success_callback
from rq.job import Job, JobStatus, Retry
from rq.logutils import setup_loghandlers
from rq.queue import Queue
from rq.timeouts import UnixSignalDeathPenalty
from rq.utils import now
from rq.worker import Worker

from taskq.executors.rq.records import Returned
from taskq.perform import exception_handlers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GuardedJob", "Horse"]

#: What RQ keeps in place of a value that its serializer cannot write.
UNSERIALIZABLE: Final = "Unserializable return value"


class GuardedJob(Job):
    """RQ's job, whose function and callbacks come from `look_up` instead of an import."""

    look_up: Callable[[str], Callable[..., Any]]
    #: What it calls, once that was found.
    function: Callable[..., Any]

    @property
    def func(self) -> Callable[..., Any]:
        """What it calls."""
        return self.function

    @property
    def success_callback(self) -> Any:
        """What is called with its value."""
        return self._callback(self._success_callback_name)

    @property
    def failure_callback(self) -> Any:
        """What is called with its error."""
        return self._callback(self._failure_callback_name)

    @property
    def stopped_callback(self) -> Any:
        """What is called when it was stopped."""
        return self._callback(self._stopped_callback_name)

    def _callback(self, name: str | None) -> Callable[..., Any] | None:
        return self.look_up(name) if name else None


class Penalty(UnixSignalDeathPenalty):
    """RQ's timeout, which raises in the job; a time below 1 s is none."""

    def setup_death_penalty(self) -> None:
        """Set the alarm."""
        if self._timeout and self._timeout > 0:
            super().setup_death_penalty()  # type: ignore[no-untyped-call]  # RQ is typed in parts

    def cancel_death_penalty(self) -> None:
        """Take it back."""
        if self._timeout and self._timeout > 0:
            super().cancel_death_penalty()  # type: ignore[no-untyped-call]  # as above


class Horse(Worker):
    """RQ's worker for one job, which writes nothing to Redis. `calls`: whether callbacks and webhooks may be called.

    Nothing of what RQ's constructor does is wanted here: it asks Redis, and a worker is registered already.
    """

    def __init__(self, name: str, connection: Any, serializer: Any, *, calls: bool) -> None:
        self.name = name
        self.connection = connection
        self.serializer = serializer
        self.log = logging.getLogger("rq.worker")
        self.queues = []
        self.job_class, self.queue_class, self.death_penalty_class = Job, Queue, Penalty
        self._exc_handlers = list(exception_handlers())
        self._is_horse = True  # what was gathered of a job is sent before it has ended, as before a horse's exit
        self._calls = calls
        #: How the job ended, unless it raised.
        self.ending: Returned | None = None
        self.error: BaseException | None = None

    def run(self, job: GuardedJob) -> Returned:
        """Run a job; return what it brought.

        Raises:
            BaseException: whatever the function or a callback raised.
        """
        setup_loghandlers("INFO")
        queue = Queue(job.origin, connection=self.connection, serializer=self.serializer)
        self.perform_job(job, queue, None)  # type: ignore[arg-type]  # nobody asks for the execution
        if self.ending is None:
            raise self.error or RuntimeError("RQ's perform_job was replaced by one that runs no jobs")
        return self.ending

    def stopped(self, job: GuardedJob) -> None:
        """Call what a job wants called when it was stopped; raises what that raises."""
        setup_loghandlers("INFO")
        execute_stopped_callback(job, Penalty)

    # -- what RQ's perform_job calls

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Do nothing: the claim has written that it runs."""

    def _finalize_success(self, job: Any, queue: Any, execution: Any, return_value: Any) -> None:  # noqa: ARG002  # RQ's signature
        job.ended_at, job._result = now(), return_value  # noqa: SLF001  # as RQ's own does
        if isinstance(return_value, Retry):
            self.ending = self._retry(job, return_value)
            return
        job._status = JobStatus.FINISHED  # noqa: SLF001  # the same
        if self._calls:
            execute_success_callback(job, Penalty, return_value)
        self.ending = Returned(_written(job.serializer, return_value))
        if self._calls:
            job.send_webhooks("finished")

    def _retry(self, job: Any, retry: Retry) -> Returned:
        if self._calls and job.number_of_retries and job.number_of_retries >= retry.max:
            job.send_webhooks("failed", exc_string="")
        row = [retry.max, list(retry.intervals), int(retry.enqueue_at_front)]
        return Returned(_written(job.serializer, retry), row)

    def _finalize_failure(self, job: Any, queue: Any, execution: Any, exc_info: Any) -> None:  # noqa: ARG002  # RQ's signature
        job._status, job.ended_at, self.ending = JobStatus.FAILED, now(), None  # noqa: SLF001  # as RQ's own does
        if self._calls:
            try:
                execute_failure_callback(job, Penalty, *exc_info)
            except BaseException:  # noqa: BLE001  # its error takes the place of the job's, as in RQ
                exc_info = sys.exc_info()
        self.handle_exception(job, *exc_info)
        if self._calls and not job.should_retry:
            job.send_webhooks("failed", exc_string=_traceback(exc_info))
        self.error = exc_info[1]


def _traceback(exc_info: Any) -> str:
    from rq.job_lifecycle import format_exc_info  # noqa: PLC0415  # after errors only

    return format_exc_info(exc_info)


def _written(serializer: Any, value: Any) -> bytes | None:
    """Return a value as its serializer's bytes; what it cannot write, as RQ's text for that."""
    if value is None:
        return None
    try:
        return bytes(serializer.dumps(value))
    except Exception:  # noqa: BLE001  # whatever a serializer raises
        return bytes(serializer.dumps(UNSERIALIZABLE))
