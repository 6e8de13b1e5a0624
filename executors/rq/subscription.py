"""How a client of Redis learns that jobs have ended.

    finish script ──RPUSH──▶ rq:tq:replies:<reply_to> ──BLPOP, then LPOP many──▶ wait() ──▶ News
    ask(), wake() ──▶ a pipe beside the socket                 or, for one job: wait_here() ──▶ News

The thread that waits for all sleeps on the connection without holding it. A thread that wants one job may take the
connection out of that sleep and read the news itself: to wake one thread so that it wakes another one takes longer than
all else that a client does. `_turn` guards the connection, and `wake` ends that sleep too. Two BLPOPs are always
outstanding, so one is still pending when a reply arrives.

The list brings news of jobs that our workers ran, at once. Jobs that a stock worker ran end without news, news may have
come too late, and a lost connection may have taken it along: whoever waits asks now and then, and all of it is to be
asked for again after an absence of Redis.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
from collections import deque
from contextlib import suppress
from functools import partial
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.bounded_dict import drop_oldest
from taskq.errors import BackendUnavailable, StoreFull
from taskq.executors.rq.connection import BROKEN, Connection, RedisError, pack, readable
from taskq.executors.rq.ends import LOOKED_UP, has_ended, read_end, read_news
from taskq.locks import CallLock, pass_on
from taskq.states import TERMINAL
from taskq.store import News, Subscription
from taskq.wait_book import LOOK_EVERY, ended_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from taskq.executors.rq.client import Backend

__all__ = ["RQSubscription"]

#: Jobs that are asked for at once.
LOOK_AT: Final = 1000
#: Seconds between two looks at what stock workers have left undone.
SETTLE_EVERY: Final = 3.0
#: Ids remembered of jobs that are registered with, and of those whose outcome was too large for the news.
REMEMBERED: Final = 100_000

#: Seconds after which a blocking read comes back by itself, so that a silent cut is noticed.
BLOCK: Final = 2
#: Seconds beyond it until the connection is given up.
SILENCE: Final = BLOCK + 2.5

#: Questions on the connection at once: one that Redis is to answer, and one for the time after.
AHEAD: Final = 2

#: Seconds that reading the rest of an answer may take, once its first bytes are there.
ANSWER: Final = 4.0

#: Outcomes taken from the list at once, after the first.
BATCH: Final = 1000


class RQSubscription(Subscription):
    """A subscription by one blocking connection."""

    ask_most = LOOK_AT

    def __init__(self, store: Backend) -> None:
        self.reply_to = os.urandom(8).hex()
        self.waits_here = _HAS_EPOLL
        self._store = store
        self._scripts = store.address.scripts
        self._list = store.redis_keys.REPLIES + self.reply_to
        self._question = pack("BLPOP", self._list, BLOCK) + pack("LPOP", self._list, BATCH)
        #: Jobs that were asked for, and no answer was given yet.
        self._asked: deque[str] = deque()
        self._registered: dict[str, None] = {}
        self._unread: dict[str, None] = {}
        #: Where news come in, and when something came last, by the monotonic clock.
        self.connection: Connection | None = None
        self.heard_at = 0.0
        #: Held by the thread that uses the connection.
        self.turn = CallLock()
        #: Whether a thread was interrupted while it used the connection: what came by it is in doubt.
        self._spoiled = False
        self._questions = 0
        self._settle_at = monotonic() + LOOK_EVERY
        self._try_at = 0.0
        self._away = False
        self._closed = False
        self._rings, self._ringer = socket.socketpair()
        self._rings.setblocking(False)
        self._ringer.setblocking(False)
        self._sleep_on = _sleeper()
        self._sleep_on.register(self._rings, select.POLLIN)

    # -- from any thread

    def ask(self, ids: Collection[str]) -> None:
        self._asked.extend(ids)

    def wake(self) -> None:
        """Have the listening thread look what to do. A finalizer may call it, at any point of its own thread."""
        try:  # noqa: SIM105  # one call of C, which is done or not
            self._ringer.send(b"w")
        except OSError:  # full: a thread is about to wake; closed: none listens any more
            pass

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.wake()
        with self.turn:
            self._drop()
            self._ringer.close()
            self._rings.close()
            if isinstance(self._sleep_on, select.epoll):
                self._sleep_on.close()

    # -- the thread that waits for all

    def wait(self, timeout: float | None) -> News:
        deadline = None if timeout is None else monotonic() + timeout
        self._woken = False
        while not self._closed:
            news = self._take_turn(self._prepare)
            if not news and not self._closed:
                news = self._take_turn(partial(self._listen, self.sleep(deadline)))
            woken = self._woken and not self._asked
            if news or woken or (deadline is not None and monotonic() >= deadline):
                return news
        return News()

    _woken = False

    def _take_turn(self, step: Callable[[], News]) -> News:
        with self.turn:
            try:
                return step() if not self._closed else News()
            except (BackendUnavailable, *BROKEN) as exc:
                pass_on(exc)
                self._lose()
                return News()

    def _prepare(self) -> News:
        """Be connected, ask for news, and answer what was asked."""
        if self._spoiled:
            self._away = True
            self._drop()
        if self.connection is None:
            if monotonic() < self._try_at:
                return News()
            self._connect()
        self._ask_ahead()
        if self._away:
            self._away = False
            return News(renewed=True)
        return self._answer() if self._asked else News()

    def sleep(self, deadline: float | None) -> list[int]:
        """Wait for news, for `wake`, or for the deadline; return the descriptors that have something."""
        until = self._try_at if self.connection is None else self.heard_at + SILENCE
        if deadline is not None:
            until = min(until, deadline)
        seconds = max(0.0, until - monotonic())
        return [fd for fd, _ in self._sleep_on.poll(seconds if _HAS_EPOLL else ceil(seconds * 1000))]

    def _listen(self, ready: list[int]) -> News:
        """Take in what ended the sleep."""
        if self._rings.fileno() in ready:
            self._drain()
            self._woken = True
        connection = self.connection
        if connection is None:
            return News()
        if connection.fileno() in ready and readable([connection], 0):  # else another thread has read it since
            return self._hear()
        if monotonic() >= self.heard_at + SILENCE:
            raise ConnectionError("no answer")
        return News()

    def _connect(self) -> None:
        connection = self._store.address.connect(timeout=ANSWER)
        self.connection, self._questions = connection, 0
        self._sleep_on.register(connection, select.POLLIN)
        if self._away:
            self._registered.clear()  # Redis may know none of them any more

    def _ask_ahead(self) -> None:
        assert self.connection is not None  # noqa: S101  # callers have connected
        if self._questions == 0:
            self.heard_at = monotonic()
        if self._questions < AHEAD:
            self.connection.send(self._question * (AHEAD - self._questions))
            self._questions = AHEAD

    # -- a thread that wants one job

    def wait_here(self, job_id: str, timeout: float | None) -> News:
        try:
            if self.turn.acquire(blocking=False):
                try:
                    return self._wait_alone(job_id, timeout)
                finally:
                    self.turn.release()
        except (BackendUnavailable, *BROKEN) as exc:
            self.wake()  # the thread goes on with it
            pass_on(exc)
        except BaseException:
            self.wake()
            raise
        return News()

    def _wait_alone(self, job_id: str, timeout: float | None) -> News:
        """Wait for the next news here, while nothing else is to be done and the thread need not look after anything."""
        connection = self.connection
        if self._closed or self._spoiled or self._asked or connection is None:
            return News()
        self._spoiled = True  # unless it gets through this uninterrupted: then the thread begins again
        self._ask_ahead()
        news = News()
        now = monotonic()
        until = min(now + LOOK_EVERY, self.heard_at + SILENCE)
        if timeout is not None:
            until = min(until, now + timeout)
        self._sleep_on.unregister(connection)
        if connection in readable([connection, self._rings], until - now):
            news = self._hear()
        self._sleep_on.register(connection, select.POLLIN)
        self._spoiled = False
        if job_id in news.unread:
            with contextlib.suppress(BackendUnavailable):  # the thread asks for it when Redis is back
                self._fetch([job_id], news)
                news.unread.remove(job_id)
        return news

    # -- what both do

    def _hear(self) -> News:
        assert self.connection is not None  # noqa: S101  # callers have waited on it
        first = self.connection.read()
        more = self.connection.read()
        self._questions -= 1
        self.heard_at = monotonic()
        for reply in (first, more):
            if isinstance(reply, RedisError):
                raise ConnectionError(str(reply))
        news = News()
        if first is None:
            return news
        for entry in (first[1], *(more or ())):
            job_id, ended = read_news(entry)
            self._registered.pop(job_id, None)
            if ended is None:
                news.unread.append(job_id)
            else:
                news.ended.append(ended)
        if news.unread:
            _remember(self._unread, news.unread)
        return news

    def _answer(self) -> News:
        """Say how the jobs stand that were asked for."""
        news = News()
        asked = dict.fromkeys([self._asked.popleft() for _ in range(len(self._asked))])
        unread = [job_id for job_id in asked if self._unread.pop(job_id, self) is None]
        rest = [job_id for job_id in asked if job_id not in unread] if unread else list(asked)
        new = [job_id for job_id in rest if job_id not in self._registered]
        known = [job_id for job_id in rest if job_id in self._registered]
        ended = self._stand_of(new, news, register=True) + self._stand_of(known, news, register=False)
        self._fetch(unread + ended, news)
        if monotonic() >= self._settle_at:
            self._settle()
        return news

    def _stand_of(self, ids: list[str], news: News, *, register: bool) -> list[str]:
        """Ask how jobs stand; return those that have ended. `register`: have the others tell this subscription."""
        ended: list[str] = []
        for first in range(0, len(ids), LOOK_AT):
            part = ids[first : first + LOOK_AT]
            for job_id, stand in zip(part, self._listen_for(part, register=register), strict=True):
                (ended if stand == "e" else news.waiting if stand == "w" else news.missing).append(job_id)
                if stand != "w":
                    self._registered.pop(job_id, None)
        return ended

    def _listen_for(self, ids: list[str], *, register: bool) -> str:
        client, script = self._store.client, self._scripts.subscribe
        if register:
            try:
                stands: bytes = client.call(script, [self.reply_to, ids, 1])
            except StoreFull:  # Redis takes no writes: this only reads
                pass
            else:
                _remember(self._registered, ids)
                return stands.decode()
        stands = client.call(script, [self.reply_to, ids, 0])
        return stands.decode()

    def _fetch(self, ids: list[str], news: News) -> None:
        """Add what the records of these jobs tell."""
        unclear: list[str] = []
        for first in range(0, len(ids), LOOK_AT):
            part = ids[first : first + LOOK_AT]
            entries = self._store.client.call(self._scripts.get, [part, LOOKED_UP, 1])
            for job_id, entry in zip(part, entries, strict=True):
                if entry == 0:
                    news.missing.append(job_id)
                elif not has_ended(entry):
                    news.waiting.append(job_id)
                elif (ended := read_end(job_id, entry)) is not None:
                    news.ended.append(ended)
                else:
                    unclear.append(job_id)
        if unclear:
            self._fetch_whole(unclear, news)

    def _fetch_whole(self, ids: list[str], news: News) -> None:
        for job_id, record in zip(ids, self._store.get(ids, payload=True), strict=True):
            if record is None:
                news.missing.append(job_id)
            elif record.state in TERMINAL:
                news.ended.append(ended_of(job_id, record))
            else:
                news.waiting.append(job_id)

    def _settle(self) -> None:
        """Where no worker of ours does it: let jobs go on, or fail, that wait for what a stock worker has ended."""
        self._settle_at = monotonic() + SETTLE_EVERY
        client = self._store.client
        if not client.command("ZCARD", self._store.redis_keys.LEASES):
            with suppress(BackendUnavailable):  # who only looks may not; one that is away is found so by the next call
                client.call(self._scripts.sweep, [0])

    # -- when Redis is away

    def _lose(self) -> None:
        self._away = True
        self._drop()
        self._try_at = max(self._try_at, monotonic() + random.uniform(0.1, 0.5))

    def _drain(self) -> None:
        try:
            while self._rings.recv(4096):
                pass
        except BlockingIOError:
            return

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        self._spoiled = False
        if connection is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):  # it was taken out by one who was interrupted
                self._sleep_on.unregister(connection)
            connection.close()


def _remember(known: dict[str, None], ids: Iterable[str]) -> None:
    known.update(dict.fromkeys(ids))
    drop_oldest(known, REMEMBERED)


#: Whether a thread can take a descriptor out of what another one sleeps on.
_HAS_EPOLL: Final = hasattr(select, "epoll")


def _sleeper() -> select.epoll | select.poll:
    return select.epoll() if _HAS_EPOLL else select.poll()
