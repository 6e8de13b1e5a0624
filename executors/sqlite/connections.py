"""The connections of one process to a queue file: opened together, closed under the lock, left behind by forks.

one to write (`create` makes the file) · some to read · the lock with its page · the append log · the WAL, for syncs

Where a file is found deleted, renamed or replaced (`FileIdentities`), what was open is closed and opened again:

    the queue file gone          ─▶ an error; all stays open, for the case that it comes back
    another one in its place     ─▶ that is opened; the jobs of the old one are gone with it
    a file beside it             ─▶ what is in the old one is brought into the tables first, where that can be

A folder's change time moves whenever a name in it comes, goes or changes. So one look at the folder tells that all is
as it was; only where it moved are the files themselves looked at. A change time is trusted when it is old enough that
no later change can bear the same.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import weakref
from contextlib import ExitStack, suppress
from functools import partial
from threading import get_ident
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final, NamedTuple

from taskq.errors import BackendUnavailable, TaskqError
from taskq.executors.sqlite.append_log import AppendLog
from taskq.executors.sqlite.create import beside, open_reader, open_writer
from taskq.executors.sqlite.file_sync import FileSync
from taskq.executors.sqlite.fork import fork_guard, leak, watch
from taskq.executors.sqlite.lock import PATIENCE, StoreLock
from taskq.executors.sqlite.page import Page
from taskq.executors.sqlite.place import check_folder, check_path, from_os, from_sqlite
from taskq.executors.sqlite.schema import as_text
from taskq.locks import CallLock, aside
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from taskq.executors.sqlite.place import Place

__all__ = ["FILE", "INBOX", "LOCK", "LOG", "MEMORY", "Connections", "FileIdentities", "Opened", "gone"]

log = get_logger("taskq.store")

#: Connections for reading that are kept for the next one.
IDLE_READERS = 4

#: Bytes of the log that are made in one step.
LOG_ROOM = 8 * 1024 * 1024

#: Seconds that a store which was never closed waits for the lock when it is thrown away.
CLOSE_PATIENCE = 1.0


#: Connections that are open. Without it the garbage collector, where it finds a store in a cycle, could close one of
#: its connections before the store itself, and so without the lock.
_open_connections: set[sqlite3.Connection] = set()


class Opened(NamedTuple):
    """What is open."""

    writer: sqlite3.Connection
    lock: StoreLock
    wal: FileSync
    append_log: AppendLog
    identities: FileIdentities


class Connections:
    """Open a queue file for this process, and again for a forked copy when that first uses it; safe from threads."""

    def __init__(self, place: Place) -> None:
        self.path = place.path
        self._place = place
        #: The page of the lock file, for good: it is mapped again where that file is another one.
        self.page = Page.new()
        self._inherited: list[sqlite3.Connection] = []
        self._closed = False
        self._found = False  # whether the file was there once: it is not made again
        #: How often it was opened again since its files had changed.
        self.generation = 0
        self._takes_any_text = False
        self._reset()
        watch(self)
        _all.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._opening = CallLock()
        self.opened: Opened | None = None
        self._readers: list[sqlite3.Connection] = []
        #: Readers that are being used: by which thread, and how often it was inside the fork guard then.
        self._taken: dict[sqlite3.Connection, tuple[int, int]] = {}

    # -- opening

    def get(self) -> Opened:
        """Return what is open; open it if nothing is.

        Raises:
            ConfigError, StoreDamaged, BackendUnavailable, StoreFull: see `create`.
        """
        return self.opened or aside(self._open)

    def _open(self) -> Opened:
        with self._opening, fork_guard:
            if self._closed:
                raise BackendUnavailable(f"{self.path}: this store was closed; open a new one")
            if self.opened is None:
                self.opened = self._open_anew()
            return self.opened

    def mend(self, opened: Opened) -> bool:
        """Open the files that are in place now, after some were moved; return whether the queue file is another one.

        Not to be called by who is inside the fork guard, or holds the lock.

        Raises:
            BackendUnavailable: the queue file is gone.
            ConfigError, StoreDamaged, StoreFull: see `create`.
        """
        return aside(partial(self._mend, opened))

    def _mend(self, opened: Opened) -> bool:
        with self._opening:
            changed = opened.identities.changed()
            if self.opened is not opened or not changed:
                return False
            if opened.identities.is_missing(FILE):
                raise gone(self.path)
            log.warning("queue_file_changed", path=str(self.path), reason=_described(self.path, changed))
            fork_guard.shut()
            try:
                self._retire(opened, changed)
                self.opened = self._open_anew()
                self.generation += 1
            finally:
                fork_guard.open()
            return FILE in changed

    def is_gone(self) -> bool:
        """Return whether the queue file was there and is no longer."""
        opened = self.opened
        return opened is not None and opened.identities.is_missing(FILE)

    def _retire(self, opened: Opened, changed: Sequence[str]) -> None:
        """Close what is open; no thread is inside SQLite."""
        readers = self._readers.copy()
        self._readers.clear()
        self._taken.clear()
        if not {FILE, MEMORY} & {*changed}:
            with suppress(TaskqError, sqlite3.Error, OSError), opened.lock:
                _ingest_rest(opened, checkpoints=LOG in changed and opened.identities.is_missing(LOG))
        _close_all([*readers, opened.writer], opened.lock, CLOSE_PATIENCE)
        for thing in (opened.wal, opened.append_log.file, opened.lock):
            thing.retire()
        opened.identities.close()
        self.opened = None

    def _open_anew(self) -> Opened:
        try:
            self._check()
            lock = StoreLock(beside(self.path, "-lock"), self.page, shared=self._place.shared)
        except BackendUnavailable:
            raise
        except OSError as exc:
            raise from_os(self.path, exc, "opening its lock file") from exc
        try:
            with lock:
                opened = self._open_under(lock)
                self._found = True
                return opened
        except BaseException as exc:
            lock.close()
            if isinstance(exc, OSError) and not isinstance(exc, BackendUnavailable):
                raise from_os(self.path, exc, "opening its log") from exc
            raise

    def _check(self) -> None:
        """See that what is to be opened is ours, and is there where it is not to be made."""
        if not self.path.exists():
            if self._found:
                raise gone(self.path)
            if self._place.mode != "rwc":
                raise BackendUnavailable(
                    f"{self.path}: there is no queue file: correct the path; whoever submits a job or starts a worker "
                    "makes one"
                )
        check_folder(self.path, shared=self._place.shared)
        for ending in (FILE, LOG, MEMORY):
            check_path(beside(self.path, ending), shared=self._place.shared)

    def _open_under(self, lock: StoreLock) -> Opened:
        while self._inherited:
            connection = self._inherited.pop()
            connection.close()
            _open_connections.discard(connection)
        with ExitStack() as undo:
            writer = open_writer(self.path, lock.page, shared=self._place.shared)
            undo.callback(writer.close)
            if self._takes_any_text:
                writer.text_factory = as_text
            try:
                writer.execute("SELECT count(*) FROM jobs WHERE n = 0").fetchone()  # opens the log
            except sqlite3.Error as exc:
                raise from_sqlite(self.path, exc) from exc
            append_log = AppendLog(self.path, lock, shared=self._place.shared)
            undo.callback(append_log.file.close)
            wal = os.open(beside(self.path, "-wal"), os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, wal)
            descriptors = {LOG: wal, INBOX: append_log.file.descriptor, LOCK: lock.descriptor}
            identities = FileIdentities(self.path, descriptors)
            lock.look = identities.in_place
            undo.pop_all()
        _open_connections.add(writer)
        return Opened(writer, lock, FileSync(wal, lock, lock.page.wal, LOG_ROOM), append_log, identities)

    # -- reading

    def take_any_text(self) -> None:
        """Read texts that are no UTF-8 too, from now on: Python's own way is faster, and fails for all rows at once."""
        self._takes_any_text = True
        self.get().writer.text_factory = as_text

    def acquire_reader(self) -> sqlite3.Connection:
        """Return a connection for reading that no other thread uses; give it back."""
        self.get()
        mark = get_ident(), fork_guard.depth()
        for connection in reversed(self._readers.copy()):
            if self._taken.setdefault(connection, mark) is mark:
                break
        else:
            connection = open_reader(self.path)
            self._taken[connection] = mark
            self._readers.append(connection)
            _open_connections.add(connection)
        if self._takes_any_text:
            connection.text_factory = as_text
        return connection

    def release_reader(self, connection: sqlite3.Connection) -> None:
        """Keep a connection for the next one who reads."""
        if self.opened is None or len(self._readers) > IDLE_READERS:
            self._throw_away(connection)
        else:
            self._taken.pop(connection, None)

    def throw_away_taken(self, depth: int) -> None:
        """Close what this thread took since it was this deep inside the fork guard, and so end what it began there."""
        me = get_ident()
        for connection, (thread, deeper) in self._taken.copy().items():
            if thread == me and deeper > depth:
                self._throw_away(connection)

    def _throw_away(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(ValueError):
            self._readers.remove(connection)
        opened = self.opened
        shared = self._place.shared
        lock = StoreLock(beside(self.path, "-lock"), shared=shared) if opened is None else opened.lock
        _close_all([connection], lock, CLOSE_PATIENCE)
        if opened is None:
            lock.close()
        self._taken.pop(connection, None)

    # -- closing

    def close(self, patience: float = PATIENCE) -> None:
        """Close all, under the lock: the last connection to be closed checkpoints. Safe to call twice."""
        with self._opening, fork_guard:
            self._closed = True
            opened, self.opened = self.opened, None
            if opened is not None:
                mark = get_ident(), fork_guard.depth()
                idle = [one for one in self._readers.copy() if self._taken.setdefault(one, mark) is mark]
                _close_all([*idle, opened.writer], opened.lock, patience)
                opened.wal.close()
                opened.append_log.file.close()
                opened.lock.close()
                opened.identities.close()

    def after_fork_in_child(self) -> None:
        """Leave to the parent, in a forked copy, what is the parent's; see `fork`."""
        if self.opened is not None:
            for connection in (*self._readers, self.opened.writer):
                leak(connection)
                self._inherited.append(connection)
            self.opened.wal.close()
            self.opened.append_log.file.close()
            self.opened.lock.close()
            self.opened.identities.close()
        self._reset()

    def __del__(self) -> None:
        if getattr(self, "opened", None) is not None:
            self.close(CLOSE_PATIENCE)


def gone(path: Path) -> BackendUnavailable:
    """Return the error that says that a queue file is there no longer."""
    return BackendUnavailable(
        f"{path}: the queue file is gone: it was deleted or moved away, or its folder was, while programs used it; put "
        "it back, or begin a new queue by starting a worker or submitting a job in a new program"
    )


def _described(path: Path, changed: Sequence[str]) -> str:
    """Say what has happened to the files of a queue."""
    if FILE in changed:
        return "another file stands in its place; it is opened, and the jobs of the one before are gone with that"
    names = ", ".join(path.name + ending for ending in changed)
    return f"deleted, renamed or replaced while in use: {names}; opened anew"


def _ingest_rest(opened: Opened, *, checkpoints: bool) -> None:
    """Bring into the tables what the old append log has, and into the queue file what a deleted log has."""
    writer, _, wal, append_log, _ = opened
    writer.execute("BEGIN IMMEDIATE")
    try:
        append_log.ingest(writer)
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        append_log.not_ingested()
        raise
    append_log.ingested(wal)
    if checkpoints:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _close_all(connections: list[sqlite3.Connection], lock: StoreLock, patience: float) -> None:
    try:
        if lock.is_mine:
            _close_each(connections)
        else:
            lock.hold(partial(_close_each, connections), patience=patience)
    except (BackendUnavailable, OSError):
        if lock.path.parent.exists():
            for connection in connections:
                leak(connection)  # closing it without the lock could checkpoint while another process commits
        else:
            _close_each(connections)  # the file is gone with its folder: SQLite sees that, and does not checkpoint


def _close_each(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()
        _open_connections.discard(connection)


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    """Close what was never closed, while the lock can still be taken."""
    for connections in list(_all):
        connections.close(CLOSE_PATIENCE)


#: The endings of the files; the first is the queue file itself.
FILE, LOG, MEMORY, INBOX, LOCK = "", "-wal", "-shm", "-inbox", "-lock"

#: Nanoseconds after which a change time comes no second time: clocks of file systems tick in steps of up to 10 ms.
SETTLED_NS: Final = 100_000_000

#: Seconds after which the files are looked at in any case: a folder does not know that one above it was renamed.
LOOK_S: Final = 0.25


class FileIdentities:
    """Know the files behind the names of one queue; made under the lock, when all of them are open."""

    def __init__(self, path: Path, descriptors: Mapping[str, int]) -> None:
        """Learn what stands at the names, and what is open, where there is a descriptor.

        Raises:
            OSError: a file is missing.
        """
        self._path = str(path)
        self._known = {ending: _identity(os.fstat(descriptor)) for ending, descriptor in descriptors.items()}
        for ending in (FILE, MEMORY):
            self._known[ending] = self._found(ending)
        self._trusted = 0
        self._look_at = 0.0
        self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the folder's descriptor back. Safe to call twice."""
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

    @property
    def is_settled(self) -> bool:
        """Whether the folder has been as it is for long enough: its files are looked at only now and then."""
        return bool(self._trusted)

    def in_place(self) -> bool:
        """Return whether all files are in their places; not, when they were closed."""
        now = monotonic()
        try:
            changed_at = os.fstat(self._folder).st_ctime_ns
        except OSError:
            return False
        if changed_at == self._trusted and now < self._look_at:
            return True
        if self.changed():
            return False
        if time_ns() - changed_at > SETTLED_NS:
            self._trusted, self._look_at = changed_at, now + LOOK_S
        return True

    def changed(self) -> list[str]:
        """Return the endings of the files that are not in their places; a queue file that was emptied is not."""
        return [ending for ending, known in self._known.items() if self._at(ending) != known]

    def is_missing(self, ending: str) -> bool:
        """Return whether nothing stands at a name."""
        return self._at(ending) is None

    def _at(self, ending: str) -> tuple[int, int] | None:
        try:
            return self._found(ending)
        except OSError:
            return None

    def _found(self, ending: str) -> tuple[int, int]:
        found = os.stat(self._path + ending)  # noqa: PTH116 - the path is text, for speed
        return (0, 0) if ending == FILE and not found.st_size else _identity(found)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
