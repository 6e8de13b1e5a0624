"""What a running job can ask about itself and tell the outside.

The code that runs jobs sets one provider per process, and `current_job()` asks it. A context is made only when
somebody asks, so that a job which does not costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from taskq.errors import ConfigError, NotInJob

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JobContext", "Reporter", "current_job", "provide"]


class Reporter(Protocol):
    """Carry a job's words to where its executor lives."""

    def progress(self, number: int, done: int, total: int | None) -> None:
        """Tell that the job with this number has done so much of `total` (None: unknown)."""

    def is_cancelled(self, number: int) -> bool:
        """Return whether the job with this number was asked to stop."""


class JobContext:
    """The job that is running: its `id`, and `attempt` (1 for the first). Valid until the job returns."""

    __slots__ = ("_number", "_reporter", "attempt", "id")

    def __init__(self, job_id: str, attempt: int, number: int, reporter: Reporter) -> None:
        self.id = job_id
        self.attempt = attempt
        self._number = number
        self._reporter = reporter

    def progress(self, done: int, total: int | None = None) -> None:
        """Tell how far the job is, in whole numbers; `Job.progress` shows it. Costs a microsecond or two.

        Raises:
            ConfigError: a number is not whole, or negative.
        """
        if type(done) is not int or done < 0 or not (total is None or (type(total) is int and total >= 0)):
            raise ConfigError(f"progress({done!r}, {total!r}): give whole numbers from 0, or None for an unknown total")
        self._reporter.progress(self._number, done, total)

    @property
    def cancelled(self) -> bool:
        """Whether `Job.cancel()` asked this job to stop. A job that then raises JobCancelled ends as cancelled."""
        return self._reporter.is_cancelled(self._number)

    def __repr__(self) -> str:
        return f"<JobContext {self.id} attempt {self.attempt}>"


_provider: Callable[[], JobContext] | None = None


def provide(provider: Callable[[], JobContext] | None) -> None:
    """Set who answers `current_job()` in this process from now on; None: nobody."""
    global _provider  # noqa: PLW0603  # one process runs one job at a time, whichever thread of the job asks
    _provider = provider


def current_job() -> JobContext:
    """Return the context of the job that this process is running.

    Raises:
        NotInJob: no job is running here.
    """
    if _provider is None:
        raise NotInJob("current_job() works only inside a running job; this code was called directly")
    return _provider()
