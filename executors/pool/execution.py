"""Execution of one batch of jobs in a child.

    claim a run of jobs ──▶ run them ──▶ commit their outcomes ──▶ next run

A run is one job, or several very short ones together: a claim and a commit cost a microsecond, a no-op a fortieth of
it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from operator import length_hint
from time import monotonic_ns, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq import context, runner
from taskq.context import JobContext
from taskq.errors import JobCancelled
from taskq.executors.pool import payloads, protocol
from taskq.states import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskq.executors.pool.journal import Journal
    from taskq.executors.pool.reporter import ParentReporter

#: Nanoseconds of work that a run of several jobs aims at: the most that is run again when its process dies.
_RUN_NS: Final = 30_000
#: Nanoseconds, with 1.5 us of our own, from which a job runs alone: less than any takes that writes a file.
_ALONE_NS: Final = 2_500
#: Jobs in a run at the most: beyond this the claim costs nothing any more.
_RUN_MAX: Final = 256
#: The keyword arguments of most calls.
_NOTHING: Final[Mapping[str, Any]] = {}


class ChildState:
    """What the batches of one child process share."""

    __slots__ = (
        "functions", "journal", "max_tasks", "next_seq", "queue", "reporter", "run_lengths", "session", "strict",
        "tasks", "words",
    )  # fmt: skip

    def __init__(self, words: memoryview, journal: Journal, reporter: ParentReporter, settings: Settings) -> None:
        self.words = words
        self.journal = journal
        self.reporter = reporter
        self.strict = settings.strict
        self.session = settings.session
        self.max_tasks = settings.max_tasks
        #: By number: functions ready to run, or the reasons why there are none.
        self.functions: dict[int, Callable[..., Any] | Exception] = {}
        #: By number of the function: how many jobs the next run may hold.
        self.run_lengths: dict[int, int] = {}
        #: The sequence number of the next batch's first job.
        self.next_seq = 0
        #: Jobs that were started.
        self.tasks = 0
        self.queue = "default"


class Settings(Protocol):
    """What of a child's settings concerns its jobs."""

    @property
    def strict(self) -> bool:
        """Whether values travel by taskq's codec."""

    @property
    def session(self) -> str:
        """What the ids of jobs begin with."""

    @property
    def max_tasks(self) -> int | None:
        """How many jobs the child runs; None: any number."""


class Execution:
    """One batch being run, in runs of jobs that are claimed and committed together.

    A run is as long as `_RUN_NS` of work, going by the last ones of the same function, so only jobs of a few
    microseconds share one; timed jobs, and jobs that may have killed a process, always run alone.
    """

    def __init__(self, state: ChildState, order: protocol.Order, items: list[Any]) -> None:
        self._state = state
        self._order = order
        self._items = iter(items)
        self._journal = state.journal
        self._exact = bool(order.flags & protocol.EXACT)
        #: Values of the present run, and how many of them are committed.
        self._results: list[Any] = []
        self._committed = 0
        #: Whether a user's function is running.
        self._in_job = False
        #: Items that were left when the run began.
        self._left = 0
        #: How many values the run can still come to after `release`; None: it was not called.
        self._kept: int | None = None
        self._call_number: int | str = 0

    def go(self) -> None:
        """Run every job of the batch, unless the parent or `max_tasks_per_child` stops it before."""
        state, order = self._state, self._order
        function = state.functions[order.function]
        if isinstance(function, Exception):
            self._refuse_all(function)
            return
        context.provide(self._context)
        self._run_all(function)

    def _run_all(self, function: Callable[..., Any]) -> None:
        state, order = self._state, self._order
        last = self._journal.done + order.jobs
        length = 1 if self._exact else state.run_lengths.get(order.function, 1)
        while length and self._journal.done < last:
            run = self._run_singly if length == 1 else self._run_together
            length = run(function, length, last)
        if length:
            state.run_lengths[order.function] = length

    def _claim(self, seq: int, jobs: int) -> int:
        """Announce the jobs that may start now; return how many may (0: the parent wants no more)."""
        state = self._state
        words = state.words
        if state.max_tasks is not None:
            jobs = min(jobs, state.max_tasks - state.tasks)
        words[protocol.CLAIM] = seq + jobs
        if words[protocol.STOP]:  # read after the claim was written: the parent waits and then reads the claim
            words[protocol.CLAIM] = seq
            return 0
        state.tasks += jobs
        return jobs

    # -- one job after the other

    def _run_singly(self, function: Callable[..., Any], _length: int, last: int) -> int:
        """Run jobs one by one until they turn out short; return how many the next run may hold, 0: none may start."""
        journal, words, items, soft = self._journal, self._state.words, self._items, self._order.soft
        arguments = self._arguments_of_call if self._order.kind == protocol.CALLS else self._arguments_of_item
        capture, exact = self._state.reporter.capture, self._exact
        results = self._results = []
        self._committed = 0
        while (seq := journal.done) < last:
            if not self._claim(seq, 1):
                return 0
            started = perf_counter_ns()
            try:
                args, kwargs = arguments(next(items))
            except Exception as unreadable:  # noqa: BLE001  # their classes may fail to be rebuilt in any way
                self._commit_failure(unreadable, Reason.UNDECODABLE)
                continue
            if exact:
                words[protocol.START] = monotonic_ns()
            error = runner.run_one(function, args, kwargs, results, soft)
            if exact:
                words[protocol.START] = 0
            if capture is not None and (size := capture.size()):
                self._tell_printed(seq, size)
            if error is None:
                self._commit_one(results.pop())
            else:
                self._commit_failure(error)
                results = self._results
            if perf_counter_ns() - started < _ALONE_NS and not exact:
                return 2
        return 1

    def _arguments_of_call(self, call: Any) -> tuple[Any, Any]:
        self._call_number = call[0]
        if len(call) > 2:  # noqa: PLR2004  # all is plain, see pack_call
            return call[1], call[2] or _NOTHING
        return payloads.unpack_call(call[1], strict=self._state.strict)

    def _arguments_of_item(self, item: Any) -> tuple[Any, Any]:
        return item if self._order.flags & protocol.STAR else (item,), _NOTHING

    def _tell_printed(self, seq: int, size: int) -> None:
        """Send the bytes that a call has printed which has just ended."""
        if self._order.kind == protocol.CALLS:
            self._state.reporter.send_printed(seq, size)

    # -- several together

    def _run_together(self, function: Callable[..., Any], length: int, last: int) -> int:
        """Run several jobs; return as `_run_singly`."""
        seq = self._journal.done
        jobs = self._claim(seq, min(length, last - seq))
        if not jobs:
            return 0
        started = perf_counter_ns()
        if self._order.kind == protocol.CHUNK:
            self._run_chunk(function, jobs)
        else:
            self._run_calls(function, jobs)
        each = (perf_counter_ns() - started) // jobs + 1
        return 1 if each > _ALONE_NS else min(_RUN_NS // each, 2 * length, _RUN_MAX)

    def _run_chunk(self, function: Callable[..., Any], jobs: int) -> None:
        """Run items of a map."""
        star = bool(self._order.flags & protocol.STAR)
        end = self._journal.done + jobs
        while self._journal.done < end and not self._released and not self._state.words[protocol.INTERRUPT]:
            self._results, self._committed = [], 0
            self._left = length_hint(self._items)
            items = islice(self._items, end - self._journal.done)
            self._in_job = True
            error = runner.run_many(function, items, self._results, star=star)
            self._in_job = False
            complete = len(self._results) == self._kept  # after a release, this many is all
            self._commit_results()
            if error is None and self._journal.done < end and not complete:
                error = StopIteration()  # raised by a job, it ends a C loop without a word
            if error is not None:
                self._commit_failure(error)

    def _run_calls(self, function: Callable[..., Any], jobs: int) -> None:
        """Run single calls."""
        self._results, self._committed = [], 0
        first = self._journal.done
        capture = self._state.reporter.capture
        for seq, call in enumerate(islice(self._items, jobs), first):
            try:
                args, kwargs = self._arguments_of_call(call)
            except Exception as unreadable:  # noqa: BLE001  # as in _run_singly
                self._commit_failure(unreadable, Reason.UNDECODABLE)
                continue
            self._in_job = True
            error = runner.run_one(function, args, kwargs, self._results)
            self._in_job = False
            if capture is not None and (size := capture.size()):
                self._tell_printed(seq, size)
            if error is not None:
                self._commit_failure(error)
                if self._state.words[protocol.INTERRUPT]:
                    break
        self._commit_results()

    def _commit_failure(self, error: BaseException, reason: Reason = Reason.ERROR) -> None:
        self._commit_results()
        self._results, self._committed = [], 0
        if isinstance(error, KeyboardInterrupt) and self._state.words[protocol.INTERRUPT]:
            error = JobCancelled("it was interrupted, as its program was")
        self._journal.commit(1, payloads.FAILURE, payloads.pack_error(error, reason, strict=self._state.strict))

    @property
    def _released(self) -> bool:
        return self._kept is not None

    # -- a run that turns out to be long

    def release(self) -> None:
        """Commit what is finished of the run and let go of what was not started, in the midst of a job.

        Called by a signal that the parent sends when one job of a run of short ones takes long, after it has set STOP.
        """
        if not self._in_job or self._kept is not None or not self._state.words[protocol.STOP]:
            return
        self._in_job = False
        running = self._order.kind == protocol.CALLS or self._left - length_hint(self._items) > len(self._results)
        self._kept = len(self._results) + running  # the first item may not have been taken yet
        deque(self._items, maxlen=0)  # the loop that runs the jobs finds no further one
        self._commit_results()
        self._state.words[protocol.CLAIM] = self._journal.done + running

    # -- outcomes

    def _commit_results(self) -> None:
        """Record values: together if plain or of one map, else one by one, so that each stays bytes until asked for."""
        results = self._results[self._committed :] if self._committed else self._results
        self._committed = len(self._results)
        if not results:
            return
        together = None
        if len(results) > 1 and (self._order.kind == protocol.CHUNK or payloads.are_scalars(map(type, results))):
            try:
                together = payloads.pack(results, strict=self._state.strict, root="result")
            except Exception:  # noqa: BLE001  # one of them cannot travel, however its class says so; the others can
                together = None
        if together is None or (self._order.kind == protocol.CALLS and together[0] != payloads.MSGPACK):
            self._commit_singly(results)
        else:
            self._journal.commit(len(results), *together)

    def _commit_singly(self, results: list[Any]) -> None:
        for result in results:
            self._commit_one(result)

    def _commit_one(self, result: Any) -> None:
        try:
            encoding, payload = payloads.pack_one(result, strict=self._state.strict, root="result")
        except Exception as error:  # noqa: BLE001  # as above
            encoding, payload = payloads.FAILURE, payloads.pack_error(error, strict=self._state.strict)
        self._journal.commit(1, encoding, payload)

    def _refuse_all(self, error: Exception) -> None:
        refusal = payloads.pack_error(error, Reason.UNKNOWN_TASK, strict=self._state.strict)
        for _ in range(self._order.jobs):
            self._journal.commit(1, payloads.FAILURE, refusal)

    def _context(self) -> JobContext:
        """Describe the job that is running: its place is behind all committed ones and those finished in this run."""
        state, order = self._state, self._order
        seq = self._journal.done + len(self._results) - self._committed
        if order.kind == protocol.CALLS:
            named = self._call_number  # a text is an id that the job was given
            job_id = named if isinstance(named, str) else f"{state.session}-{named}"
        else:
            job_id = f"{state.session}-{order.stream}.{order.first + seq - state.next_seq}"
        return JobContext(job_id, order.attempt, seq, state.reporter, state.queue)
