"""The worker's session with its store, kept up while the store is away.

    outcomes ──▶ pending ───────┐
    updates ────────────────────┼──▶ poll ──▶ claims, control requests, fenced
    want ───────────────────────┘      │ the store is away
                                       └──▶ all of it waits; next try after 0.1 to 2 s, full jitter

After an absence, or when this process itself was frozen, a heartbeat comes first: it tells which jobs others have now.
"""

from __future__ import annotations

import random
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.errors import BackendUnavailable
from taskq.log import get_logger
from taskq.states import State
from taskq.store import PollResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from taskq.store import JobOutcome, ProgressUpdate, Remains, Store, WorkerRecord, WorkerSession

__all__ = ["StoreSession"]

log = get_logger("taskq.worker")

#: States of a job that is yet to be run.
_WAITING: Final = frozenset({State.SCHEDULED, State.BLOCKED, State.QUEUED})
#: Seconds before the first new try to reach the store, doubled up to the second figure; the wait is drawn below them.
_BACKOFF, _BACKOFF_MAX = 0.1, 2.0
#: Part by which the time between two runs of maintenance varies, so that workers do not all run it at once.
_JITTER: Final = 0.2


class StoreSession:
    """A `WorkerSession` whose methods do not raise when the store is away. Used by the worker's thread."""

    def __init__(self, store: Store, _session: WorkerSession) -> None:
        self._session = _session
        self._store = store
        self.pending: list[JobOutcome] = []
        self._updates: list[ProgressUpdate] = []
        self._every = store.heartbeat_every
        now = monotonic()
        self._heartbeat_at = now + self._every
        self._maintenance_at = now + random.random() * self._every
        #: Whether the store could not be reached lately, and since when.
        self.away = False
        self._away_since: float | None = None
        self._tries = 0
        #: When it may be called again, by the monotonic clock.
        self.retry_at = 0.0
        #: When `maintain_lease`, or a new try, is due.
        self.due_at = min(self._heartbeat_at, self._maintenance_at)

    @property
    def away_for(self) -> float:
        """Seconds since the store was reached last; 0 while it is there."""
        return 0.0 if self._away_since is None else monotonic() - self._away_since

    def may_try(self) -> bool:
        """Tell whether the store may be called now: it is there, or it is time for a new try."""
        return monotonic() >= self.retry_at

    def _schedule(self) -> None:
        self.due_at = self.retry_at if self.away else min(self._heartbeat_at, self._maintenance_at)

    # -- what the loop calls

    def poll(self, updates: Sequence[ProgressUpdate], want: int) -> PollResult | None:
        """Tell all that waits to be told and take up to `want` jobs; None: the store is away."""
        self._updates += updates
        told = len(self.pending)
        try:
            found = self._session.poll(self.pending, self._updates, want)
        except BackendUnavailable as error:
            self._lost(error)
            return None
        del self.pending[:told]
        self._updates.clear()
        self._back()
        return found

    def maintain_lease(
        self, record: Callable[[], WorkerRecord], held: Callable[[], Collection[tuple[str, str]]]
    ) -> list[str]:
        """Send a heartbeat and run maintenance when they are due; return the ids of jobs that are not ours any more."""
        now = monotonic()
        if now < self._heartbeat_at and now < self._maintenance_at:
            return []
        gone: list[str] = []
        try:
            if now >= self._heartbeat_at:
                gone = self._session.heartbeat(record(), held())
                self._heartbeat_at = now + self._every
            if now >= self._maintenance_at:
                self._maintenance_at = now + self._every * random.uniform(1 - _JITTER, 1 + _JITTER)
                self._session.run_maintenance()
        except BackendUnavailable as error:
            self._lost(error)
            return gone
        self._back()
        self._schedule()
        return gone

    def begin(self, claims: Sequence[tuple[str, str]]) -> list[str] | None:
        """Tell that these begin; return the ids of those that are not ours any more; None: the store is away."""
        try:
            return self._session.begin(claims)
        except BackendUnavailable as error:
            self._lost(error)
            return None

    def claim_one(self, job_id: str) -> PollResult | None:
        """Take this one job, or nothing; None: the store is away."""
        try:
            found = self._session.claim_one(job_id)
        except BackendUnavailable as error:
            self._lost(error)
            return None
        return PollResult(claims=() if found is None else (found,))

    def waits(self, job_id: str) -> bool:
        """Tell whether a job has yet to be run; True as well when the store cannot say."""
        try:
            record = self._store.get([job_id])[0]
        except BackendUnavailable as error:
            self._lost(error)
            return True
        return record is not None and record.state in _WAITING

    def remains(self) -> Remains | None:
        """Return what there is yet for this worker's queues; None: the store is away."""
        try:
            return self._session.remains()
        except BackendUnavailable as error:
            self._lost(error)
            return None

    def maintain_soon(self) -> None:
        """Have the next `maintain_lease` run maintenance."""
        self._maintenance_at = 0.0
        self._schedule()

    def wait(self, timeout: float, wake_fd: int) -> None:
        """Wait for work, a control request, or `wake_fd`."""
        try:
            self._session.wait(timeout, wake_fd)
        except BackendUnavailable as error:
            self._lost(error)

    def leave(self) -> bool:
        """Sign off; return whether the store heard it."""
        try:
            self._session.leave()
        except BackendUnavailable as error:
            log.warning("leave_failed", error=str(error))
            return False
        return True

    # -- there and away

    def _lost(self, error: BackendUnavailable) -> None:
        now = monotonic()
        if self._away_since is None:
            self.away, self._away_since = True, now
            self._tries = 0
            log.warning("backend_lost", error=str(error), outcomes_waiting=len(self.pending))
        ceiling = min(_BACKOFF_MAX, _BACKOFF * 2 ** min(self._tries, 10))
        self._tries += 1
        self.retry_at = now + random.random() * ceiling
        self._heartbeat_at = 0.0  # first of all when it is back
        self._schedule()

    def _back(self) -> None:
        if self._away_since is not None:
            log.info("backend_back", away_s=round(self.away_for, 3), outcomes_waiting=len(self.pending))
            self.away, self._away_since, self.retry_at = False, None, 0.0
            self._schedule()
