"""The wait for jobs in a store when a queue is closed: said after a second, and ended where no worker would run them.

Each second the jobs' queues and the workers are looked at. What is waited for, and what is in its way, goes to stderr.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.context import ALL, WAITED, WAITS, running_job
from taskq.errors import BackendUnavailable
from taskq.redact import safe_url
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.store import JobRecord, Store

__all__ = ["LOOK", "ShutdownWait"]

#: Seconds until it is said what is waited for, and between two looks at who serves it.
LOOK: Final = 1.0
#: Seconds without a worker after which the wait is given up: longer than one takes to start.
_PATIENCE: Final = 4.0
#: Jobs that are looked at in one call.
_BATCH: Final = 500
#: Queues named in a message.
_NAMED: Final = 5


@dataclass(slots=True)
class _Seen:
    """What one look has found: the queues of jobs that have not ended, and whether a worker serves one of the jobs."""

    queues: dict[str, None] = field(default_factory=dict)
    served: bool = False
    paused: list[str] = field(default_factory=list)


class ShutdownWait:
    """The check whether waiting for jobs still makes sense. `leaves`: give up where no worker would run them."""

    def __init__(self, store: Store, *, leaves: bool) -> None:
        self._store = store
        self._leaves = leaves
        self._said = ""
        self._unserved_since: float | None = None

    def look(self, ids: list[str]) -> bool:
        """Look at who would run these jobs, and say what has changed; return whether to leave them."""
        try:
            seen = self._see(ids)
        except BackendUnavailable:
            self._say(f"{_jobs(ids)} in {self._url}, which cannot be reached now", "unreachable", ids[0])
            self._unserved_since = None
            return False
        if seen.served:
            self._unserved_since = None
            self._say(_served(ids, self._url, seen), f"served {seen.paused}", ids[0])
            return False
        self._unserved_since = self._unserved_since or monotonic()
        if self._leaves and monotonic() - self._unserved_since >= _PATIENCE:
            _write(_left(ids, self._url, seen))
            return True
        self._say(self._unserved(ids, seen), "unserved", ids[0])
        return False

    @property
    def _url(self) -> str:
        return safe_url(self._store.url)

    def _see(self, ids: list[str]) -> _Seen:
        """Look at the jobs, no further than to the first that a worker would run."""
        workers = self._store.workers()
        alive = {worker.name for worker in workers}
        taken = {name for worker in workers if not worker.stopping for name in worker.queues}
        seen = _Seen()
        for record in self._records(ids):
            if record is None or record.state in TERMINAL:
                seen.served = True  # the listener tells its end
                break
            seen.queues[record.queue] = None
            seen.served = record.queue in taken or record.worker in alive
            if seen.served:
                break
        seen.served = seen.served or not seen.queues
        if seen.queues:
            seen.paused = [queue.name for queue in self._store.queues() if queue.paused and queue.name in seen.queues]
        return seen

    def _records(self, ids: list[str]) -> Iterator[JobRecord | None]:
        """Yield these jobs; instead of one that waits for others, those of them that have not ended."""
        asked, known, todo = frozenset(ids), set(ids), list(ids)
        while todo:
            batch, todo = todo[:_BATCH], todo[_BATCH:]
            for job_id, record in zip(batch, self._store.get(batch), strict=True):
                if record is not None and record.state is State.BLOCKED:
                    fresh = [needed for needed in record.depends_on if needed not in known]
                    known.update(fresh)
                    todo += fresh
                elif job_id in asked or not (record is None or record.state in TERMINAL):
                    yield record

    def _unserved(self, ids: list[str], seen: _Seen) -> str:
        wait = "shutdown(wait=True) waits until one does; Ctrl-C leaves them there"
        if self._leaves:
            wait = "left soon"
        return f"{_jobs(ids)} in {self._url}: no worker serves {_names(seen)}; {wait}"

    def end(self) -> None:
        """Take note that the wait is over."""
        if self._said and (job := running_job()) is not None:
            job.log(WAITED + ALL)

    def _say(self, text: str, kind: str, first: str) -> None:
        """Say it once for each kind of hindrance."""
        if kind != self._said:
            self._said = kind
            if (job := running_job()) is not None:  # by which a worker full of such jobs is known
                job.log(WAITS + first)
            _write(f"taskq: waiting for {text}")


def _served(ids: list[str], url: str, seen: _Seen) -> str:
    pause = f"; paused until somebody resumes it: {', '.join(seen.paused)}" if seen.paused else ""
    return f"{_jobs(ids)} in {url}{pause} (Ctrl-C leaves them there, and they go on)"


def _left(ids: list[str], url: str, seen: _Seen) -> str:
    return (
        f"taskq: left {_jobs(ids)} in {url}, since no worker serves {_names(seen)}: they are safe there, and run when "
        "one does (`taskq worker`)"
    )


def _jobs(ids: list[str]) -> str:
    return "1 job" if len(ids) == 1 else f"{len(ids):,} jobs"


def _names(seen: _Seen) -> str:
    names = list(seen.queues)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    noun = "queue" if len(names) == 1 else "the queues"
    return f"{noun} {', '.join(names[:_NAMED])}{more}" + (" (paused)" if seen.paused else "")


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # a closed stderr is no reason to fail
        return
