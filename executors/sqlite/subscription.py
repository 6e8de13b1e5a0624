"""Hears of jobs that end in a queue file.

    put(reply_to=subscription) ─▶ its jobs are `own`: whoever ends one rings this subscription's FIFO
    expect(others)    ─▶ `foreign`: every end rings it, as long as there are some; a look tells if they ended before

    wait: flag ─▶ what ended after the last number seen? ─▶ the expected ones are told
                  └▶ none: poll the FIFO; look again after a second without a ring

The FIFOs are those of `wakeups`.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskq.errors import BackendUnavailable, QueueClosed, StoreDamaged, StoreFull
from taskq.executors.bounded_dict import drop_oldest
from taskq.executors.sqlite.jobs import broken, last_end, unpack
from taskq.executors.sqlite.queries import fits
from taskq.executors.sqlite.schema import FAILED, HIGHEST, RUNNING, STATES, as_state, chunks, is_count
from taskq.executors.sqlite.shared import ANY, AWAKE, OWN
from taskq.failure import Failure
from taskq.locks import CallLock
from taskq.states import State
from taskq.store import Ended, Subscription

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.wakeups import Wakeups

__all__ = ["SQLiteSubscription"]

#: Seconds between two looks without a ring: all that a lost one costs.
LOOK_S = 1.0

#: Seconds for which the queue file may be gone before its jobs are.
GONE_S = 5.0

#: Jobs of our own that are remembered until they are expected; about 200 bytes each.
OWN_LIMIT = 10_000

#: Expected jobs that each look without a ring asks for by name, to learn which of them are gone.
ASKED = 500

#: Rows read at once, and bytes of their results.
READ, READ_BYTES = 1000, 8 * 1024 * 1024

OUTCOME = "id, state, result, failure, attempts, crashes, ear"


class SQLiteSubscription(Subscription):
    """Keep a subscription's slot and FIFO; made by `SQLiteStore.subscribe`."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._lock = CallLock()  # a finalizer may wake it, at any point of its own thread
        self._expected: dict[str, None] = {}  # in the order in which they are asked for
        self._unsure: dict[str, None] = {}  # expected, and may have ended before
        self._foreign: set[str] = set()  # expected, and nobody rings us for them alone
        self._missing: dict[str, float] = {}  # expected, not there, and since when
        self._own: dict[str, bool] = {}  # put with our address, not expected yet, and whether it has ended already
        self._polls = self._woken = self._closed = False
        with database.lock:
            self._slot, self._fifo = wakeups.new_subscription()
        self._last: int = database.read(lambda connection: last_end(connection.execute))
        self._generation = database.generation
        self._gone_since: float | None = None  # when the queue file was first seen to be missing
        self.reply_to = str(self._slot)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def put_here(self, ids: Collection[str]) -> None:
        """Know that these jobs are about to be put with our address."""
        own = self._own
        for job_id in ids:
            own[job_id] = False
        drop_oldest(own, OWN_LIMIT)

    def not_ours(self, ids: Collection[str]) -> None:
        """Know that some of these jobs were there before, with another address perhaps."""
        with self._lock:
            for job_id in ids:
                self._own.pop(job_id, None)

    def expect(self, ids: Collection[str]) -> None:
        with self._lock:
            for job_id in ids:
                early = self._own.pop(job_id, None)
                if early is None:
                    self._foreign.add(job_id)
                if early is not False:
                    self._unsure[job_id] = None
                self._expected[job_id] = None
            if self._polls and self._unsure and not self._closed:
                self._fifo.wake()

    def forget(self, ids: Collection[str]) -> None:
        with self._lock:
            for job_id in ids:
                self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        self._expected.pop(job_id, None)
        self._unsure.pop(job_id, None)
        self._missing.pop(job_id, None)
        self._foreign.discard(job_id)

    # -- waiting

    def wait(self, timeout: float | None) -> list[Ended]:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        look_at = time.monotonic() + LOOK_S
        while True:
            found = self._hear(ask=time.monotonic() >= look_at)
            now = time.monotonic()
            if found or self._woken or self._closed or now >= deadline:
                self._woken = False
                self._flag(AWAKE)
                return found
            look_at = now + LOOK_S
            self._poll(min(LOOK_S, deadline - now))

    def wake(self) -> None:
        self._woken = True
        with self._lock:  # the ends of the FIFO are closed under it: their numbers may be another file's by then
            if not self._closed:
                self._fifo.wake()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._flag(AWAKE)
            self._closed = True
            if self._polls:
                self._fifo.wake()  # whoever waits closes it: not under the feet of its poll
            else:
                self._fifo.close()

    def _flag(self, flag: int) -> None:
        if not self._closed:
            with suppress(
                BackendUnavailable, QueueClosed, StoreDamaged, StoreFull
            ):  # who hears nothing of it looks each second
                self._database.page.flag_subscription(self._slot, flag)

    def _poll(self, nap: float) -> None:
        with self._lock:
            if self._closed or self._unsure:
                return
            self._polls = True
        self._fifo.wait(nap)
        with self._lock:
            self._polls = False
            if self._closed:
                self._fifo.close()
            else:
                self._fifo.drain()

    def _hear(self, *, ask: bool) -> list[Ended]:
        """Return the ends that are new; a store that cannot be reached has none, for now."""
        try:
            self._settle()
            self._flag(ANY if self._foreign else OWN)
            found = self._ask(self._take_unsure())
            found += self._read_on()
            if ask and not found:
                found += self._ask(self._some())
        except BackendUnavailable as exc:
            return self._without_file(str(exc))
        self._gone_since = None
        return found

    def _settle(self) -> None:
        """Listen where others ring, and in the file that is there now, after either was removed or replaced."""
        generation = self._database.opened_generation()
        with self._lock:
            if not self._closed and not self._fifo.is_there():
                self._wakeups.make_folder()
                self._fifo.remake()
            if generation == self._generation:
                return
            self._generation = generation
            self._last = 0
            self._unsure.update(self._expected)
            self._foreign.update(self._expected)

    def _without_file(self, why: str) -> list[Ended]:
        """Return the ends of all that is expected, when the file has been gone for so long that it is no move."""
        if not self._database.is_gone():
            self._gone_since = None
            return []
        now = time.monotonic()
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since < GONE_S:
            return []
        with self._lock:
            expected = list(self._expected)
            for job_id in expected:
                self._drop(job_id)
        return [Ended(id=job_id, state=State.FAILED, failure=Failure.lost(why)) for job_id in expected]

    def _take_unsure(self) -> list[str]:
        with self._lock:
            unsure = list(self._unsure)
            self._unsure.clear()
        return unsure

    def _some(self) -> list[str]:
        """Return the expected jobs that were asked for longest ago."""
        with self._lock:
            some = list(islice(self._expected, ASKED))
            for job_id in some:
                self._expected[job_id] = self._expected.pop(job_id)
        return some

    # -- looking

    def _read_on(self) -> list[Ended]:
        """Return the expected ones among all that have ended since the last look."""
        found: list[Ended] = []
        while not found and not self._closed:
            rows = self._database.read(self._next_ends)
            if not rows:
                break
            with self._lock:
                for row in rows:
                    if row[0] in self._expected:
                        self._drop(row[0])
                        found.append(_ended(row))
                    elif row[0] in self._own:
                        self._own[row[0]] = True
            self._last = rows[-1][-1]
        return found

    def _next_ends(self, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
        ours = "" if self._foreign else f"AND ear = {self._slot}"
        query = f"SELECT {OUTCOME}, end_no FROM jobs INDEXED BY jobs_end WHERE end_no > ? AND end_no < {HIGHEST} {ours} ORDER BY end_no LIMIT {READ}"  # noqa: E501
        rows: list[tuple[Any, ...]] = []
        size = 0
        for row in connection.execute(query, (self._last,)):
            rows.append(row)
            size += len(row[2]) if type(row[2]) is bytes else 0
            if size > READ_BYTES:
                break
        return rows

    def _ask(self, ids: list[str]) -> list[Ended]:
        """Look whether these have ended, or are gone."""
        found: list[Ended] = []
        for part in chunks(ids):
            rows = {row[0]: row for row in self._database.read(partial(_outcomes, ids=part))}
            with self._lock:
                found += [one for job_id in part if (one := self._answer(job_id, rows.get(job_id))) is not None]
        return found

    def _answer(self, job_id: str, row: tuple[Any, ...] | None) -> Ended | None:
        if job_id not in self._expected:
            return None
        if row is None:
            # One that is not there may be on its way to it; one that is not there for long is gone.
            since = self._missing.setdefault(job_id, time.monotonic())
            if time.monotonic() - since < LOOK_S:
                return None
            self._drop(job_id)
            return Ended(id=job_id, state=State.FAILED, failure=Failure.lost())
        self._missing.pop(job_id, None)
        if as_state(row[1]) > RUNNING:
            self._drop(job_id)
            return _ended(row)
        if row[6] == self._slot:
            self._foreign.discard(job_id)
        return None


def _outcomes(connection: sqlite3.Connection, ids: Sequence[str]) -> list[tuple[Any, ...]]:
    marks = ", ".join("?" * len(ids))
    return connection.execute(f"SELECT {OUTCOME} FROM jobs WHERE id IN ({marks})", tuple(ids)).fetchall()


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
