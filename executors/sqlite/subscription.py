"""How a client of a queue file learns that jobs have ended.

    put(reply_to=subscription) ─▶ own jobs: the process that ends one wakes this subscription's FIFO
    ask(others)                ─▶ foreign jobs: every end rings it, as long as one is waited for

    wait: what was asked ─▶ flag ─▶ what ended after the last number seen? ─▶ News
                                     └▶ none: poll the FIFO; look again after a second without a ring

The FIFOs are those of `wakeups`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from taskq.errors import BackendUnavailable, QueueClosed, StoreDamaged, StoreFull
from taskq.executors.sqlite.jobs import broken, last_end, unpack
from taskq.executors.sqlite.page import ANY, AWAKE, OWN
from taskq.executors.sqlite.schema import FAILED, HIGHEST, RUNNING, STATES, as_state, chunks, fits, is_count
from taskq.locks import CallLock
from taskq.states import State
from taskq.store import Ended, News, Subscription

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.wakeups import Wakeups

__all__ = ["SQLiteSubscription"]

#: Seconds between two looks without a ring: all that a lost one costs.
LOOK_S = 1.0

#: Seconds for which the queue file may be gone before its jobs are.
GONE_S = 5.0

#: Rows read at once, and bytes of their results.
READ, READ_BYTES = 1000, 8 * 1024 * 1024

OUTCOME = "id, state, result, failure, attempts, crashes, ear"


class SQLiteSubscription(Subscription):
    """A subscription by a slot and a FIFO; made by `SQLiteStore.subscribe`."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._lock = CallLock()  # a finalizer may wake it, at any point of its own thread
        self._asked: deque[str] = deque()
        self._foreign: set[str] = set()  # waited for, without a wake-up for them alone
        self._polls = self._woken = self._closed = False
        #: Its place on the page and the FIFO by which it is woken.
        with database.lock:
            self.slot, self.fifo = wakeups.new_subscription()
        self._last: int = database.read(lambda connection: last_end(connection.execute))
        self._generation = database.generation
        self._gone_since: float | None = None  # when the queue file was first seen to be missing
        self.reply_to = str(self.slot)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def ask(self, ids: Collection[str]) -> None:
        self._asked.extend(ids)

    def forget(self, ids: Collection[str]) -> None:
        self._foreign.difference_update(ids)

    # -- waiting

    def wait(self, timeout: float | None) -> News:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            news = self._listen()
            now = time.monotonic()
            if news or self._woken or self._closed or now >= deadline:
                self._woken = False
                self._flag(AWAKE)
                return news
            self._poll(min(LOOK_S, deadline - now))

    def wake(self) -> None:
        self._woken = True
        with self._lock:  # the ends of the FIFO are closed under it: their numbers may be another file's by then
            if not self._closed:
                self.fifo.wake()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._flag(AWAKE)
            self._closed = True
            if self._polls:
                self.fifo.wake()  # the waiting thread closes it, behind its poll
            else:
                self.fifo.close()

    def _flag(self, flag: int) -> None:
        if not self._closed:
            with suppress(
                BackendUnavailable, QueueClosed, StoreDamaged, StoreFull
            ):  # who hears nothing of it looks each second
                self._database.page.flag_subscription(self.slot, flag)

    def _poll(self, nap: float) -> None:
        with self._lock:
            if self._closed or self._woken or self._asked:
                return
            self._polls = True
        self.fifo.wait(nap)
        with self._lock:
            self._polls = False
            if self._closed:
                self.fifo.close()
            else:
                self.fifo.drain()

    def _listen(self) -> News:
        """Return what is new; of a store that cannot be reached nothing, for now."""
        news = News()
        try:
            news.renewed = self._settle()
            if self._asked:
                self._answer(news)
            self._flag(ANY if self._foreign else OWN)
            if not (news.ended or news.renewed):
                self._read_on(news)
        except BackendUnavailable as exc:
            news.gone = self._why_gone(str(exc))
            return news
        self._gone_since = None
        return news

    def _settle(self) -> bool:
        """Listen where others ring, and in the file that is there now; return whether it is another one than before."""
        generation = self._database.opened_generation()
        with self._lock:
            if not self._closed and not self.fifo.is_there():
                self._wakeups.make_folder()
                self.fifo.remake()
        if generation == self._generation:
            return False
        self._generation = generation
        self._last = 0
        return True

    def _why_gone(self, why: str) -> str:
        """Return why there are no jobs, once the file has been gone for so long that it is no move; until then ""."""
        if not self._database.is_gone():
            self._gone_since = None
            return ""
        now = time.monotonic()
        if self._gone_since is None:
            self._gone_since = now
        return why if now - self._gone_since >= GONE_S else ""

    # -- looking

    def _answer(self, news: News) -> None:
        """Say how the jobs stand that were asked for; what is too much for one look is left for the next."""
        asked = dict.fromkeys([self._asked.popleft() for _ in range(len(self._asked))])
        try:
            for part in chunks(list(asked)):
                rows, is_whole = self._database.read(partial(_outcomes, ids=part))
                for job_id in part if is_whole else list(rows):
                    self._answer_one(job_id, rows.get(job_id), news)
                    del asked[job_id]
                if not is_whole:
                    break
        finally:
            self._asked.extend(asked)

    def _answer_one(self, job_id: str, row: tuple[Any, ...] | None, news: News) -> None:
        if row is not None and as_state(row[1]) > RUNNING:
            self._foreign.discard(job_id)
            news.ended.append(_ended(row))
            return
        if row is None or row[6] != self.slot:
            self._foreign.add(job_id)
        else:
            self._foreign.discard(job_id)
        (news.missing if row is None else news.waiting).append(job_id)

    def _read_on(self, news: News) -> None:
        """Add what has ended since the last look, of our own jobs and of those that were asked for."""
        while not news.ended and not self._closed:
            rows, self._last = self._database.read(self._next_ends)
            if not rows:
                break
            for row in rows:
                if row[6] == self.slot or row[0] in self._foreign:
                    self._foreign.discard(row[0])
                    news.ended.append(_ended(row))

    def _next_ends(self, connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], int]:
        """Return the next rows, and the end to go on from: also past the ends of others, which were looked at once."""
        highest = last_end(connection.execute)
        if highest <= self._last:
            return [], self._last
        ours = "" if self._foreign else f"AND ear = {self.slot}"
        query = f"SELECT {OUTCOME}, end_no FROM jobs INDEXED BY jobs_end WHERE end_no > ? AND end_no < {HIGHEST} {ours} ORDER BY end_no LIMIT {READ}"  # noqa: E501
        rows, _ = _as_fit(connection.execute(query, (self._last,)))
        return rows, rows[-1][-1] if rows else highest


def _outcomes(connection: sqlite3.Connection, ids: Sequence[str]) -> tuple[dict[str, tuple[Any, ...]], bool]:
    """Return the rows of these jobs by id, and whether these are all that there are."""
    marks = ", ".join("?" * len(ids))
    rows, is_whole = _as_fit(connection.execute(f"SELECT {OUTCOME} FROM jobs WHERE id IN ({marks})", tuple(ids)))
    return {row[0]: row for row in rows}, is_whole


def _as_fit(found: Iterable[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], bool]:
    """Return rows until their results are enough for one look, and whether these are all."""
    rows, size = [], 0
    for row in found:
        rows.append(row)
        size += len(row[2]) if type(row[2]) is bytes else 0
        if size > READ_BYTES:
            return rows, False
    return rows, True


def _ended(row: tuple[Any, ...]) -> Ended:
    job_id, state, result, failure, attempts, crashes, *_ = row
    if as_state(state) != state or not fits(result, bytes) or not (is_count(attempts) and is_count(crashes)):
        return Ended(id=job_id, state=State.FAILED, failure=broken())
    return Ended(
        id=job_id,
        state=STATES[state],
        result=result,
        failure=unpack(failure) if state == FAILED else None,
        attempts=attempts,
        crashes=crashes,
    )
