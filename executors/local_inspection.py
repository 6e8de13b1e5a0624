"""What a program sees of the jobs, queues and processes of its own pool, and does with many jobs at once.

To note each job at its submit, or the time, would cost every submit a tenth. So no times are kept, and the list of jobs
is made when it is asked for: from all objects that the interpreter has.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from taskq.envelope import label_of
from taskq.errors import ConfigError, DecodeError
from taskq.executors.pool import payloads
from taskq.executors.pool.jobs import DEFAULTS, LocalJob, Outcome
from taskq.failure import Failure
from taskq.records import JobInfo, QueueInfo, WorkerInfo
from taskq.states import State
from taskq.survey import error_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskq.executor import Selection
    from taskq.executors.job_registry import JobRegistry
    from taskq.executors.pool.pool import ProcessPool

__all__ = ["LocalInspection"]


class LocalInspection:
    """A look at one pool and its jobs at one moment."""

    def __init__(self, owner: object, pool: ProcessPool, registry: JobRegistry, queues: Sequence[str]) -> None:
        """Look. `queues`: the names of those that are taken first, in their order."""
        self._pool = pool
        self._queues = queues
        self._in_hand, waiting, self._paused = pool.look()
        found = [one for one in gc.get_objects() if type(one) is LocalJob and vars(one).get("owner") is owner]
        begun = [job for job in found if job.has_ended or job.waiting or job in waiting or job in self._in_hand]
        known = [job for job in begun if "_id" not in vars(job) or registry.find(job.id) is job]
        #: All jobs that are to be found, newest first.
        self.jobs = sorted(known, key=attrgetter("number"), reverse=True)

    def select(self, wanted: Selection) -> list[LocalJob]:
        """Return the jobs that are wanted, newest first.

        Raises:
            ConfigError: it is asked for times.
        """
        if wanted.since is not None or wanted.older_than is not None:
            name = "older" if wanted.since is None else "since"
            raise ConfigError(f"{name}: local:// keeps no times of its jobs; leave it out, or use sqlite:///path")
        return [job for job in self.jobs if self._fits(job, wanted)][: wanted.limit]

    def _fits(self, job: LocalJob, wanted: Selection) -> bool:
        return (
            (not wanted.states or self.state_of(job) in wanted.states)
            and wanted.queue in (None, (job.options or DEFAULTS).queue)
            and wanted.task in (None, job.function.name)
        )

    def state_of(self, job: LocalJob) -> State:
        """Return where a job stood."""
        if job.has_ended:
            return State.CANCELLED if job.was_cancelled else State.FAILED if job.has_failed else State.SUCCEEDED
        return self._in_hand.get(job) or job.waiting or State.QUEUED

    # -- records

    def info(self, job: LocalJob, *, arguments: bool) -> JobInfo:
        """Return a job's record; with its arguments only where they are wanted."""
        state, options = self.state_of(job), job.options or DEFAULTS
        failure = _failure_of(job) if state is State.FAILED else None
        attempts = job.attempt if job.has_ended or state is State.RUNNING else job.attempt - 1
        call = _call_of(job)
        return JobInfo(
            id=job.id,
            task=job.function.name,
            state=state,
            queue=options.queue,
            priority=options.priority,
            label=options.label or _label(job.function.name, call),
            key=options.key,
            args=tuple(call[0]) if arguments and call is not None else None,
            kwargs=dict(call[1]) if arguments and call is not None else None,
            reason=None if failure is None else failure.reason,
            error=None if failure is None else error_text(failure),
            worker=_name() if attempts else None,
            attempts=attempts,
            crashes=job.crashes,
            retries=max(0, job.attempt - 1 - job.crashes - job.uncounted),
            progress=job.last_progress,
            meta=job.meta,
            depends_on=job.depends_on,
        )

    def queues(self) -> list[QueueInfo]:
        """Return the queues that have jobs, were named, or are paused."""
        counts: dict[str, dict[State, int]] = {name: {} for name in (*self._queues, *self._paused)}
        for job in self.jobs:
            of_queue = counts.setdefault((job.options or DEFAULTS).queue, {})
            state = self.state_of(job)
            of_queue[state] = of_queue.get(state, 0) + 1
        return [
            QueueInfo(
                name=name,
                counts={state: counts[name].get(state, 0) for state in State},
                paused=name in self._paused,
            )
            for name in sorted(counts)
        ]

    def worker(self, processes: int) -> WorkerInfo:
        """Return the program as the worker of its own jobs."""
        names = [*self._queues, *(info.name for info in self.queues())] or [DEFAULTS.queue]
        return WorkerInfo(
            name=_name(),
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=tuple(dict.fromkeys(names)),
            processes=processes,
            running=sum(state is State.RUNNING for state in self._in_hand.values()),
            stopping=not self._pool.accepting,
            version=getattr(sys.modules["taskq"], "__version__", ""),
        )


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _failure_of(job: LocalJob) -> Failure | None:
    outcome = vars(job).get("_result")
    if isinstance(outcome, Outcome):
        return outcome.failure()
    error = job.exception()
    return None if error is None else Failure.from_exception(error)


def _call_of(job: LocalJob) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """Return a job's arguments; None where they are not kept any more, or cannot be read."""
    if job.call is not None:
        return job.call
    if not job.payload and job.bare_encoding != payloads.BARE_BYTES:
        return None
    try:
        return payloads.arguments_of(job.payload, job.bare_encoding, strict=job.owner.strict)
    except DecodeError:
        return None


def _label(task: str, call: tuple[Sequence[Any], Mapping[str, Any]] | None) -> str:
    return task.partition(":")[2] if call is None else label_of(task, (), call[0], call[1])
