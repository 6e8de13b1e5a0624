"""Functions and jobs as the parent keeps them."""

from __future__ import annotations

from concurrent.futures._base import FINISHED
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.executors.pool import values
from taskq.executors.pool.pace import Pace
from taskq.future import ENDED, Job, Undecoded
from taskq.job import JobOptions
from taskq.result import Failure

if TYPE_CHECKING:
    from taskq.executors.pool.offer import Offer
    from taskq.executors.pool.output import Said
    from taskq.states import Reason, State

#: Seconds for which a waiting thread watches the child itself; longer jobs do not hang on microseconds.
_PATIENCE: Final = 0.001

#: The options of a job whose function has none: such jobs take the shortest way.
DEFAULTS = JobOptions()


class Function:
    """A function as the children know it: by a number and a definition that each gets once."""

    __slots__ = ("bound", "definition", "name", "number", "options", "pace")

    def __init__(self, number: int, name: str, definition: bytes, options: JobOptions, *, bound: bool) -> None:
        self.number = number
        #: Whether arguments are bound to it: then it serves one map and is forgotten.
        self.bound = bound
        self.name = name
        self.definition = definition
        self.options = options
        self.pace = Pace()


class Home(Protocol):
    """Where a job belongs: it answers what the job itself cannot know."""

    session: str

    def remember(self, job: LocalJob) -> None:
        """Keep the job findable by its id, as long as somebody holds it."""

    def state_of(self, job: LocalJob) -> State:
        """Return where a job that has not ended stands."""

    def progress_of(self, job: LocalJob) -> tuple[int, int | None] | None:
        """Return what a running job said last of its progress, if it did."""

    def cancel(self, job: LocalJob, *, kill: bool) -> bool:
        """Do what `Job.cancel` says."""

    def delivers_here(self) -> bool:
        """Return whether this is the thread that settles jobs: what waits in it, waits for ever."""


class Outcome(Undecoded):
    """One job's outcome as bytes."""

    __slots__ = ("_data", "_encoding", "failed")

    def __init__(self, encoding: int, data: bytes) -> None:
        self._encoding = encoding
        self._data = data
        self.failed = encoding == values.FAILURE

    def decode(self, job_id: str) -> tuple[Any, BaseException | None]:
        if self.failed:
            return None, values.rebuild(*values.unpack_failure(self._data), job_id)
        try:
            return values.unpack(self._encoding, self._data)[0], None
        except Exception as error:  # noqa: BLE001  # its class may fail to be rebuilt here in any way
            return None, error

    def failure(self) -> Failure:
        """Return the description of what failed."""
        return values.unpack_failure(self._data)[0]


class LocalJob(Job[Any]):
    """A job of the local executor. What is not given is a class attribute, so that making one is cheap."""

    options: JobOptions | None = None
    attempt = 1
    _crashes = 0
    told: tuple[int, int | None] | None = None
    #: What it logged, printed and noted; None: nothing.
    said: Said | None = None
    _reason: Reason | None = None
    #: Whether the job waits for a time or for other jobs.
    waiting: State | None = None
    #: When, by the monotonic clock, it is no longer to be found; None: as long as somebody holds it.
    over_at: float | None = None
    stop_wanted = False
    #: The encoding of a payload that goes to a child by itself, without the job's number; None: it has one.
    lone: int | None = None
    #: Whether it must have a frame of its own: it may have killed a process.
    alone = False
    #: By which its submitter has sent it, as long as the dispatcher does not watch; and its number in that child.
    offer: Offer | None = None
    line = 0

    def __init__(self, home: Home, function: Function, number: int, payload: bytes) -> None:
        self.home = home
        self.function = function
        self.number = number
        self.payload = payload

    def load(self, payload: bytes | values.LargeCall) -> None:
        """Take these encoded arguments."""
        if isinstance(payload, values.LargeCall):
            self.payload, self.lone = payload.data, values.LARGE_CALL
        else:
            self.payload, self.lone = payload, None

    @property
    def id(self) -> str:
        if "_id" not in self.__dict__:
            self._id = f"{self.home.session}-{self.number}"
            self.home.remember(self)
        return self._id

    def take_id(self, job_id: str) -> None:
        """Have this id, which the user chose, before anybody has asked."""
        self._id = job_id

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an error; known without decoding it."""
        outcome = self._result
        return self._exception is not None or (isinstance(outcome, Outcome) and outcome.failed)

    def withdraw(self) -> None:
        """Record that the job was cancelled before its present attempt began."""
        self.attempt -= 1
        self.drop()

    def expire(self) -> None:
        """Record that the job had not started in its time."""
        self.attempt -= 1
        failure = Failure.expired(None if self.options is None else self.options.expires)
        self.settle(Outcome(values.FAILURE, values.pack_failure(failure)))

    @property
    def attempts(self) -> int:
        return self.attempt if self.done() or self.running() else self.attempt - 1

    @property
    def crashes(self) -> int:
        return self._crashes

    @crashes.setter
    def crashes(self, count: int) -> None:
        self._crashes = count

    @property
    def reason(self) -> Reason | None:
        return self._reason

    @property
    def progress(self) -> tuple[int, int | None] | None:
        return self.told if self.done() else self.home.progress_of(self)

    @property
    def meta(self) -> dict[str, Any]:
        return {} if self.said is None else self.said.meta()

    def logs(self) -> str:
        return "" if self.said is None else self.said.all().decode(errors="replace")

    def cancel(self, *, kill: bool = False) -> bool:
        return self.home.cancel(self, kill=kill)

    def _ask_state(self) -> State:
        return self.home.state_of(self)

    def done(self) -> bool:
        return self._state in ENDED or (self.offer is not None and self._look())

    def _wait(self, timeout: float | None) -> None:
        if self.offer is None or not self._look(_PATIENCE if timeout is None else min(_PATIENCE, timeout)):
            if timeout != 0 and self.home.delivers_here():
                self._refuse_deadlock()
            super()._wait(timeout)

    def _attend(self) -> None:
        if (offer := self.offer) is not None:
            offer.wake()
            self.offer = None

    def _look(self, patience: float = 0.0, awake: float = 0.0) -> bool:
        """Return whether the outcome is there, or comes soon; if not, the dispatcher watches for it from now on."""
        offer = self.offer
        found = None if offer is None else offer.look(self, patience, awake)
        if offer is None or found is None or not self.settle_early(_told_value(*found)):
            self._attend()
            return False
        offer.let_go(self)
        self.offer = None
        return True

    def _decode(self) -> None:
        outcome = self._result
        if isinstance(outcome, Outcome) and outcome.failed:
            self._reason = outcome.failure().reason
        super()._decode()

    def __reduce_ex__(self, protocol: object) -> Any:
        """Tell the pickler's caller that a job stands among the arguments."""
        raise values.JobInside


class _Settled(LocalJob):
    """Stands in the books for jobs that got their outcome early."""

    _state = FINISHED

    def __init__(self) -> None:  # it is nobody's, and is never run
        pass


SETTLED: Final = _Settled()


def _told_value(encoding: int, data: bytes) -> Any:
    """Return a plain value, or the outcome that is decoded by the first who asks."""
    return values.unpack(encoding, data)[0] if encoding == values.MSGPACK else Outcome(encoding, data)
