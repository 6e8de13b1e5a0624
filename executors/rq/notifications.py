"""How an idle worker learns that there may be work, without asking again and again.

    one connection a queue    BLMOVE queue queue LEFT LEFT: comes back when the list has something, and changes nothing
    one more                  SUBSCRIBE this worker's channel (RQ's commands), the wake channel (pauses, schedules) and
                              the one on which jobs are handed over

The first sees what anybody pushes, stock RQ clients too. It comes back at once while the list has something, so it is
sent only after a claim has found the list empty, and not for a queue that is paused.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import BackendUnavailable
from taskq.executors.rq.connection import BROKEN, RedisError, pack, readable
from taskq.log import get_logger
from taskq.store import ControlRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from taskq.executors.rq.claims import HeldJob
    from taskq.executors.rq.client import Backend
    from taskq.executors.rq.connection import Connection
    from taskq.store import WorkerRecord

__all__ = ["Notifications", "seal_of"]

log = get_logger("taskq.redis")

#: Seconds after which a peek comes back by itself, so that a silent cut is noticed.
BLOCK: Final = 3
#: Seconds beyond it until the connection is given up.
SILENCE: Final = BLOCK + 2.0

#: Bytes of a command at the most, and characters of its name that are told.
COMMAND_MAX: Final = 4096
COMMAND_SHOWN: Final = 40

#: Seconds between two looks at a queue in which only jobs wait that this worker leaves to others.
LEFT_EVERY: Final = 0.25
#: What a claim says of such a queue; 1: it is paused.
LEFT: Final = 2

#: Seconds between two looks at what stock clients do without a word: resume a queue, schedule a job.
UNTOLD_EVERY: Final = 1.0


class _Peek:
    """The connection that watches one queue."""

    def __init__(self, key: str) -> None:
        self._command = pack("BLMOVE", key, key, "LEFT", "LEFT", BLOCK)
        self.connection: Connection | None = None
        self.asked_at = 0.0

    def arm(self, store: Backend) -> None:
        """Ask, unless an answer is still awaited."""
        if self.asked_at:
            return
        if self.connection is None:
            self.connection = store.address.connect()
        self.connection.send(self._command)
        self.asked_at = monotonic()

    def answered(self) -> bool:
        """Return whether the list has something, or may have it: at the limit of memory Redis does not say."""
        assert self.connection is not None  # noqa: S101  # it was waited on
        reply = self.connection.read()
        self.asked_at = 0.0
        if isinstance(reply, RedisError):
            if reply.code == "OOM":
                return True
            raise ConnectionError(str(reply))
        return reply is not None

    def drop(self) -> None:
        connection, self.connection, self.asked_at = self.connection, None, 0.0
        if connection is not None:
            connection.close()


class Notifications:
    """All that an idle worker waits on. Used by the worker's thread."""

    def __init__(self, store: Backend, record: WorkerRecord) -> None:
        self._store = store
        self._queues = list(record.queues)
        self._peeks = [_Peek(store.redis_keys.QUEUE + queue) for queue in record.queues]
        self._wake = store.redis_keys.WAKE.encode()
        self._hand = (store.redis_keys.HANDOFF + record.name).encode()
        self._channels = (store.redis_keys.CHANNEL + record.name, self._wake, self._hand)
        self._commands: Connection | None = None
        self._heard_at = 0.0
        self._heard: list[dict[str, Any]] = []
        self._handed: list[bytes] = []
        self._due_at: float | None = None
        self._closed: list[int] = []
        self._stirred = True
        #: Whether the last wait has read what was published, so that `control_requests` need not look.
        self._looked = False
        #: Whether stock clients put jobs into its queues, and so may schedule some.
        self.among_stock_clients = False

    def learn(self, stamp: bytes, due: bytes, closed: list[int]) -> None:
        """Take in what a claim has said: when the next job is due, and which queues are closed."""
        self._stirred = self._commands is None  # what has happened since would not have been heard
        self._closed = closed
        self._due_at = monotonic() + max(0.0, float(due) - float(stamp)) if due else None

    def stir(self) -> None:
        """Take note that what the last claim has said may hold no longer."""
        self._stirred = True

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has happened since the last claim that another one should see."""
        due = self._due_at is not None and monotonic() >= self._due_at
        return not (self._stirred or due or any(self._closed))

    #: Whether jobs were handed over. Read in C: each poll asks.
    has_handed = property(attrgetter("_handed"))

    def handed(self) -> list[bytes]:
        """Return the jobs that were handed over since it was asked last, as they came."""
        handed, self._handed = self._handed, []
        return handed

    def wait(self, timeout: float, wake_fd: int, *, needs_work: bool) -> None:
        """Return when there may be work (not unless `needs_work`), or a command, or after `timeout` seconds."""
        deadline = monotonic() + timeout
        try:
            if self._heard or self._handed:
                return
            self._subscribe()
            if needs_work and self._stirred:
                return
            if needs_work and self._due_at is not None:
                deadline = min(deadline, self._due_at)
            if any(self._closed) or (needs_work and self.among_stock_clients):
                deadline = min(deadline, monotonic() + (LEFT_EVERY if LEFT in self._closed else UNTOLD_EVERY))
            self._select(deadline, wake_fd, self._open_peeks() if needs_work else [])
        except (BackendUnavailable, *BROKEN):
            self.disconnect()
            readable([wake_fd] if wake_fd >= 0 else [], min(0.2, deadline - monotonic()))

    def _open_peeks(self) -> list[_Peek]:
        return [peek for n, peek in enumerate(self._peeks) if not (n < len(self._closed) and self._closed[n])]

    def _select(self, deadline: float, wake_fd: int, peeks: list[_Peek]) -> None:
        while True:
            for peek in peeks:
                peek.arm(self._store)
            waiting = {peek.connection: peek for peek in peeks}
            assert self._commands is not None  # noqa: S101  # wait has subscribed
            sources: list[Any] = [*waiting, self._commands]
            if wake_fd >= 0:
                sources.append(wake_fd)
            now = monotonic()
            ready = readable(sources, min(deadline, now + SILENCE) - now)
            self._looked = True
            woken = False
            for source in ready:
                woken = self._take(source, waiting, wake_fd) or woken
            if woken or monotonic() >= deadline:
                return
            self._check_silence(peeks)

    def _take(self, source: Any, waiting: Mapping[Any, _Peek], wake_fd: int) -> bool:
        if source == wake_fd:
            return True
        if source is self._commands:
            return self._hear()
        if waiting[source].answered():
            self._stirred = True
            return True
        return False

    def _check_silence(self, peeks: list[_Peek]) -> None:
        """Give up connections on which nothing came for longer than Redis itself would wait."""
        late = monotonic() - SILENCE
        if any(peek.asked_at and peek.asked_at < late for peek in peeks):
            raise ConnectionError("no answer")
        if self._heard_at < late and self._commands is not None:
            if self._pinged:
                raise ConnectionError("no answer")
            self._commands.send(pack("PING"))
            self._pinged = True
            self._heard_at = monotonic()

    _pinged = False

    # -- commands

    def listen(self) -> None:
        """Hear what is published from now on; where that fails, waiting tries again."""
        try:
            self._subscribe()
        except (BackendUnavailable, *BROKEN):
            self.disconnect()

    def _subscribe(self) -> None:
        if self._commands is not None:
            return
        connection = self._store.address.connect()
        connection.send(pack("SUBSCRIBE", *self._channels))
        for _ in self._channels:
            if isinstance(reply := connection.read(), RedisError):
                connection.close()
                raise self._store.address.unavailable(reply)
        self._commands = connection
        self._heard_at, self._pinged = monotonic(), False

    def _hear(self) -> bool:
        """Read what came; return whether any of it is for the worker."""
        assert self._commands is not None  # noqa: S101  # it was waited on
        self._heard_at, self._pinged = monotonic(), False
        news = False
        for reply in self._commands.read_now():
            if isinstance(reply, list) and reply[0] == b"message":
                news = True
                if reply[1] == self._hand:
                    self._handed.append(reply[2])
                elif reply[1] == self._wake:
                    self._stirred = True
                else:
                    self._heard.append(_parsed(reply[2]))
        return news

    def control_requests(self, stopped: set[str], held: Mapping[str, HeldJob]) -> list[ControlRequest]:
        """Return what RQ's commands ask for. Jobs that a stock client had stopped are added to `stopped`."""
        self.listen()
        looked, self._looked = self._looked, False
        if not looked and self._commands is not None and readable([self._commands], 0):
            try:
                self._hear()
            except BROKEN:
                self.disconnect()
        heard, self._heard = self._heard, []
        found: list[ControlRequest] = []
        for command in heard:
            if _is_own(command) or self._store.commands is None or command.get("command") in self._store.commands:
                found += _control_requests_of(command, stopped, held)
            else:
                name = str(command.get("command"))[:COMMAND_SHOWN]
                log.warning("command_refused", command=name, cure="?rq_commands=")
        return found

    def disconnect(self) -> None:
        """Let the connection go; `listen` makes another one."""
        self._stirred = True
        for peek in self._peeks:
            peek.drop()
        connection, self._commands = self._commands, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        self.disconnect()


def _parsed(payload: bytes) -> dict[str, Any]:
    """Return a command; of what is none, or longer than any, nothing."""
    try:
        found = json.loads(payload) if len(payload) <= COMMAND_MAX else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("command"), str) else {}


def _is_own(command: dict[str, Any]) -> bool:
    """Tell whether a command is of our own clients; the receiver of the request checks its signature."""
    return bool(command.get("taskq")) and command.get("command") in ("stop-job", "taskq-cancel")


def _control_requests_of(
    command: dict[str, Any], stopped: set[str], held: Mapping[str, HeldJob]
) -> list[ControlRequest]:
    """Return what one command asks for. Source: rq 3.0.0 command.py."""
    name, job_id = command.get("command"), command.get("job_id")
    if name == "shutdown":
        return [ControlRequest(stop=True, foreign=True)]
    if name == "kill-horse":
        return [ControlRequest(crash=True, foreign=True)] if held else []
    known = (
        isinstance(job_id, str)
        and isinstance(command.get("execution_id", ""), str)
        and any(entry.id == job_id for entry in held.values())
    )
    if not known or (name == "stop-execution" and command.get("execution_id") not in held):
        return []
    if own := command.get("taskq"):  # our own clients: the job ends as cancelled, not as stopped
        seal = seal_of(own.partition(" ")[2].encode()) if isinstance(own, str) else b""
        return [ControlRequest(job_id=job_id, kill=name == "stop-job", seal=seal)]
    return _kill({str(job_id)}, stopped) if name in ("stop-job", "stop-execution") else []


def _kill(ids: Collection[str], stopped: set[str]) -> list[ControlRequest]:
    stopped.update(ids)
    return [ControlRequest(job_id=job_id, kill=True, foreign=True) for job_id in sorted(ids)]


def seal_of(text: bytes) -> bytes:
    """Return the signature that goes with a request; of what is none, nothing."""
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except ValueError:
        return b""
