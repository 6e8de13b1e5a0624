"""The place of a queue file: its URL, whose its files are, a copy where it can only be read, and errors that name it.

    sqlite:///var/lib/app/queue.db    three slashes: an absolute path (four mean the same)
    sqlite:///./queue.db              in the working directory
    sqlite:///~/queue.db              in the home directory

SQLAlchemy reads three slashes as a relative path. Here they begin an absolute one, as in every other URL; four, as
SQLAlchemy wants them for absolute paths, mean the same.

Files are opened only when they are this user's own, and no other user may write to them:

    a link of this user's, where no other can put one      ─▶ the file that it leads to, and all else stands beside that
    a link beside the queue file, or where others write    ─▶ refused
    another user's file, one that others may read or write,
    one with a second name, a FIFO, a device               ─▶ refused, but for the first two with ?shared=1
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from taskq.errors import BackendUnavailable, ConfigError, StoreDamaged, StoreFull, TaskqError
from taskq.locks import pass_on
from taskq.names import did_you_mean
from taskq.redact import safe_url

__all__ = [
    "Place",
    "check_folder",
    "check_path",
    "check_wake",
    "copied",
    "damaged",
    "free_bytes",
    "from_os",
    "from_sqlite",
    "is_bad_text",
    "open_own",
    "parse",
    "real_path",
]

CURE = "write sqlite:///absolute/path.db, sqlite:///./here.db or sqlite:///~/home.db"
#: The settings of a URL, and what each may say; the first is the default. `mode` as in SQLite's own URLs: rwc makes
#: a file that is not there, rw does not, ro only reads, from a copy where the file system allows nothing else.
SETTINGS = {"durability": ("full", "normal"), "shared": ("0", "1"), "mode": ("rwc", "rw", "ro")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a queue file is. `full`: a job is on the disk before `submit` returns, not only in the kernel's memory.

    `shared`: other users may own or open it. `mode`: see SETTINGS.
    """

    path: Path
    full: bool = True
    shared: bool = False
    mode: str = "rwc"

    @property
    def url(self) -> str:
        """The URL that leads here from any working directory."""
        settings = ["durability=normal"] * (not self.full) + ["shared=1"] * self.shared
        return f"sqlite://{quote(str(self.path))}" + ("?" + "&".join(settings) if settings else "")


def parse(url: str) -> Place:
    """Read the URL of a queue file.

    Raises:
        ConfigError: it names no file, or has a query that is not understood.
    """
    scheme, mark, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if scheme.lower() != "sqlite" or not mark:
        raise ConfigError(f"{safe_url(url)!r} is not the URL of a queue file: {CURE}")
    if not place.startswith("/"):
        raise ConfigError(f"{safe_url(url)}: {_complaint(place)}: {CURE}")
    chosen = _settings(url, query)
    return Place(
        path=_path(url, unquote(place)),
        full=chosen["durability"] == "full",
        shared=chosen["shared"] == "1",
        mode=chosen["mode"],
    )


def _complaint(place: str) -> str:
    if not place:
        return "it names no file"
    return f"a queue file is on no host, and {safe_url(place.partition('/')[0])!r} stands where a host would"


def _path(url: str, text: str) -> Path:
    inner = text.lstrip("/")
    if inner.startswith(":memory:"):
        raise ConfigError(f"{safe_url(url)}: a queue in memory is local://")
    if not inner or text.endswith("/"):
        raise ConfigError(f"{safe_url(url)}: it names a folder, not a file: {CURE}")
    if "\0" in inner:
        raise ConfigError(f"{safe_url(url)}: a path cannot have a zero byte in it")
    first = inner.partition("/")[0]
    if first in {".", ".."}:
        return (Path.cwd() / inner).resolve()
    return Path(inner).expanduser() if first.startswith("~") else Path("/" + inner)


def _settings(url: str, query: str) -> dict[str, str]:
    chosen = {name: values[0] for name, values in SETTINGS.items()}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in SETTINGS:
            hint = did_you_mean(name, SETTINGS) or f"; the settings are {', '.join(SETTINGS)}"
            raise ConfigError(f"{safe_url(url)}: there is no setting {name!r}{hint}")
        if value not in SETTINGS[name]:
            raise ConfigError(f"{safe_url(url)}: {name}={value!r}: give one of {', '.join(SETTINGS[name])}")
        chosen[name] = value
    return chosen


#: Modes of new files, for their owner, and for his group where they are shared.
OWN, SHARED = 0o600, 0o660
OTHERS, WRITABLE = 0o077, 0o022

SHARED_CURE = "; for a queue that several users are to share write ?shared=1"


def real_path(path: Path) -> Path:
    """Return the path to use for a queue file: where a link leads that no other user can have put there.

    Raises:
        ConfigError: it is another's link, or one in a folder to which others write.
    """
    if path.is_symlink():
        if os.lstat(path).st_uid not in _ours() or _others_put(os.stat(path.parent)):  # noqa: PTH116
            raise ConfigError(
                f"{path} is a symbolic link that others may have put there: name the file itself, or keep the link in "
                "a folder of yours"
            )
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def check_folder(path: Path, *, shared: bool) -> None:
    """See that no other user can put files into the folder of a queue file, or take them out.

    Raises:
        ConfigError: it is not there, another's, or others may write to it.
    """
    folder = path.parent
    try:
        found = os.stat(folder)  # noqa: PTH116 - all of it is wanted
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: its folder is not there: correct the path, or make it: mkdir -p -m 700 {folder}"
        ) from None
    except OSError:
        return  # who opens the file says it better
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: {folder} is no folder")
    if not shared and (found.st_uid not in _ours() or _others_write(found)):
        raise ConfigError(
            f"{folder}: others may put files there (mode {stat.S_IMODE(found.st_mode):04o}, owner "
            f"{found.st_uid}): choose a folder of yours, or chmod go-w {folder}{SHARED_CURE}"
        )


def check_path(path: Path, *, shared: bool) -> None:
    """See that what stands at a path is a file of ours, if something does: for files that SQLite opens.

    Raises:
        ConfigError: it is not.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return
    _check(path, found, shared=shared)


def check_wake(path: Path, *, shared: bool) -> None:
    """See that a folder of FIFOs is ours, and no link.

    Raises:
        ConfigError: it is not.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path} is no folder: remove it")
    if not shared and (found.st_uid not in _ours() or found.st_mode & WRITABLE):
        raise ConfigError(f"{path} is another user's, or others may write to it: remove it{SHARED_CURE}")


def open_own(path: Path, flags: int, *, shared: bool) -> int:
    """Open a file beside a queue file, make it where it is not there, and see that it is ours.

    Raises:
        ConfigError: it is a link, another's, or open to others.
        OSError: what the system says.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, SHARED if shared else OWN)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _refusal(path, "is a symbolic link") from None
        raise
    try:
        _check(path, os.fstat(descriptor), shared=shared)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, found: os.stat_result, *, shared: bool) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        raise _refusal(path, "is a symbolic link")
    if not stat.S_ISREG(found.st_mode):
        raise _refusal(path, "is no regular file")
    if found.st_nlink > 1:
        raise _refusal(path, f"has {found.st_nlink} names (hard links)")
    if shared:
        return
    if found.st_uid not in _ours():
        raise ConfigError(f"{path} belongs to another user ({found.st_uid}): use a file of yours{SHARED_CURE}")
    if mode & OTHERS:
        raise ConfigError(
            f"{path}: others than its owner may read or write it ({mode:04o}): chmod go= {path}{SHARED_CURE}"
        )


def _refusal(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} {what}, which a file of a queue must not be: somebody may have put it there; remove it")


def _ours() -> set[int]:
    return {os.geteuid(), 0}


def _others_put(folder: os.stat_result) -> bool:
    """Return whether others may put names into a folder."""
    return bool(folder.st_mode & stat.S_IWOTH) or _others_write(folder)


def _others_write(folder: os.stat_result) -> bool:
    """Return whether others may put names into a folder and take ours out; not the latter in one like /tmp."""
    mode = folder.st_mode
    if mode & stat.S_ISVTX:
        return False
    return bool(mode & stat.S_IWOTH) or bool(mode & stat.S_IWGRP and folder.st_gid != os.getegid())


#: What of a queue is copied: the file, what of it is still in the log, and the jobs that are in no table yet.
ENDINGS = ("", "-wal", "-inbox")


def copied(place: Place) -> tuple[Place, Path | None]:
    """Return where to read a queue, and the folder to remove afterwards where that is a copy.

    Raises:
        ConfigError: a file is not this user's own.
        OSError: it cannot be copied.
    """
    if place.mode != "ro" or not _can_only_be_read(place.path):
        return place, None
    folder = Path(tempfile.mkdtemp(prefix="taskq-"))
    try:
        for ending in ENDINGS:
            _copy(place, folder, ending)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return replace(place, path=folder / place.path.name), folder


def _copy(place: Place, folder: Path, ending: str) -> None:
    name = place.path.name + ending
    source, target = place.path.with_name(name), folder / name
    check_path(source, shared=place.shared)
    if source.exists():
        shutil.copyfile(source, target)
        target.chmod(0o600)


def _can_only_be_read(path: Path) -> bool:
    with suppress(OSError):
        return path.exists() and bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    return False


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
