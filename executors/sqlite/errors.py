"""SQLite's and the system's errors as ours, in words that name the file and the cure."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING

from taskq.errors import BackendUnavailable, StoreDamaged, StoreFull, TaskqError
from taskq.locks import pass_on

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["damaged", "free_bytes", "from_os", "from_sqlite", "is_bad_text"]

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})

#: Bytes of room below which a failed write or a failed growth of the shared memory file means a full disk.
SCANT = 128 * 1024

DISK = "check that the disk works"

#: Low byte of SQLite's result codes.
PRIMARY = 0xFF


def from_sqlite(path: Path, exc: sqlite3.Error) -> TaskqError:
    """Return the error to raise in the place of one of SQLite's."""
    code = (getattr(exc, "sqlite_errorcode", None) or 0) & PRIMARY
    name = getattr(exc, "sqlite_errorname", None) or type(exc).__name__
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return damaged(path, str(exc))
    if code == sqlite3.SQLITE_FULL or (code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and _is_full(path)):
        return StoreFull(f"{path}: no room on the disk ({name}): free some, then try again; nothing was written")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BackendUnavailable(
            f"{path}: another program holds the file ({name}): end its transaction, or try again later"
        )
    return BackendUnavailable(f"{path}: {exc} ({name}): {_barrier(path) or DISK}")


def is_bad_text(exc: sqlite3.Error) -> bool:
    """Tell whether an error says that a text which was read is no UTF-8."""
    return isinstance(exc, sqlite3.OperationalError) and str(exc).startswith("Could not decode to UTF-8")


def from_os(path: Path, exc: OSError, doing: str) -> TaskqError:
    """Return the error to raise in the place of one of the system's."""
    pass_on(exc)
    if exc.errno in FULL_ERRNOS:
        return StoreFull(f"{path}: no room on the disk while {doing}: free some, then try again")
    cure = _barrier(path) if exc.errno in {errno.EROFS, errno.EACCES, errno.EPERM} else ""
    return BackendUnavailable(f"{path}: {doing}: {exc.strerror or exc}: {cure or DISK}")


def damaged(path: Path, what: str) -> StoreDamaged:
    """Return the error that says a file is damaged, and how to go on."""
    return StoreDamaged(
        f"{path} is damaged or no queue file ({what}); it was left as it is. To go on: restore a backup, or save what "
        f"can be read with `sqlite3 {path} .recover`, or move the file away with its -wal, -shm and -inbox, to begin "
        "anew"
    )


def free_bytes(path: Path) -> int:
    """Return how many bytes may still be written where this file is."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _barrier(path: Path) -> str:
    """Say what keeps this user from writing a queue file; "": nothing that is known."""
    folder = path.parent
    with contextlib.suppress(OSError):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "it is on a read-only file system: copy it with its -wal and -inbox to where you may write"
        for place in (path, folder):
            if place.exists() and not os.access(place, os.R_OK | os.W_OK | (os.X_OK if place is folder else 0)):
                owner = place.stat().st_uid
                return f"you (user {os.geteuid()}) may not write {place}, which belongs to user {owner}: see ls -ld"
        return ""
    return f"you (user {os.geteuid()}) may not look into {folder}: see ls -ld on it and the folders above"


def _is_full(path: Path) -> bool:
    try:
        return free_bytes(path.parent) < SCANT
    except OSError:
        return False
