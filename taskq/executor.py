"""The interface of executors, behind which jobs live and run.

    TaskQueue  ──calls──▶  Executor:  submit · submit_many · stream · find · pause · resume · close
                              LocalExecutor      this process's memory and its own child processes
                              DurableExecutor    a store (a SQLite file, Redis), and the workers on it

`taskq` knows executors only by this file; which one a URL means stands in `connect.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from taskq.errors import ConfigError
from taskq.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from taskq.job import Job
    from taskq.options import JobOptions
    from taskq.records import JobInfo, QueueInfo, WorkerInfo
    from taskq.states import State

__all__ = ["Executor", "Journaled", "Selection", "StreamPlan"]

#: Seconds that running jobs get to end when an error has left a `with` block; a second Ctrl-C ends them at once.
LEAVING_GRACE = 5.0


class StreamPlan(Frozen):
    """The way in which `Executor.stream` runs a map.

    `star`: each item is a tuple of arguments, else the one argument. `ordered`: results come in the order of the items.
    `chunksize`: items handed to a process at once, None: steered by measured time. `buffersize`: items read and not yet
    yielded at most, None: what keeps the processes busy. `timeout`: seconds from now until the last result must be
    there. `progress`: a bar on stderr. `return_exceptions`: an item's exception is yielded in its place, not raised.
    `with_index`: pairs of the item's index and its result are yielded. `finite`: the input is known to end, so a queue
    that is closed may read the rest of it. `at_hand`: it gives its items without waiting, or only in this thread.
    """

    star: bool = False
    ordered: bool = True
    chunksize: int | None = None
    buffersize: int | None = None
    timeout: float | None = None
    progress: bool = False
    return_exceptions: bool = False
    with_index: bool = False
    finite: bool = False
    at_hand: bool = False


class Selection(Frozen):
    """The jobs that are meant, of all that an executor has.

    `states`: empty for all; `queue`, `task`: names, None for all. `since`: seconds since 1970; those that were
    submitted then or later. `older_than`: those that had ended by then, or that have not and were submitted by then.
    `limit`: the newest so many, None for all.
    """

    states: tuple[State, ...] = ()
    queue: str | None = None
    task: str | None = None
    since: float | None = None
    older_than: float | None = None
    limit: int | None = None


class Journaled(ABC):
    """Items of a map that keep a journal of the jobs that run them on a store, so that a later run can go on."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Return an iterator over the items."""

    @abstractmethod
    def sending(self, chunks: Sequence[tuple[str, int, int]]) -> None:
        """Record jobs before they are put, perhaps again: each its id, its first item's index, how many items."""

    @abstractmethod
    def removable(self, ids: Sequence[str]) -> list[str]:
        """Return those of these jobs, whose results were read, that are not needed any more."""


class Executor(ABC):
    """The interface of an executor: it takes calls, runs each in some process, and gives a handle to the outcome.

    The promises, which one conformance suite checks on every executor:

    - A call that `submit` took ends in exactly one recorded outcome: a value, an error, or cancelled.
    - It runs at least once unless cancelled; more often only after its process died (up to `max_crashes` deaths), or by
      its `retry` policy. No other job notices either.
    - An outcome, once recorded, does not change.
    - Calls of one priority start in the order of their submits, as far as there are free processes; they may end in any
      order.
    - Arguments and results arrive equal and of the same type, or the job is refused with the path of the bad value.
    - Every method may be called from any thread, and from callbacks. None may be called in a process forked later.
    """

    #: What it can do beyond this interface. Tests and callers ask here, never for its name.
    #: "pickle": arguments may be any picklable object; "start_methods": it owns processes and takes `start_method`;
    #: "durable": jobs live in a store, outlast this process, and are run by workers.
    capabilities: ClassVar[frozenset[str]] = frozenset()

    #: How many jobs it runs at once; None where that is not up to it.
    processes: int | None = None

    @abstractmethod
    def submit(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: JobOptions | None
    ) -> Job[Any]:
        """Take one call. `options` None: those that `@task` gave the function.

        Jobs among the arguments make the call wait for them; their results stand in their places.

        Raises:
            TaskRefused: no process could import the function, or it takes other arguments.
            EncodeError: an argument cannot travel; the message has its path, as `args[1]['when']`.
            ConfigError: an option does not fit this executor.
            JobExists: the `key` or `job_id` is taken, and `if_exists` is "reject".
            QueueFull: there is no room for more jobs now.
            QueueClosed, PoolBroken: it takes no more work.
        """

    @abstractmethod
    def submit_many(
        self, fn: Callable[..., Any], calls: Iterable[Sequence[Any]], options: JobOptions | None
    ) -> list[Job[Any]]:
        """Take `fn(*args)` for each `args` of `calls`, all or none; return the jobs in that order.

        None begins before all were checked. One that is refused after that takes back those that this call has made.

        Raises:
            As `submit`.
        """

    @abstractmethod
    def stream(
        self, fn: Callable[..., Any], items: Iterable[Any], plan: StreamPlan, options: JobOptions | None
    ) -> Iterator[Any]:
        """Run `fn` over `items` and return an iterator of the results.

        Work starts at once. The input is never read more than a bounded window ahead of what was yielded: where its
        items are at hand in the consumer's thread, else in a thread of its own, so that a result that is there never
        waits for the input. An item's error is raised (or yielded) at its place and the next `next` goes on behind it.
        An iterator that is closed or dropped half way cancels what has not started. Any number of threads may read one
        iterator: each result goes to one of them.

        Raises:
            As `submit` for the function; errors of single items come from the iterator. An error of `items` itself
            is raised after the results of what it gave before.
        """

    @abstractmethod
    def find(self, job_id: str) -> Job[Any]:
        """Return a handle to a job by its id.

        Raises:
            JobNotFound: there is none of that id, or it is no longer kept.
        """

    def pause(self, queue: str) -> None:  # noqa: ARG002  # for those that can
        """Have no job of this queue started until `resume`; what runs goes on.

        Raises:
            ConfigError: this executor cannot.
        """
        raise ConfigError(f"{type(self).__name__} cannot pause a queue")

    def resume(self, queue: str) -> None:  # noqa: ARG002  # for those that can
        """Take back a `pause`; of a queue that is not paused it changes nothing.

        Raises:
            ConfigError: this executor cannot.
        """
        raise ConfigError(f"{type(self).__name__} cannot resume a queue")

    # -- look and act

    def jobs(self, wanted: Selection) -> list[JobInfo]:  # noqa: ARG002  # for those that can
        """Return the jobs that are wanted, without their arguments, newest first.

        Raises:
            ConfigError: this executor cannot, or does not know what `wanted` asks.
        """
        raise ConfigError(f"{type(self).__name__} cannot list its jobs")

    def queues(self) -> list[QueueInfo]:
        """Return all queues that have jobs, workers or a pause, by name.

        Raises:
            ConfigError: this executor cannot.
        """
        raise ConfigError(f"{type(self).__name__} cannot list its queues")

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are alive, by name.

        Raises:
            ConfigError: this executor cannot.
        """
        raise ConfigError(f"{type(self).__name__} cannot list its workers")

    def retry_all(self, wanted: Selection) -> int:  # noqa: ARG002  # for those that can
        """Run the jobs that are wanted again, of those that failed or were cancelled; return how many.

        Raises:
            ConfigError: this executor cannot, or does not know what `wanted` asks.
        """
        raise ConfigError(f"{type(self).__name__} cannot run jobs again")

    def purge(self, wanted: Selection) -> int:  # noqa: ARG002  # for those that can
        """Forget the jobs that are wanted and do not run; return how many. One that had not ended is cancelled.

        Raises:
            ConfigError: this executor cannot, or does not know what `wanted` asks.
        """
        raise ConfigError(f"{type(self).__name__} cannot forget jobs")

    def end_processes(self, *, kill: bool) -> None:
        """Take no more work, drop what waits, and end the processes at once: by SIGKILL, or by SIGTERM.

        Raises:
            ConfigError: the processes are not this executor's.
        """
        raise ConfigError(
            f"{type(self).__name__} has no processes of its own that it could {'kill' if kill else 'terminate'}: they "
            "belong to the workers. To end a job use job.cancel(kill=True), to end a worker send it SIGTERM"
        )

    @abstractmethod
    def close(self, *, wait: bool = True, cancel: bool = False, grace: float | None = None) -> None:
        """Take no more work. `cancel`: drop what has not started. `wait`: return when all else has ended.

        `grace`: seconds that running jobs get, with `wait`; then they are killed and end as cancelled. None: no limit.

        Without `wait` the work goes on in the background, at the latest until the interpreter ends, which waits for it.
        Safe to call twice.

        Where jobs outlast this process, only those count whose handle is still held, or that have a callback;
        and the end of the interpreter waits for none.
        """

    def leave(self, error: BaseException | None) -> None:
        """Close at the end of a `with` block, which `error` left.

        Without an error it waits as `close` does. Where jobs outlast this process, an error does not wait for them,
        and without one they are left when no worker would run them.
        """
        if error is None:
            self.close()
        else:
            self.close(cancel=True, grace=LEAVING_GRACE)
