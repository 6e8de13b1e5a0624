"""DurableJob: a handle to a job in a store. It asks the store, unless somebody waits: then it is told."""

from __future__ import annotations

import os
from concurrent.futures._base import FINISHED
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from taskq.codec import decode
from taskq.context import NAMED_AFTER, WAITED, WAITS, running_job, wait_named
from taskq.errors import JobCancelled, SoftTimeout
from taskq.failure import Failure
from taskq.job import ENDED, Job, Undecoded
from taskq.locks import CallLock, may_be_interrupted, pass_on
from taskq.states import TERMINAL, State
from taskq.wait_book import ended_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from threading import Condition

    from taskq.context import JobContext
    from taskq.records import JobInfo
    from taskq.states import Reason
    from taskq.store import Ended, JobRecord

#: References below which nothing is dropped.
_FEW: Final = 1024


__all__ = ["DurableJob", "JobOwner", "StoredOutcome", "WeakHandles", "failure_of"]


class JobOwner(Protocol):
    """Where a job belongs: the executor that asks its store."""

    def listen(self, job: DurableJob) -> None:
        """See to it that the job is told when it ends."""

    def wait_for(self, job: DurableJob, timeout: float | None) -> None:
        """See to it that the job is told when it ends, and wait for that for a while, here."""

    def look_up(self, job: DurableJob, *, payload: bool = False) -> JobRecord | None:
        """Return what the store knows of the job now; None: nothing."""

    def cancel(self, job: DurableJob, *, kill: bool) -> bool:
        """Do what `Job.cancel` says."""

    def delivers_here(self) -> bool:
        """Return whether this is the thread that tells jobs of their ends: what waits in it, waits for ever."""

    def log_of(self, job: DurableJob) -> bytes:
        """Return what the job has printed and logged."""

    def info_of(self, job: DurableJob) -> JobInfo:
        """Do what `Job.info` says."""

    def retry(self, job: DurableJob) -> DurableJob:
        """Do what `Job.retry` says."""


class StoredOutcome(Undecoded):
    """An outcome as the store has it: the codec bytes of a value, or a failure."""

    __slots__ = ("_failure", "_value", "failed")

    def __init__(self, value: bytes | None, failure: Failure | None) -> None:
        self._value = value
        self._failure = failure
        self.failed = failure is not None

    def decode(self, job_id: str) -> tuple[Any, BaseException | None]:
        if self._failure is not None:
            return None, self._failure.to_exception(job_id)
        try:
            return decode(self._value or b""), None
        except SoftTimeout:
            raise
        except Exception as error:  # noqa: BLE001  # a registered class may fail to be rebuilt here in any way
            pass_on(error)
            return None, error


class DurableJob(Job[Any]):
    """A job in a store. What is not known yet is a class attribute, so that making one is cheap."""

    _attempts = 0
    _crashes = 0
    _reason: Reason | None = None
    _last_progress: tuple[int, int | None] | None = None
    #: The final state, once it is known here.
    _final: State | None = None
    #: The process in which the job is told when it ends; a forked one has to listen for itself.
    _listens_in = 0
    is_named = True

    def __init__(self, owner: JobOwner, job_id: str) -> None:
        self.owner = owner
        self._id = job_id

    # -- what it is

    #: Read in C: each submit and each wait asks for it.
    id: str = property(attrgetter("_id"))  # type: ignore[assignment]  # a property all the same

    @property
    def state(self) -> State:
        return self._final or self._ask_state()

    @property
    def reason(self) -> Reason | None:
        self._refresh()
        return self._reason

    @property
    def attempts(self) -> int:
        self._refresh()
        return self._attempts

    @property
    def crashes(self) -> int:
        self._refresh()
        return self._crashes

    @property
    def progress(self) -> tuple[int, int | None] | None:
        record = self.owner.look_up(self)
        if record is not None and record.progress is not None:
            self._last_progress = record.progress
        return self._last_progress

    @property
    def meta(self) -> dict[str, Any]:
        """What the job has said of itself by `current_job().meta`."""
        record = self.owner.look_up(self)
        return decode(record.meta) if record is not None and record.meta else {}

    def logs(self) -> str:
        """Return what the job has printed and logged so far."""
        return self.owner.log_of(self).decode(errors="replace")

    def info(self) -> JobInfo:
        return self.owner.info_of(self)

    def retry(self) -> Job[Any]:
        return self.owner.retry(self)

    @property
    def is_known_to_have_ended(self) -> bool:
        """Whether the end has been heard of here; never asks the store."""
        return self._final is not None

    # -- the Future

    @property
    def _condition(self) -> Condition:
        """Whoever wants to wait, or adds a callback, comes here first: from now on the job has to be told."""
        if self._final is None and self._listens_in != os.getpid():
            self.owner.listen(self)
            self._listens_in = os.getpid()
        return super()._condition

    @_condition.setter
    def _condition(self, condition: Condition) -> None:
        self.__dict__["_lock"] = condition

    def _is_told_here(self) -> bool:
        return self.owner.delivers_here()

    def _wait(self, timeout: float | None) -> None:
        if timeout != 0 and self.owner.delivers_here():
            self._refresh()  # it may have ended by now
            if self._final is None:
                self._refuse_deadlock()
        if running_job() is None:
            self._wait_here(timeout)
        elif not wait_named(self._has_ended_within, timeout, lambda: self._id):
            raise TimeoutError

    def _has_ended_within(self, timeout: float | None) -> bool:
        try:
            self._wait_here(timeout)
        except TimeoutError as error:
            pass_on(error)
            return False
        return True

    def __await__(self) -> Generator[Any, None, Any]:
        job = running_job()
        return super().__await__() if job is None else self._await_in(job)

    def _await_in(self, job: JobContext) -> Generator[Any, None, Any]:
        """Wait in a job's event loop: as any other wait in a job, it is named in the log after a second."""
        import asyncio  # noqa: PLC0415  # who awaits has it

        named = []

        def name() -> None:
            named.append(self._id)
            job.log(WAITS + self._id)

        later = asyncio.get_running_loop().call_later(NAMED_AFTER, name)
        try:
            return (yield from super().__await__())
        finally:
            later.cancel()
            if named:
                job.log(WAITED + self._id)

    def _wait_here(self, timeout: float | None) -> None:
        if "_lock" not in self.__dict__ and self._listens_in != os.getpid():
            started = monotonic()
            self.owner.wait_for(self, timeout)
            if self._state == FINISHED:
                return
            self._listens_in = os.getpid()
            if timeout is not None:
                timeout = max(0.0, timeout - (monotonic() - started))
        super()._wait(timeout)

    def done(self) -> bool:
        if self._final is None and self._listens_in != os.getpid():
            self._refresh()
        return super().done()

    def cancelled(self) -> bool:
        return self.done() and super().cancelled()

    def cancel(self, *, kill: bool = False) -> bool:
        return self.owner.cancel(self, kill=kill)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id} {self._final or 'pending'}>"

    # -- what the store says

    def _ask_state(self) -> State:
        record = self._refresh()
        return record.state if record is not None else self._final or State.FAILED

    def _refresh(self) -> JobRecord | None:
        """Ask the store how the job is, unless it has ended; take note of its end."""
        if self._final is not None:
            return None
        record = self.owner.look_up(self)
        if record is not None and record.state not in TERMINAL:
            self._attempts, self._crashes = record.attempts, record.crashes
            return record
        if record is not None and record.state is State.SUCCEEDED:
            record = self.owner.look_up(self, payload=True)
        self.on_ended(ended_of(self._id, record))
        return record

    def on_ended(self, ended: Ended) -> None:
        """Take note of the job's end. Any thread may; the first one counts, unless it was interrupted at it."""
        with self._ending():
            if self._final is not None:
                return
            self._listens_in = 0  # unless it gets through this, nobody will be told again
            self._attempts, self._crashes = ended.attempts, ended.crashes
            failure = failure_of(ended)
            if self._state not in ENDED and not may_be_interrupted():
                self._final = ended.state  # callbacks see it
            if ended.state is not State.CANCELLED:
                self._reason = None if failure is None else failure.reason
                if self._state not in ENDED:
                    self.settle(StoredOutcome(ended.result, failure))
            elif self._state not in ENDED:
                self.drop()
            self._final = ended.state

    def try_end(self, ended: Ended) -> bool:
        """Take note of the end in the thread of the only one who waits; False: there are others, or it was cancelled.

        An interrupt may come at any point: the job can be told once more.
        """
        ending = self._ending()
        if ended.state is State.CANCELLED or not ending.acquire(blocking=False):
            return False
        try:
            if self._final is not None:
                return False
            failure = failure_of(ended)
            self._attempts, self._crashes = ended.attempts, ended.crashes
            self._reason = None if failure is None else failure.reason
            if not self.try_settle(StoredOutcome(ended.result, failure)):
                return False
            self._final = ended.state
            return True
        finally:
            ending.release()

    def _ending(self) -> CallLock:
        """Return the lock of whoever takes note of the end."""
        attributes = self.__dict__
        found: CallLock = attributes.get("_told_by") or attributes.setdefault("_told_by", CallLock())
        return found


def failure_of(ended: Ended) -> Failure | None:
    """Return how a job failed, or None when it succeeded."""
    if ended.state is State.SUCCEEDED:
        return None
    if ended.state is State.CANCELLED:
        return Failure.from_exception(JobCancelled("the job was cancelled"))
    return ended.failure or Failure.lost()


class WeakHandles:
    """The handles of jobs that the program holds, by id. Any thread may call any method.

    It does what `weakref.WeakValueDictionary` does, at a fifth of its cost for each job: its references have no
    callback. Dead references are dropped each time as many again have come.
    """

    def __init__(self) -> None:
        self._refs: dict[str, ref[DurableJob]] = {}
        self._drop_at = _FEW

    def get(self, job_id: str) -> DurableJob | None:
        """Return the handle of a job, if somebody holds one."""
        found = self._refs.get(job_id)
        return None if found is None else found()

    def __len__(self) -> int:
        return len(self._refs)

    def ids(self) -> list[str]:
        """Return the ids of the jobs in the order of their handles, also of some that are not held any more."""
        return list(self._refs)

    def is_open(self, job_id: str) -> bool:
        """Return whether the handle of a job is held, and its end has not been heard of."""
        job = self.get(job_id)
        return job is not None and not job.is_known_to_have_ended

    def keep(self, job: DurableJob) -> DurableJob:
        """Return the handle that is held of the same job, or this one, which is known from now on."""
        fresh = ref(job)
        found = self._refs.setdefault(job.id, fresh)
        if found is not fresh:
            known = found()
            if known is not None:
                return known
            self._refs[job.id] = fresh
        elif len(self._refs) > self._drop_at:
            self._drop_dead()
        return job

    def drop(self, ids: Iterable[str]) -> None:
        """Know no more handles of these jobs, which were not put."""
        for job_id in ids:
            self._refs.pop(job_id, None)

    def alive(self) -> list[DurableJob]:
        """Return all that are held."""
        return [job for reference in list(self._refs.values()) if (job := reference()) is not None]

    def _drop_dead(self) -> None:
        for job_id, reference in list(self._refs.items()):
            if reference() is None and self._refs.get(job_id) is reference:
                self._refs.pop(job_id, None)
        self._drop_at = max(_FEW, 2 * len(self._refs))
