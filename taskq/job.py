"""Job: a handle to one call of a task, and a `concurrent.futures.Future`.

A standard Future makes a condition variable, a lock and two lists when it is created. Nearly all of them are never
used, because most results are there before a wait begins. A Job makes them for its first waiter:

    waiter                                        the thread that settles the job
    setdefault(condition, a new one)              setdefault(condition, SEALED)
      its own: wait on it                           its own: write the outcome, there is no waiter
      SEALED: the outcome is being written          a waiter's: write the outcome under it, wake all

`dict.setdefault` with a string key is one atomic step in CPython, so exactly one side wins.

An exception of a signal handler may end a waiter between any two instructions. So a waiter here holds nothing, and
the lock and the events of waiters by `concurrent.futures` are ones that such an end leaves usable (`locks`).

Source: the private attributes `_condition`, `_state`, `_waiters` and `_done_callbacks` are those that CPython 3.11 to
3.14's `concurrent.futures` itself reads on other futures (`wait`, `as_completed`), so they are as stable as it is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from functools import partial
from threading import Condition, Event, Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import ref

from taskq.context import NAMED_AFTER, wait_named
from taskq.durations import to_seconds
from taskq.errors import Deadlock, DecodeError, JobFailed
from taskq.locks import CallLock, SafeCondition, SafeEvent, aside, detach, may_be_interrupted
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskq.durations import Duration
    from taskq.records import JobInfo
    from taskq.states import Reason

__all__ = ["Job", "Undecoded"]

T = TypeVar("T")

#: Stands where the condition would be in a job that was settled before a wait began.
_SEALED: Final = Condition()

#: What stands for an exception that could not be rebuilt, for which any error on the way may be the reason.
_DOUBTFUL: Final = (JobFailed, DecodeError)

#: The standard Future's states that are final.
ENDED: Final = frozenset({FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED})


class _Sleeper(SafeCondition):
    """A thread that waits for one job."""

    __slots__ = ()

    def _told(self, _job: object) -> None:
        self.notify_all()

    add_result = add_exception = add_cancelled = _told


class Undecoded:
    """An outcome that is still bytes: it is decoded at the first request, in the thread that asks."""

    __slots__ = ()

    #: Whether it is an error; known without decoding.
    failed: bool

    def decode(self, job_id: str) -> tuple[Any, BaseException | None]:
        """Return the value, or the exception to raise."""
        raise NotImplementedError


class Job(Future[T]):
    """One call of a task. Everything that `concurrent.futures` says of a Future holds; `await job` works too.

    Made by `TaskQueue.submit`, never by users. All methods may be called from any thread.
    """

    # Class attributes, so that a new job is an empty object; see the module's docstring.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: list[Any]
    _done_callbacks: list[Any]
    #: Whether a job that waits for this one names it in its log: it may need the process in which that one waits.
    is_named = False

    def __init__(self) -> None:  # the standard constructor makes what a Job makes later
        pass

    # -- what it is

    @property
    def id(self) -> str:
        """The job's id: unique, and the same in every process."""
        raise NotImplementedError

    @property
    def state(self) -> State:
        """Where the job stands now."""
        if self._state == FINISHED:
            return State.SUCCEEDED if self.exception() is None else State.FAILED
        if self._state == CANCELLED_AND_NOTIFIED:
            return State.CANCELLED
        return self._ask_state()

    @property
    def reason(self) -> Reason | None:
        """Why the job failed; None unless it did."""
        raise NotImplementedError

    @property
    def attempts(self) -> int:
        """How often the job was started, as far as it is known here."""
        raise NotImplementedError

    @property
    def crashes(self) -> int:
        """How many of the attempts ended because their process died."""
        raise NotImplementedError

    @property
    def progress(self) -> tuple[int, int | None] | None:
        """The job's last word about itself: done, and total where it is known. None before the first."""
        raise NotImplementedError

    @property
    def meta(self) -> dict[str, Any]:
        """What the job has noted of itself by `current_job().meta`, as of now."""
        raise NotImplementedError

    def logs(self) -> str:
        """Return what the job has logged by `current_job().log` so far; where workers run it, also what it printed."""
        raise NotImplementedError

    def info(self) -> JobInfo:
        """Return all that is known of the job now: its task and arguments, times, worker, attempts; see `JobInfo`.

        Raises:
            JobNotFound: it is no longer kept.
        """
        raise NotImplementedError

    def retry(self) -> Job[T]:
        """Run the job again under its id, as if new, after it failed or was cancelled; return the handle to that run.

        This handle keeps the outcome that it has.

        Raises:
            RetryRefused: it has not ended, or it succeeded, or another job has its key now.
            JobNotFound: it is no longer kept.
            QueueClosed: after `shutdown`.
        """
        raise NotImplementedError

    def _ask_state(self) -> State:
        raise NotImplementedError

    # -- the standard Future, with the condition made late

    @property
    def _condition(self) -> Condition:
        attributes = self.__dict__
        found: Condition | None = attributes.get("_lock")
        if found is None:
            self._attend()
            found = attributes.setdefault("_lock", _new_condition(self))
        if found is not _SEALED:
            return found
        while self._state not in ENDED:  # the other thread is between two of its lines
            time.sleep(0)
        late: Condition = attributes.get("_late_lock") or attributes.setdefault("_late_lock", _new_condition(self))
        return late

    @_condition.setter
    def _condition(self, condition: Condition) -> None:  # for the type checker: the base class assigns it
        self.__dict__["_lock"] = condition

    def done(self) -> bool:
        """Return whether the job has ended, in whichever way."""
        return self._state in ENDED

    def cancelled(self) -> bool:
        """Return whether the job was cancelled."""
        return self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Return whether the job is being run, or is in the hands of a process that may start it any moment."""
        return self._state not in ENDED and self._ask_state() is State.RUNNING

    def cancel(self, *, kill: bool = False) -> bool:
        """Keep the job from running; return whether that is certain.

        A running job is asked to stop (`current_job().cancelled` becomes true in it) and False is returned, as the
        standard Future demands. With `kill=True` its process is killed: the job ends as cancelled, True is returned.
        """
        raise NotImplementedError

    def result(self, timeout: Duration | None = None) -> T:
        """Return the job's value, waiting for it at most `timeout`: seconds, a text as "10m", or a `timedelta`.

        Raises:
            TimeoutError: it was not there in time; the job goes on.
            ConfigError: `timeout` is a text that is no length of time.
            Deadlock: this is a callback, in the very thread that would bring the result.
            concurrent.futures.CancelledError: the job was cancelled.
            JobCrashed, JobTimeout, JobLost, DependencyFailed, EncodeError: what became of the job.
            Exception: whatever the task raised, of the original class, with the remote traceback as `__cause__`.
        """
        if self._state != FINISHED:
            self._wait(timeout if timeout is None else to_seconds("timeout", timeout))
        self._decode()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642  # break the cycle through the traceback
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: Duration | None = None) -> BaseException | None:
        """Return the exception that `result` would raise, or None; waits as `result` does."""
        if self._state != FINISHED:
            self._wait(timeout if timeout is None else to_seconds("timeout", timeout))
        self._decode()
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Return when there is an outcome; raise TimeoutError or CancelledError when there is none to come."""
        self._condition  # noqa: B018  # from now on the thread that settles the job looks for waiters
        if self._state not in ENDED:
            sleeper = _Sleeper()
            list.append(self._waiters, sleeper)
            try:
                sleeper.wait_for(lambda: self._state in ENDED, timeout)
            finally:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(sleeper)
        if self._state != FINISHED:
            raise CancelledError if self._state in ENDED else TimeoutError

    def _refuse_deadlock(self) -> None:
        raise Deadlock(
            f"a callback waits for job {self.id} in the thread that would bring its end: wait in a thread of your own "
            "(threading.Thread, an executor), or give that job an add_done_callback"
        )

    def _attend(self) -> None:
        """Prepare for a wait that is going to begin."""

    def _is_told_here(self) -> bool:
        """Return whether this thread tells the job's end: a wait in it would never end."""
        return False

    def _decode(self) -> None:
        outcome = self._result
        if isinstance(outcome, Undecoded):
            value, error = outcome.decode(self.id)
            if isinstance(error, _DOUBTFUL) or (error is not None and not outcome.failed):
                value, error = self._decode_again(outcome, error)
            self._exception = error
            self._result = value

    def _decode_again(self, outcome: Undecoded, error: BaseException) -> tuple[Any, BaseException | None]:
        """Decode where no signal handler runs: what one raised meanwhile is raised on, and is not the job's outcome."""
        value, again = aside(lambda: outcome.decode(self.id))
        if again is None:
            raise error.__cause__ if isinstance(error, DecodeError) and error.__cause__ is not None else error
        return value, again

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result in an event loop."""
        import asyncio  # noqa: PLC0415  # 20 ms that only users of asyncio pay, and they have paid already

        return asyncio.wrap_future(self).__await__()

    # -- for executors

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Record the outcome and wake the waiters. For executors, once."""
        attributes = self.__dict__
        lock = attributes.setdefault("_lock", _SEALED)
        if lock is _SEALED:
            attributes["_exception"] = error
            attributes["_result"] = value
            attributes["_state"] = FINISHED
            return
        self._tell(FINISHED, value, error)

    def try_settle(self, value: Any) -> bool:
        """Record a value that `settle` is going to record as well, unless there is a waiter already; return whether.

        For executors whose asker can see the outcome first. Harmless when both do it at once, or one is interrupted.
        """
        attributes = self.__dict__
        if attributes.setdefault("_lock", _SEALED) is not _SEALED:
            return False
        attributes["_result"] = value
        attributes["_state"] = FINISHED
        return True

    def drop(self) -> None:
        """Record that the job was cancelled and wake the waiters. For executors, once."""
        attributes = self.__dict__
        if attributes.setdefault("_lock", _SEALED) is not _SEALED:
            self._tell(CANCELLED_AND_NOTIFIED, None, None)
        elif self._state in ENDED:
            raise InvalidStateError(f"{self._state}: {self!r}")
        else:
            attributes["_state"] = CANCELLED_AND_NOTIFIED

    def _tell(self, state: str, value: Any, error: BaseException | None) -> None:
        """Record the outcome and wake the waiters; all of them, also when this thread is interrupted at it."""
        if self._state in ENDED:
            raise InvalidStateError(f"{self._state}: {self!r}")
        if not may_be_interrupted():
            self._end(state, value, error)
            self._invoke_callbacks()
            return
        try:
            aside(partial(self._end, state, value, error))
            self._invoke_callbacks()
        except BaseException:
            detach(partial(self._end_and_call, state, value, error))
            raise

    def _end_and_call(self, state: str, value: Any, error: BaseException | None) -> None:
        self._end(state, value, error)
        self._invoke_callbacks()

    def _end(self, state: str, value: Any, error: BaseException | None) -> None:
        attributes = self.__dict__
        lock: Condition = attributes["_lock"]
        with lock:
            if self._state in ENDED:
                return
            attributes["_exception"] = error
            attributes["_result"] = value
            attributes["_state"] = state
            for waiter in list(self._waiters):
                if state == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif error is not None or (isinstance(value, Undecoded) and value.failed):
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            lock.notify_all()

    def _invoke_callbacks(self) -> None:
        """Call the callbacks, where no signal handler's exception can come between one and the next."""
        if self._done_callbacks:
            aside(self._call_all)

    def _call_all(self) -> None:
        callbacks = self._done_callbacks
        while callbacks:
            try:
                callbacks.pop(0)(self)
            except BaseException:  # even a SystemExit of theirs must not end the thread that settles all jobs
                logging.getLogger("concurrent.futures").exception("exception calling callback for %r", self)


def _new_condition(job: Job[Any]) -> Condition:
    """Make what the standard Future is born with, unless another thread just did."""
    attributes = job.__dict__
    attributes.setdefault("_waiters", _Waiters(job))
    attributes.setdefault("_done_callbacks", [])
    return Condition(cast("Lock", CallLock()))


class _Waiters(list[Any]):
    """The waiters of `concurrent.futures.wait` and `as_completed`; they come from anywhere, also from callbacks."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[Any]) -> None:
        self._job = ref(job)

    def append(self, waiter: Any) -> None:
        """Take one in, with an event and a lock that no interrupt leaves taken."""
        if type(getattr(waiter, "event", None)) is Event:
            waiter.event = _EndOfJobs()
            if hasattr(waiter, "lock"):
                waiter.lock = CallLock()
        if type(waiter.event) is _EndOfJobs:
            waiter.event.jobs.append(self._job)
        super().append(waiter)


class _EndOfJobs(SafeEvent):
    """The event of one `wait` or `as_completed`: it warns of a wait that may never end."""

    __slots__ = ("jobs",)

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[ref[Job[Any]]] = []

    def wait(self, timeout: float | None = None) -> bool:
        return wait_named(self._wait_in_callback if self._delivers_here() else super().wait, timeout, self._name)

    def _delivers_here(self) -> bool:
        first = self._first()
        return first is not None and first._is_told_here()  # noqa: SLF001 - ours

    def _wait_in_callback(self, timeout: float | None) -> bool:
        """Say that a callback still waits: it can hardly be told from one that only looks, so it is not refused."""
        if super().wait(NAMED_AFTER if timeout is None else min(timeout, NAMED_AFTER)):
            return True
        if timeout is not None and timeout <= NAMED_AFTER:
            return False
        logging.getLogger("taskq").warning(
            "a callback waits for jobs by concurrent.futures.wait or as_completed in the thread that would bring "
            "their ends, so it may wait for ever: wait in a thread of your own"
        )
        return super().wait(None if timeout is None else timeout - NAMED_AFTER)

    def _first(self) -> Job[Any] | None:
        """Return the first of the jobs that have not ended."""
        jobs = (found() for found in self.jobs)
        return next((job for job in jobs if job is not None and job._state not in ENDED), None)  # noqa: SLF001  # ours

    def _name(self) -> str:
        job = self._first()
        return job.id if job is not None and job.is_named else ""
