"""One run in the pool on a worker's behalf: a claimed job, or an item of a claimed chunk."""

from __future__ import annotations

from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from taskq.executors.pool.jobs import LocalJob, Outcome
from taskq.executors.pool.output import output_of
from taskq.job import ENDED
from taskq.store import ProgressUpdate

if TYPE_CHECKING:
    from collections import deque

    from taskq.executors.pool.jobs import Function
    from taskq.failure import Failure
    from taskq.options import JobOptions
    from taskq.retry import Retry
    from taskq.store import Claim, JobOutcome

__all__ = ["Errand"]

#: Seconds for which the worker itself watches a job that it has sent straight to a child; of these, for how many it
#: stays awake where the job's function takes less than so many nanoseconds: to sleep and be woken takes longer.
_WATCH: Final = 0.001
_AWAKE: Final = 0.0002
_SHORT_NS: Final = 100_000


class Home(Protocol):
    """Where an errand goes when it has ended: the hands that it was given to."""

    session: str
    ended: deque[Errand]
    sleeping: bool

    def wake(self) -> None:
        """End the worker's sleep."""


class Owner(Protocol):
    """A chunk, of which several errands may be."""

    claim: Claim

    def ended(self, errand: Errand) -> JobOutcome | None:
        """Take the end of one of its errands; return the outcome when it was the last."""


class Errand(LocalJob):
    """A pool's job without the ways of a Future: who waits is the worker's loop, by way of one list for all.

    `attempt` counts its starts in this pool from 1; `crashes` begins at what was before.
    """

    home: Home  # type: ignore[assignment]  # it never asks it what other jobs ask
    options: JobOptions
    #: The durable job that it runs, and that job's policy.
    claim: Claim
    retry: Retry | None = None
    task = ""
    #: Of a chunk, or of an item of one: whose it is, and which item.
    chunk: Owner | None = None
    index = -1
    #: Bytes of the one item's envelope.
    size = 0
    #: Whether somebody cancelled it.
    unwanted = False
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

    def __init__(self, home: Home, function: Function, number: int, payload: bytes, options: JobOptions) -> None:
        self.home = home
        self.function = function
        self.number = number
        self.payload = payload
        self.options = options

    @property
    def id(self) -> str:
        return self.claim.id

    def done(self) -> bool:
        return self._state in ENDED

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
            self._look(_WATCH, _AWAKE if ns and ns < _SHORT_NS else 0.0)

    def _end_with(self, value: Any) -> None:
        self._result = value
        self._state = FINISHED
        home = self.home
        home.ended.append(self)
        if home.sleeping:
            home.wake()

    def drop(self) -> None:
        """Tell the worker that it was not run, or not to its end; in the dispatcher's thread."""
        self._state = CANCELLED_AND_NOTIFIED
        self.home.ended.append(self)
        self.home.wake()

    @property
    def dropped(self) -> bool:
        """Whether it has no outcome, only an end."""
        return self._state == CANCELLED_AND_NOTIFIED

    # -- what it says

    def remember(self, meta: bytes) -> None:
        """Begin with what an earlier attempt has noted."""
        output_of(self).meta_bytes = self._meta_told = meta
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
            found, _ = found.decode(self.id)
        return found  # type: ignore[no-any-return]
