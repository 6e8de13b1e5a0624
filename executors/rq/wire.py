"""One connection to Redis, over which bytes go as they are.

    Wire: send ──▶ socket ──▶ read

redis-py's own way costs 60 us of Python per command, this one 10.
"""

from __future__ import annotations

import os
import select
from math import ceil
from ssl import SSLSocket
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import hiredis

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

__all__ = ["BROKEN", "RedisError", "Wire", "as_text", "pack", "readable"]

#: Seconds that a thread looks for an answer before it sleeps: to sleep and be woken takes longer than most scripts.
SPIN: Final = 0.00006

#: Bytes read from a socket at once.
READ_SIZE: Final = 65_536

#: What a broken connection raises.
BROKEN: Final = (OSError, hiredis.HiredisError)


def pack(*words: str | bytes | float) -> bytes:
    """Return a command as it goes over the wire; texts are those that `as_text` gave, or others."""
    found = tuple(word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word for word in words)
    return bytes(hiredis.pack_command(found))  # type: ignore[arg-type]  # its stub describes a tuple of one


def as_text(data: bytes) -> str:
    """Return a name that Redis gave: it may be no text, and must find the same key again."""
    return data.decode("utf-8", "surrogateescape")


class RedisError(Exception):
    """Say what Redis answered instead of doing what it was asked."""

    @property
    def code(self) -> str:
        """The first word of the answer."""
        return str(self).partition(" ")[0]


class Wire:
    """One connection. Not for two threads at once."""

    __slots__ = ("__weakref__", "_connection", "_may_glimpse", "_reader", "pid", "socket")

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


def readable(sources: Iterable[Any], seconds: float) -> list[Any]:
    """Return those of some descriptors, or objects with one, that can be read within so many seconds.

    By poll: select refuses the descriptors above 1,023 that a large program has.
    """
    poll = select.poll()
    known = {source if isinstance(source, int) else source.fileno(): source for source in sources}
    for fd in known:
        poll.register(fd, select.POLLIN)
    return [known[fd] for fd, _ in poll.poll(ceil(max(0.0, seconds) * 1000))]
