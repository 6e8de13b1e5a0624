"""Jobs of the pool as the parent keeps them, and what they need to know of others."""

from __future__ import annotations

from concurrent.futures._base import CANCELLED_AND_NOTIFIED, PENDING
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.executors.pool import payloads
from taskq.executors.pool.output import JobOutput
from taskq.failure import Failure
from taskq.job import ENDED, Job, Undecoded
from taskq.locks import pass_on
from taskq.options import JobOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskq.executors.pool.functions import Function
    from taskq.records import JobInfo
    from taskq.states import Reason, State

#: Seconds for which a waiting thread watches the child itself; longer jobs do not hang on microseconds.
_PATIENCE: Final = 0.001

#: The options of a job whose function has none: such jobs take the shortest way.
DEFAULTS = JobOptions()


class JobOwner(Protocol):
    """Where a job belongs: it answers what the job itself cannot know."""

    session: str
    #: Whether arguments travel as between machines.
    strict: bool

    def remember(self, job: LocalJob) -> None:
        """Keep the job findable by its id, as long as a handle to it exists."""

    def state_of(self, job: LocalJob) -> State:
        """Return where a job that has not ended stands."""

    def progress_of(self, job: LocalJob) -> tuple[int, int | None] | None:
        """Return the last progress that a running job has told, if it did."""

    def cancel(self, job: LocalJob, *, kill: bool) -> bool:
        """Do what `Job.cancel` says."""

    def info_of(self, job: LocalJob) -> JobInfo:
        """Do what `Job.info` says."""

    def retry(self, job: LocalJob) -> LocalJob:
        """Do what `Job.retry` says."""

    def delivers_here(self) -> bool:
        """Return whether this is the thread that settles jobs: what waits in it, waits for ever."""


class DirectSend(Protocol):
    """The free child to which a job's submitter has sent it; see `direct.py`."""

    #: Makes the dispatcher take over.
    wake: Callable[[], None]

    def poll(self, job: PoolJob, patience: float = 0.0, awake: float = 0.0) -> tuple[int, bytes] | None:
        """Return encoding and bytes of the job's value, if the child reports it within `patience` seconds."""

    def release(self, job: PoolJob) -> None:
        """Hold no job that has its outcome."""


class Outcome(Undecoded):
    """One job's outcome as bytes."""

    __slots__ = ("_data", "_encoding", "failed")

    def __init__(self, encoding: int, data: bytes) -> None:
        self._encoding = encoding
        self._data = data
        self.failed = encoding == payloads.FAILURE

    def decode(self, job_id: str) -> tuple[Any, BaseException | None]:
        if self.failed:
            return None, payloads.rebuild(*payloads.unpack_failure(self._data), job_id)
        try:
            return payloads.unpack(self._encoding, self._data)[0], None
        except Exception as error:  # noqa: BLE001  # its class may fail to be rebuilt here in any way
            pass_on(error)
            return None, error

    def failure(self) -> Failure:
        """Return the description of what failed."""
        return payloads.unpack_failure(self._data)[0]


class PoolJob:
    """A job as the pool runs it. What is not given is a class attribute, so that making one is cheap.

    Who submits it says in a class of its own where it belongs, who waits for it, and how its outcome is told.
    """

    # As of the Future that a job of the local executor is.
    _state: str = PENDING
    _result: Any = None
    function: Function
    number: int
    payload: bytes
    options: JobOptions | None = None
    attempt = 1
    crashes = 0
    #: How often it was run again without counting that as a retry.
    uncounted = 0
    #: Whether the pool runs it again when it asks for that.
    is_rerun_here = True
    last_progress: tuple[int, int | None] | None = None
    #: What it logged, printed and noted; None: nothing.
    output: JobOutput | None = None
    #: Whether the job waits for a time or for other jobs.
    waiting: State | None = None
    stop_requested = False
    #: The encoding of a payload that goes to a child by itself, without the job's number; None: it has one.
    bare_encoding: int | None = None
    #: Whether it must have a batch of its own: it may have killed a process.
    isolated = False
    #: Set while the submitter itself watches for the outcome; `seq` is the job's sequence number in that child.
    direct: DirectSend | None = None
    seq = 0

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Take the outcome; in the dispatcher's thread."""
        raise NotImplementedError

    def try_settle(self, value: Any) -> bool:
        """Take a value that its submitter has seen before the dispatcher; return whether."""
        raise NotImplementedError

    def drop(self) -> None:
        """Record that it is not run, or not to its end."""
        raise NotImplementedError

    def done(self) -> bool:
        """Return whether it has its outcome."""
        return self._state in ENDED

    def cancelled(self) -> bool:
        """Return whether it was dropped."""
        return self._state == CANCELLED_AND_NOTIFIED

    #: The state that `concurrent.futures` knows, without a look at the child as `done` may take; read in C.
    future_state = property(attrgetter("_state"))

    def load(self, payload: bytes | payloads.LargeCall) -> None:
        """Take these encoded arguments."""
        if isinstance(payload, payloads.LargeCall):
            self.payload, self.bare_encoding = payload.data, payloads.LARGE_CALL
        else:
            self.payload, self.bare_encoding = payload, None

    def make_output(self) -> JobOutput:
        """Return what keeps the job's output."""
        if self.output is None:
            self.output = JobOutput()
        return self.output

    def withdraw(self) -> None:
        """Record that the job was cancelled before its present attempt began."""
        self.attempt -= 1
        self.drop()

    def expire(self) -> None:
        """Record that the job had not started in its time."""
        self.attempt -= 1
        failure = Failure.expired(None if self.options is None else self.options.expires)
        self.settle(Outcome(payloads.FAILURE, payloads.pack_failure(failure)))

    def look(self, patience: float = 0.0, awake: float = 0.0) -> bool:
        """Return whether the outcome is there, or comes soon; if not, the dispatcher watches for it from now on."""
        direct = self.direct
        found = None if direct is None else direct.poll(self, patience, awake)
        if direct is None or found is None or not self.try_settle(_value_of(*found)):
            self.unwatch()
            return False
        direct.release(self)
        self.direct = None
        return True

    def unwatch(self) -> None:
        """Leave it to the dispatcher to watch for the outcome, if the submitter did."""
        if (direct := self.direct) is not None:
            direct.wake()
            self.direct = None


class LocalJob(Job[Any], PoolJob):
    """A job of the local executor: the handle, and what the pool runs, in one object; why, see decision 6."""

    crashes = 0
    reason: Reason | None = None
    #: When, by the monotonic clock, it is no longer to be found; None: as long as a handle to it exists.
    over_at: float | None = None
    #: The arguments as they were submitted, where jobs are among them, and the ids of those.
    call: tuple[Sequence[Any], Mapping[str, Any]] | None = None
    depends_on: tuple[str, ...] = ()

    def __init__(self, owner: JobOwner, function: Function, number: int, payload: bytes) -> None:
        self.owner = owner
        self.function = function
        self.number = number
        self.payload = payload

    @property
    def id(self) -> str:
        if "_id" not in self.__dict__:
            self._id = f"{self.owner.session}-{self.number}"
            self.owner.remember(self)
        return self._id

    def take_id(self, job_id: str) -> None:
        """Have this id, which the user chose, before it is asked for."""
        self._id = job_id

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error; known without decoding it."""
        outcome = self._result
        return self._exception is not None or (isinstance(outcome, Outcome) and outcome.failed)

    @property
    def has_ended(self) -> bool:
        """Whether its end is recorded; does not look at the child as `done` does."""
        return self._state in ENDED

    @property
    def was_cancelled(self) -> bool:
        """Whether it is recorded that it was cancelled."""
        return self._state == CANCELLED_AND_NOTIFIED

    @property
    def attempts(self) -> int:
        return self.attempt if self.done() or self.running() else self.attempt - 1

    @property
    def progress(self) -> tuple[int, int | None] | None:
        return self.last_progress if self.done() else self.owner.progress_of(self)

    @property
    def meta(self) -> dict[str, Any]:
        return {} if self.output is None else self.output.meta()

    def logs(self) -> str:
        return "" if self.output is None else self.output.all().decode(errors="replace")

    def cancel(self, *, kill: bool = False) -> bool:
        return self.owner.cancel(self, kill=kill)

    def info(self) -> JobInfo:
        return self.owner.info_of(self)

    def retry(self) -> LocalJob:
        return self.owner.retry(self)

    def _ask_state(self) -> State:
        return self.owner.state_of(self)

    def done(self) -> bool:
        return self._state in ENDED or (self.direct is not None and self.look())

    def _is_told_here(self) -> bool:
        return self.owner.delivers_here()

    def _wait(self, timeout: float | None) -> None:
        if self.direct is None or not self.look(_PATIENCE if timeout is None else min(_PATIENCE, timeout)):
            if timeout != 0 and self.owner.delivers_here():
                self._refuse_deadlock()
            super()._wait(timeout)

    _attend = PoolJob.unwatch

    def _decode(self) -> None:
        outcome = self._result
        if isinstance(outcome, Outcome):
            if outcome.failed:
                self.reason = outcome.failure().reason
            super()._decode()

    def __reduce_ex__(self, protocol: object) -> Any:
        """Tell the pickler's caller that a job stands among the arguments."""
        raise payloads.JobInside


def _value_of(encoding: int, data: bytes) -> Any:
    """Return a plain value, or the outcome that is decoded by the first who asks."""
    return payloads.unpack_scalars(data)[0] if encoding == payloads.MSGPACK else Outcome(encoding, data)
