"""What is asked of Redis, by any thread, over connections that are kept.

    Client(address): call, exchange, stream ──▶ one connection that all threads share, more only while it is busy
        reply lost on an old one ──▶ once more on a fresh one (every script is safe to repeat)
        NOSCRIPT                  ──▶ SCRIPT LOAD, once more
        else                      ──▶ BackendUnavailable, StoreFull

A connection that a fork carried into another process is dropped there, never used.
"""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from taskq.errors import BackendUnavailable, StoreFull
from taskq.executors.rq.connection import ANSWER_TIMEOUT, BROKEN, PASSING, RedisError, is_refusal, pack
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskq.executors.rq.connection import Address, Connection
    from taskq.executors.rq.keys import Keys
    from taskq.executors.rq.scripts import Script
    from taskq.store import JobRecord

__all__ = ["Backend", "Client"]

#: Seconds that a thread waits for the shared connection before it opens another one for its call.
PATIENCE: Final = 0.02

#: Requests of a stream that wait for their answers at the most.
AHEAD: Final = 2


class Client:
    """Call scripts and commands; from any thread."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        #: Weak, as an interrupted call may drop a connection on its way: it closes itself then.
        self._alive: set[ref[Connection]] = set()
        self._closed = False
        self._pid = os.getpid()

    def call(self, script: Script, argument: Any) -> Any:
        """Run a script and return its reply.

        Raises:
            BackendUnavailable: Redis cannot be reached or used now.
            StoreFull: it is at its limit of memory.
        """
        return self.exchange([(script, script.command(argument))])[0]

    def run(self, script: Script, command: bytes) -> Any:
        """Run a script whose command is packed already."""
        return self.exchange([(script, command)])[0]

    def command(self, *words: str | bytes | float) -> Any:
        """Run one command of Redis and return its reply."""
        return self.exchange([(None, pack(*words))])[0]

    def own_address(self) -> str:
        """Return where this connection comes from, as Redis sees it: "host:port", or "unknown"."""
        (reply,) = self.exchange([(None, pack("CLIENT", "INFO"))], partial=True)
        words = () if isinstance(reply, RedisError) else reply.split()
        found = [word[5:].decode() for word in words if word.startswith(b"addr=")]
        return found[0] if found else "unknown"

    def commands(self, lists: list[tuple[Any, ...]]) -> list[Any]:
        """Run several commands in one round trip and return their replies."""
        return self.exchange([(None, pack(*words)) for words in lists])

    def exchange(self, requests: Sequence[tuple[Script | None, bytes]], *, partial: bool = False) -> list[Any]:
        """Send requests in one go and return the replies. `partial`: errors of single ones are returned, not raised."""
        data = requests[0][1] if len(requests) == 1 else b"".join([command for _, command in requests])
        replies = self._trip(data, len(requests))
        for at, reply in enumerate(replies):
            if isinstance(reply, RedisError):
                replies[at] = self._again(requests[at], reply, partial=partial)
        return replies

    def stream(self, script: Script, arguments: Iterable[Any]) -> list[Any]:
        """Run a script with each of these: the next is packed while Redis runs the last. Errors are returned.

        Raises:
            BackendUnavailable: Redis cannot be reached; some of it may have run.
        """
        source = (script.command(argument) for argument in arguments)
        commands: list[bytes] = []
        replies: list[Any] = []
        if not self._pump(source, commands, replies):  # on with fresh connections, one by one
            replies += [self._trip(command, 1)[0] for command in commands[len(replies) :]]
            for command in source:
                commands.append(command)
                replies += self._trip(command, 1)
        for at, reply in enumerate(replies):
            if isinstance(reply, RedisError):
                again = self._again((script, commands[at]), reply, partial=True)
                replies[at] = self.mapped(again, (script, commands[at])) if isinstance(again, RedisError) else again
        return replies

    def _pump(self, source: Iterable[bytes], commands: list[bytes], replies: list[Any]) -> bool:
        """Send commands ahead of their replies; both lists get what went. False: the connection broke on the way."""
        connection = self._take()
        try:
            for command in source:
                commands.append(command)
                connection.send(command)
                if len(commands) - len(replies) > AHEAD:
                    replies.append(connection.read())
            while len(replies) < len(commands):
                replies.append(connection.read())
        except TimeoutError as exc:
            self._end(connection)
            pass_on(exc)
            raise self._late() from exc
        except BROKEN as exc:
            self._end(connection)
            pass_on(exc)
            self._drop_idle()
            return False
        except BaseException:
            self._end(connection)
            raise
        self._give_back(connection)
        return True

    def _trip(self, data: bytes, count: int) -> list[Any]:
        """Send and read; when the connection breaks, once more on a fresh one: every script is safe to repeat."""
        connection = self._take()
        second = False
        while True:
            try:
                connection.send(data)
                replies = [connection.read() for _ in range(count)]
            except TimeoutError as exc:
                self._end(connection)
                pass_on(exc)
                raise self._late() from exc
            except BROKEN as exc:
                self._end(connection)
                pass_on(exc)
                if second:
                    raise self.address.unavailable(exc) from exc
                second = True
                self._drop_idle()
                connection = self._connect()
            except BaseException:
                self._end(connection)
                raise
            else:
                self._give_back(connection)
                return replies

    def _late(self) -> BackendUnavailable:
        return self.address.unavailable(TimeoutError(f"no answer in {ANSWER_TIMEOUT:g} s"))

    def _again(self, request: tuple[Script | None, bytes], error: RedisError, *, partial: bool) -> Any:
        """Load a script that this server does not have yet and run it; say other errors in taskq's words."""
        script, command = request
        if error.code == "NOSCRIPT" and script is not None:
            loaded = self._trip(pack("SCRIPT", "LOAD", script.text), 1)[0]
            error = self._trip(command, 1)[0] if not isinstance(loaded, RedisError) else loaded
            if not isinstance(error, RedisError):
                return error
        if partial:
            return error
        raise self.mapped(error, request)

    def mapped(self, error: RedisError, request: tuple[Script | None, bytes] = (None, b"")) -> Exception:
        """Return taskq's exception for what Redis answered to a request."""
        if is_refusal(str(error)):
            script, command = request
            return self.address.unavailable(error, command, script.text if script is not None else b"")
        if error.code == "OOM" or "OOM command not allowed" in str(error):
            return StoreFull(
                f"{self.address.url} is at its limit of memory (maxmemory): work off or purge jobs, or give it more"
            )
        if error.code == "WRONGTYPE" or "WRONGTYPE" in str(error)[:200]:
            return BackendUnavailable(
                f"{self.address.url}: a key of the queue holds something else ({error}): look at it by TYPE, delete it"
            )
        if error.code in PASSING:
            self._drop_idle()  # where it leads may not be the master any more
            return self.address.unavailable(error)
        for code in PASSING:
            if f"{code} " in str(error)[:200]:
                return self.address.unavailable(RedisError(f"{code} {error}"))
        return RuntimeError(f"{self.address.url} answered: {error}")

    def _take(self) -> Connection:
        if self._pid != os.getpid():
            self._drop_idle()
            self._alive.clear()
            self._idle = SimpleQueue()
            self._pid = os.getpid()
        try:
            return self._idle.get_nowait() if not self._alive else self._idle.get(timeout=PATIENCE)
        except Empty:
            return self._connect()

    def _connect(self) -> Connection:
        connection = self.address.connect()
        self._alive.add(ref(connection, self._alive.discard))
        return connection

    def _give_back(self, connection: Connection) -> None:
        if self._idle.empty() and not self._closed:
            self._idle.put(connection)
        else:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        self._alive.discard(ref(connection))
        connection.close()

    def _drop_idle(self) -> None:
        try:
            while True:
                self._end(self._idle.get_nowait())
        except Empty:
            return

    def close(self) -> None:
        """Close what is idle, and the rest when it is given back; a later call uses a connection of its own."""
        self._closed = True
        self._drop_idle()


class Backend(Protocol):
    """The store, as its subscriptions, its workers and its lists see it."""

    address: Address
    client: Client
    redis_keys: Keys
    url: str
    lease: float
    heartbeat_every: float
    max_bytes: int
    #: RQ's commands that workers obey; None: all.
    commands: frozenset[str] | None

    def get(self, ids: Sequence[str], *, payload: bool = False) -> list[JobRecord | None]:
        """Return what is known of these jobs, see `Store.get`."""
