"""A connection to a queue file: made, led to the newest schema, or refused with the reason.

    no file       ──▶ an empty one, 0600 ──▶ tables
    older schema  ──▶ the steps that lack, in one transaction
    newer schema, another program's file, a damaged one, one that was emptied ──▶ an error with the cure; left as it is

All of it happens under the store's lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from taskq.errors import ConfigError, TaskqError
from taskq.executors.sqlite.place import damaged, from_os, from_sqlite, open_own
from taskq.executors.sqlite.schema import APPLICATION_ID, VERSION, migrate

if TYPE_CHECKING:
    from pathlib import Path

    from taskq.executors.sqlite.page import Page

__all__ = ["BUSY_MS", "beside", "connect", "keep_name", "make_file", "open_reader", "open_writer"]

#: Milliseconds to wait for programs that know nothing of our lock, as the sqlite3 shell.
BUSY_MS = 5000

#: Bytes of a page. A commit of one job writes three or four pages to the log: half of SQLite's default halves that.
PAGE_BYTES = 2048

#: Size of a file up to which all of it is looked through when it is opened; `taskq doctor` does it for any size.
CHECKED_BYTES = 1024 * 1024


def beside(path: Path, ending: str) -> Path:
    """Return the path of a file that belongs to the queue file, as "queue.db-wal"."""
    return path.with_name(path.name + ending)


def make_file(path: Path, page: Page, *, shared: bool = False) -> None:
    """Make an empty file if there is none, readable by this user only.

    It is made under another name and then linked: closing a descriptor of the file itself would take SQLite's locks
    from another thread that has opened it meanwhile.
    """
    if path.exists():
        return
    if beside(path, "-wal").exists():
        raise damaged(path, "it is gone, but its log is there, with jobs in it")
    fresh = beside(path, f"-new-{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)  # of a process that has died, whose number we have
        os.close(open_own(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, shared=shared))
        page.created = False
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def open_writer(path: Path, page: Page, *, shared: bool = False) -> sqlite3.Connection:
    """Return the connection by which a process writes; make or lead up the tables. Called under the lock."""
    try:
        make_file(path, page, shared=shared)
        connection = connect(path)
    except OSError as exc:
        raise hinted(path, from_os(path, exc, "making the queue file")) from exc
    except sqlite3.Error as exc:
        raise from_sqlite(path, exc) from exc
    try:
        _make_ready(path, connection, page)
    except sqlite3.Error as exc:
        connection.close()
        raise from_sqlite(path, exc) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that never makes a file, never checkpoints by itself and maps no memory."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
        cached_statements=256,
    )
    try:
        for pragma in ("synchronous = NORMAL", "wal_autocheckpoint = 0", "mmap_size = 0", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_ready(path: Path, connection: sqlite3.Connection, page: Page) -> None:
    size = path.stat().st_size
    version = _version(path, connection, created=bool(page.created))
    if 0 < size <= CHECKED_BYTES:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(path, found)
    if version == 0:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigError(f"{path}: SQLite's log (WAL) does not work here; a queue file needs a local file system")
    if version < VERSION:
        _lead_up(connection, version)
    if version == 0:
        keep_name(path)
    page.created = True
    connection.execute("PRAGMA cache_size = -8000")


def _version(path: Path, connection: sqlite3.Connection, *, created: bool) -> int:
    """Return the schema's version, 0 for an empty file; refuse what is not ours."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables and not version:
        if created:
            raise damaged(path, "it was a queue, and is empty now")
        return 0
    if owner != APPLICATION_ID:
        raise ConfigError(f"{path} is another program's SQLite file, not a queue: choose another path")
    if version > VERSION:
        raise ConfigError(
            f"{path} was written by a newer taskq (schema {version}, this one knows {VERSION}): update this taskq"
        )
    return version


def _lead_up(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrate(connection, version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def keep_name(path: Path) -> None:
    """Have the disk keep the file's name, and not only its content."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hinted(path: Path, error: TaskqError) -> TaskqError:
    """Guess what was meant by sqlite:///queue.db."""
    if len(path.parts) == len(("/", "queue.db")):
        return ConfigError(f"{error}; three slashes begin an absolute path: did you mean sqlite:///./{path.name}?")
    return error
