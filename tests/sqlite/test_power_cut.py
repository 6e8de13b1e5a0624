"""The power fails: what was synced is on the disk, of what was only written any part may be, in any order.

A program's system calls are recorded with their bytes. For many moments a disk is made up as a power cut could leave
it then, and opened: at full durability every job that was accepted before is there.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from taskq.errors import StoreDamaged
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import State

if TYPE_CHECKING:
    from pathlib import Path

STRACE = shutil.which("strace")

pytestmark = pytest.mark.skipif(STRACE is None, reason="NOT TESTED: a power cut is made up from what strace records")

#: Bytes that a disk writes in one piece.
SECTOR = 512

#: What a program did, to which file, at which byte, with which bytes.
Call = tuple[str, str, int, bytes]

SCRIPT = """
import os, sys
from taskq.executors.sqlite import append_log
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import State
from tests.store_steps import job, said, worker

def note(text):
    os.write(1, text.encode())

append_log.ROTATE_AT = 1500  # it is turned more than once
store = SQLiteStore(sys.argv[1])
member = store.join(worker())
for number in range(40):
    store.put([job(f"j{number}", envelope=b"e" * (5 * number * number if number % 3 == 0 else 9 * number))])
    note(f"put j{number}")
    if number % 8 == 7:
        claims = member.poll([], [], 5).claims
        for more in range(4):  # while what the claim has ingested is not synced
            store.put([job(f"m{number}-{more}")])
            note(f"put m{number}-{more}")
        member.poll([said(one) for one in claims], [], 0)
        note("end " + " ".join(one.id for one in claims))
    if number % 11 == 10:
        store.database.page.frames = 9999  # the next commit makes a checkpoint, the one after begins the log anew
os._exit(0)
"""

#: A line of strace: the call, its file, and where it has them its bytes, their number and their place.
HEX = r"(?:\\x[0-9a-f]{2})*"
LINE = re.compile(rf'\d+\s+(\w+)\((?:\d+<({HEX})>|"({HEX})")(?:, "({HEX})", \d+)?(?:, (\d+))?\)')


class Disk:
    """Files as the kernel has them, and as the disk does: what was synced, and the writes since."""

    def __init__(self) -> None:
        self.synced: dict[str, bytearray] = {}
        self.since: dict[str, list[tuple[int, bytes]]] = {}

    def write(self, name: str, at: int, data: bytes) -> None:
        """Write to a file."""
        self.since.setdefault(name, []).append((at, data))

    def sync(self, name: str) -> None:
        """Bring a file's writes to the disk."""
        content = self.synced.setdefault(name, bytearray())
        for at, data in self.since.pop(name, []):
            _put(content, at, data)

    def remove(self, name: str) -> None:
        """Delete a file."""
        self.synced.pop(name, None)
        self.since.pop(name, None)

    def after_cut(self, name: str, chance: random.Random) -> bytes:
        """Return what a file may hold after a power cut: some of the writes since its sync, some of them torn."""
        content = bytearray(self.synced.get(name, b""))
        writes = list(self.since.get(name, []))
        chance.shuffle(writes)
        for at, data in writes:
            fate = chance.random()
            if fate < 0.4:
                _put(content, at, data)
            elif fate < 0.6:
                cut = chance.randrange(0, len(data) + 1, SECTOR) if len(data) > SECTOR else len(data)
                _put(content, at, data[:cut])
        return bytes(content)


def _put(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at + len(data):
        content.extend(bytes(at + len(data) - len(content)))
    content[at : at + len(data)] = data


def record(folder: Path) -> list[Call]:
    """Run the program; return its calls: what it did, to which file, at which byte, with which bytes."""
    calls = folder / "calls"
    (folder / "q").mkdir(mode=0o700)
    options = ("-f", "-qq", "-y", "-xx", "-s", "2000000", "-o", str(calls))
    trace = ("-e", "trace=pwrite64,write,fdatasync,fsync,unlink,ftruncate")
    command = (str(STRACE), *options, *trace, sys.executable, "-c", SCRIPT, f"sqlite://{folder}/q/queue.db")
    subprocess.run(
        command, check=True, timeout=50, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    )
    found = []
    for match in map(LINE.match, calls.read_text().splitlines()):
        if match is not None:
            call, of_descriptor, path, data, at = match.groups()
            name = _plain(of_descriptor or path).decode().rsplit("/", 1)[-1]
            found.append((call, name, int(at or 0), _plain(data or "")))
    return found


def _plain(text: str) -> bytes:
    """Undo what strace's -xx does to bytes."""
    return bytes.fromhex(text.replace("\\x", ""))


def accepted(updates: list[str], word: str) -> set[str]:
    """Return the jobs of which the program was told so."""
    return {name for update in updates if update.startswith(word) for name in update.split()[1:]}


def look(folder: Path, disk: Disk, updates: list[str], chance: random.Random) -> str | None:
    """Make up a disk and open it; return what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in {*disk.synced, *disk.since}:
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(disk.after_cut(name, chance))
    try:
        store = SQLiteStore(f"sqlite://{folder}/queue.db?durability=normal")
    except StoreDamaged as exc:
        return str(exc)
    try:
        whole = store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall())
        states = {record.id: record.state for record in store.list(limit=1000)}
    finally:
        store.close()
    if whole != [("ok",)]:
        return str(whole)
    if missing := accepted(updates, "put") - states.keys():
        return f"accepted and missing: {missing}"
    unfinished = {name for name in accepted(updates, "end") if states[name] is not State.SUCCEEDED}
    return f"finished and not so: {unfinished}" if unfinished else None


def cut_often(calls: list[Call], folder: Path, *, enough: int = 1000) -> tuple[list[str], list[str]]:
    """Cut the power at many moments, until `enough` is wrong; return what the program was told, and what was wrong."""
    chance = random.Random(1)  # the same cuts in every run: a failure can be looked at
    disk, updates, wrong = Disk(), [], []
    checked = 0
    for number, (call, name, at, data) in enumerate(calls):
        if call == "pwrite64" and name.startswith("queue.db"):
            disk.write(name, at, data)
        elif call in {"fdatasync", "fsync"}:
            disk.sync(name)
        elif call == "unlink":
            disk.remove(name)
        elif is_note(call, data):
            updates.append(data.decode())
        if updates and number % 3 == 0:
            checked += 1
            what = look(folder, disk, updates, chance)
            wrong += [f"cut after call {number} ({call} {name}): {what}"] if what else []
        if len(wrong) >= enough:
            return updates, wrong
    assert checked > 100
    return updates, wrong


def is_note(call: str, data: bytes) -> bool:
    """Return whether this call is the program saying what it was told."""
    return call == "write" and data.startswith((b"put ", b"end "))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Record the program once for all tests."""
    return record(tmp_path_factory.mktemp("record"))


def test_power_cut(calls: list[Call], tmp_path: Path) -> None:
    """Whenever the power fails, the file is whole, and at full durability all accepted jobs and results are there."""
    assert sum(call == "fdatasync" for call, *_ in calls) > 50
    updates, wrong = cut_often(calls, tmp_path / "cut")
    assert accepted(updates, "put") >= {f"j{number}" for number in range(40)}
    assert not wrong, "\n".join(wrong)


def test_cuts_find_what_was_told_too_early(calls: list[Call], tmp_path: Path) -> None:
    """Were a job accepted before the sync instead of after it, or without one, these cuts would lose it."""
    swapped = list(calls)
    for at in range(len(calls) - 1):
        if calls[at][0] == "fdatasync" and is_note(calls[at + 1][0], calls[at + 1][3]):
            swapped[at : at + 2] = calls[at + 1], calls[at]
    without_log, without_inbox = (
        [one for one in calls if one[:2] != ("fdatasync", f"queue.db-{name}")] for name in ("wal", "inbox")
    )
    for wrong_order in (swapped, without_log, without_inbox):
        _, wrong = cut_often(wrong_order, tmp_path / "cut", enough=3)
        assert any("accepted and missing" in what for what in wrong), wrong


def test_cuts_find_a_checkpoint_that_does_not_sync(calls: list[Call], tmp_path: Path) -> None:
    """Were the database not synced before the log begins anew, these cuts would damage the file."""
    without = [one for one in calls if one[:2] != ("fdatasync", "queue.db")]
    _, wrong = cut_often(without, tmp_path / "cut", enough=1)
    assert wrong


def test_cuts_find_a_turn_that_does_not_sync(calls: list[Call], tmp_path: Path) -> None:
    """Were the append log begun anew before the log is synced, which has its jobs, these cuts would lose some."""
    turns = {at for at, one in enumerate(calls) if one[:3] == ("pwrite64", "queue.db-inbox", 0)}
    assert len(turns) > 3
    without = [one for at, one in enumerate(calls) if one[:2] != ("fdatasync", "queue.db-wal") or at + 1 not in turns]
    assert len(without) == len(calls) - len(turns)
    _, wrong = cut_often(without, tmp_path / "cut", enough=3)
    assert any("accepted and missing" in what for what in wrong), wrong
