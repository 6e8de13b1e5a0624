"""Settings files that are found by searching, and which of them can be believed.

    here ──upwards──▶ each folder to the home folder, or the border of the file system
             └──read_found──▶ its bytes, if file and folder belong to this user or root and nobody else may write them

Whoever may write a folder above could choose the queue of all who work below it.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_found", "upwards"]

#: Files that were told of already.
_told: set[str] = set()


def upwards(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, no higher than the home folder or this file system."""
    home, device = os.path.realpath(os.path.expanduser("~")), _device(folder)  # noqa: PTH111 - see config
    while True:
        yield folder
        above = os.path.dirname(folder)  # noqa: PTH120 - see config
        if above == folder or os.path.realpath(folder) == home or _device(above) != device:
            return
        folder = above


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev  # noqa: PTH116 - see config
    except OSError:
        return None


def read_found(path: str, *, mentioning: bytes) -> bytes | None:
    """Return the bytes of a settings file; None where there is none, it does not mention us, or it is not believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if not mentioning:
            _tell(path, str(exc.strerror))
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        data = file.read()
    if mentioning not in data:  # other people's pyproject.toml need not concern us, valid or not
        return None
    why = _why_not(status) or _why_not(os.stat(os.path.dirname(path) or "."))  # noqa: PTH116, PTH120 - see config
    if why is None:
        return data
    _tell(path, why)
    return None


def _why_not(status: os.stat_result) -> str | None:
    """Return why a file or folder of this status is not believed."""
    what = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
    if status.st_uid not in (0, os.geteuid()):
        return f"{what} belongs to another user"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX  # where nobody renames what is another's
    if status.st_mode & stat.S_IWOTH and not sticky:
        return f"others may write {what}"
    if status.st_mode & stat.S_IWGRP and not sticky and not _is_private(status.st_gid):
        return f"its group may write {what}"
    return None


def _is_private(gid: int) -> bool:
    """Tell whether a group is root's, or this user's own, with nobody else in it."""
    import grp  # noqa: PLC0415 - only where a group may write
    import pwd  # noqa: PLC0415 - see above

    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == 0 or (group.gr_name == user and set(group.gr_mem) <= {user})


def _tell(path: str, why: str) -> None:
    if path not in _told and sys.stderr is not None:
        _told.add(path)
        try:
            sys.stderr.write(f"taskq: the settings in {path} are not read: {why} (TASKQ_CONFIG names a file to read)\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return
