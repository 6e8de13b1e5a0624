"""The append log of a queue file: new jobs, put one by one, wait in it for the next transaction.

    append ─▶ a record behind the last one: one write, where a commit of SQLite takes many times as long
    ingest ─▶ within any transaction: all records since the mark become rows of `jobs`, and the mark moves behind them
    rotate ─▶ when it is long, within an ingest: the mark gets a new salt ─▶ COMMIT ─▶ sync of the log ─▶ a new header

    queue.db-inbox   header: magic, salt │ length, check, row │ length, check, row │ ... older bytes, never read
    table inbox      the mark: salt, byte and check up to which its records are rows
    page.append_log  where the last record ends, and its check; 0: unknown, the next ingest looks

All of it happens under the store's lock. Every transaction ingests first, and so does every read: the tables are never
seen without the jobs that were put before.

Why nothing is lost or comes twice, whichever process dies and wherever the power fails. The mark is a row of the
database: it moves with the jobs that it stands for, or not at all. Bytes behind it are kept until their rows are on the
disk, as the rotation syncs the WAL before the header; if the header's salt differs from the mark's, every record in the
file has been ingested. Each check goes over the one before, from the salt on, so that what was torn, or stands behind
the last record from before, is never taken for one. What the page says is believed only while its writer lives: a
process that opens the file has it looked up again.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import struct
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.executors.sqlite.create import beside, keep_name
from taskq.executors.sqlite.file_sync import FileSync
from taskq.executors.sqlite.page import CHECK_BITS, CHECK_MASK
from taskq.executors.sqlite.place import damaged, open_own
from taskq.executors.sqlite.schema import insert, insert_singly
from taskq.locks import pass_on
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskq.executors.sqlite.lock import StoreLock

__all__ = ["AppendLog"]

log = get_logger("taskq.store")

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

#: What is raised of a row that SQLite cannot take.
NO_ROW: Final = (
    *(sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
    *(ValueError, OverflowError, TypeError),
)

READ_MARK: Final = "SELECT salt, upto, chain FROM inbox"
MOVE_MARK: Final = "UPDATE inbox SET salt = ?, upto = ?, chain = ?"


class AppendLog:
    """The append log of one queue file in this process; all is called under the store's lock, except `file`'s syncs.

    Raises:
        OSError: from all methods, what the system says of the file.
    """

    def __init__(self, path: Path, lock: StoreLock, *, shared: bool = False) -> None:
        self._path = path
        self._name = name = beside(path, "-inbox")
        is_new = not name.exists()
        descriptor = open_own(name, os.O_RDWR | os.O_CREAT, shared=shared)
        if is_new:
            keep_name(name)
        self._lock = lock
        self._state = lock.page.append_log
        self.file = FileSync(descriptor, lock, self._state, ROTATE_AT)
        self._pack = msgpack.Packer(autoreset=True).pack
        self._ingested = 0, 0  # where the records end that the open transaction ingests, and the check of the last
        #: The salt of the next header, from the transaction that begins the log anew until it is committed.
        self.rotating: int | None = None
        self._state.forget()

    # -- appending

    def append(self, row: Sequence[Any]) -> int:
        """Append a job's row; return its number to be synced, 0: ingest first, or -1: others read other files."""
        if not self._lock.in_place:
            return -1
        state = self._state
        last = state.known()
        end, chain = last >> CHECK_BITS, last & CHECK_MASK
        if not 0 < end < state.ingested + INGEST_AT:
            return 0
        if os.lseek(self.file.descriptor, 0, os.SEEK_END) < end:
            return self._cut(end)
        payload = self._pack(row)
        check = crc32(payload, chain)
        record = RECORD.pack(len(payload), check) + payload
        if os.pwrite(self.file.descriptor, record, end) != len(record):
            raise OSError(errno.EIO, "a write was cut short")  # the next record is written over it
        state.know(end + len(record) << CHECK_BITS | check)
        return state.count_commit()

    def _cut(self, end: int) -> int:
        """Have the next ingest rotate the file, which was cut; say so where jobs are gone."""
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
            StoreDamaged: records that were there are no longer, or it is unknown which of them have been ingested.
        """
        state = self._state
        salt, start, chain = self._mark(connection)
        rows: list[Any] = []
        end = start
        if self._is_of(salt) or (state.end and self._is_in_place()):
            rows, end, chain = self._read(start, chain)
        if state.end not in {0, end}:
            expected = state.end
            state.forget()  # it is said once, since nothing can bring back what was cut
            raise damaged(self._path, f"its inbox ends at byte {end:,} instead of {expected:,}")
        try:
            insert(connection.executemany, rows)
        except NO_ROW:
            self._warn_of_loss(len(rows) - insert_singly(connection.executemany, rows, NO_ROW))
        is_cut = os.lseek(self.file.descriptor, 0, os.SEEK_END) < end
        if end > ROTATE_AT or is_cut or not self._is_of(salt):
            state.forget()
            self.rotating = secrets.randbits(SALT_BITS) | 1
            connection.execute(MOVE_MARK, (self.rotating, HEADER.size, _first_check(self.rotating)))
        elif end != start:
            connection.execute(MOVE_MARK, (salt, end, chain))
        self._ingested = end, chain

    def ingested(self, wal: FileSync) -> None:
        """Take note that the transaction of the last `ingest` is made; `wal` is the database's."""
        state = self._state
        if self.rotating is not None:
            salt, self.rotating = self.rotating, None
            wal.sync_under_lock()
            os.pwrite(self.file.descriptor, HEADER.pack(MAGIC, salt), 0)
            self._ingested = HEADER.size, _first_check(salt)
        end, check = self._ingested
        state.ingested = end
        state.know(end << CHECK_BITS | check)

    def not_ingested(self) -> None:
        """Take note that it is not."""
        self.rotating = None

    def _mark(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        """Return the mark.

        Raises:
            StoreDamaged: it is none.
        """
        found = connection.execute(READ_MARK).fetchall()
        if len(found) == 1:
            salt, upto, chain = found[0]
            whole = all(type(number) is int for number in found[0])
            if whole and 0 <= salt < 1 << SALT_BITS and 0 <= upto < 1 << SALT_BITS and 0 <= chain <= CHECK_MASK:
                return salt, upto, chain
        raise damaged(self._path, "the mark of its inbox is none, so that nobody knows which jobs it still has to take")

    def _warn_of_loss(self, count: int) -> None:
        log.error("jobs_lost", path=str(self._path), jobs=count, reason="their records in its -inbox are damaged")

    def _is_in_place(self) -> bool:
        """Return whether the file is still what stands at its name: then it is its header that is damaged."""
        try:
            return os.path.samestat(os.stat(self._name), os.fstat(self.file.descriptor))  # noqa: PTH116 - what is wanted
        except OSError:
            return False

    def _is_of(self, salt: int) -> bool:
        """Return whether the file goes with the mark of this salt."""
        return os.pread(self.file.descriptor, HEADER.size, 0) == HEADER.pack(MAGIC, salt)

    def _read(self, start: int, chain: int) -> tuple[list[Any], int, int]:
        """Return the rows from a byte on, and where the last one ends with its check."""
        last = self._state.known()
        known = last >> CHECK_BITS
        rows: list[Any] = []
        while True:
            data = os.pread(self.file.descriptor, max(0, known - start) if known else PIECE, start)
            read, chain = _take_records(data, chain, rows)
            start += read
            if not known and read:
                continue
            if not start < known or len(data) - read < known - start:
                return rows, start, chain
            # What follows was written since all of it is known; some of it has been damaged.
            self._warn_of_loss(1)
            skipped, chain = _next_whole(data[read:], last & CHECK_MASK)
            start += skipped


def _next_whole(data: bytes, last: int) -> tuple[int, int]:
    """Return how many bytes to pass over to the next record that is whole, or to the end; and the check before it.

    Each record has the check that the next one begins with: by that the next one is known. `last`: the last one's.
    """
    for at in range(len(data) - RECORD.size):
        length, check = RECORD.unpack_from(data, at)
        end = at + RECORD.size + length
        if length and end + RECORD.size < len(data):
            following, expected = RECORD.unpack_from(data, end)
            payload = data[end + RECORD.size : end + RECORD.size + following]
            if following and len(payload) == following and crc32(payload, check) == expected:
                return end, check
    return len(data), last


def _take_records(data: bytes, chain: int, rows: list[Any]) -> tuple[int, int]:
    """Append the rows of all whole records to `rows`; return how many bytes they took, and the check of the last.

    A record that is whole and none of ours gives an empty row, which SQLite refuses.
    """
    at = 0
    while at + RECORD.size < len(data):
        length, check = RECORD.unpack_from(data, at)
        payload = data[at + RECORD.size : at + RECORD.size + length]
        if not length or len(payload) < length or crc32(payload, chain) != check:
            break
        try:
            rows.append(tuple(msgpack.unpackb(payload, use_list=False)))
        except Exception as error:  # noqa: BLE001  # msgpack raises what it likes of damaged bytes
            pass_on(error)
            rows.append(())
        at += RECORD.size + length
        chain = check
    return at, chain


def _first_check(salt: int) -> int:
    return crc32(HEADER.pack(MAGIC, salt))
