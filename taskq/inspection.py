"""Inspection: the part of a queue that looks at its jobs, queues and workers, and acts on many jobs at once.

TaskQueue.jobs(state="failed", since="1h")  ──Selection──▶  Executor.jobs  ──▶  JobInfo, QueueInfo, WorkerInfo
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskq.durations import parse_duration
from taskq.errors import ConfigError
from taskq.executor import Selection
from taskq.names import check_name, did_you_mean
from taskq.states import TERMINAL, State
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from taskq.durations import Duration
    from taskq.executor import Executor
    from taskq.records import JobInfo, QueueInfo, WorkerInfo

__all__ = ["Inspection"]


class Inspection:
    """The methods of a queue that look and act. All of them see the jobs of every program on a store."""

    _executor: Executor

    def jobs(
        self,
        *,
        state: State | str | Iterable[State | str] | None = None,
        queue: str | None = None,
        task: str | Callable[..., Any] | None = None,
        since: datetime | Duration | None = None,
        limit: int | None = 100,
    ) -> list[JobInfo]:
        """Return jobs as they stand now, newest first: records, not handles; `queue.job(info.id)` is the handle.

        - `state`: one or several; None: all. `queue`: a name. `task`: a function, or its name "module:qualname".
        - `since`: only those submitted since that instant (aware), or in that time up to now: 3600, "1h", a timedelta.
        - `limit`: the newest so many; None: all there are.

        On `local://` these are the jobs that have not ended, and those that have whose handle the program holds; the
        items of maps are not among them.

        Raises:
            ConfigError: a value makes no sense; `since` on `local://`, which keeps no times.
        """
        return self._executor.jobs(_selection(state, queue, task, since=since, limit=limit))

    def queues(self) -> list[QueueInfo]:
        """Return all queues that have jobs, workers or a pause, by name."""
        return self._executor.queues()

    def counts(self, *, queue: str | None = None) -> dict[State, int]:
        """Return how many jobs there are in each state, in all queues or in one.

        Raises:
            ConfigError: `queue` is no name of a queue.
        """
        if queue is not None:
            check_name("queue", queue)
        found = [info.counts for info in self._executor.queues() if queue in (None, info.name)]
        return {state: sum(counts[state] for counts in found) for state in State}

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive, by name. On `local://` that is this program with its child processes."""
        return self._executor.workers()

    def retry_failed(
        self,
        *,
        queue: str | None = None,
        task: str | Callable[..., Any] | None = None,
        since: datetime | Duration | None = None,
    ) -> int:
        """Run the jobs that failed again, as if new; return how many. `job.retry()` does so with one.

        `queue`, `task`, `since`: only those, as `jobs` has them.

        Raises:
            ConfigError, QueueClosed: as `jobs`, and after `shutdown`.
        """
        return self._executor.retry_all(_selection(State.FAILED, queue, task, since=since))

    def purge(
        self,
        *,
        state: State | str | Iterable[State | str] | None = None,
        queue: str | None = None,
        task: str | Callable[..., Any] | None = None,
        older: Duration | None = None,
    ) -> int:
        """Forget jobs, with their results and logs; return how many.

        None for `state`: all that have ended. Those that wait are cancelled; those that run are never forgotten:
        cancel them first. `older`: only what ended, or was submitted and has not ended, so long ago: 3600, "7d", a
        timedelta. `queue`, `task`: only those, as `jobs` has them.

        Raises:
            ConfigError: a value makes no sense, or `state` has "running"; `older` on `local://`, which keeps no times.
        """
        wanted = _selection(sorted(TERMINAL) if state is None else state, queue, task, older=older)
        if State.RUNNING in wanted.states:
            raise ConfigError('state="running": jobs that run cannot be forgotten: cancel them first, job.cancel()')
        return self._executor.purge(wanted)


def _selection(
    state: State | str | Iterable[State | str] | None,
    queue: str | None,
    task: str | Callable[..., Any] | None,
    *,
    since: datetime | Duration | None = None,
    older: Duration | None = None,
    limit: int | None = None,
) -> Selection:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ConfigError(f"limit={limit!r}: give a whole number from 0, or None for all")
    return Selection(
        states=_states(state),
        queue=None if queue is None else check_name("queue", queue),
        task=task if task is None or isinstance(task, str) else name_of(task),
        since=None if since is None else _instant("since", since),
        older_than=None if older is None else time.time() - _length("older", older),
        limit=limit,
    )


def _states(state: State | str | Iterable[State | str] | None) -> tuple[State, ...]:
    if state is None:
        return ()
    return tuple(_state(one) for one in ([state] if isinstance(state, str) else state))


def _state(word: object) -> State:
    try:
        return State(word)  # type: ignore[arg-type]  # what it cannot take, it refuses
    except ValueError:
        hint = did_you_mean(str(word), list(map(str, State)))
        raise ConfigError(f"there is no state {word!r}{hint or ':'} the states are {', '.join(State)}") from None


def _instant(name: str, value: datetime | Duration) -> float:
    from datetime import datetime  # noqa: PLC0415  # 2 ms of every start, for few programs

    if not isinstance(value, datetime):
        return time.time() - _length(name, value)
    if value.utcoffset() is None:
        raise ConfigError(f"{name}={value!r}: give an aware datetime, as datetime.now(UTC), or a length of time")
    return value.timestamp()


def _length(name: str, value: object) -> float:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ConfigError(f"{name}={value!r}: {error}") from None
