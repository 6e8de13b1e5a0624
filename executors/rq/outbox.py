"""What a worker has to tell Redis, until it knows that Redis has heard it.

    outcomes, updates ──▶ packed once, with their sequence number ──▶ requests ──▶ answered
                                                                      ▲     │ no answer came
                                                                      └─────┘ the same once more: the scripts know it

An outcome that is given once more while it is on its way is not packed again.

A worker that finds its queues empty registers at them: the next job that is put alone is handed to it.

    claim, finish ──▶ registered under a base ──put──▶ started in this worker's name, and told on its channel
                                     │
                                     └── told too late, or never: the next claim brings what was handed over

So a job on an idle fleet is in a worker's hands after one script, with no further question. A worker registers only
while it has a process with nothing to do. Whether a job was handed over is known to Redis alone until the worker hears
of it: until then every claim names the base, and the script answers for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.executors.rq.claims import outcome_row, unknown
from taskq.executors.rq.connection import RedisError
from taskq.executors.rq.records import progress_text
from taskq.log import get_logger
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskq.executors.rq.claims import HeldJob
    from taskq.executors.rq.client import Backend
    from taskq.executors.rq.scripts import Script
    from taskq.store import JobOutcome, ProgressUpdate, WorkerRecord

__all__ = ["AT_ONCE", "UNKNOWN", "IdleWorker", "Outbox", "names"]


class IdleWorker:
    """What a worker knows of its own registration. `seconds`: how long it holds unless it is renewed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._nonce = os.urandom(8).hex()
        self._numbers = count()
        #: What the token begins with of a job that may be handed over, or may have been; empty: none was nor will be.
        self.base = ""

    def ask(self, free: int) -> list[Any] | int:
        """Return what a script takes, to register or stay registered with so many free processes; 0: nothing to ask.

        With none free it ends the registration.
        """
        known = bool(self.base)
        if free <= 0 and not known:
            return 0
        if not known:
            self.base = f"{self._nonce}{next(self._numbers):08x}"
        return [self.base, self._seconds, free, int(known)]

    def answered(self, *, registered: bool) -> None:
        """Take in whether the script has registered the worker."""
        if not registered:
            self.base = ""

    def take(self, message: bytes) -> tuple[str, list[Any]] | None:
        """Return the moment and the entry of a job that was handed over; None: it came by a claim already.

        Raises:
            Exception: it is no such message; any client may publish anything.
        """
        base, stamp, entry = msgpack.unpackb(message, raw=True)
        if base != self.base.encode():
            return None
        self.base = ""
        return stamp.decode(), entry


log = get_logger("taskq.redis")

#: Outcomes, updates and claims in one script at most: it holds up everybody else.
AT_ONCE: Final = 500

#: What a finish that was repeated says of the registration: it may be over because a job was handed over.
UNKNOWN: Final = 2


@dataclass(slots=True, eq=False)
class _Telling:
    """A finish whose answer is not known yet."""

    command: bytes
    outcomes: Sequence[JobOutcome]
    #: Whether it asks to be registered, too.
    registers: bool


@dataclass(slots=True, eq=False)
class _Noting:
    """Notes whose answer is not known yet."""

    command: bytes
    updates: Sequence[ProgressUpdate]


class Outbox:
    """Pack, keep, and take the answers. `held`, by token, and `stopped`, by id, lose the jobs that are told."""

    def __init__(
        self, store: Backend, record: WorkerRecord, held: dict[str, HeldJob], stopped: set[str], sequence: Iterator[int]
    ) -> None:
        self._sequence = sequence
        self._client = store.client
        self._scripts = store.address.scripts
        self._worker = record.name
        self._queues = list(record.queues)
        self._held = held
        self._stopped = stopped
        #: What is on its way.
        self.telling: list[_Telling] = []
        self.noting: list[_Noting] = []
        #: Whether a job was refused.
        self.has_refused = False
        #: Ids of jobs whose outcomes came too late; their reader empties it.
        self.fenced: list[str] = []
        #: What the last finish that asked to be registered was told: 1, 0 or UNKNOWN; None: there was none.
        self.registered: int | None = None

    # -- in

    def fresh(self, outcomes: Sequence[JobOutcome]) -> Sequence[JobOutcome]:
        """Return those that are not on their way yet, in the order in which they are to be told."""
        seen = {outcome.token for telling in self.telling for outcome in telling.outcomes}
        return _front_last([outcome for outcome in outcomes if outcome.token not in seen] if seen else outcomes)

    def add(self, outcomes: Sequence[JobOutcome], registration: list[Any] | int) -> None:
        """Pack outcomes; with the last of them goes what is to be asked of the registration."""
        for first in range(0, len(outcomes), AT_ONCE):
            last = first + AT_ONCE >= len(outcomes)
            self.telling.append(self._packed(outcomes[first : first + AT_ONCE], registration if last else 0))

    def _packed(self, outcomes: Sequence[JobOutcome], registration: list[Any] | int) -> _Telling:
        rows: list[list[Any]] = []
        seconds = 0.0
        for outcome in outcomes:
            held = self._held.get(outcome.token)
            rows.append(outcome_row(outcome, held or unknown(outcome), stopped=outcome.id in self._stopped))
            seconds += outcome.seconds
            self.has_refused |= outcome.refused
        state = "busy" if len(self._held) > len(outcomes) else "idle"
        argument = [self._worker, str(next(self._sequence)), rows, state, seconds, registration, self._queues]
        return _Telling(self._scripts.finish.command(argument), outcomes, registration != 0)

    def add_updates(self, updates: Sequence[ProgressUpdate]) -> None:
        """Pack the notes that are not on their way yet."""
        sent = {id(update) for noting in self.noting for update in noting.updates}
        fresh = [update for update in updates if id(update) not in sent and update.token in self._held]
        for first in range(0, len(fresh), AT_ONCE):
            some = fresh[first : first + AT_ONCE]
            argument = [self._worker, str(next(self._sequence)), [self._update_row(update) for update in some]]
            self.noting.append(_Noting(self._scripts.note.command(argument), some))

    def _update_row(self, update: ProgressUpdate) -> list[Any]:
        held = self._held[update.token]
        progress = "" if update.progress is None else progress_text(update.progress)
        return [update.id, update.token, held.queue, progress, update.meta or b"", update.log]

    # -- out

    @property
    def outcomes(self) -> int:
        """How many outcomes are on their way."""
        return sum(len(telling.outcomes) for telling in self.telling)

    def early(self) -> list[tuple[Script, bytes]]:
        """Return the first request, to go by itself: there is more than one round trip should carry."""
        return [(self._scripts.finish, self.telling[0].command)]

    def requests(self) -> list[tuple[Script, bytes]]:
        """Return all that is to be sent."""
        updates = [(self._scripts.note, noting.command) for noting in self.noting]
        return updates + [(self._scripts.finish, telling.command) for telling in self.telling]

    def answered_early(self, reply: Any) -> None:
        """Take in the answer to what `early` gave."""
        self._told(self.telling.pop(0), reply)

    def answered(self, replies: Sequence[Any]) -> None:
        """Take in the answers to what `requests` gave, in its order."""
        updates = len(self.noting)
        for late in replies[:updates]:
            self.noting.pop(0)
            if not isinstance(late, RedisError):  # else at the limit of memory: what was said is lost
                self.fenced += names(late)
        for reply in replies[updates:]:
            self._told(self.telling.pop(0), reply)

    def _told(self, telling: _Telling, reply: Any) -> None:
        if isinstance(reply, RedisError):
            reply = [self._tell_each(telling, reply), UNKNOWN]
        late, registered = reply
        for outcome in telling.outcomes:
            self._held.pop(outcome.token, None)
            self._stopped.discard(outcome.id)
        self.fenced += names(late)
        if telling.registers:
            self.registered = registered

    def _tell_each(self, telling: _Telling, error: Exception) -> list[bytes]:
        """Tell outcomes one by one, as Redis could not carry out all of them; return the ids of those it cannot."""
        log.error("redis_refuses", worker=self._worker, jobs=len(telling.outcomes), error=str(error))
        late: list[bytes] = []
        for outcome in telling.outcomes:
            command = self._packed([outcome], 0).command
            reply = self._client.exchange([(self._scripts.finish, command)], partial=True)[0]
            late += [outcome.id.encode()] if isinstance(reply, RedisError) else reply[0]
        return late


def names(ids: list[bytes]) -> list[str]:
    """Return the ids of jobs that a script has answered."""
    return [job_id.decode("utf-8", "surrogateescape") for job_id in ids]


def _front_last(outcomes: Sequence[JobOutcome]) -> Sequence[JobOutcome]:
    """Put what goes back to the front of its queue last, and the first of it at the very end: each is pushed before."""
    returned = [outcome for outcome in outcomes if _goes_back(outcome)]
    if not returned[1:]:
        return outcomes
    return [*(outcome for outcome in outcomes if not _goes_back(outcome)), *reversed(returned)]


def _goes_back(outcome: JobOutcome) -> bool:
    return outcome.state is State.QUEUED or outcome.refused
