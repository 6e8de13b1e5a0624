"""TaskQueue: the object that users hold. A `concurrent.futures.Executor` in front of whatever executor a URL names."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sized
from concurrent.futures import Executor as FuturesExecutor
from itertools import count, repeat
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast, overload

from taskq.connect import open_executor
from taskq.durations import to_seconds
from taskq.errors import ConfigError
from taskq.executor import StreamPlan
from taskq.inspection import Inspection
from taskq.options import JobOptions
from taskq.tasks import NO_OPTIONS, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Unpack

    from taskq.durations import Duration
    from taskq.executor import Executor
    from taskq.job import Job
    from taskq.options import JobOptionFields

__all__ = ["BoundQueue", "TaskQueue"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Submitter(FuturesExecutor):
    """The common part of a queue, and of a queue with options bound to it: the ways to submit work."""

    _executor: Executor

    # -- single jobs

    @overload
    def submit(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Have `fn(*args, **kwargs)` run as a job, and return its handle at once.

        Jobs among the arguments are waited for, and their results passed in their places.

        Raises:
            TaskRefused: no other process could import the function (a lambda, a closure), or it takes other arguments.
            EncodeError: an argument cannot travel; says which.
            QueueClosed: after `shutdown`.
        """
        return self._executor.submit(fn, args, kwargs, self._options_for(fn))

    def submit_many(self, fn: Callable[..., R], calls: Iterable[Iterable[Any]]) -> list[Job[R]]:
        """Submit `fn(*args)` for each tuple of arguments; return the jobs in that order.

        All arguments are checked first: when one cannot travel, nothing is submitted.
        """
        options = self._options_for(fn)
        if options is not None and options.job_id is not None:
            raise ConfigError(f"job_id={options.job_id!r} names one job, and submit_many makes several: use submit")
        return self._executor.submit_many(fn, map(tuple, calls), options)

    # -- many items

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: Duration | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Return an iterator over `fn(*items)` in order, as the builtin `map`, with the calls run as jobs.

        The input is read lazily, a bounded window ahead (`buffersize` items where given), in a thread of its own unless
        it is a list, a range or the like: results never wait for it. `timeout` counts from this call. Chunks steer
        themselves by measured time unless `chunksize` is given. `close()` cancels what has not started.

        Raises:
            TimeoutError: from `next`, when a result is not there `timeout` seconds after this call.
            ValueError: `chunksize` or `buffersize` is below 1.
        """
        star = len(iterables) != 1
        items: Iterable[Any] = zip(*iterables, strict=False) if star else iterables[0]
        return self._stream(
            fn,
            items,
            StreamPlan(
                star=star,
                timeout=None if timeout is None else to_seconds("timeout", timeout),
                chunksize=chunksize,
                buffersize=buffersize,
                finite=buffersize is None and all(isinstance(iterable, Sized) for iterable in iterables),
                at_hand=all(map(_is_at_hand, iterables)),
            ),
        )

    def imap(
        self,
        fn: Callable[[T], R],
        iterable: Iterable[T],
        *,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool = False,
        return_exceptions: bool = False,
        with_index: bool = False,
    ) -> Iterator[R]:
        """Return an iterator over `fn(item)` in order; lazy on both ends, as `map`. Any thread may read it.

        `close()` cancels what has not started, as dropping the iterator does.
        An item's exception is raised at its place, and `next` goes on behind it; `return_exceptions=True` yields it
        instead. `with_index=True` yields `(index, result)`. `progress=True` shows a bar on stderr.
        """
        return self._stream(
            fn,
            iterable,
            StreamPlan(
                at_hand=_is_at_hand(iterable),
                chunksize=chunksize,
                buffersize=buffersize,
                progress=progress,
                return_exceptions=return_exceptions,
                with_index=with_index,
            ),
        )

    def imap_unordered(
        self,
        fn: Callable[[T], R],
        iterable: Iterable[T],
        *,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool = False,
        return_exceptions: bool = False,
        with_index: bool = False,
    ) -> Iterator[R]:
        """Do as `imap`, but yield each result as soon as it is there."""
        return self._stream(
            fn,
            iterable,
            StreamPlan(
                at_hand=_is_at_hand(iterable),
                ordered=False,
                chunksize=chunksize,
                buffersize=buffersize,
                progress=progress,
                return_exceptions=return_exceptions,
                with_index=with_index,
            ),
        )

    def starmap(
        self,
        fn: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        *,
        chunksize: int | None = None,
        buffersize: int | None = None,
        progress: bool = False,
        return_exceptions: bool = False,
        with_index: bool = False,
    ) -> Iterator[R]:
        """Do as `imap`, calling `fn(*item)`."""
        return self._stream(
            fn,
            iterable,
            StreamPlan(
                at_hand=_is_at_hand(iterable),
                star=True,
                chunksize=chunksize,
                buffersize=buffersize,
                progress=progress,
                return_exceptions=return_exceptions,
                with_index=with_index,
            ),
        )

    def _stream(self, fn: Callable[..., R], items: Iterable[Any], plan: StreamPlan) -> Iterator[R]:
        for name, value in (("chunksize", plan.chunksize), ("buffersize", plan.buffersize)):
            if value is not None and (type(value) is not int or value < 1):
                message = f"{name}={value!r}: give a whole number of items from 1, or None to leave it to the library"
                raise ConfigError(message)
        return self._executor.stream(fn, items, plan, self._options_for(fn))

    def _options_for(self, fn: Callable[..., Any]) -> JobOptions | None:  # noqa: ARG002  # a view needs it
        """Return the options of a job of `fn`; None: those of the function itself."""
        return None


class TaskQueue(Inspection, Submitter):
    """A queue of jobs, run where its URL says: `TaskQueue()` by this program's own child processes.

    It is a `concurrent.futures.Executor`: `with`, `submit`, `map`, `shutdown`, `wait`, `as_completed`,
    `loop.run_in_executor` work as documented there. Safe to use from several threads.

    - `url`: `local://`, `sqlite:///path/to.db`, `redis://host/0`; None: what `TASKQ_URL` or the configuration file
      says, else `local://`. In a job that a worker runs, None is the queue that runs it. In a job on `local://` it is
      a pool of its own, of children of the job's process, which ends with the `with` block there: give that one few
      `processes`, or better have the program submit such jobs.
    - `processes` (also `max_workers`): how many jobs run at once; None: one per CPU that this program may use.
    - `start_method`: "fork", "forkserver" or "spawn"; None: the safest that the platform has (forkserver, else spawn).
    - `initializer(*initargs)`: called in each child process before its first job.
    - `max_tasks_per_child`: jobs after which a child process is replaced by a fresh one.
    - `queues`: names of queues in the order in which their jobs are taken; others come behind them.
    - `strict`: refuse locally what a queue between machines could not carry.

    On `sqlite://` and `redis://` the jobs live in the store and run in any `taskq worker`: how many at once, in which
    order of queues, and with which initializer is said there.

    Raises:
        ConfigError: a bad URL or setting; says the cure.
    """

    def __init__(  # the settings of Pool and ProcessPoolExecutor, by name
        self,
        url: str | None = None,
        *,
        processes: int | None = None,
        max_workers: int | None = None,
        start_method: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        queues: Sequence[str] | None = None,
        strict: bool | None = None,
    ) -> None:
        if processes is not None and max_workers is not None:
            raise ConfigError("processes and max_workers are the same setting: give one of them")
        if max_workers is not None and max_workers <= 0:
            raise ConfigError(f"max_workers must be greater than 0, not {max_workers!r}")
        settings = {
            "processes": max_workers if processes is None else processes,
            "start_method": start_method,
            "initializer": initializer,
            "initargs": initargs or None,
            "max_tasks_per_child": max_tasks_per_child,
            "queues": queues,
            "strict": strict,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        self._executor = open_executor(_configured_url() if url is None else url, given)

    @property
    def processes(self) -> int | None:
        """How many jobs run at once; None where the workers of other machines decide."""
        return self._executor.processes

    @property
    def capabilities(self) -> frozenset[str]:
        """What the executor behind the URL can do beyond the common promises."""
        return self._executor.capabilities

    def options(self, **options: Unpack[JobOptionFields]) -> BoundQueue:
        """Return this queue with job options bound to it: `queue.options(priority=9).submit(...)`.

        They go over those of `@task`, one by one.

        Raises:
            ConfigError: there is no such option, or its value makes no sense.
        """
        return BoundQueue(self._executor, options)

    def job(self, job_id: str) -> Job[Any]:
        """Return a handle to the job of that id.

        Raises:
            JobNotFound: there is none, or it is no longer kept.
        """
        return self._executor.find(job_id)

    def pause(self, queue: str = "default") -> None:
        """Have no job of this queue started until `resume`; what runs goes on. On a store, for everybody.

        Raises:
            ConfigError: this is no name of a queue.
        """
        self._executor.pause(JobOptions(queue=queue).queue)

    def resume(self, queue: str = "default") -> None:
        """Take back a `pause`.

        Raises:
            ConfigError: this is no name of a queue.
        """
        self._executor.resume(JobOptions(queue=queue).queue)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, grace: Duration | None = None) -> None:
        """Take no more jobs; wait for those there are, or with `cancel_futures=True` drop what has not started.

        With `wait`, running jobs get `grace` seconds (None: as long as they need), then they are killed and cancelled.
        Of jobs in a store only those count whose handle is still held: all others are safe there and go on.
        """
        seconds = None if grace is None else to_seconds("grace", grace)
        self._executor.close(wait=wait, cancel=cancel_futures, grace=seconds)

    def terminate_workers(self) -> None:
        """End the child processes by SIGTERM at once, and shut down: as ProcessPoolExecutor has it from Python 3.14.

        What waits is cancelled, what runs fails with `PoolBroken`. Only `local://` has processes of its own.

        Raises:
            ConfigError: the processes belong to workers.
        """
        self._executor.end_processes(kill=False)

    def kill_workers(self) -> None:
        """Do as `terminate_workers`, by SIGKILL: nothing can hold it up.

        Raises:
            ConfigError: the processes belong to workers.
        """
        self._executor.end_processes(kill=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down and wait; after an exception drop what has not started, and kill what does not end soon.

        Jobs in a store are not ended with this program: an exception leaves them at once, and so does, with a word on
        stderr, the end of a block when no worker serves their queues.
        """
        self._executor.leave(error)


class BoundQueue(Submitter):
    """A queue with job options bound to it. It shares the queue's jobs and its life."""

    def __init__(self, executor: Executor, options: JobOptionFields) -> None:
        self._executor = executor
        self._changes = options
        self._options = NO_OPTIONS.merged(**options)  # bad options are refused here, where they are written
        #: The last function and the options of its jobs; one object, as threads share it.
        self._last: tuple[object, JobOptions] = (None, self._options)

    def options(self, **options: Unpack[JobOptionFields]) -> BoundQueue:
        """Return a view with further options on top of these."""
        return BoundQueue(self._executor, cast("JobOptionFields", {**self._changes, **options}))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  # Executor's signature
        """Refuse: only the queue itself ends its work."""
        raise ConfigError("this is a view made by options(...): call shutdown() on the TaskQueue itself")

    def _options_for(self, fn: Callable[..., Any]) -> JobOptions:
        last, options = self._last
        if fn is not last:  # mostly one function at a time: remember the last
            base = options_of(fn)
            options = self._options if base is NO_OPTIONS else base.merged(**self._changes)
            if type(fn) is FunctionType:  # others may hold large objects
                self._last = fn, options
        return options


def _configured_url() -> str:
    from taskq.config import default_url  # noqa: PLC0415  # 1 ms that a start with a URL does not need

    return default_url()


# --- inputs whose items are there without waiting

_CONTAINERS: Final = (list, tuple, range, str, bytes, bytearray, set, frozenset, dict, deque)
_VIEWS: Final[tuple[Any, ...]] = ({}.keys(), {}.values(), {}.items())
#: The types of which each step takes no time. Exactly these: a subclass may do anything.
_AT_HAND: Final = frozenset(
    {
        *_CONTAINERS,
        *(type(iter(kind())) for kind in _CONTAINERS if kind is not range),
        *(type(view) for view in _VIEWS),
        *(type(iter(view)) for view in _VIEWS),
        type(iter(range(0))),
        type(reversed([])),
        count,
        repeat,
    }
)


def _is_at_hand(iterable: Any) -> bool:
    """Tell whether an input never waits; also true of one that can only be read in the thread that made it."""
    return type(iterable) in _AT_HAND or _is_cursor(iterable)


def _is_cursor(iterable: Any) -> bool:
    sqlite3 = sys.modules.get("sqlite3")
    return sqlite3 is not None and isinstance(iterable, sqlite3.Cursor)
