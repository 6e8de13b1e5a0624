"""The interface behind which durable executors keep their jobs: a SQLite file, or Redis.

    clients   DurableExecutor, CLI ──▶ Store:  put · get · cancel · retry · pause ...   subscribe() ──▶ Subscription
    workers   the daemon           ──▶ Store:  join() ─▶ WorkerSession, in `worker_session`

Everything that crosses it is plain: ids, numbers, bytes that nobody on the way decodes, and the records below. All the
rules (when a job is retried, how it fails) are made above it; a store only keeps, in one atomic step each, what it is
told. Times are seconds since 1970 by the store's own clock; where a deadline is wanted, its distance is given instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from taskq.worker_session import (
    Blame,
    Claim,
    ControlRequest,
    Foreign,
    JobOutcome,
    Order,
    PollResult,
    ProgressUpdate,
    Remains,
    WorkerRecord,
    WorkerSession,
    blame,
    ends_by_a_crash,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskq.failure import Failure
    from taskq.options import JobOptions
    from taskq.states import Reason, State

__all__ = [
    "NO_SEALS",
    "Blame",
    "Claim",
    "ControlRequest",
    "Ended",
    "Finding",
    "Foreign",
    "JobOutcome",
    "JobQuery",
    "JobRecord",
    "NewJob",
    "News",
    "Order",
    "PollResult",
    "ProgressUpdate",
    "QueueRecord",
    "Remains",
    "Store",
    "Subscription",
    "WorkerRecord",
    "WorkerSession",
    "blame",
    "ends_by_a_crash",
]

#: What goes with the requests of those who sign nothing.
NO_SEALS: Final[Mapping[str, bytes]] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class NewJob:
    """A job to be kept. `depends_on`: ids of jobs that must succeed first. `label`: a short call text, no secrets."""

    id: str
    task: str
    envelope: bytes
    options: JobOptions
    depends_on: tuple[str, ...] = ()
    label: str = ""


@dataclass(slots=True, kw_only=True)
class JobRecord:
    """All that a store knows of a job. Times are None where it has not come to that.

    `attempts` counts starts (those that were given back are taken off again), `crashes` those that ended because their
    process or their worker died, `retries` those that came after an error. `due_at`: when a scheduled job may start.
    `result`: the value as codec bytes, of a succeeded job; `failure`: of a failed one; `refusal`: why the last worker
    that took a waiting one did not run it. `meta`: codec bytes of a dict.
    """

    id: str
    task: str
    state: State
    queue: str = "default"
    priority: int = 0
    label: str = ""
    key: str | None = None
    attempts: int = 0
    crashes: int = 0
    retries: int = 0
    submitted_at: float | None = None
    due_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    worker: str | None = None
    progress: tuple[int, int | None] | None = None
    meta: bytes = b""
    depends_on: tuple[str, ...] = ()
    envelope: bytes = b""
    result: bytes | None = None
    failure: Failure | None = None
    refusal: Failure | None = None

    @property
    def reason(self) -> Reason | None:
        """Why it failed; None unless it did."""
        return None if self.failure is None else self.failure.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs are wanted: of these states (empty: of any), in this queue, of this task (None: any).

    `limit`: how many at most; `offset`: how many of the newest to pass over.
    """

    states: Collection[State] = ()
    queue: str | None = None
    task: str | None = None
    limit: int = 100
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecord:
    """A queue: how many jobs of each state it has, since when its oldest job waits, whether it is paused."""

    name: str
    counts: Mapping[State, int]
    oldest_at: float | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `taskq doctor`: what was looked at, "ok", "warning" or "problem", what was found, and the cure."""

    topic: str
    level: str
    text: str
    cure: str = ""


@dataclass(slots=True, kw_only=True)
class Ended:
    """The news that a job has ended, with what `JobRecord` has of its outcome."""

    id: str
    state: State
    result: bytes | None = None
    failure: Failure | None = None
    attempts: int = 0
    crashes: int = 0


@dataclass(slots=True, kw_only=True)
class News:
    """What a subscription has learned since its last `wait`.

    Of any job: `ended`, with its outcome; `unread`, it has ended, and its outcome is told when it is asked for.
    Of jobs that were asked for: `waiting`, they have not ended; `missing`, the store has none of these ids now.
    `renewed`: news may have been lost, so all that matters has to be asked for again. `gone`: why no job is there any
    more, where the whole store is gone.
    """

    ended: list[Ended] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    renewed: bool = False
    gone: str = ""

    def __bool__(self) -> bool:
        return bool(self.ended or self.unread or self.waiting or self.missing or self.renewed or self.gone)


class Subscription(ABC):
    """The way by which a client learns that jobs have ended. It does not know who waits: `WaitBook` does.

    One thread waits; everything else may be called from any. Jobs put with `reply_to` are told when they end. Others
    are from the time on when they were asked for. News can be lost with a connection: who waits asks now and then.
    """

    #: Goes with each `put` whose outcomes this subscription should tell; empty where the store needs none.
    reply_to: str = ""
    #: How many jobs are asked for at once, each second in which there was no news.
    ask_most: int = 500
    #: Whether `wait_here` can wait.
    waits_here: bool = False

    @abstractmethod
    def ask(self, ids: Collection[str]) -> None:
        """Have the next `wait` say how these jobs stand, and a later one when they end; `wake` ends one under way."""

    def forget(self, ids: Collection[str]) -> None:  # noqa: B027  # a store that has nothing to forget is complete
        """Need not tell of these jobs any more."""

    @abstractmethod
    def wait(self, timeout: float | None) -> News:
        """Wait for news until `wake` was called or `timeout` seconds have passed; empty where there are none.

        While the store cannot be reached it waits on, and says `renewed` when it is back.
        """

    def wait_here(self, job_id: str, timeout: float | None) -> News:
        """Wait for news in the thread of one who wants this job's end, while another thread is in `wait`.

        The job was put with `reply_to`. Each piece of news is told here or by `wait`. It may come back at any time.
        """
        del job_id, timeout
        return News()

    @abstractmethod
    def wake(self) -> None:
        """Have `wait` return soon. A finalizer may call it, in any thread and at any point of it."""

    @abstractmethod
    def close(self) -> None:
        """Free what it uses. Safe to call twice."""


class Store(ABC):
    """Where durable jobs live. All methods may be called from any thread; a forked copy opens its own connection.

    Raises (all methods): BackendUnavailable: it cannot be reached; says the URL without its password, and the cure.
    """

    #: Seconds without a heartbeat until a worker is taken for dead, and between two heartbeats. `?lease=` sets the
    #: first (from 3 up); the second is a third of it.
    lease: float = 15.0
    heartbeat_every: float = 5.0
    #: Bytes that an envelope, and a result, may measure; `?max_bytes=` in the URL sets it.
    max_bytes: int = 1_048_576
    #: What labels show of arguments: "full", what tells no secret; "types", as where others read them too.
    #: `?labels=` in the URL sets it.
    labels: str = "full"
    #: Seconds for which the signature of a job holds, from the moment at which it may start, and that of a result;
    #: `?signed_for=` in the URL sets it.
    signed_for: float = 30 * 86_400.0
    #: Whether jobs of other programs than taskq, which sign nothing, may be run where all else has to be signed.
    takes_unsigned: bool = False
    #: Whether its workers run jobs of other programs than taskq.
    runs_foreign: bool = False
    #: The keys by which all that goes in and out is signed, see `signing`; never to be shown. Empty: nothing is.
    keys: tuple[str, ...] = ()
    #: The URL without secrets.
    url: str
    #: The URL that opens the same store again from any folder, secrets and settings included; never to be shown.
    source: str = ""

    # -- jobs

    @abstractmethod
    def put(self, jobs: Sequence[NewJob], *, reply_to: str = "") -> list[str]:
        """Keep these jobs, all or none; return the ids under which they stand.

        That is a job's own id; or, when one with its `key` has not ended, that one's. A job whose own id is there
        already, ended or not, is left as it is. So the call is safe to repeat.

        Raises:
            JobExists: a key or an id is taken and the options say `if_exists="reject"`; nothing was kept.
            QueueFull: the store has no room.
        """

    @abstractmethod
    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        """Return what is known of these jobs, None for each that is not kept. `payload`: with envelope and result."""

    @abstractmethod
    def cancel(
        self, ids: Sequence[str], *, kill: bool = False, seals: Mapping[str, bytes] = NO_SEALS
    ) -> list[State | None]:
        """Cancel what waits, and ask the workers to stop (`kill`: to kill) what runs; return the states now.

        `seals`, by id, go with what workers are asked: `ControlRequest.seal`.
        """

    @abstractmethod
    def retry(self, ids: Sequence[str]) -> list[bool]:
        """Queue jobs that failed or were cancelled again, as if new; return which ones were."""

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> list[bool]:
        """Forget jobs that are not running, with all that belongs to them; return which ones were."""

    @abstractmethod
    def log(self, job_id: str, offset: int = 0) -> bytes:
        """Return what a job has printed and logged, from byte `offset` on. Kept: the first MiB of each job."""

    # -- queues and workers

    @abstractmethod
    def queues(self) -> list[QueueRecord]:
        """Return all queues that have jobs, workers or a pause, by name."""

    def some_queues(self, most: int, first: Collection[str] = ()) -> tuple[list[QueueRecord], int]:
        """Return what `queues` does, but of no more than `most` names, and how many names were left out.

        Those of `first` come before others. It is for those who only look: names cost whoever makes them nothing.
        """
        found = self.queues()
        chosen = sorted(found, key=lambda record: (record.name not in first, record.name))[:most]
        return sorted(chosen, key=lambda record: record.name), len(found) - len(chosen)

    @abstractmethod
    def workers(self) -> list[WorkerRecord]:
        """Return the workers that are alive."""

    @abstractmethod
    def pause(self, queue: str) -> None:
        """Have no jobs of this queue started until `resume`; what runs goes on."""

    @abstractmethod
    def resume(self, queue: str) -> None:
        """Take back a `pause`."""

    @abstractmethod
    def doctor(self) -> list[Finding]:
        """Look at the store's health: version, durability, room, clock."""

    def risks(self) -> list[Finding]:
        """Return what lets strangers from other machines in; nothing for a store that only this machine reaches."""
        return []

    def demand_signatures(self) -> None:
        """Take note that all is signed from now on: obey commands of other programs only where the URL says so."""
        return

    # -- for clients and workers

    @abstractmethod
    def subscribe(self) -> Subscription:
        """Return a new subscription."""

    @abstractmethod
    def join(self, record: WorkerRecord) -> WorkerSession:
        """Sign a worker on."""

    @abstractmethod
    def close(self) -> None:
        """Free what it uses. Safe to call twice."""

    # Last: below it `list` would mean this method to type checkers.

    @abstractmethod
    def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the jobs that a query asks for, without their payloads, newest first."""

    def list(
        self,
        *,
        states: Collection[State] = (),
        queue: str | None = None,
        task: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[JobRecord]:
        """Return what `find` does for a query of these fields."""
        return self.find(JobQuery(states=states, queue=queue, task=task, limit=limit, offset=offset))
