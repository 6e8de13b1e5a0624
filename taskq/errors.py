"""Every exception that taskq raises, under one root.

    TaskqError(Exception)
    ├── ConfigError(ValueError)              a setting or option is unknown or has a bad value
    ├── TaskRefused(TypeError)               this callable cannot be run as a task, or not with these arguments
    ├── UnknownTask(LookupError)             no task has this name
    ├── NotSigned                            no known key has signed it, though all has to be
    ├── EncodeError(TypeError)               a value cannot travel; .path says which
    ├── DecodeError(ValueError)              bytes are not a taskq message
    ├── MissingExtra(ImportError)            an optional library is not installed
    ├── BackendUnavailable(ConnectionError)  the store behind the URL cannot be reached
    ├── StoreDamaged                         the store's data is not what taskq wrote
    ├── QueueClosed(RuntimeError)            the queue was shut down
    ├── QueueFull(RuntimeError)              the store takes no more jobs now
    │   └── StoreFull                        because its disk or memory is full
    ├── JobExists(ValueError)                a job with this key or id is there; .job_id says which
    ├── PoolBroken(BrokenExecutor)           the pool cannot start its processes
    ├── Deadlock(RuntimeError)               a wait that could never end, because of where it is made
    ├── JobNotFound(LookupError)             no job has this id
    ├── RetryRefused(RuntimeError)           a job cannot be run again
    ├── NotInJob(LookupError)                current_job() was called outside a job
    ├── SoftTimeout                          raised inside a job at its soft_timeout: no OSError
    ├── RemoteError                          the __cause__ that shows a job's own traceback
    └── JobError                             how a job ended; .job_id says which
        ├── JobFailed                        it raised an error whose class is not known here
        ├── JobCrashed                       its process died too often
        ├── JobTimeout(TimeoutError)         it ran past its timeout and was killed
        ├── JobCancelled(CancelledError)     it was cancelled
        ├── JobLost                          the store lost it
        ├── JobExpired                       it was not started in time
        └── DependencyFailed                 a job that it waited for did not succeed

What jobs raise to run again, `RetryLater`, is in `retry`.

Each also inherits the builtin that fits, so that code written for `concurrent.futures` goes on working.
All of them can be pickled and keep their attributes.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError

__all__ = [
    "BackendUnavailable",
    "ConfigError",
    "Deadlock",
    "DecodeError",
    "DependencyFailed",
    "EncodeError",
    "JobCancelled",
    "JobCrashed",
    "JobError",
    "JobExists",
    "JobExpired",
    "JobFailed",
    "JobLost",
    "JobNotFound",
    "JobTimeout",
    "MissingExtra",
    "NotInJob",
    "NotSigned",
    "PoolBroken",
    "QueueClosed",
    "QueueFull",
    "RemoteError",
    "RetryRefused",
    "SoftTimeout",
    "StoreDamaged",
    "StoreFull",
    "TaskRefused",
    "TaskqError",
    "UnknownTask",
]


class TaskqError(Exception):
    """Be the root of every error that taskq raises."""

    #: Whether it kept a job from being begun. Set by what runs jobs, not by what jobs may call: the same error, raised
    #: by a job, is that job's own. Names with `__` do not travel: the error of a job that was never begun, raised again
    #: by one that waited for it, is that one's own.
    __before_start__ = False
    #: Of what asks to run its job again: after how many seconds, and whether that is counted as a retry. One that came
    #: from another job does not ask, see above.
    __again__: tuple[float, bool] | None = None


class ConfigError(TaskqError, ValueError):
    """A setting or an option is unknown or has a value that makes no sense."""


class TaskRefused(TaskqError, TypeError):
    """A callable cannot be run as a task: no other process could import it by its name, or it takes other arguments."""


class UnknownTask(TaskqError, LookupError):
    """No task is found under a name."""


class NotSigned(TaskqError):
    """Data of a store is not signed by a key that is known here, though all of it has to be."""


class EncodeError(TaskqError, TypeError):
    """A value cannot be encoded; `path` leads to the part that is to blame, as `args[1]['when']`."""

    def __init__(self, problem: str, path: str = "value") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class DecodeError(TaskqError, ValueError):
    """The bytes are no message of taskq, or one beyond the limits."""


class MissingExtra(TaskqError, ImportError):
    """An optional library is missing; says how to install it."""


class BackendUnavailable(TaskqError, ConnectionError):
    """The store behind a URL cannot be reached; the URL is shown without its password."""


class StoreDamaged(TaskqError):
    """A store holds what taskq never wrote there: a file that was cut, overwritten, or another program's."""


class QueueClosed(TaskqError, RuntimeError):
    """A queue takes no more jobs since it was shut down."""


class QueueFull(TaskqError, RuntimeError):
    """A store takes no more jobs for now; the refused ones were not kept."""


class StoreFull(QueueFull):
    """The disk or the memory that holds a store is full."""


class JobExists(TaskqError, ValueError):
    """A job was refused because one with its `key` or `job_id` is there, `job_id`."""

    def __init__(self, message: str = "", *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class PoolBroken(TaskqError, BrokenExecutor):
    """A pool cannot start its child processes; says why."""


class Deadlock(TaskqError, RuntimeError):
    """A wait could never end: the thread that waits is the one that would bring what it waits for."""


class JobNotFound(TaskqError, LookupError):
    """No job has an id, or its record is no longer kept."""


class RetryRefused(TaskqError, RuntimeError):
    """A job cannot be run again: it has not ended, it succeeded, or what it needs for that is gone."""


class NotInJob(TaskqError, LookupError):
    """`current_job()` was called where no job is running."""


class SoftTimeout(TaskqError):
    """Interrupt a job inside its process at its `soft_timeout`, so that it can still tidy up.

    It comes from a signal handler, in whatever code the job is in. A TimeoutError, which is an OSError, would be taken
    for one of a file or a connection.
    """


class RemoteError(TaskqError):
    """Show the traceback of another process: `str()` is its text. Set as the `__cause__` of a job's error."""


class JobError(TaskqError):
    """Be the root of the errors that tell how a job ended; `job_id` is None where it is not known."""

    def __init__(self, message: str = "", *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailed(JobError):
    """A job raised an error whose class is not known in this process.

    `type` is the class as "module.Qualname", `message` its text, `traceback` the text of its traceback.
    """

    def __init__(
        self,
        message: str = "",
        *,
        type: str = "",  # noqa: A002  # the attribute's name, as in Failure
        traceback: str = "",
        job_id: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type and self.message else self.type or self.message


class JobCrashed(JobError):
    """A job's process died `crashes` times, lastly with `exitcode` (-9: by signal 9)."""

    def __init__(
        self,
        message: str = "",
        *,
        crashes: int = 0,
        exitcode: int | None = None,
        job_id: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.crashes = crashes
        self.exitcode = exitcode


class JobTimeout(JobError, TimeoutError):
    """A job ran past its `timeout` and its process was killed."""


class JobCancelled(JobError, CancelledError):
    """A job was cancelled and has no result."""


class JobLost(JobError):
    """The store that held a job lost it; whether it ran is not known."""


class JobExpired(JobError):
    """A job was dropped because nothing had started it within its `expires`."""


class DependencyFailed(JobError):
    """A job was not run because one that it waited for did not succeed."""
