"""Which jobs a client waits for, and what it has heard of others already.

    put with the subscription's address ──▶ addressed ─┐
    waited for ──────────────────────────────▶ expected ──▶ begin ──▶ to register with, to read, heard already
    heard, and not expected yet ──▶ early ────┘

It asks nothing of Redis. Any thread may use it, and finalizers at any point of one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from taskq.executors.bounded_dict import drop_oldest
from taskq.executors.rq.record import read_news
from taskq.locks import CallLock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskq.store import Ended

__all__ = ["Expected"]

#: Outcomes kept of jobs that nobody expects yet: a job may end before its handle is waited on.
EARLY_MAX: Final = 10_000

#: Bytes of an early result that are kept; a larger one is fetched when it is asked for.
EARLY_BYTES: Final = 4096

#: Ids remembered of jobs that were put with the subscription's address and are not expected yet.
ADDRESSED_MAX: Final = 100_000


class Expected:
    """Jobs that a client waits for. It is false while there are none."""

    def __init__(self) -> None:
        self._lock = CallLock()
        self._jobs: dict[str, bool] = {}  # id -> whether the subscription is registered with it
        self._addressed: dict[str, None] = {}
        self._missing: set[str] = set()
        self._early: dict[str, Ended | None] = {}  # None: its record is to be read
        self._fresh: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    # -- what is waited for

    def add(self, ids: Iterable[str]) -> bool:
        """Wait for these; return whether `begin` has something to do for it."""
        fresh = False
        with self._lock:
            for job_id in ids:
                if job_id in self._jobs:
                    continue
                addressed = self._addressed.pop(job_id, self) is None
                self._jobs[job_id] = addressed
                if not addressed or job_id in self._early:
                    self._fresh.append(job_id)
                    fresh = True
        return fresh

    def addressed(self, ids: Iterable[str]) -> None:
        """Remember jobs that were put with the subscription's address: it is registered with them."""
        with self._lock:
            self._addressed.update(dict.fromkeys(ids))
            drop_oldest(self._addressed, ADDRESSED_MAX)

    def take(self, job_id: str) -> bool:
        """Wait for a job no more; return whether it was waited for."""
        with self._lock:
            self._missing.discard(job_id)
            return self._jobs.pop(job_id, None) is not None

    # -- what is to be asked

    def begin(self) -> tuple[list[Ended], list[str], list[str]]:
        """Return, of new ones: ends heard before, those to register with, and those whose record is to be read."""
        heard: list[Ended] = []
        listen: list[str] = []
        ask: list[str] = []
        with self._lock:
            fresh, self._fresh = self._fresh, []
            for job_id in fresh:
                if job_id in self._early:
                    ended = self._early.pop(job_id)
                    if ended is None:
                        ask.append(job_id)
                    elif self._jobs.pop(job_id, None) is not None:
                        heard.append(ended)
                elif self._jobs.get(job_id) is False:
                    listen.append(job_id)
        return heard, listen, ask

    def begin_again(self, ids: Iterable[str]) -> None:
        """Have `begin` return these once more: Redis could not be asked."""
        with self._lock:
            self._fresh += ids

    def begin_anew(self, *, forgotten: bool) -> None:
        """Have `begin` go through all, on a new connection. `forgotten`: Redis may know none of them any more."""
        with self._lock:
            self._fresh = list(self._jobs)
            if forgotten:
                self._jobs = dict.fromkeys(self._jobs, False)

    def registered(self, ids: Iterable[str]) -> None:
        """Note that the subscription is registered with these."""
        with self._lock:
            for job_id in ids:
                if job_id in self._jobs:
                    self._jobs[job_id] = True

    def some(self, most: int) -> list[str]:
        """Return at most so many of them, those first that were missing."""
        with self._lock:
            ids = [job_id for job_id in self._missing if job_id in self._jobs][:most]
            known = list(self._jobs)
        start = random.randrange(len(known)) if len(known) > most else 0
        ids += (known[start:] + known[:start])[: most - len(ids)]
        return list(dict.fromkeys(ids))

    # -- what was heard

    def to_read(self, ids: list[str], stands: bytes) -> list[str]:
        """Return those whose record is to be read, by how they stand: e, ended; w, waiting; else there is none."""
        ask: list[str] = []
        with self._lock:
            for job_id, stand in zip(ids, stands.decode(), strict=True):
                if stand == "w":
                    self._missing.discard(job_id)
                elif stand == "e" or self.note_missing(job_id):
                    ask.append(job_id)
        return ask

    def note_missing(self, job_id: str) -> bool:
        """Note that a job was missing; return whether it was so the last time too."""
        with self._lock:
            if job_id in self._missing:
                return True
            self._missing.add(job_id)
            return False

    def hear(self, news: Iterable[bytes]) -> tuple[list[Ended], list[str]]:
        """Take what workers told; return the ends of expected jobs, and those whose record is to be read."""
        ended: list[Ended] = []
        ask: list[str] = []
        with self._lock:
            for entry in news:
                job_id, end = read_news(entry)
                if job_id not in self._jobs:
                    self._keep(job_id, end)
                elif end is None:
                    ask.append(job_id)
                else:
                    del self._jobs[job_id]
                    ended.append(end)
        return ended, ask

    def _keep(self, job_id: str, end: Ended | None) -> None:
        if end is not None and end.result is not None and len(end.result) > EARLY_BYTES:
            end = None
        self._early[job_id] = end
        drop_oldest(self._early, EARLY_MAX)
