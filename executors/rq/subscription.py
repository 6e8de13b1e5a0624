"""How a client hears of the ends of its jobs.

    finish script ──RPUSH──▶ rq:tq:replies:<address> ──BLPOP, then LPOP many──▶ wait() ──▶ Ended, ...
    expect(), wake() ──▶ a pipe beside the socket              or, for one job: wait_for() ──▶ Ended, ...

The thread that waits for all sleeps on the connection without holding it. Whoever waits for a single job may take the
connection out of that sleep and read the news himself: to wake one thread so that it wakes another one takes longer
than all else that a client does. `_turn` is held by the one of them that uses the connection, and while he sleeps on it
alone, `wake` ends that too. The question is asked twice ahead, so that an answer leaves one that is asked already.

The list brings news of jobs that our workers ran, at once. Jobs that a stock worker ran end without news, it may have
come too late, and a lost connection may have taken news with it: so once a second in which nothing was heard, and after
each absence of Redis, it asks for up to 1,000 of the expected jobs where they stand. A job that is not there two times
in a row is lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
from functools import partial
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.errors import BackendUnavailable, StoreFull
from taskq.executors.rq.expected import Expected
from taskq.executors.rq.wire import BROKEN, RedisError, Wire, pack, readable
from taskq.failure import Failure
from taskq.locks import CallLock, pass_on
from taskq.states import State
from taskq.store import Ended, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from taskq.executors.rq.home import Home

__all__ = ["RQSubscription"]

#: Seconds between two looks at jobs of which nothing is heard, and how many are looked at.
LOOK_EVERY: Final = 1.0
SETTLE_EVERY: Final = 3.0
LOOK_AT: Final = 1000

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
    """Hear by one blocking connection."""

    def __init__(self, store: Home) -> None:
        self.reply_to = os.urandom(8).hex()
        self._store = store
        self._scripts = store.address.scripts
        self._list = store.layout.REPLIES + self.reply_to
        self._ask = pack("BLPOP", self._list, BLOCK) + pack("LPOP", self._list, BATCH)
        self._expected = Expected()
        self._wire: Wire | None = None
        self._turn = CallLock()
        #: Whether somebody was interrupted while he used the connection: what came by it is in doubt.
        self._spoiled = False
        self._asked = 0
        self._heard_at = 0.0
        self._look_at = 0.0
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

    def expect(self, ids: Collection[str]) -> None:
        if self._expected.add(ids):
            self.wake()

    def addressed(self, ids: Collection[str]) -> None:
        """Remember that these jobs were put with this subscription's address: to expect them takes no asking."""
        self._expected.addressed(ids)

    def forget(self, ids: Collection[str]) -> None:
        for job_id in ids:
            self._expected.take(job_id)

    def wake(self) -> None:
        """Have whoever listens look what there is to do. A finalizer may call it, at any point of its own thread."""
        try:  # noqa: SIM105  # one call of C, which is done or not
            self._ringer.send(b"w")
        except OSError:  # full: somebody is about to wake; closed: nobody listens any more
            pass

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.wake()
        with self._turn:
            self._drop()
            self._ringer.close()
            self._rings.close()
            if isinstance(self._sleep_on, select.epoll):
                self._sleep_on.close()

    # -- the thread that waits for all

    def wait(self, timeout: float | None) -> list[Ended]:
        deadline = None if timeout is None else monotonic() + timeout
        self._woken = False
        while not self._closed:
            ended = self._take_turn(self._prepare)
            if not ended and not self._closed:
                ended = self._take_turn(partial(self._listen, self._sleep(deadline)))
            if ended or self._woken or (deadline is not None and monotonic() >= deadline):
                return ended
        return []

    _woken = False

    def _take_turn(self, step: Callable[[], list[Ended]]) -> list[Ended]:
        with self._turn:
            try:
                return step() if not self._closed else []
            except (BackendUnavailable, *BROKEN) as exc:
                pass_on(exc)
                self._lose()
                return []

    def _prepare(self) -> list[Ended]:
        """Be connected, and ask; return what has ended already."""
        if self._spoiled:
            self._away = True
            self._drop()
        if self._wire is None:
            if monotonic() < self._try_at:
                return []
            self._connect()
        self._ask_ahead()
        early = self._begin_expecting()
        if early:
            return early
        return self._look() if monotonic() >= self._look_at else []

    def _sleep(self, deadline: float | None) -> list[int]:
        """Wait for news, for `wake`, or until it is time to look; return the descriptors that have something."""
        if self._wire is None:
            until = self._try_at
        else:
            until = self._heard_at + SILENCE
            if self._expected:
                until = min(until, self._look_at)
        if deadline is not None:
            until = min(until, deadline)
        seconds = max(0.0, until - monotonic())
        return [fd for fd, _ in self._sleep_on.poll(seconds if _HAS_EPOLL else ceil(seconds * 1000))]

    def _listen(self, ready: list[int]) -> list[Ended]:
        """Take in what ended the sleep."""
        if self._rings.fileno() in ready:
            self._drain()
            self._woken = True
        wire = self._wire
        if wire is None:
            return []
        if wire.fileno() in ready and readable([wire], 0):  # else somebody has read it since
            return self._hear()
        if monotonic() >= self._heard_at + SILENCE:
            raise ConnectionError("no answer")
        return []

    def _connect(self) -> None:
        wire = self._store.address.connect(timeout=ANSWER)
        self._wire, self._asked = wire, 0
        self._sleep_on.register(wire, select.POLLIN)
        self._ask_ahead()
        self._expected.begin_anew(forgotten=self._away)
        self._away = False

    def _ask_ahead(self) -> None:
        assert self._wire is not None  # noqa: S101  # callers have connected
        if self._asked == 0:
            self._heard_at = monotonic()
        if self._asked < AHEAD:
            self._wire.send(self._ask * (AHEAD - self._asked))
            self._asked = AHEAD

    # -- who waits for one job

    def wait_for(self, job_id: str, timeout: float | None) -> list[Ended]:
        ended: list[Ended] = []
        try:
            self._expected.add([job_id])
            if _HAS_EPOLL and self._turn.acquire(blocking=False):
                try:
                    ended = self._wait_alone(timeout)
                finally:
                    self._turn.release()
            if any(end.id == job_id for end in ended):
                return ended
        except (BackendUnavailable, *BROKEN) as exc:
            self.wake()
            pass_on(exc)
            ended = []
        except BaseException:
            self.wake()
            raise
        self.wake()  # the thread goes on with it
        return ended

    def _wait_alone(self, timeout: float | None) -> list[Ended]:
        """Wait for the next news here, while nothing else is to be done and the thread need not look after anything."""
        wire = self._wire
        if self._closed or self._spoiled or wire is None:
            return []
        self._spoiled = True  # unless it gets through this uninterrupted: then the thread begins anew
        self._ask_ahead()
        ended = self._begin_expecting()
        if not ended:
            now = monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY
            until = min(self._look_at, self._heard_at + SILENCE)
            if timeout is not None:
                until = min(until, now + timeout)
            self._sleep_on.unregister(wire)
            if wire in readable([wire, self._rings], until - now):
                ended = self._hear()
            self._sleep_on.register(wire, select.POLLIN)
        self._spoiled = False
        return ended

    # -- what both do

    def _begin_expecting(self) -> list[Ended]:
        """Return the ends of newly expected jobs that were heard before, and register for the others."""
        heard, listen, ask = self._expected.begin()
        try:
            ask += self._register(listen)
        except (BackendUnavailable, StoreFull) as exc:
            self._expected.begin_again(listen + ask)
            if isinstance(exc, BackendUnavailable) and not heard:
                raise
            return heard  # while Redis takes no writes, the looks at what is expected go on: they only read
        return self._with_records(heard, ask)

    def _register(self, ids: list[str]) -> list[str]:
        """Have these jobs tell this subscription; return those whose record is to be read."""
        ask: list[str] = []
        for first in range(0, len(ids), LOOK_AT):
            part = ids[first : first + LOOK_AT]
            ask += self._stand_of(part, register=True)
            self._expected.registered(part)
        return ask

    def _look(self) -> list[Ended]:
        """Ask for some of the expected jobs where they stand."""
        self._look_at = monotonic() + LOOK_EVERY
        ids = self._expected.some(LOOK_AT)
        if ids and monotonic() >= self._settle_at:
            self._settle()
        return self._fetch(self._stand_of(ids, register=False)) if ids else []

    def _settle(self) -> None:
        """Where no worker of ours does it: let jobs go on, or fail, that wait for what a stock worker has ended."""
        self._settle_at = monotonic() + SETTLE_EVERY
        line = self._store.line
        if not line.command("ZCARD", self._store.layout.LEASES):
            line.call(self._scripts.sweep, [0])

    def _stand_of(self, ids: list[str], *, register: bool) -> list[str]:
        """Ask for jobs where they stand; return those whose record is to be read."""
        stands: bytes = self._store.line.call(self._scripts.listen, [self.reply_to, ids, int(register)])
        return self._expected.to_read(ids, stands)

    def _with_records(self, ended: list[Ended], ids: list[str]) -> list[Ended]:
        """Add the ends that records tell to those in hand, which are told also when Redis goes away now."""
        try:
            return ended + self._fetch(ids)
        except BackendUnavailable:
            if not ended:
                raise
            return ended  # the others are still expected: the next look asks for them

    def _fetch(self, ids: list[str]) -> list[Ended]:
        """Return the ends of these jobs as their records tell them."""
        if not ids:
            return []
        ended = []
        for job_id, record in zip(ids, self._store.get(ids, payload=True), strict=True):
            if record is None:
                if not self._expected.note_missing(job_id):
                    continue
                end = Ended(id=job_id, state=State.FAILED, failure=Failure.lost())
            elif record.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
                end = Ended(
                    id=job_id,
                    state=record.state,
                    result=record.result,
                    failure=record.failure,
                    attempts=record.attempts,
                    crashes=record.crashes,
                )
            else:
                continue
            if self._expected.take(job_id):
                ended.append(end)
        return ended

    def _hear(self) -> list[Ended]:
        assert self._wire is not None  # noqa: S101  # callers have waited on it
        first = self._wire.read()
        more = self._wire.read()
        self._asked -= 1
        self._heard_at = monotonic()
        for reply in (first, more):
            if isinstance(reply, RedisError):
                raise ConnectionError(str(reply))
        if first is None:
            return []
        self._look_at = self._heard_at + LOOK_EVERY
        ended, ask = self._expected.hear([first[1], *(more or ())])
        return self._with_records(ended, ask)

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
        wire, self._wire = self._wire, None
        self._spoiled = False
        if wire is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):  # it was taken out by one who was interrupted
                self._sleep_on.unregister(wire)
            wire.close()


#: Whether a thread can take a descriptor out of what another one sleeps on.
_HAS_EPOLL: Final = hasattr(select, "epoll")


def _sleeper() -> select.epoll | select.poll:
    return select.epoll() if _HAS_EPOLL else select.poll()
