"""Waiting for jobs to end: the book of who waits for what, whatever the store is.

    announce(ids), before a put with `reply_to` ──▶ own: their ends are told without asking
    add(id, waiter) ──▶ own: nothing to ask        else ──▶ to ask
    Subscription.wait() ──▶ News ──▶ take ──▶ the ends to be told, each once

Once a second without news some of the jobs are asked for: news can be lost. One that is missing in two looks, a second
apart, is lost. Any thread may use a book, and finalizers at any point of one: each step that others see is one call of
a function written in C.
"""

from __future__ import annotations

import random
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from taskq.bounded_dict import drop_oldest
from taskq.failure import Failure
from taskq.states import State
from taskq.store import Ended

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskq.store import JobRecord, News

__all__ = ["WaitBook", "ended_of"]

#: Seconds without news after which some jobs are asked for, and seconds after which they are in any case.
LOOK_EVERY: Final = 1.0
LOOK_AT_LEAST: Final = 10.0

#: Seconds for which a job has to be missing to be lost: in two looks, then.
LOST_AFTER: Final = 0.9 * LOOK_EVERY

#: Seconds between two turns of who waits for news while no job is waited for: it need not be woken for own jobs.
IDLE: Final = 2.0

#: Ids remembered of jobs that were put and that are not waited for yet.
OWN_MAX: Final = 100_000

W = TypeVar("W")


class WaitBook(Generic[W]):
    """Who waits for which job."""

    def __init__(self) -> None:
        #: Who waits, by job; others read it.
        self.waiters: dict[str, W] = {}
        #: Jobs that were put with our address, as long as their end was not told and they are not waited for.
        self.own: dict[str, None] = {}
        self._to_ask: deque[str] = deque()
        #: Jobs that were not there when they were asked for, and since when. Only who calls `take` uses it.
        self._missing: dict[str, float] = {}
        self._look_at = self._looked_at = 0.0

    def ids(self) -> list[str]:
        """Return the jobs that are waited for."""
        return list(self.waiters)

    # -- who waits

    def announce(self, ids: Iterable[str]) -> None:
        """Know that these jobs, which are nowhere yet, are about to be put with the subscription's `reply_to`."""
        self.own.update(dict.fromkeys(ids))
        if len(self.own) > OWN_MAX:
            drop_oldest(self.own, OWN_MAX)

    def add(self, job_id: str, waiter: W) -> bool:
        """Wait for a job; return whether the store has to be asked for it: then `due` gives it.

        Its end may be told at any moment. `take` looks for waiters after it has taken the job from the own ones, and
        this for the job after there is a waiter: so one of the two sees the other.
        """
        if not self.waiters:
            self._put_off_looks()
        self.waiters[job_id] = waiter
        if self.own.pop(job_id, self) is None:
            return False
        self._to_ask.append(job_id)
        return True

    def _put_off_looks(self) -> None:
        self._looked_at = monotonic()
        self._look_at = self._looked_at + LOOK_EVERY

    def add_new(self, waiters: Iterable[tuple[str, W]]) -> None:
        """Wait for jobs that are nowhere yet, and are about to be put."""
        if not self.waiters:
            self._put_off_looks()
        self.waiters.update(waiters)

    def discard(self, job_id: str) -> bool:
        """Wait for a job no more; return whether it was waited for."""
        return self.waiters.pop(job_id, self) is not self

    # -- what is to be asked

    def ask(self, ids: Iterable[str]) -> None:
        """Have `due` give these."""
        self._to_ask.extend(ids)

    def ask_all(self) -> None:
        """Have `due` give all that is waited for."""
        self.own.clear()
        self._to_ask.extend(self.ids())

    def due(self, most: int) -> list[str]:
        """Return the jobs to ask for now; of those that nothing was heard of for a while, at most so many."""
        asked = [self._to_ask.popleft() for _ in range(len(self._to_ask))]
        asked = [job_id for job_id in dict.fromkeys(asked) if job_id in self.waiters]
        now = monotonic()
        if not asked and self.waiters and (now >= self._look_at or now >= self._looked_at + LOOK_AT_LEAST):
            asked = self._some(most)
            self._looked_at = now
        if asked:
            self._look_at = now + LOOK_EVERY
        return asked

    def _some(self, most: int) -> list[str]:
        known = self.ids()
        start = random.randrange(len(known)) if len(known) > most else 0
        missing = [job_id for job_id in list(self._missing)[:most] if job_id in self.waiters]
        return list(dict.fromkeys([*missing, *known[start:], *known[:start]]))[:most]

    def patience(self) -> float:
        """Return for how many seconds to wait for news, until `due` may have something."""
        if self._to_ask:
            return 0.0
        return max(0.0, self._look_at - monotonic()) if self.waiters else IDLE

    # -- what was heard

    def take(self, news: News) -> list[Ended]:
        """Return the ends to be told, also of jobs that are not waited for; the waiters are left in the book."""
        if not news:
            return []
        self._look_at = monotonic() + LOOK_EVERY
        if news.gone:
            return [_lost(job_id, news.gone) for job_id in self.ids()]
        if news.renewed:
            self.ask_all()
        for ended in news.ended:
            self.own.pop(ended.id, None)
            self._missing.pop(ended.id, None)
        for job_id in news.unread:
            self.own.pop(job_id, None)
            self._to_ask.append(job_id)
        for job_id in news.waiting:
            self._missing.pop(job_id, None)
        return [*news.ended, *(_lost(job_id) for job_id in news.missing if self._is_lost(job_id))]

    def _is_lost(self, job_id: str) -> bool:
        """Note that a job was missing; return whether it has been for so long that it is lost."""
        if job_id not in self.waiters:
            self._missing.pop(job_id, None)
            return False
        now = monotonic()
        if now - self._missing.setdefault(job_id, now) < LOST_AFTER:
            return False
        del self._missing[job_id]
        return True


def ended_of(job_id: str, record: JobRecord | None) -> Ended:
    """Return a job's end from its record; None: the store has none any more."""
    if record is None:
        return _lost(job_id)
    return Ended(
        id=job_id,
        state=record.state,
        result=record.result,
        failure=record.failure,
        attempts=record.attempts,
        crashes=record.crashes,
    )


def _lost(job_id: str, *why: str) -> Ended:
    return Ended(id=job_id, state=State.FAILED, failure=Failure.lost(*why))
