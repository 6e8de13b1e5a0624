"""The transaction of a queue file: the writes that are joined in it, each in a savepoint, and what they leave behind.

lock ─▶ BEGIN IMMEDIATE ─▶ the append log is ingested ─▶ work(tx), each in a savepoint ─▶ COMMIT ─▶ unlock
"""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from taskq.errors import SoftTimeout
from taskq.executors.sqlite.fork import fork_guard
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.sqlite.connections import Opened
    from taskq.executors.sqlite.page import Page

__all__ = ["PendingWrite", "Tx", "run_all", "under_lock"]

T = TypeVar("T")


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


class PendingWrite(Generic[T]):
    """One caller's work, and what came of it."""

    __slots__ = ("done", "error", "number", "tx", "value", "work")

    def __init__(self, work: Callable[[Tx], T]) -> None:
        self.work = work
        self.done = False
        self.number = 0
        self.error: BaseException | None = None
        self.value: T | None = None
        self.tx: Tx | None = None


def under_lock(opened: Opened, work: Callable[[], T]) -> T:
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


def run_all(writes: list[PendingWrite[Any]], opened: Opened) -> None:
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


def _run(write: PendingWrite[Any], connection: sqlite3.Connection, page: Page, *, alone: bool) -> None:
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
