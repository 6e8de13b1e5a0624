"""The inbox: new jobs, put one by one, wait in a file beside the queue file for the next transaction.

    append ─▶ a record behind the last one: one write, where a commit of SQLite takes many times as long
    ingest ─▶ within any transaction: all records since the mark become rows of `jobs`, and the mark moves behind them
    rotate ─▶ when it is long, within an ingest: the mark gets a new salt ─▶ COMMIT ─▶ sync of the log ─▶ a new header

    queue.db-inbox   header: magic, salt │ length, check, row │ length, check, row │ ... older bytes, never read
    table inbox      the mark: salt, byte and check up to which its records are rows
    page.append_log  where the last record ends, and its check; 0: nobody knows, the next ingest looks

All of it happens under the store's lock. Every transaction ingests first, and so does every read: the tables are never
seen without the jobs that were put before.

Why nothing is lost or comes twice, whoever dies and wherever the power fails. The mark is a row of the database: it
moves with the jobs that it stands for, or not at all. Bytes behind it are kept until their rows are on the disk, as
the rotation syncs the WAL before the header; a header whose salt is not the mark's begins a file of which all has been
ingested. Each check goes over the one before, from the salt on, so that what was torn, or stands behind the last record
from before, is never taken for one. What the page says is believed only while it was written by somebody who lives:
whoever opens the file has it looked up anew.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.executors.sqlite.access import open_own
from taskq.executors.sqlite.create import beside, keep_name
from taskq.executors.sqlite.errors import damaged
from taskq.executors.sqlite.rows import insert
from taskq.executors.sqlite.shared import CHECK_BITS, CHECK_MASK
from taskq.executors.sqlite.sync import FileSync

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from taskq.executors.sqlite.shared import StoreLock

__all__ = ["AppendLog"]

MAGIC: Final = b"taskqin1"
HEADER: Final = struct.Struct("<8sQ")
RECORD: Final = struct.Struct("<II")

#: Bytes that are ingested before the next record is appended: some 3,500 jobs, for which an ingest takes some 30 ms.
INGEST_AT: Final = 512 * 1024
#: Bytes after which the file is rotated, and to which it grows in one step.
ROTATE_AT: Final = 4 * 1024 * 1024

#: Bytes that are read at once where it is not known how many there are; more than any record has.
PIECE: Final = 64 * 1024

#: Bits of a salt: SQLite's integers have a sign.
SALT_BITS: Final = 62

READ_MARK: Final = "SELECT salt, upto, chain FROM inbox"
MOVE_MARK: Final = "UPDATE inbox SET salt = ?, upto = ?, chain = ?"


class AppendLog:
    """The inbox of one queue file in this process. All but `sync` is called under the store's lock.

    Raises:
        OSError: from all methods, what the system says of the file.
    """

    def __init__(self, path: Path, lock: StoreLock, *, shared: bool = False) -> None:
        self._path = path
        name = beside(path, "-inbox")
        is_new = not name.exists()
        self._descriptor = open_own(name, os.O_RDWR | os.O_CREAT, shared=shared)
        if is_new:
            keep_name(name)
        self._state = lock.page.append_log
        self._syncs = FileSync(self._descriptor, lock, self._state, ROTATE_AT)
        self._pack = msgpack.Packer(autoreset=True).pack
        self._ingested = 0, 0  # where the records end that the open transaction ingests, and the check of the last
        self._rotating: int | None = None  # the salt of the next header
        self._state.forget()

    def close(self) -> None:
        """Give the descriptor back."""
        self._syncs.close()

    def retire(self) -> None:
        """Give the descriptor back when nobody syncs."""
        self._syncs.retire()

    @property
    def descriptor(self) -> int:
        """The file's descriptor."""
        return self._descriptor

    @property
    def syncs(self) -> int:
        """How often this process has synced it."""
        return self._syncs.count

    def sync(self, number: int) -> None:
        """Return when append `number` is on the disk."""
        self._syncs.up_to(number)

    # -- appending

    def append(self, row: Sequence[Any]) -> int:
        """Append a job's row; return the number to be synced, or 0: there is to be an ingest first."""
        state = self._state
        last = state.last
        end, chain = last >> CHECK_BITS, last & CHECK_MASK
        if not 0 < end < state.ingested + INGEST_AT:
            return 0
        if os.lseek(self._descriptor, 0, os.SEEK_END) < end:
            return self._cut(end)
        payload = self._pack(row)
        check = crc32(payload, chain)
        record = RECORD.pack(len(payload), check) + payload
        if os.pwrite(self._descriptor, record, end) != len(record):
            raise OSError(errno.EIO, "a write was cut short")  # the next record is written over it
        state.last = end + len(record) << CHECK_BITS | check
        return state.count_commit()

    def _cut(self, end: int) -> int:
        """Have the next ingest begin the file anew, which somebody has cut; say so where jobs are gone."""
        state = self._state
        waited = state.is_waiting
        state.forget()
        if waited:
            raise damaged(self._path, f"its inbox was cut: it ended at byte {end:,}, and the jobs in it are gone")
        return 0

    # -- ingesting

    def ingest(self, connection: sqlite3.Connection) -> None:
        """Move what has come since the last time into the tables, within the transaction that is open.

        `ingested` is to be called when it is made.

        Raises:
            StoreDamaged: records that were there are no longer.
        """
        state = self._state
        salt, start, chain = connection.execute(READ_MARK).fetchone()
        rows: list[Any] = []
        end = start
        if self._is_of(salt):
            rows, end, chain = self._read(start, chain)
        if state.end not in {0, end}:
            expected = state.end
            if os.lseek(self._descriptor, 0, os.SEEK_END) < expected:
                state.forget()  # it was cut: what is said once, since nothing can bring it back
            raise damaged(self._path, f"its inbox ends at byte {end:,} instead of {expected:,}")
        insert(connection.executemany, rows)
        if end > ROTATE_AT or not self._is_of(salt):
            state.forget()
            self._rotating = secrets.randbits(SALT_BITS) | 1
            connection.execute(MOVE_MARK, (self._rotating, HEADER.size, _first_check(self._rotating)))
        elif rows:
            connection.execute(MOVE_MARK, (salt, end, chain))
        self._ingested = end, chain

    def ingested(self, wal: FileSync) -> None:
        """Take note that the transaction of the last `ingest` is made; `wal` is the database's."""
        state = self._state
        if self._rotating is not None:
            salt, self._rotating = self._rotating, None
            wal.sync_under_lock()
            os.pwrite(self._descriptor, HEADER.pack(MAGIC, salt), 0)
            self._ingested = HEADER.size, _first_check(salt)
        end, check = self._ingested
        state.ingested = end
        state.last = end << CHECK_BITS | check

    def not_ingested(self) -> None:
        """Take note that it is not."""
        self._rotating = None

    def _is_of(self, salt: int) -> bool:
        """Return whether the file goes with the mark of this salt."""
        return os.pread(self._descriptor, HEADER.size, 0) == HEADER.pack(MAGIC, salt)

    def _read(self, start: int, chain: int) -> tuple[list[Any], int, int]:
        """Return the rows from a byte on, and where the last one ends with its check."""
        known = self._state.end
        rows: list[Any] = []
        while True:
            data = os.pread(self._descriptor, known - start if known > start else PIECE, start)
            read, chain = _take_records(data, chain, rows)
            start += read
            if known or not read:
                return rows, start, chain


def _take_records(data: bytes, chain: int, rows: list[Any]) -> tuple[int, int]:
    """Append the rows of all whole records to `rows`; return how many bytes they took, and the check of the last."""
    at = 0
    while at + RECORD.size < len(data):
        length, check = RECORD.unpack_from(data, at)
        payload = data[at + RECORD.size : at + RECORD.size + length]
        if not length or len(payload) < length or crc32(payload, chain) != check:
            break
        rows.append(msgpack.unpackb(payload, use_list=False))
        at += RECORD.size + length
        chain = check
    return at, chain


def _first_check(salt: int) -> int:
    return crc32(HEADER.pack(MAGIC, salt))
