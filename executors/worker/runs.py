"""Runs of claimed jobs, and the pool that executes them.

    worker's loop                              dispatcher's thread             children
    ─────────────                              ───────────────────             ────────
    start(runs) ──── one message for all ────▶ backlog ──▶ batches ─────────▶  taskq.perform.perform_*
    take() ◀── ended, a list; wake pipe ────── Run.settle, Run.drop ◀────────  bytes, or a failure

Each task has a function of its own in the pool, all with the same definition. So the pool measures each task by itself,
and that says how much work may be claimed ahead.
"""

from __future__ import annotations

import select
from collections import deque
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED
from contextlib import suppress
from itertools import count
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.executors.cpus import usable_cpus
from taskq.executors.pool import payloads
from taskq.executors.pool.child import ChildSettings
from taskq.executors.pool.functions import Function, definition
from taskq.executors.pool.jobs import DEFAULTS, Outcome, PoolJob
from taskq.executors.pool.pool import ProcessPool
from taskq.executors.pool.processes import default_start_method
from taskq.executors.pool.wakepipe import WakePipe
from taskq.store import ProgressUpdate
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.failure import Failure
    from taskq.options import JobOptions
    from taskq.retry import Retry
    from taskq.store import Claim, JobOutcome

__all__ = ["UNKNOWN_NS", "PoolRunner", "Run"]

#: Nanoseconds that a run of a task is thought to take before one was measured.
UNKNOWN_NS: Final = 60_000_000.0
#: Functions known to the children at the most: names come with the jobs, from anybody.
_FUNCTIONS_MAX: Final = 2_000
#: Seconds between two looks at whether a child is ready.
_LOOK: Final = 0.005
#: Seconds for which the worker itself watches a job that it has sent straight to a child; of these, for how many it
#: stays awake where the job's function takes less than so many nanoseconds: to sleep and be woken takes longer.
_WATCH: Final = 0.001
_AWAKE: Final = 0.0002
_SHORT_NS: Final = 100_000


class RunOwner(Protocol):
    """The runner to which a run returns when it has ended."""

    session: str
    ended: deque[Run]
    sleeping: bool

    def wake(self) -> None:
        """End the worker's sleep."""


class ChunkOwner(Protocol):
    """A chunk, which may have several runs."""

    claim: Claim

    def ended(self, run: Run) -> JobOutcome | None:
        """Take the end of one of its runs; return the outcome when it was the last."""


class Run(PoolJob):
    """One run in the pool, of a claimed job or of an item of a claimed chunk.

    It has no waiters as a Future has: it returns to the worker's loop, by one list for all.

    `attempt` counts its starts in this pool from 1; `crashes` begins at what was before.
    """

    options: JobOptions
    #: The durable job that it runs, and that job's policy.
    claim: Claim
    policy: Retry | None = None
    task = ""
    #: Of a chunk, or of an item of one: whose it is, and which item.
    chunk: ChunkOwner | None = None
    index = -1
    #: Only an item waits here until it is run again; a whole job goes back to its store.
    is_rerun_here = False
    #: Bytes of the one item's envelope.
    size = 0
    #: Whether it was cancelled.
    unwanted = False
    #: Whether it has no outcome, only an end.
    dropped = False
    #: Whether the store knows that it has begun.
    told = False
    #: The outcome of its job, if it only runs what was to be called before that is told.
    outcome: JobOutcome | None = None
    #: What of its words the store was told.
    _progress_told: tuple[int, int | None] | None = None
    _meta_told: bytes | None = None
    _log_told = 0
    #: How many bytes of what it printed stand in the worker's log.
    echoed = 0
    #: Nanoseconds that it was thought to take when it was handed over.
    cost = 0.0
    #: Nanoseconds that it took.
    ran_ns = 0.0
    #: When it was sent straight to a child, by the monotonic clock.
    sent_at = 0.0

    def __init__(self, owner: RunOwner, function: Function, number: int, payload: bytes, options: JobOptions) -> None:
        self.owner = owner
        self.function = function
        self.number = number
        self.payload = payload
        self.options = options

    @property
    def id(self) -> str:
        return self.claim.id

    def settle(self, value: Any, error: BaseException | None = None) -> None:  # noqa: ARG002  # a Job's signature
        """Take the outcome to the worker; in the dispatcher's thread."""
        if self.__dict__.setdefault("_settled_by", "dispatcher") == "dispatcher":
            self.ran_ns = self.function.sizer.last_ns
            self._end_with(value)

    def try_settle(self, value: Any) -> bool:
        """Take the outcome to the worker that has seen it before the dispatcher; in the worker's thread."""
        first: bool = self.__dict__.setdefault("_settled_by", "worker") == "worker"
        if first:
            self.ran_ns = (monotonic() - self.sent_at) * 1e9
            self._end_with(value)
        return first

    def watch(self) -> None:
        """Look for the outcome for a moment, so that a short job takes no way through the dispatcher's thread."""
        if self.direct is not None:
            ns = self.function.sizer.ns
            self.look(_WATCH, _AWAKE if ns and ns < _SHORT_NS else 0.0)

    def _end_with(self, value: Any) -> None:
        self._result = value
        self._state = FINISHED
        owner = self.owner
        owner.ended.append(self)
        if owner.sleeping:
            owner.wake()

    def drop(self) -> None:
        """Tell the worker that it was not run, or not to its end; in the dispatcher's thread."""
        self._state = CANCELLED_AND_NOTIFIED
        self.dropped = True
        self.owner.ended.append(self)
        self.owner.wake()

    # -- what it says

    def remember(self, meta: bytes) -> None:
        """Begin with what an earlier attempt has noted."""
        self.make_output().meta_bytes = self._meta_told = meta
        self.isolated = True

    def news(self) -> ProgressUpdate | None:
        """Return what it has said since it was asked last; None: nothing."""
        said = self.output
        progress = None if self.last_progress == self._progress_told else self.last_progress
        meta, log = None, b""
        if said is not None:
            meta = None if said.meta_bytes == self._meta_told else said.meta_bytes
            log = said.all()[self._log_told :]
        if progress is None and meta is None and not log:
            return None
        self._progress_told = self.last_progress
        self._log_told += len(log)
        self._meta_told = meta or self._meta_told
        return ProgressUpdate(id=self.claim.id, token=self.claim.token, progress=progress, meta=meta, log=log)

    @property
    def is_untouched(self) -> bool:
        """Whether it is a whole job of which nothing was run; what is only to be called before its outcome is none."""
        return self.index < 0 and self.attempt == 1 and self.outcome is None

    def returned(self) -> bytes | Failure:
        """Return the bytes that its function returned, or why it failed."""
        found = self._result
        if isinstance(found, Outcome):
            if found.failed:
                return found.failure()
            found, _ = found.decode(self.claim.id)
        return found  # type: ignore[no-any-return]


class PoolRunner:
    """A pool and its runs. Used by the worker's thread, except where it says otherwise."""

    session = ""

    def __init__(
        self,
        *,
        processes: int | None = None,
        start_method: str | None = None,
        max_tasks_per_child: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        capture: bool = False,
        queues: tuple[str, ...] | None = (),
    ) -> None:
        self.processes = processes or usable_cpus()
        #: What has come to an end and was not taken yet. Appended to by the dispatcher's thread.
        self.ended: deque[Run] = deque()
        #: Nanoseconds that all that was started and not taken out again is thought to take.
        self.ahead_ns = 0.0
        #: Whether the worker's thread sleeps until something ends.
        self.sleeping = False
        self._woken = False
        #: Written to when the worker is to wake.
        self.wake_pipe = WakePipe()
        self._functions: dict[tuple[Callable[..., Any], str], Function] = {}
        self._numbers = count(1)
        self._start_method = start_method or default_start_method()
        settings = ChildSettings(
            session="worker",
            strict=True,
            max_tasks=max_tasks_per_child,
            initializer=initializer,
            initargs=initargs,
            capture=capture,
            outlasts_stop=True,
        )
        #: The child processes.
        self.pool = ProcessPool(self.processes, self._start_method, settings, queues=queues)

    # -- work in

    def new_run(self, fn: Callable[..., Any], task: str, args: tuple[Any, ...], options: JobOptions) -> Run:
        """Return a run of `fn(*args)` on behalf of a task; the arguments are plain scalars."""
        function = self._functions.get((fn, task)) or self._function(fn, task)
        number = next(self._numbers)
        run = Run(self, function, number, b"", options)
        run.load(payloads.pack_call(number, args, {}, strict=True))
        run.cost = function.sizer.ns or UNKNOWN_NS
        run.task = task
        return run

    def _function(self, fn: Callable[..., Any], task: str) -> Function:
        if len(self._functions) >= _FUNCTIONS_MAX:
            task = ""
        found = self._functions.get((fn, task))
        if found is None:
            described = definition(fn, (), {}, start_method=self._start_method, strict=True)
            number = len(self._functions)
            found = self._functions[fn, task] = Function(number, name_of(fn), described, DEFAULTS, bound=False)
        return found

    def start(self, runs: list[Run]) -> None:
        """Have these run, in this order."""
        if not runs:
            return
        self.ahead_ns += sum(run.cost for run in runs)
        first = runs[0]
        if len(runs) > 1 or first.options is not DEFAULTS or first.isolated:
            self.pool.post_all([*runs])
        else:
            first.sent_at = monotonic()
            self.pool.submit(first)
            first.watch()

    def start_in(self, delay: float, run: Run) -> None:
        """Have this run after `delay` seconds."""
        self.ahead_ns += run.cost
        self.pool.submit_at(monotonic() + delay, run)

    # -- work out

    def take(self) -> Run:
        """Return the first that has ended, of at least one."""
        run = self.ended.popleft()
        self.ahead_ns -= run.cost
        return run

    def wake(self) -> None:
        """End the worker's sleep; from any thread, and from signal handlers."""
        self.sleeping = False
        self._woken = True
        with suppress(OSError):  # full: it will wake
            self.wake_pipe.wake()
        self._woken = True  # again, as the worker may have looked before it was written: the pipe is never left full

    #: Readable when something has ended. Read in C, as `broken` is: each turn of the worker asks.
    wake_fd: int = property(attrgetter("wake_pipe.fd"))  # type: ignore[assignment]

    def awake(self) -> None:
        """Take note that the sleep is over; empty the wake pipe if it was written to."""
        self.sleeping = False
        if self._woken:
            self._woken = False
            with suppress(BlockingIOError):
                self.wake_pipe.drain()

    def sleep(self, seconds: float) -> None:
        """Wait until something ends, `wake` is called, or so many seconds have passed."""
        self.sleeping = True
        if not self.ended:
            poll = select.poll()
            poll.register(self.wake_pipe.fd, select.POLLIN)
            poll.poll(max(0.0, seconds) * 1000)
        self.awake()

    # -- taking it back

    def requeue(self, *, everything: bool) -> None:
        """Drop what no child has in its hands: it comes out as dropped. Not `everything`: only what never began."""
        if everything:
            self.pool.drop_waiting()
        else:
            self.pool.drop_jobs(lambda job: isinstance(job, Run) and job.is_untouched)

    def drain(self, *, interrupt: bool = False) -> None:
        """Start nothing more; what children hold in store comes back, for `requeue`.

        `interrupt`: raise KeyboardInterrupt in what runs, so that it tidies up; it comes out as dropped, too.
        """
        self.pool.drain(interrupt=interrupt)

    def cancel(self, runs: Iterable[Run], *, kill: bool, grace: float = 0.0) -> None:
        """Drop those that have not begun; ask those that run to stop, or kill their processes.

        `grace`: seconds for which KeyboardInterrupt lets them tidy up before they are killed.
        """
        self.pool.cancel_soon(runs, kill=kill, grace=grace)

    def crash(self) -> None:
        """Kill the processes that run something: for what they run that is a crash."""
        self.pool.kill_busy()

    # -- what runs

    def running(self) -> tuple[list[Run], list[Run]]:
        """Return the runs that run for certain; and of these the users' jobs, with their progress and output as of now.

        The others are of chunks, or of their items.
        """
        everything: list[Run] = []

        def is_whole_job(job: PoolJob) -> bool:
            if not isinstance(job, Run):
                return False
            everything.append(job)
            return job.chunk is None

        jobs = [job for job in self.pool.running(is_whole_job) if isinstance(job, Run)]
        return everything, jobs

    # -- life

    def is_ready(self) -> bool:
        """Return whether a child is ready for work, after a moment's wait if none is."""
        if self.pool.is_ready():
            return True
        self.sleep(_LOOK)
        return False

    #: Why no child can be started; None as long as they can.
    broken: str | None = property(attrgetter("pool.broken"))  # type: ignore[assignment]

    def close(self) -> None:
        """Kill what still runs, and free everything."""
        self.pool.accepting = False
        self.pool.finish(0)
        self.wake_pipe.close()
