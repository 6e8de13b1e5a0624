"""The running job: its context, by which it asks about itself and reports, and its clocks.

The code that runs jobs sets one provider per process, and `current_job()` asks it. A context is made only at
its first use, so that a job without one costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.errors import ConfigError, NotInJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ALL",
    "NAMED_AFTER",
    "WAITED",
    "WAITS",
    "Clock",
    "JobContext",
    "JobMeta",
    "Reporter",
    "awaited_in",
    "clock_running",
    "clocks_paused",
    "current_job",
    "home_url",
    "keep_keys",
    "kept_keys",
    "provide",
    "running_job",
    "set_home",
    "wait_named",
]


class Reporter(Protocol):
    """The line from a running job to its executor."""

    def progress(self, number: int, done: int, total: int | None) -> None:
        """Tell that the job with this number has done so much of `total` (None: unknown)."""

    def is_cancelled(self, number: int) -> bool:
        """Return whether the job with this number was asked to stop."""

    def log(self, number: int, text: str) -> None:
        """Tell a text that the job with this number wants kept."""

    def meta(self, number: int) -> dict[str, Any]:
        """Return what the job with this number has noted of itself; not to be changed."""

    def tell_meta(self, number: int, changed: dict[str, Any]) -> None:
        """Keep this as what the job has noted, and tell it.

        Raises:
            EncodeError: a value cannot travel, or all together are too large; nothing was changed.
        """


class JobContext:
    """The job that is running: its `id`, `queue`, and `attempt` (1 for the first). Valid until the job returns."""

    __slots__ = ("_number", "_reporter", "attempt", "id", "queue")

    def __init__(self, job_id: str, attempt: int, number: int, reporter: Reporter, queue: str = "default") -> None:
        self.id = job_id
        self.attempt = attempt
        self.queue = queue
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

    def log(self, text: str) -> None:
        """Keep a line of text with the job; `Job.logs()` and `taskq logs` show it, at once."""
        self._reporter.log(self._number, text if text.endswith("\n") else f"{text}\n")

    @property
    def meta(self) -> JobMeta:
        """What the job notes of itself, as `current_job().meta["page"] = 7`; `Job.meta` shows it, at once."""
        return JobMeta(self._number, self._reporter)

    def renamed(self, job_id: str, attempt: int) -> JobContext:
        """Return this context under the durable job's id.

        `attempt` is that of its first start in this pool; further ones count on from there.
        """
        return JobContext(job_id, attempt + self.attempt - 1, self._number, self._reporter, self.queue)

    def in_forked_process(self) -> JobContext:
        """Return the context of the same job for a process that it has forked."""
        return JobContext(self.id, self.attempt, self._number, _Elsewhere(), self.queue)

    def __repr__(self) -> str:
        return f"<JobContext {self.id} attempt {self.attempt}>"


class _Elsewhere:
    """The reporter of a process that a job has forked: only the job's own process has a connection to the outside."""

    def progress(self, *_: object) -> None:
        """Refuse."""
        raise _not_here("progress()")

    def is_cancelled(self, *_: object) -> bool:
        """Refuse."""
        raise _not_here("cancelled")

    def log(self, _number: int, text: str) -> None:
        """Print it: what a job's processes print is kept as what the job prints."""
        sys.stderr.write(text)

    def meta(self, *_: object) -> dict[str, Any]:
        """Refuse."""
        raise _not_here("meta")

    def tell_meta(self, *_: object) -> None:
        """Refuse."""
        raise _not_here("meta")


def _not_here(what: str) -> NotInJob:
    return NotInJob(f"current_job().{what} works in the job's own process only, and this one was forked by it")


class JobMeta(MutableMapping[str, Any]):
    """The notes of the running job: a dict of plain values, each change of which is reported. 64 KiB at most.

    A value is reported when it is set: a list that is changed in place is not sent again.
    """

    __slots__ = ("_number", "_reporter")

    def __init__(self, number: int, reporter: Reporter) -> None:
        self._number = number
        self._reporter = reporter

    def __getitem__(self, key: str) -> Any:
        return self._reporter.meta(self._number)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        before = self._reporter.meta(self._number)
        if key not in before:
            raise KeyError(key)
        self._reporter.tell_meta(self._number, {name: value for name, value in before.items() if name != key})

    def __iter__(self) -> Iterator[str]:
        return iter(self._reporter.meta(self._number))

    def __len__(self) -> int:
        return len(self._reporter.meta(self._number))

    def update(self, *others: Any, **values: Any) -> None:
        """Change several values, and tell them at once."""
        self._reporter.tell_meta(self._number, dict(self._reporter.meta(self._number), **dict(*others), **values))

    def __repr__(self) -> str:
        return f"<JobMeta {self._reporter.meta(self._number)!r}>"


_provider: Callable[[], JobContext] | None = None


def provide(provider: Callable[[], JobContext] | None) -> Callable[[], JobContext] | None:
    """Set the function behind `current_job()` in this process (None: no job runs); return the one before."""
    global _provider  # one process runs one job at a time, whichever thread of the job asks
    before, _provider = _provider, provider
    return before


def _in_forked_process() -> None:
    """Let a process that a job has forked ask for the job's id, queue and attempt, and tell nothing."""
    provider = _provider
    if provider is not None:
        provide(lambda: provider().in_forked_process())


os.register_at_fork(after_in_child=_in_forked_process)


#: The lines that a job gets into its log when it has waited for another one for a second, and when that is over.
WAITS: Final = "taskq: this job waits for job "
WAITED: Final = "taskq: this job waits no longer for job "


#: What stands in the place of an id when a job waits no longer for any other.
ALL: Final = "all of them"

#: Seconds that a job has waited for another one when its log names it.
NAMED_AFTER: Final = 1.0


def awaited_in(log: bytes) -> str:
    """Return the id of the job for which a job waits, by its log; empty: for none."""
    if WAITS.encode() not in log:
        return ""
    waits: dict[str, None] = {}
    for line in log.decode("utf-8", "replace").split("\n"):
        if line.startswith(WAITS):
            waits[line.removeprefix(WAITS)] = None
        elif line == WAITED + ALL:
            waits.clear()
        elif line.startswith(WAITED):
            waits.pop(line.removeprefix(WAITED), None)
    return next(reversed(waits), "")


def wait_named(wait: Callable[[float | None], bool], timeout: float | None, awaited: Callable[[], str]) -> bool:
    """Return `wait(timeout)`; in a job, its log names what is awaited, once that has taken a second.

    By that a worker is known whose processes are all taken by such jobs. `awaited`: gives the job's id; empty: unknown.
    """
    job = running_job()
    if job is None or (timeout is not None and timeout <= NAMED_AFTER):
        return wait(timeout)
    if wait(NAMED_AFTER):
        return True
    left = None if timeout is None else timeout - NAMED_AFTER
    name = awaited()
    if not name:
        return wait(left)
    job.log(WAITS + name)
    try:
        return wait(left)
    finally:
        job.log(WAITED + name)


def running_job() -> JobContext | None:
    """Return the context of the job that this process is running; None: it is running none."""
    return None if _provider is None else _provider()


_home: str = ""
_keys: tuple[str, ...] = ()


def set_home(url: str, keys: tuple[str, ...] = ()) -> None:
    """Set which queue's jobs this process runs, for a worker's children: a `TaskQueue()` in a job means that one.

    `keys`: those that sign what it puts there, or anywhere, see `signing`.
    """
    global _home  # noqa: PLW0603  # said once in the life of a process
    _home = url
    keep_keys(keys)


def keep_keys(keys: tuple[str, ...]) -> None:
    """Keep the keys that sign, out of the environment, which commands and jobs inherit."""
    global _keys  # noqa: PLW0603  # said once in the life of a process
    _keys = keys


def kept_keys() -> tuple[str, ...]:
    """Return the keys that were kept; none were where this process is no worker nor a child of one."""
    return _keys


def home_url() -> str:
    """Return the URL of the queue whose jobs this process runs, with its password; empty: it is no worker's child."""
    return _home


def current_job() -> JobContext:
    """Return the context of the job that this process is running.

    Raises:
        NotInJob: no job is running here.
    """
    if _provider is None:
        raise NotInJob("current_job() works only inside a running job; this code was called directly")
    return _provider()


# --- its clocks: time limits count what the task does, not what is imported for it
#
# a time limit:   with clock_running(clock): run the task
# an import:      with clocks_paused(): import_module(...)


class Clock(Protocol):
    """A time limit that runs."""

    def stop(self) -> None:
        """Count no longer."""

    def go_on(self) -> None:
        """Count on from where it was stopped."""


_clocks: list[Clock] = []
# A process that a job forks has none of its limits.
os.register_at_fork(after_in_child=_clocks.clear)


@contextmanager
def clock_running(clock: Clock) -> Iterator[None]:
    """Have a clock stopped whenever something is imported in the block, by `clocks_paused`."""
    _clocks.append(clock)
    try:
        yield
    finally:
        with suppress(ValueError):  # a process that the job has forked
            _clocks.remove(clock)


@contextmanager
def clocks_paused() -> Iterator[None]:
    """Stop all clocks for the block; inside of another such block, do nothing."""
    clocks = list(_clocks)
    _clocks.clear()
    for clock in clocks:
        clock.stop()
    try:
        yield
    finally:
        _clocks[:] = clocks
        for clock in clocks:
            clock.go_on()
