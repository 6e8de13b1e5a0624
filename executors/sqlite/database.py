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
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskq.errors import BackendUnavailable, SoftTimeout, TaskqError
from taskq.executors.sqlite.connections import Connections, gone
from taskq.executors.sqlite.create import BUSY_MS
from taskq.executors.sqlite.disk_space import DiskSpace
from taskq.executors.sqlite.fork import fork_guard, watch
from taskq.executors.sqlite.place import copied, from_os, from_sqlite, is_bad_text, real_path
from taskq.executors.sqlite.shared import LockClosed
from taskq.locks import CallLock, aside, may_be_interrupted, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskq.executors.sqlite.connections import Opened
    from taskq.executors.sqlite.place import Place
    from taskq.executors.sqlite.shared import Page, StoreLock

__all__ = ["Database", "Tx"]

T = TypeVar("T")

#: Pages of the log after which it is copied into the database: 8 MiB, the size that the log keeps.
CHECKPOINT_FRAMES = 3000
#: The same where the disk is nearly full.
SHORT_FRAMES = 32
#: Pages after which readers are waited for, so that the log can begin anew: 128 MiB.
TOO_LONG = 32_000
#: Milliseconds for which they are.
READERS_MS = 200
#: Times that a file which was replaced is opened anew for one transaction.
REPLACED = 5


class Tx:
    """A transaction in the making: its connection and moment, and who is to be woken when it is made."""

    __slots__ = (
        "ended",
        "execute",
        "executemany",
        "now",
        "number",
        "page",
        "queued",
        "subscriptions",
        "workers_to_wake",
    )

    def __init__(self, connection: sqlite3.Connection, page: Page) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.page = page
        self.now = time.time()
        #: `Page.changes` when it is made.
        self.number = 0
        #: Subscriptions whose jobs have ended, and how many jobs have.
        self.subscriptions: set[int] = set()
        self.ended = 0
        #: How many jobs have begun to wait in each queue.
        self.queued: dict[str, int] = {}
        #: Workers that are wanted for something else, by name.
        self.workers_to_wake: set[str] = set()


class _PendingWrite(Generic[T]):
    """One caller's work, and what came of it."""

    __slots__ = ("done", "error", "number", "tx", "value", "work")

    def __init__(self, work: Callable[[Tx], T]) -> None:
        self.work = work
        self.done = False
        self.number = 0
        self.error: BaseException | None = None
        self.value: T | None = None
        self.tx: Tx | None = None


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
        self.disk_space = DiskSpace(place.path, self._unused, self._unfinished)
        self._connections = Connections(place)
        #: The page that all processes share.
        self.page = self._connections.page
        self._connections.get()
        self.after_fork_in_child()
        watch(self)

    def after_fork_in_child(self) -> None:
        """Begin with nobody at work, as in a forked copy."""
        self._turn = CallLock()
        self._pending: deque[_PendingWrite[Any]] = deque()

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
        write = _PendingWrite(work)
        try:
            self._pending.append(write)
            with self._turn:
                if not write.done:
                    self._make(self._joined(write), write)
        except BaseException:
            with contextlib.suppress(ValueError):
                self._pending.remove(write)
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
            (self._connections.opened or self._connections.get()).wal.up_to(number)
        except OSError as exc:
            raise from_os(self.path, exc, "syncing its log") from exc

    def append(self, row: Sequence[Any]) -> int:
        """Put a job's row into the append log; return the number for `sync_append`.

        Raises:
            BackendUnavailable: it was not put.
            StoreFull: the disk is full.
        """
        while True:
            opened = self._connections.opened or self._connections.get()
            try:  # no fork guard: there is nothing of SQLite's that a fork could find half done
                number = opened.lock.hold(partial(opened.append_log.append, row))
            except LockClosed:
                if self._connections.get() is opened:
                    raise
                continue
            except BackendUnavailable:
                raise
            except OSError as exc:
                raise self._from_os(exc, "writing to its inbox") from exc
            if number < 0:
                self._connections.mend(opened)
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
                (self._connections.opened or self._connections.get()).append_log.sync(number)
            except OSError as exc:
                raise from_os(self.path, exc, "syncing its inbox") from exc

    def _ingest(self) -> None:
        """Have what is in the append log in the tables."""
        self.write(_nothing, lasting=False)

    def _joined(self, own: _PendingWrite[Any]) -> list[_PendingWrite[Any]]:
        """Take all writes that wait now; a thread that may be interrupted does nobody's but its own."""
        if may_be_interrupted():
            self._pending.remove(own)
            return [own]
        found = []
        while self._pending:
            found.append(self._pending.popleft())
        return found

    def _make(self, writes: list[_PendingWrite[Any]], own: _PendingWrite[Any]) -> None:
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

    def _hand_back(self, writes: list[_PendingWrite[Any]], own: _PendingWrite[Any]) -> None:
        """Put the other callers' writes back, for them to run: this thread was interrupted."""
        self._pending.extendleft(write for write in reversed(writes) if write is not own and not write.done)

    def _make_or_make_room(self, writes: list[_PendingWrite[Any]]) -> None:
        """Make the transaction; once more where a text is no UTF-8, or, in a log that begins anew, the disk is full."""
        try:
            self._make_under_lock(writes)
        except sqlite3.OperationalError as exc:
            if is_bad_text(exc):
                self._connections.take_any_text()
            elif getattr(exc, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            else:
                opened = self._connections.get()
                _under_lock(opened, lambda: self._checkpoint(opened.writer, opened.lock.page))
            for write in writes:
                write.error = None
            self._make_under_lock(writes)

    def _make_under_lock(self, writes: list[_PendingWrite[Any]]) -> None:
        """Make the transaction in the file that stands at the path, however often that is replaced."""
        for _ in range(REPLACED):
            opened = self._connections.opened or self._connections.get()
            try:
                if _under_lock(opened, partial(self._make_in, opened, writes)):
                    return
                self.opened()
            except LockClosed:
                if self._connections.get() is opened:
                    raise
        raise BackendUnavailable(f"{self.path}: its files are deleted or replaced again and again: find out by whom")

    def _make_in(self, opened: Opened, writes: list[_PendingWrite[Any]]) -> bool:
        """Make the transaction in what is open, if that is what others read; return whether it was made."""
        if not opened.lock.in_place:
            return False
        changes = opened.writer.total_changes
        _run_all(writes, opened)
        self._made(writes, opened, opened.writer.total_changes - changes)
        return True

    def _made(self, writes: list[_PendingWrite[Any]], opened: Opened, changes: int) -> None:
        """Take note of a transaction that was made."""
        page = opened.lock.page
        number = page.wal.count_commit()
        for write in writes:
            write.number = number
            write.done = True
            if write.tx is not None:
                write.tx.number = page.changes
        self._checkpoint_when_long(opened.writer, page, changes)

    def _fail(self, writes: list[_PendingWrite[Any]], error: Exception, cause: BaseException | None) -> None:
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
            opened = self._connections.get()
            if opened.lock.page.frames:
                _under_lock(opened, lambda: self._checkpoint(opened.writer, opened.lock.page))

    # -- reading

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with a connection that only reads; again, when it has met a text that is no UTF-8."""
        try:
            return self._read(work)
        except sqlite3.Error as exc:
            if not is_bad_text(exc):
                raise from_sqlite(self.path, exc) from exc
        self._connections.take_any_text()
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
                    connection = self._connections.acquire_reader()
                    value = work(connection)
                    self._connections.release_reader(connection)
            except BaseException:
                self._go_out(depth)
                raise
        except BaseException:  # an interrupt while an error was on its way
            self._go_out(depth)
            raise
        return value

    def _go_out(self, depth: int) -> None:
        """Leave nothing of a read that failed or was interrupted."""
        self._connections.throw_away_taken(depth)
        fork_guard.restore(depth)

    def _unused(self) -> int:
        """Return how many bytes of the file are in no table."""
        pages, size = self.read(
            lambda c: (c.execute("PRAGMA freelist_count").fetchone()[0], c.execute("PRAGMA page_size").fetchone()[0])
        )
        return int(pages * size)

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
        opened = self._connections.get()
        if not opened.identities.in_place():
            self._connections.mend(opened)
            opened = self._connections.get()
        opened.lock.mend()
        return opened

    @property
    def generation(self) -> int:
        """A number that changes when the file was opened anew, and may be another one."""
        return self._connections.generation

    def opened_generation(self) -> int:
        """Return that number after a look at the files."""
        self.opened()
        return self._connections.generation

    def is_gone(self) -> bool:
        """Return whether the queue file was deleted or moved away."""
        return self._connections.is_gone()

    def _from_os(self, exc: OSError, doing: str) -> TaskqError:
        pass_on(exc)
        return gone(self.path) if self.is_gone() else from_os(self.path, exc, doing)

    # -- the rest

    @property
    def syncs(self) -> int:
        """How often this process has synced the log or the append log."""
        opened = self._connections.get()
        return opened.wal.count + opened.append_log.syncs

    @property
    def lock(self) -> StoreLock:
        """The store's lock."""
        return self._connections.get().lock

    def close(self) -> None:
        """Close all connections; leave all jobs in the file itself, when that works. Safe to call twice."""
        aside(self._close)

    def _close(self) -> None:
        with contextlib.suppress(TaskqError):  # closed already, or a full disk: the append log keeps them
            if self.page.append_log.is_waiting:
                self._ingest()
        with self._turn:
            self._connections.close()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)


def _nothing(_: Tx) -> None:
    """Change nothing."""


def _under_lock(opened: Opened, work: Callable[[], T]) -> T:
    """Do this under the store's lock, inside the fork guard; no transaction is open afterwards, however that ends."""
    depth = fork_guard.depth()
    try:
        try:
            with fork_guard:
                return opened.lock.hold(work, partial(_undo, opened))
        except BaseException:
            fork_guard.restore(depth)
            raise
    except BaseException:  # an interrupt while an error was on its way
        fork_guard.restore(depth)
        raise


def _undo(opened: Opened) -> None:
    """Leave no transaction open."""
    if opened.writer.in_transaction:
        opened.writer.execute("ROLLBACK")
    opened.append_log.not_ingested()


def _run_all(writes: list[_PendingWrite[Any]], opened: Opened) -> None:
    """Run writes in one transaction, behind all that is in the append log."""
    connection, lock, wal, append_log, _ = opened
    ingests = lock.page.append_log.is_waiting
    try:
        connection.execute("BEGIN IMMEDIATE")
        if ingests:
            append_log.ingest(connection)
        for write in writes:
            _run(write, connection, lock.page, alone=len(writes) == 1)
        connection.execute("COMMIT")
    except BaseException:
        _undo(opened)
        raise
    if ingests:
        append_log.ingested(wal)


def _run(write: _PendingWrite[Any], connection: sqlite3.Connection, page: Page, *, alone: bool) -> None:
    """Run one write; what it raises is its own affair, and its changes are taken back."""
    tx = write.tx = Tx(connection, page)
    if alone:
        write.value = write.work(tx)
        return
    connection.execute("SAVEPOINT pending")
    try:
        write.value = write.work(tx)
    except sqlite3.OperationalError:
        raise  # the file's affair: a full disk, an error of reading
    except SoftTimeout:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is for who called, in another thread perhaps
        pass_on(exc)
        connection.execute("ROLLBACK TO pending")
        write.error = exc
        write.tx = None
    connection.execute("RELEASE pending")
