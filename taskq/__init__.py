"""taskq: the same job code on one machine's cores or across many machines."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

_collects = gc.isenabled()
gc.disable()  # what an import makes is there to stay: to look through it for garbage takes 2 ms of every start
try:
    from taskq.context import JobContext, current_job
    from taskq.errors import (
        BackendUnavailable,
        ConfigError,
        Deadlock,
        DecodeError,
        DependencyFailed,
        EncodeError,
        JobCancelled,
        JobCrashed,
        JobError,
        JobExists,
        JobExpired,
        JobFailed,
        JobLost,
        JobNotFound,
        JobTimeout,
        MissingExtra,
        NotInJob,
        PoolBroken,
        QueueClosed,
        QueueFull,
        RemoteError,
        RetryRefused,
        SoftTimeout,
        StoreDamaged,
        StoreFull,
        TaskqError,
        TaskRefused,
        UnknownTask,
    )
    from taskq.job import Job
    from taskq.options import JobOptions
    from taskq.queue import TaskQueue
    from taskq.retry import Retry, RetryLater
    from taskq.states import Reason, State
    from taskq.tasks import task
finally:
    if _collects:
        gc.enable()

if TYPE_CHECKING:
    from taskq.pool import Pool
    from taskq.records import JobInfo, QueueInfo, WorkerInfo

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "ConfigError",
    "Deadlock",
    "DecodeError",
    "DependencyFailed",
    "EncodeError",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobCrashed",
    "JobError",
    "JobExists",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobLost",
    "JobNotFound",
    "JobOptions",
    "JobTimeout",
    "MissingExtra",
    "NotInJob",
    "Pool",
    "PoolBroken",
    "QueueClosed",
    "QueueFull",
    "QueueInfo",
    "Reason",
    "RemoteError",
    "Retry",
    "RetryLater",
    "RetryRefused",
    "SoftTimeout",
    "State",
    "StoreDamaged",
    "StoreFull",
    "TaskQueue",
    "TaskRefused",
    "TaskqError",
    "UnknownTask",
    "WorkerInfo",
    "__version__",
    "current_job",
    "task",
]


def __getattr__(name: str) -> Any:  # as PEP 562 has it: Pool imports multiprocessing, records dataclasses
    if name == "Pool":
        from taskq.pool import Pool  # noqa: PLC0415  # few programs need it

        return Pool
    if name in {"JobInfo", "QueueInfo", "WorkerInfo"}:
        from taskq import records  # noqa: PLC0415  # as Pool

        return getattr(records, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
