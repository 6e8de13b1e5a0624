"""A worker's side of a store: what it takes, what it tells, and the session in which it does.

the daemon ──▶ Store.join(WorkerRecord) ─▶ WorkerSession:  poll · heartbeat · run_maintenance · wait · leave
                   poll:  JobOutcome, ProgressUpdate in ─▶ Claim, ControlRequest out
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from taskq.serving import USUAL, Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from taskq.errors import TaskqError
    from taskq.failure import Failure
    from taskq.options import JobOptions
    from taskq.states import State

__all__ = [
    "Blame",
    "Claim",
    "ControlRequest",
    "Foreign",
    "JobOutcome",
    "Order",
    "PollResult",
    "ProgressUpdate",
    "Remains",
    "WorkerRecord",
    "WorkerSession",
    "blame",
    "ends_by_a_crash",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker daemon that is, or was until lately, alive. `processes`: jobs that it runs at once.

    `serving`: what it asks of its store, which keeps nothing of it.
    """

    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    processes: int
    version: str = ""
    started_at: float = 0.0
    seen_at: float = 0.0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    stopping: bool = False
    serving: Serving = USUAL


#: What is to run in a child: a function that returns bytes, its arguments (plain scalars), and its limits.
Order: TypeAlias = "tuple[Callable[..., bytes], tuple[Any, ...], JobOptions]"


class Foreign(Protocol):
    """A job that was not made by taskq, as its store knows it."""

    @property
    def task(self) -> str:
        """What it calls, for logs."""

    def order(self, *, last: bool) -> Order:
        """Return what runs it; its bytes are the result. Raises what keeps it from running, as UnknownTask.

        `last`: nobody has known its function for so long that it fails now, like any other job that raises.
        """

    def after_stop(self) -> Order | None:
        """Return what is to run when it was killed on demand, before that is told; None: nothing."""

    def after_death(self, failure: Failure) -> Order | None:
        """Return what is to run when its process died, before that is told; None: nothing."""


@dataclass(slots=True, kw_only=True)
class Claim:
    """A job in the hands of a worker. `token` fences: only who holds the newest one can tell the job's outcome.

    `attempt` is this start's number from 1; `crashes` and `retries` count what was before. `suspect`: a worker died
    that had it, and perhaps had begun it (`blame`). `results`: the codec bytes of the jobs that it needed, by id.
    `refused_for`: seconds since a worker first said that it has no such task.
    `foreign`: set where the job was not made by taskq; then `envelope` is empty.
    `meta`: codec bytes of what earlier attempts have noted (`JobRecord.meta`), empty where they have not.
    `refusal`: why it must not be run, whoever holds it.
    """

    id: str
    token: str
    envelope: bytes
    queue: str
    attempt: int
    crashes: int = 0
    suspect: bool = False
    retries: int = 0
    refused_for: float = 0.0
    results: Mapping[str, bytes] = field(default_factory=dict)
    foreign: Foreign | None = None
    meta: bytes = b""
    refusal: TaskqError | None = None


@dataclass(slots=True, kw_only=True)
class JobOutcome:
    """What becomes of a claimed job.

    - SUCCEEDED with `result`, FAILED with `failure`, CANCELLED: it has ended.
    - SCHEDULED: it runs again after `delay` seconds, because of `failure`. `counted`: it is one of its retries.
    - QUEUED: it goes back to the front of its queue.
    - `refused`: this worker cannot run it, because of `failure`. While another one that is alive serves its queue and
      has not refused it, it goes back to its place, and this worker's claims pass over it. Else it is as `state` says:
      QUEUED again after `delay` seconds, or FAILED.

    `started` False: this attempt never began and is not counted. `crashes`: deaths of its process in this attempt.
    `seconds`: how long it ran. `log` and `meta`: what was not told by a `ProgressUpdate` yet.
    """

    id: str
    token: str
    state: State
    result: bytes | None = None
    failure: Failure | None = None
    delay: float = 0.0
    counted: bool = True
    started: bool = True
    refused: bool = False
    attempts: int = 1
    crashes: int = 0
    seconds: float = 0.0
    progress: tuple[int, int | None] | None = None
    meta: bytes | None = None
    log: bytes = b""


@dataclass(slots=True, kw_only=True)
class ProgressUpdate:
    """What a running job has said since the last note; None and empty: nothing new."""

    id: str
    token: str
    progress: tuple[int, int | None] | None = None
    meta: bytes | None = None
    log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """What somebody wants of this worker: a job cancelled (`kill`: at once), or the worker itself stopped.

    `crash`: that the processes which run jobs die, as if they had crashed. `seal`: what came with it of `cancel`'s
    seals; `foreign`: it is a command that other programs than taskq send, and was looked at by the store.
    """

    job_id: str | None = None
    kill: bool = False
    stop: bool = False
    crash: bool = False
    seal: bytes = b""
    foreign: bool = False


@dataclass(slots=True, kw_only=True)
class PollResult:
    """What `WorkerSession.poll` brings: new work, control requests, and the ids of what came too late."""

    claims: Sequence[Claim] = ()
    control_requests: Sequence[ControlRequest] = ()
    fenced: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What there is yet for a worker's queues when it has nothing to do.

    `busy`: a job waits for its turn, runs (whoever runs it), or waits for one that runs or that a worker serves. Else:
    `scheduled` jobs wait for their time, of which `again` have been started before (retries, repeats), due in `first`
    to `last` seconds.
    """

    busy: bool = False
    scheduled: int = 0
    again: int = 0
    first: float = 0.0
    last: float = 0.0


def ends_by_a_crash(crashes: int, max_crashes: int) -> bool:
    """Tell whether a job's next crash is its last."""
    return crashes >= max_crashes - 1


class Blame(Enum):
    """What its worker's death means for a claimed job."""

    #: It had begun: one crash more.
    CRASH = "crash"
    #: It may have begun: no crash, but its attempt counts, and it is a suspect from now on.
    SUSPECT = "suspect"
    #: It had not begun: its attempt is taken back.
    NONE = "none"


def blame(crashes: int, max_crashes: int, *, begun: bool | None, suspect: bool) -> Blame:
    """Return what the death of its worker means for a claimed job.

    `begun`: whether its worker has told that it begins; None where it was not to tell that first: neither suspect nor
    crashed when it was claimed, or claimed by a worker older than suspects, which told it before the last crash only.
    """
    if begun is not None:
        return Blame.CRASH if begun else Blame.NONE
    if ends_by_a_crash(crashes, max_crashes):
        return Blame.NONE
    return Blame.CRASH if suspect or crashes else Blame.SUSPECT


class WorkerSession(ABC):
    """A worker's place in a store, from `Store.join` to `leave`. One thread uses it, except for `wake`.

    Raises (all methods): BackendUnavailable: the store cannot be reached now; nothing of the call was done, or it can
    be repeated as it is: every call is safe to repeat.
    """

    @abstractmethod
    def poll(self, outcomes: Sequence[JobOutcome], updates: Sequence[ProgressUpdate], want: int) -> PollResult:
        """Tell what became of jobs and take up to `want` new ones, in as few round trips as the store allows.

        Jobs come in the order of this worker's queues (by its record's `serving`, see `QueueOrder`), in a queue by
        priority, then in the order of submits; due ones included, paused queues and expired jobs left out. A claimed
        job counts as running. At the store's limit of space the outcomes are still taken, and no claims given.
        """

    @abstractmethod
    def claim_one(self, job_id: str) -> Claim | None:
        """Take this one job, whatever is before it; None when it does not wait (any more)."""

    @abstractmethod
    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str]:
        """Note that these (id, token) begin now; return the ids of those that are not this worker's any more.

        Told before the start of jobs that are suspect, have crashed, or whose next crash is their last; of others when
        they are seen to run. A worker's death counts a crash only for what has begun.
        """

    @abstractmethod
    def heartbeat(self, record: WorkerRecord, held: Collection[tuple[str, str]]) -> list[str]:
        """Say that this worker lives and still holds these (id, token); return the ids that it holds no longer.

        Must be called every `Store.heartbeat_every` seconds; after `Store.lease` seconds without, others take the jobs.
        """

    @abstractmethod
    def remains(self) -> Remains:
        """Return what there is yet for this worker's queues; paused queues have nothing that waits for its turn."""

    @abstractmethod
    def run_maintenance(self) -> int:
        """Put back the jobs of dead workers, promote what is due, fail what has expired, drop what is too old.

        Any worker may; returns how many jobs were put back. What its worker's death means for a job says `blame`. One
        whose next crash is its last (`ends_by_a_crash`) is claimed alone if it has crashed before, so that no other one
        can be to blame for it.
        """

    @abstractmethod
    def wait(self, timeout: float, wake_fd: int) -> None:
        """Return when there may be work or a request, when `wake_fd` is readable, or after `timeout` seconds."""

    @abstractmethod
    def leave(self) -> None:
        """Sign off; what is still held goes back to the front of its queue, its attempt not counted."""
