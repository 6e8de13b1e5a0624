"""Connections to Redis: redis-py opens them (TLS, passwords, sockets), then bytes go over them as they are.

    Address(url) ──connect──▶ Wire: send · read           one connection
                 Line(address): call, exchange, stream    one wire that all threads share, more only while it is busy
                     reply lost on an old wire ──▶ once more on a fresh one (every script is safe to repeat)
                     NOSCRIPT ──▶ SCRIPT LOAD, once more
                     else     ──▶ BackendUnavailable, StoreFull

redis-py's own way costs 60 us of Python per command, this one 10. A wire that a fork carried into another process is
dropped there, never used.
"""

from __future__ import annotations

import os
import select
from math import ceil
from queue import Empty, SimpleQueue
from ssl import SSLSocket
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.retry import Retry

from executors.rq.layout import Layout, default_prefix
from executors.rq.scripts import Scripts
from executors.rq.sentinel import Sentinels, has_several_hosts, hosts_of
from executors.rq.url import lease, part, truth
from taskq.errors import BackendUnavailable, ConfigError, StoreFull
from taskq.redact import safe_url

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Sequence

    from executors.rq.scripts import Script

__all__ = ["BROKEN", "Address", "Line", "RedisError", "Wire", "pack", "readable"]

#: Seconds until a connection that does not answer is given up; connecting and asking together stay below 5.
CONNECT_TIMEOUT: Final = 4.0
ANSWER_TIMEOUT: Final = 4.0

TIMEOUTS: Final = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}

#: Seconds that a Sentinel gets: the next one is asked after them.
SENTINEL_TIMEOUT: Final = 1.0

#: Seconds that a thread waits for the shared connection before it opens another one for its call.
PATIENCE: Final = 0.02

#: Seconds that a thread looks for an answer before it sleeps: to sleep and be woken takes longer than most scripts.
SPIN: Final = 0.00006

#: Requests of a stream that wait for their answers at the most.
AHEAD: Final = 2

#: Bytes read from a socket at once.
READ_SIZE: Final = 65_536

#: The first words of errors that pass: the server is starting, is a replica, runs a long script, cannot write.
PASSING: Final = {
    "LOADING": "it is still loading its data",
    "READONLY": "it is a replica now and takes no writes",
    "MASTERDOWN": "it is a replica whose master is away",
    "BUSY": "it is busy with a script",
    "MISCONF": "it cannot write its data to disk: look at its log and its disk",
    "NOREPLICAS": "it has too few replicas to take writes",
    "CLUSTERDOWN": "its cluster is down",
    "NOAUTH": "it asks for a password: write redis://:PASSWORD@host",
    "WRONGPASS": "it refuses the user or the password",
    "NOPERM": "the user may not run the commands that taskq needs",
}


#: What a broken connection raises.
BROKEN: Final = (OSError, hiredis.HiredisError)


def pack(*words: str | bytes | float) -> bytes:
    """Return a command as it goes over the wire."""
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub describes a tuple of one


class RedisError(Exception):
    """Say what Redis answered instead of doing what it was asked."""

    @property
    def code(self) -> str:
        """The first word of the answer."""
        return str(self).partition(" ")[0]


class Address:
    """Where a Redis is, and under which names jobs live there. With `?sentinel=NAME`, Sentinels tell which one it is.

    Raises:
        ConfigError: the URL has an unknown word in its query, or a value that makes no sense.
    """

    def __init__(self, url: str) -> None:
        self.url = safe_url(url)
        self.secret_url = url
        own, redis_url = part(url, self.url)
        self.layout = Layout(own.get("prefix") or default_prefix())
        self.scripts = Scripts(self.layout)
        self.allow_pickle = truth("allow_pickle", own, self.url)
        self.allow_callbacks = truth("allow_callbacks", own, self.url)
        self.lease = lease(own.get("lease"), self.url)
        hosts: list[tuple[str, int]] = []
        if "sentinel" in own:
            hosts, redis_url = hosts_of(redis_url, self.url)
        elif has_several_hosts(redis_url):
            raise ConfigError(f"{self.url}: several hosts are Sentinels: add ?sentinel=NAME, the name of the master")
        try:
            options: dict[str, Any] = parse_url(redis_url)  # type: ignore[no-untyped-call]  # redis-py's own gap
        except ValueError as exc:
            raise ConfigError(f"{self.url}: {safe_url(str(exc))}") from None
        self._class = options.pop("connection_class", Connection)
        self._options = options
        self._sentinels = Sentinels(hosts, own["sentinel"], self._to_sentinels(own)) if hosts else None

    def __repr__(self) -> str:
        return f"<Address {self.url}>"

    def connect(self, timeout: float | None = ANSWER_TIMEOUT) -> Wire:
        """Return a new connection. `timeout`: seconds that an answer may take, None: any time.

        Raises:
            BackendUnavailable: nobody is there, or not for us.
        """
        try:
            place = self._sentinels.master() if self._sentinels is not None else {}
            connection = self._class(**{**self._options, **place}, protocol=2, **TIMEOUTS)
            connection.connect()
        except (redis.RedisError, OSError, ValueError) as exc:
            raise self.unavailable(exc) from exc
        return Wire(connection, timeout)

    def _to_sentinels(self, own: dict[str, str]) -> dict[str, Any]:
        """Return how to connect to Sentinels: they have users of their own, and one of them may not answer."""
        options = {name: value for name, value in self._options.items() if name.startswith("ssl_")}
        return {
            **options,
            "ssl": issubclass(self._class, SSLConnection),
            "username": own.get("sentinel_username"),
            "password": own.get("sentinel_password"),
            "protocol": 2,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "socket_timeout": SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),  # the next one is asked instead
        }

    def unavailable(self, exc: BaseException) -> BackendUnavailable:
        """Return the error that says why this Redis cannot be used now, and what to do."""
        text = safe_url(str(exc)) or type(exc).__name__
        cure = PASSING.get(text.partition(" ")[0])
        if cure:
            return BackendUnavailable(f"{self.url} cannot be used now: {cure} ({text})")
        return BackendUnavailable(f"{self.url} cannot be reached: {text}: is redis-server running there?")

    def client(self) -> Any:
        """Return redis-py's own client, for what needs RQ's own classes."""
        options = {**self._options, "protocol": 2, **TIMEOUTS}
        if self._sentinels is not None:
            return self._sentinels.client({**options, "ssl": issubclass(self._class, SSLConnection)})
        return redis.Redis.from_pool(redis.ConnectionPool(self._class, **options))


class Wire:
    """One connection. Not for two threads at once."""

    __slots__ = ("_connection", "_may_glimpse", "_reader", "pid", "socket")

    def __init__(self, connection: Any, timeout: float | None) -> None:
        self._connection = connection
        self.socket: socket.socket = connection._sock  # noqa: SLF001  # redis-py has no other way to the bytes
        self.socket.settimeout(timeout)
        #: Whether what is there can be read without waiting, and as it is.
        self._may_glimpse = timeout is not None and not isinstance(self.socket, SSLSocket)
        self._reader = hiredis.Reader(replyError=RedisError)
        self.pid = os.getpid()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        self.socket.sendall(data)

    def read(self) -> Any:
        """Return the next reply; a RedisError is returned, not raised.

        Raises:
            OSError: the connection is broken, or no answer came in time.
        """
        reply = self._reader.gets()
        while reply is False:
            self._feed()
            reply = self._reader.gets()
        return reply

    def read_now(self) -> list[Any]:
        """Return the replies that are there; waits for the first bytes only."""
        self._feed()
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        return replies

    def _feed(self) -> None:
        data = self._glimpse() or self.socket.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError("the connection was closed by Redis")
        self._reader.feed(data)

    def _glimpse(self) -> bytes:
        """Return what comes within a moment in which the thread stays awake."""
        if not self._may_glimpse:
            return b""
        until = perf_counter() + SPIN
        while True:
            try:
                return os.read(self.socket.fileno(), READ_SIZE)  # -1 once another thread has closed it
            except BlockingIOError:
                if perf_counter() > until:
                    return b""
                os.sched_yield()

    def close(self) -> None:
        """Close the connection; in a forked process only this copy of it."""
        if self.pid == os.getpid():
            self._connection.disconnect()
        else:
            self.socket.close()


class Line:
    """Call scripts and commands; from any thread."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: SimpleQueue[Wire] = SimpleQueue()
        self._alive: set[Wire] = set()
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
                replies[at] = self.mapped(again) if isinstance(again, RedisError) else again
        return replies

    def _pump(self, source: Iterable[bytes], commands: list[bytes], replies: list[Any]) -> bool:
        """Send commands ahead of their replies; both lists get what went. False: the connection broke on the way."""
        wire = self._take()
        try:
            for command in source:
                commands.append(command)
                wire.send(command)
                if len(commands) - len(replies) > AHEAD:
                    replies.append(wire.read())
            while len(replies) < len(commands):
                replies.append(wire.read())
        except TimeoutError as exc:
            self._end(wire)
            raise self._late() from exc
        except BROKEN:
            self._end(wire)
            self._drop_idle()
            return False
        except BaseException:
            self._end(wire)
            raise
        self._give_back(wire)
        return True

    def _trip(self, data: bytes, count: int) -> list[Any]:
        """Send and read; when the connection breaks, once more on a fresh one: every script is safe to repeat."""
        wire = self._take()
        second = False
        while True:
            try:
                wire.send(data)
                replies = [wire.read() for _ in range(count)]
            except TimeoutError as exc:
                self._end(wire)
                raise self._late() from exc
            except BROKEN as exc:
                self._end(wire)
                if second:
                    raise self.address.unavailable(exc) from exc
                second = True
                self._drop_idle()
                wire = self._connect()
            except BaseException:
                self._end(wire)
                raise
            else:
                self._give_back(wire)
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
        raise self.mapped(error)

    def mapped(self, error: RedisError) -> Exception:
        """Return taskq's exception for what Redis answered."""
        if error.code == "OOM" or "OOM command not allowed" in str(error):
            return StoreFull(
                f"{self.address.url} is at its limit of memory (maxmemory): work off or purge jobs, or give it more"
            )
        if error.code in PASSING:
            self._drop_idle()  # where it leads may not be the master any more
            return self.address.unavailable(error)
        for code in PASSING:
            if f"{code} " in str(error)[:200]:
                return self.address.unavailable(RedisError(f"{code} {error}"))
        return RuntimeError(f"{self.address.url} answered: {error}")

    def _take(self) -> Wire:
        if self._pid != os.getpid():
            self._drop_idle()
            self._alive.clear()
            self._idle = SimpleQueue()
            self._pid = os.getpid()
        try:
            return self._idle.get_nowait() if not self._alive else self._idle.get(timeout=PATIENCE)
        except Empty:
            return self._connect()

    def _connect(self) -> Wire:
        wire = self.address.connect()
        self._alive.add(wire)
        return wire

    def _give_back(self, wire: Wire) -> None:
        if self._idle.empty() and not self._closed:
            self._idle.put(wire)
        else:
            self._end(wire)

    def _end(self, wire: Wire) -> None:
        self._alive.discard(wire)
        wire.close()

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


def readable(sources: Iterable[Any], seconds: float) -> list[Any]:
    """Return those of some descriptors, or objects with one, that can be read within so many seconds.

    By poll: select refuses the descriptors above 1,023 that a large program has.
    """
    poll = select.poll()
    known = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    for fd in known:
        poll.register(fd, select.POLLIN)
    return [known[fd] for fd, _ in poll.poll(ceil(max(0.0, seconds) * 1000))]
