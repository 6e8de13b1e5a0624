"""Whose the files of a queue are: opened only when they are this user's own, and nobody else may write to them.

a link of this user's, where nobody else can put one   ─▶ the file that it leads to, and all else stands beside that
a link beside the queue file, or where others write    ─▶ refused
another user's file, one that others may read or write,
one with a second name, a FIFO, a device               ─▶ refused, but for the first two with ?shared=1
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from taskq.errors import ConfigError

__all__ = ["check_folder", "check_path", "check_wake", "open_own", "real_path"]

#: Modes of new files, for their owner, and for his group where they are shared.
OWN, SHARED = 0o600, 0o660
OTHERS, WRITABLE = 0o077, 0o022

CURE = "; for a queue that several users are to share write ?shared=1"


def real_path(path: Path) -> Path:
    """Return the path to use for a queue file: where a link leads that nobody else can have put there.

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
    """See that nobody else can put files into the folder of a queue file, or take them out.

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
            f"{found.st_uid}): choose a folder of yours, or chmod go-w {folder}{CURE}"
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
        raise ConfigError(f"{path} is another user's, or others may write to it: remove it{CURE}")


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
        raise ConfigError(f"{path} belongs to another user ({found.st_uid}): use a file of yours{CURE}")
    if mode & OTHERS:
        raise ConfigError(f"{path}: others than its owner may read or write it ({mode:04o}): chmod go= {path}{CURE}")


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
