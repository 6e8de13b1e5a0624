"""A queue file in this process: its connections, and the way of every write.

    write(work) ── threads that come together are joined ──▶ the first of them, for all:
        lock ─▶ BEGIN IMMEDIATE ─▶ the append log is ingested ─▶ work(tx), each in a savepoint ─▶ COMMIT ─▶ number
             ─▶ checkpoint? ─▶ unlock
                   each caller then:  after(tx): wake who sleeps ─▶ sync up to its number, if it must last

    append(row) ── lock ─▶ inbox ─▶ number ─▶ unlock
    read(work)  ── a connection of its own, no lock; what is in the append log is ingested first

Every use of a connection stands inside `fork_guard`.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import deque
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from taskq.errors import BackendUnavailable, SoftTimeout, TaskqError
from taskq.executors.sqlite.connections import Connections, gone
from taskq.executors.sqlite.create import BUSY_MS
from taskq.executors.sqlite.disk_space import DiskSpace
from taskq.executors.sqlite.fork import fork_guard, watch
from taskq.executors.sqlite.lock import LockClosed
from taskq.executors.sqlite.place import copied, from_os, from_sqlite, is_bad_text, real_path
from taskq.executors.sqlite.transaction import PendingWrite, run_all, under_lock
from taskq.locks import CallLock, aside, may_be_interrupted, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskq.executors.sqlite.connections import Opened
    from taskq.executors.sqlite.lock import StoreLock
    from taskq.executors.sqlite.page import Page
    from taskq.executors.sqlite.place import Place
    from taskq.executors.sqlite.transaction import Tx

__all__ = ["Database"]

T = TypeVar("T")

#: Pages of the log after which it is copied into the database: 8 MiB, the size that the log keeps.
CHECKPOINT_FRAMES = 3000
#: The same where the disk is nearly full.
SHORT_FRAMES = 32
#: Pages after which readers are waited for, so that the log can restart: 128 MiB.
TOO_LONG = 32_000
#: Milliseconds for which they are.
READERS_MS = 200
#: Times that a file which was replaced is opened again for one transaction.
REPLACED = 5


class Database:
    """Open a queue file for this process; all methods may be called from any thread.

    Raises:
        ConfigError: it is another program's file, or a newer taskq's.
        StoreDamaged: it is damaged; it was left as it is.
        BackendUnavailable: it cannot be opened or made.
    """

    def __init__(self, place: Place) -> None:
        place = replace(place, path=real_path(place.path))
        try:
            self.place, self._copy = copied(place)
        except OSError as exc:
            raise from_os(place.path, exc, "copying it to read it") from exc
        place = self.place
        self.path = place.path
        self.disk_space = DiskSpace(place.path, self.unused, self._unfinished)
        #: What is open of it: the writer, the readers, the files beside it.
        self.connections = Connections(place)
        #: The page that all processes share.
        self.page = self.connections.page
        self.connections.get()
        self.after_fork_in_child()
        watch(self)

    def after_fork_in_child(self) -> None:
        """Begin with no thread at work, as in a forked copy."""
        self._turn = CallLock()
        #: Writes that wait for the one that is being made.
        self.pending: deque[PendingWrite[Any]] = deque()

    # -- writing

    def write(
        self,
        work: Callable[[Tx], T],
        *,
        lasting: bool = True,
        after: Callable[[Tx], None] | None = None,
        kept: Callable[[Tx], None] | None = None,
    ) -> T:
        """Run `work` in a transaction; return its value when all of it is kept, at full durability on the disk.

        `work` may be run again when it has failed with others, so it must not do what cannot be undone. `lasting`
        False: a power cut may undo it. `after` is called when everybody can see it, before it is on the disk; `kept`
        when it is there.

        Raises:
            BackendUnavailable: nothing was done, or it is not known to last: the call may be repeated.
            StoreFull: the disk is full, nothing was done.
        """
        write = PendingWrite(work)
        try:
            self.pending.append(write)
            with self._turn:
                if not write.done:
                    self._make(self._joined(write), write)
        except BaseException:
            with contextlib.suppress(ValueError):
                self.pending.remove(write)
            raise
        if write.error is not None:
            raise write.error
        tx = write.tx
        if after is not None and tx is not None:
            after(tx)
        if lasting and self.place.full:
            self.sync(write.number)
        if kept is not None and tx is not None:
            kept(tx)
        return write.value  # type: ignore[return-value]

    def sync(self, number: int) -> None:
        """Return when commit `number` is on the disk."""
        try:
            (self.connections.opened or self.connections.get()).wal.up_to(number)
        except OSError as exc:
            raise from_os(self.path, exc, "syncing its log") from exc

    def append(self, row: Sequence[Any]) -> int:
        """Put a job's row into the append log; return the number for `sync_append`.

        Raises:
            BackendUnavailable: it was not put.
            StoreFull: the disk is full.
        """
        while True:
            opened = self.connections.opened or self.connections.get()
            try:  # no fork guard: there is nothing of SQLite's that a fork could find half done
                number = opened.lock.hold(partial(opened.append_log.append, row))
            except LockClosed:
                if self.connections.get() is opened:
                    raise
                continue
            except BackendUnavailable:
                raise
            except OSError as exc:
                raise self._from_os(exc, "writing to its inbox") from exc
            if number < 0:
                self.connections.mend(opened)
            elif number:
                return number
            else:
                self._ingest()

    def sync_append(self, number: int) -> None:
        """Return when append `number` is on the disk, at full durability.

        Raises:
            BackendUnavailable: it is not known to last: the call may be repeated.
        """
        if self.place.full:
            try:
                (self.connections.opened or self.connections.get()).append_log.file.up_to(number)
            except OSError as exc:
                raise from_os(self.path, exc, "syncing its inbox") from exc

    def _ingest(self) -> None:
        """Have what is in the append log in the tables."""
        self.write(_nothing, lasting=False)

    def _joined(self, own: PendingWrite[Any]) -> list[PendingWrite[Any]]:
        """Take all writes that wait now; a thread that may be interrupted does only its own."""
        if len(self.pending) == 1 or may_be_interrupted():
            self.pending.remove(own)
            return [own]
        found = []
        while self.pending:
            found.append(self.pending.popleft())
        return found

    def _make(self, writes: list[PendingWrite[Any]], own: PendingWrite[Any]) -> None:
        """Make one transaction of these writes; an error of all is each one's."""
        try:
            self._make_or_make_room(writes)
        except sqlite3.Error as exc:
            self._fail(writes, from_sqlite(self.path, exc), exc)
        except SoftTimeout:
            self._hand_back(writes, own)
            raise
        except TaskqError as exc:
            self._fail(writes, exc, None)
        except OSError as exc:
            self._fail(writes, self._from_os(exc, "opening it or turning its inbox"), exc)
        except BaseException:
            self._hand_back(writes, own)
            raise

    def _hand_back(self, writes: list[PendingWrite[Any]], own: PendingWrite[Any]) -> None:
        """Put the other callers' writes back, for them to run: this thread was interrupted."""
        self.pending.extendleft(write for write in reversed(writes) if write is not own and not write.done)

    def _make_or_make_room(self, writes: list[PendingWrite[Any]]) -> None:
        """Make the transaction; once more where a text is no UTF-8, or, in a log that restarts, the disk is full."""
        try:
            self._make_under_lock(writes)
        except sqlite3.OperationalError as exc:
            if is_bad_text(exc):
                self.connections.take_any_text()
            elif getattr(exc, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            else:
                opened = self.connections.get()
                under_lock(opened, lambda: self._checkpoint(opened.writer, opened.lock.page))
            for write in writes:
                write.error = None
            self._make_under_lock(writes)

    def _make_under_lock(self, writes: list[PendingWrite[Any]]) -> None:
        """Make the transaction in the file that stands at the path, however often that is replaced."""
        for _ in range(REPLACED):
            opened = self.connections.opened or self.connections.get()
            try:
                if under_lock(opened, partial(self._make_in, opened, writes)):
                    return
                self.opened()
            except LockClosed:
                if self.connections.get() is opened:
                    raise
        raise BackendUnavailable(f"{self.path}: its files are deleted or replaced again and again: find out by whom")

    def _make_in(self, opened: Opened, writes: list[PendingWrite[Any]]) -> bool:
        """Make the transaction in what is open, if that is what others read; return whether it was made."""
        if not opened.lock.in_place:
            return False
        changes = opened.writer.total_changes
        run_all(writes, opened)
        self._made(writes, opened, opened.writer.total_changes - changes)
        return True

    def _made(self, writes: list[PendingWrite[Any]], opened: Opened, changes: int) -> None:
        """Take note of a transaction that was made."""
        page = opened.lock.page
        number = page.wal.count_commit()
        for write in writes:
            write.number = number
            write.done = True
            if write.tx is not None:
                write.tx.number = page.changes
        self._checkpoint_when_long(opened.writer, page, changes)

    def _fail(self, writes: list[PendingWrite[Any]], error: Exception, cause: BaseException | None) -> None:
        for write in writes:
            if not write.done:
                write.done = True
                write.error = error
                error.__cause__ = cause

    # -- the log

    def _checkpoint_when_long(self, connection: sqlite3.Connection, page: Page, changes: int) -> None:
        frames = page.frames
        if changes:
            page.frames = frames = frames + 3 + changes // 4
        if frames > CHECKPOINT_FRAMES or (frames > SHORT_FRAMES and self.disk_space.is_short()):
            self._checkpoint(connection, page)

    def _checkpoint(self, connection: sqlite3.Connection, page: Page) -> int:
        """Copy the log into the database as far as readers allow; a disk that is full says so at the next commit."""
        page.frames = 0
        try:
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > TOO_LONG:
                connection.execute(f"PRAGMA busy_timeout = {READERS_MS}")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        except sqlite3.Error:
            return 0
        return int(pages)

    def checkpoint(self) -> None:
        """Copy the log into the database now, when there is something in it."""
        with self._turn:
            opened = self.connections.get()
            if opened.lock.page.frames:
                under_lock(opened, lambda: self._checkpoint(opened.writer, opened.lock.page))

    # -- reading

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with a connection that only reads; again, when it has met a text that is no UTF-8."""
        try:
            return self._read(work)
        except sqlite3.Error as exc:
            if not is_bad_text(exc):
                raise from_sqlite(self.path, exc) from exc
        self.connections.take_any_text()
        try:
            return self._read(work)
        except sqlite3.Error as exc:
            raise from_sqlite(self.path, exc) from exc

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.opened()
        if self.page.append_log.is_waiting:
            self._ingest()
        depth = fork_guard.depth()
        try:
            try:
                with fork_guard:
                    connection = self.connections.acquire_reader()
                    value = work(connection)
                    self.connections.release_reader(connection)
            except BaseException:
                self._go_out(depth)
                raise
        except BaseException:  # an interrupt while an error was on its way
            self._go_out(depth)
            raise
        return value

    def _go_out(self, depth: int) -> None:
        """Leave nothing of a read that failed or was interrupted."""
        self.connections.throw_away_taken(depth)
        fork_guard.restore(depth)

    def unused(self) -> int:
        """Return how many bytes of the file are in no table, less those by which the next checkpoint lengthens it."""
        names = ("freelist_count", "page_count", "page_size")
        free, pages, size = self.read(lambda c: [int(c.execute(f"PRAGMA {name}").fetchone()[0]) for name in names])
        try:
            length = self.path.stat().st_size
        except OSError:  # it was moved away, and the write will say so
            length = pages * size
        return free * size - max(0, pages * size - length)

    def _unfinished(self) -> int:
        """Return how many jobs have not ended."""
        query = "SELECT count(*) FROM jobs INDEXED BY jobs_line WHERE state < 5"
        return int(self.read(lambda c: c.execute(query).fetchone()[0]))

    # -- the files

    def opened(self) -> Opened:
        """Return what is open, when it is what stands at the file's path; else open that.

        Raises:
            BackendUnavailable: the queue file was deleted or moved away.
        """
        opened = self.connections.get()
        if not opened.identities.in_place():
            self.connections.mend(opened)
            opened = self.connections.get()
        opened.lock.mend()
        return opened

    #: A number that changes when the file was opened again, and may be another one. Read in C: each look asks for it.
    generation: int = property(attrgetter("connections.generation"))  # type: ignore[assignment]

    def opened_generation(self) -> int:
        """Return that number after a look at the files."""
        self.opened()
        return self.connections.generation

    def is_gone(self) -> bool:
        """Return whether the queue file was deleted or moved away."""
        return self.connections.is_gone()

    def _from_os(self, exc: OSError, doing: str) -> TaskqError:
        pass_on(exc)
        return gone(self.path) if self.is_gone() else from_os(self.path, exc, doing)

    # -- the rest

    @property
    def syncs(self) -> int:
        """How often this process has synced the log or the append log."""
        opened = self.connections.get()
        return opened.wal.count + opened.append_log.file.count

    @property
    def lock(self) -> StoreLock:
        """The store's lock."""
        return self.connections.get().lock

    def close(self) -> None:
        """Close all connections; leave all jobs in the file itself, when that works. Safe to call twice."""
        aside(self._close)

    def _close(self) -> None:
        with contextlib.suppress(TaskqError):  # closed already, or a full disk: the append log keeps them
            if self.page.append_log.is_waiting:
                self._ingest()
        with self._turn:
            self.connections.close()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)


def _nothing(_: Tx) -> None:
    """Change nothing."""
