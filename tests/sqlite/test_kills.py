"""kill -9 at every system call by which a process writes or syncs: the file stays whole, no accepted job is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskq.executors.sqlite import jobs as sqlite_jobs
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import TERMINAL, State
from tests.sqlite.kill_script import BATCHES
from tests.store_steps import said, worker

STRACE = shutil.which("strace")

#: What writes or syncs. A process that dies between two of these has changed nothing since the first.
CALLS = "pwrite64,write,fdatasync,fsync,ftruncate,unlink,rename,link,mkdir"

pytestmark = pytest.mark.skipif(STRACE is None, reason="NOT TESTED: kill -9 at each system call needs strace")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program under strace on a file of its own."""
    (folder / "q").mkdir(mode=0o700, exist_ok=True)
    program = (sys.executable, "-m", "tests.sqlite.kill_script", str(folder / "q" / "queue.db"), str(folder / "state"))
    command = (str(STRACE), "-f", "-qq", "-o", str(folder / "calls"), "-e", f"trace={CALLS}", *options, *program)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """Return each system call that the program makes, as its name and number: `("fdatasync", 3)`."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder)
    assert done.returncode == 0, done.stderr.decode()
    names = [line.split()[1].partition("(")[0] for line in (folder / "calls").read_text().splitlines()]
    count: Counter[str] = Counter()
    found = []
    for name in names:
        if name in CALLS.split(","):
            count[name] += 1
            found.append((name, count[name]))
    return found


def kill_at(call: str, number: int) -> str | None:
    """Kill the program at this call; return what is wrong afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        done = run(folder, "-e", f"inject={call}:signal=KILL:when={number}")
        return check(folder) if done.returncode == -signal.SIGKILL else f"it was not killed: {done.returncode}"
    except Exception as exc:  # noqa: BLE001 - the point that it happened at is to be told
        return f"{type(exc).__name__}: {exc}"
    finally:
        shutil.rmtree(folder)


def check(folder: Path) -> str | None:
    """Look at the file that a killed program has left: whole, nothing missing, and all of it can be worked off."""
    state = folder / "state"
    lines = [line.split() for line in state.read_text().splitlines()] if state.exists() else []
    store = SQLiteStore(f"sqlite://{folder}/q/queue.db?durability=normal")
    try:
        whole = store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall())
        if whole != [("ok",)]:
            return f"integrity_check: {whole}"
        return _missing(store, lines) or _half_put(store) or _stuck(store)
    finally:
        store.close()


def _missing(store: SQLiteStore, lines: list[list[str]]) -> str | None:
    records = {record.id: record for record in store.list(limit=100)}
    for word, *ids in lines:
        for one in ids:
            if one == "short1":
                continue  # may have been forgotten
            if one not in records:
                return f"{one} was accepted and is missing"
            state = records[one].state
            wanted = {"put": set(State), "end": {State.SUCCEEDED}, "cancel": {State.CANCELLED}}.get(word)
            if wanted and state not in wanted:
                return f"{one} is {state} after {word!r} was told"
            if word == "end" and (found := store.get([one], payload=True)[0]) and found.result != one.encode():
                return f"{one} has lost its result"
    return None


def _half_put(store: SQLiteStore) -> str | None:
    for batch in BATCHES:
        there = [record is not None for record in store.get(batch)]
        if any(there) and not all(there):
            return f"half of {batch} is there"
    return None


def _stuck(store: SQLiteStore) -> str | None:
    """Work off what is left: the dead worker's jobs too."""
    member = store.join(worker("heir"))
    try:
        member.run_maintenance()
        while claims := member.poll([], [], 10).claims:
            member.poll([said(one) for one in claims], [], 0)
    finally:
        member.leave()
    left = [record.id for record in store.list(limit=100) if record.state not in TERMINAL | {State.SCHEDULED}]
    return f"{left} would never end" if left else None


def kill_at_all(points: list[tuple[str, int]]) -> None:
    """Kill the program at each of these points, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda point: (point, kill_at(*point)), points)
        wrong = [f"killed at {call} {number}: {what}" for (call, number), what in found if what]
    assert not wrong, "\n".join(wrong)


def test_killed_at_some_calls(points: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at a sample of the calls loses no accepted job and does not damage the file."""
    monkeypatch.setattr(sqlite_jobs, "GRACE", 0.0)
    kill_at_all(points[::12])


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_killed_at_every_call(points: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at every one of over 300 calls loses no accepted job and does not damage the file."""
    monkeypatch.setattr(sqlite_jobs, "GRACE", 0.0)
    assert len(points) >= 300
    kill_at_all(points)
