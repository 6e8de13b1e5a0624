"""Findings of `taskq doctor` about a queue file."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from taskq.errors import StoreDamaged, TaskqError
from taskq.executors.sqlite.create import beside
from taskq.executors.sqlite.maintenance import dead_workers
from taskq.executors.sqlite.place import free_bytes
from taskq.executors.sqlite.schema import as_text, is_number
from taskq.store import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.sqlite.database import Database
    from taskq.executors.sqlite.wakeups import Wakeups

__all__ = ["examine"]

#: The first SQLite without the race between a commit and a log that restarts.
FIXED = (3, 51, 3)

#: Bytes of the log, and bytes free, from which something is said.
LONG_LOG, LITTLE_ROOM = 256 * 1024 * 1024, 512 * 1024 * 1024

#: Seconds after which a waiting job is worth a word.
LONG_WAIT = 3600.0

#: File systems on other machines, on which locks and shared memory do not hold.
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"})


def examine(database: Database, wakeups: Wakeups) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding too."""
    looks: dict[str, Callable[[], Finding]] = {
        "sqlite": _version,
        "integrity": lambda: _integrity(database),
        "durability": lambda: _durability(database),
        "room": lambda: _room(database.path),
        "log": lambda: _log_size(database.path),
        "access": lambda: _mode(database.path),
        "file system": lambda: _file_system(database.path),
        "workers": lambda: _workers(database, wakeups),
        "waiting": lambda: _oldest(database),
    }
    return [_find(topic, look) for topic, look in looks.items()]


def _find(topic: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (TaskqError, OSError) as exc:
        return Finding(topic=topic, level="problem", text=str(exc), cure="see what the other lines say of the file")


def _version() -> Finding:
    text = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < FIXED:
        text += "; older than 3.51.3, whose race between commit and checkpoint our lock keeps away"
    return Finding(topic="sqlite", level="ok", text=text)


def _integrity(database: Database) -> Finding:
    try:
        found = database.read(lambda connection: connection.execute("PRAGMA quick_check(3)").fetchall())
    except StoreDamaged as exc:
        found = [(str(exc),)]
    problems = [row[0] for row in found if row[0] != "ok"]
    if not problems:
        return Finding(topic="integrity", level="ok", text=f"{database.path} is whole")
    cure = f"restore a backup, or save what can be read: sqlite3 {database.path} .recover"
    return Finding(topic="integrity", level="problem", text="; ".join(problems), cure=cure)


def _durability(database: Database) -> Finding:
    if database.place.full:
        return Finding(topic="durability", level="ok", text="full: an accepted job survives a power cut")
    text = "normal: a power cut may take the last seconds; nothing else does"
    return Finding(topic="durability", level="ok", text=text, cure="?durability=full in the URL syncs each commit")


def _room(path: Path) -> Finding:
    free = free_bytes(path)
    text = f"{_size(path.stat().st_size)} in the file, {_size(free)} free on its disk"
    if free >= LITTLE_ROOM:
        return Finding(topic="room", level="ok", text=text)
    return Finding(topic="room", level="warning", text=text, cure="free some, or purge ended jobs: taskq purge")


def _log_size(path: Path) -> Finding:
    try:
        size = beside(path, "-wal").stat().st_size
    except OSError:
        size = 0
    text = f"{_size(size)} in the write-ahead log"
    if size < LONG_LOG:
        return Finding(topic="log", level="ok", text=text)
    cure = "end programs that read the file for long (an open sqlite3 shell?); it shrinks by itself then"
    return Finding(topic="log", level="warning", text=text, cure=cure)


def _mode(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return Finding(topic="access", level="ok", text=f"only its owner may read {path} ({mode:04o})")
    text = f"others than its owner may read or write {path} ({mode:04o}): arguments, results, code that workers run"
    return Finding(topic="access", level="warning", text=text, cure=f"chmod 600 {path}*")


def _file_system(path: Path) -> Finding:
    kind = _kind_of_file_system(path)
    if kind in NETWORK:
        text = f"{path} is on a network file system ({kind}): locks and shared memory do not hold there"
        cure = "move it to a local disk; for several machines use redis://"
        return Finding(topic="file system", level="problem", text=text, cure=cure)
    return Finding(topic="file system", level="ok", text=kind or "unknown kind")


def _kind_of_file_system(path: Path) -> str:
    """Return its name as mount(8) says it, "" where that cannot be told."""
    if sys.platform == "darwin":
        found = subprocess.run(["/usr/bin/stat", "-f", "%T", str(path)], capture_output=True, text=True, check=False)
        return found.stdout.strip()
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    device = os.stat(path).st_dev  # noqa: PTH116 - the number is all that is wanted
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2] == number]
    return kinds[-1] if kinds else ""


def _workers(database: Database, wakeups: Wakeups) -> Finding:
    dead = dead_workers(database, wakeups, trust_clock=True)
    count = database.read(lambda c: c.execute("SELECT count(*) FROM workers").fetchone()[0]) - len(dead)
    if dead:
        text = f"{', '.join(map(as_text, dead))}: dead or frozen; {count} at work"
        cure = "their jobs are put back by any other worker within seconds: start one"
        return Finding(topic="workers", level="warning" if count else "problem", text=text, cure=cure)
    return Finding(topic="workers", level="ok", text=f"{count} at work")


def _oldest(database: Database) -> Finding:
    query = "SELECT min(n) FROM jobs INDEXED BY jobs_line WHERE state = 3"
    first = database.read(lambda c: c.execute(f"SELECT submitted, queue FROM jobs WHERE n = ({query})").fetchone())
    if first is None:
        return Finding(topic="waiting", level="ok", text="no job waits for a worker")
    age = time.time() - (first[0] if is_number(first[0]) else 0.0)
    queue = as_text(first[1])
    text = f"the oldest waiting job is {age:,.0f} s old, in queue {queue!r}"
    if age < LONG_WAIT:
        return Finding(topic="waiting", level="ok", text=text)
    cure = f"start a worker for it, taskq worker --queues {queue}, or see whether it is paused"
    return Finding(topic="waiting", level="warning", text=text, cure=cure)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - bytes
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
