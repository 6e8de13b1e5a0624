"""The connections of one process to a queue file: opened together, closed under the lock, left behind by forks.

one to write (`birth` makes the file) · some to read · the lock with its page · the inbox · the log, for syncs
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import weakref
from contextlib import ExitStack
from operator import attrgetter
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from executors.sqlite.birth import beside, make_folder, open_reader, open_writer
from executors.sqlite.errors import from_os, from_sqlite
from executors.sqlite.fork import gate, immortal, watch
from executors.sqlite.inbox import Inbox
from executors.sqlite.lock import PATIENCE, StoreLock
from executors.sqlite.sync import LogSync
from taskq.errors import BackendUnavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Connections", "Opened"]

#: Connections for reading that are kept for the next one.
IDLE_READERS = 4

#: Bytes of the log that are made in one step.
LOG_ROOM = 8 * 1024 * 1024

#: Seconds that a store which was never closed waits for the lock when it is thrown away.
FAREWELL = 1.0


#: Connections that are open. Without it the garbage collector, where it finds a store in a cycle, could close one of
#: its connections before the store itself, and so without the lock.
_held: set[sqlite3.Connection] = set()


class Opened(NamedTuple):
    """What is open."""

    writer: sqlite3.Connection
    lock: StoreLock
    log: LogSync
    inbox: Inbox


class Connections:
    """Open a queue file for this process, and again for a forked copy when that first uses it; safe from threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inherited: list[sqlite3.Connection] = []
        self._closed = False
        self._reset()
        watch(self)
        _all.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._opening = RLock()
        self._opened: Opened | None = None
        self._readers: list[sqlite3.Connection] = []

    # -- opening

    def get(self) -> Opened:
        """Return what is open; open it if nothing is.

        Raises:
            ConfigError, StoreDamaged, BackendUnavailable, StoreFull: see `birth`.
        """
        return self._opened or self._open()

    def _open(self) -> Opened:
        with self._opening, gate:
            if self._closed:
                raise BackendUnavailable(f"{self.path}: this store was closed; open a new one")
            if self._opened is None:
                self._opened = self._open_anew()
            return self._opened

    def _open_anew(self) -> Opened:
        try:
            make_folder(self.path)
            lock = StoreLock(beside(self.path, "-lock"))
        except OSError as exc:
            raise from_os(self.path, exc, "making its folder and its lock file") from exc
        try:
            with lock:
                return self._open_under(lock)
        except BaseException as exc:
            lock.close()
            if isinstance(exc, OSError) and not isinstance(exc, BackendUnavailable):
                raise from_os(self.path, exc, "opening its log") from exc
            raise

    def _open_under(self, lock: StoreLock) -> Opened:
        while self._inherited:
            connection = self._inherited.pop()
            connection.close()
            _held.discard(connection)
        with ExitStack() as undo:
            writer = open_writer(self.path, lock.page)
            undo.callback(writer.close)
            try:
                writer.execute("SELECT count(*) FROM jobs WHERE n = 0").fetchone()  # opens the log
            except sqlite3.Error as exc:
                raise from_sqlite(self.path, exc) from exc
            inbox = Inbox(self.path, lock)
            undo.callback(inbox.close)
            log = os.open(beside(self.path, "-wal"), os.O_RDWR | os.O_CLOEXEC)
            undo.pop_all()
        _held.add(writer)
        return Opened(writer, lock, LogSync(log, lock, attrgetter("log"), LOG_ROOM), inbox)

    # -- reading

    def take_reader(self) -> sqlite3.Connection:
        """Return a connection for reading that nobody else uses; give it back."""
        self.get()
        try:
            return self._readers.pop()
        except IndexError:
            connection = open_reader(self.path)
            _held.add(connection)
            return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Keep a connection for the next one who reads."""
        opened = self._opened
        if opened is not None and len(self._readers) < IDLE_READERS:
            self._readers.append(connection)
            return
        lock = StoreLock(beside(self.path, "-lock")) if opened is None else opened.lock
        _close_all([connection], lock, FAREWELL)
        if opened is None:
            lock.close()

    # -- closing

    def close(self, patience: float = PATIENCE) -> None:
        """Close all, under the lock: the last connection to be closed checkpoints. Safe to call twice."""
        with self._opening, gate:
            self._closed = True
            opened, self._opened = self._opened, None
            if opened is not None:
                readers = [self._readers.pop() for _ in range(len(self._readers))]
                _close_all([*readers, opened.writer], opened.lock, patience)
                opened.log.close()
                opened.inbox.close()
                opened.lock.close()

    def forsake(self) -> None:
        """Leave to the parent, in a forked copy, what is the parent's; see `fork`."""
        if self._opened is not None:
            for connection in (*self._readers, self._opened.writer):
                immortal(connection)
                self._inherited.append(connection)
            self._opened.log.close()
            self._opened.inbox.close()
            self._opened.lock.close()
        self._reset()

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None:
            self.close(FAREWELL)


def _close_all(connections: list[sqlite3.Connection], lock: StoreLock, patience: float) -> None:
    try:
        lock.acquire(patience)
    except BackendUnavailable:
        for connection in connections:
            immortal(connection)  # closing it without the lock could checkpoint while somebody commits
        return
    try:
        for connection in connections:
            connection.close()
            _held.discard(connection)
    finally:
        lock.release()


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    """Close what was never closed, while the lock can still be taken."""
    for connections in list(_all):
        connections.close(FAREWELL)
