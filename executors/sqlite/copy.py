"""A copy of a queue file to look into, where it is on a file system that can only be read: a snapshot, a backup."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskq.executors.sqlite.access import check_path

if TYPE_CHECKING:
    from taskq.executors.sqlite.url import Place

__all__ = ["copied"]

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
