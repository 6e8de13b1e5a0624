"""Commits and syncs: joined, counted, in the right order, honest about a disk that fails."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from executors.sqlite.lock import StoreLock
from executors.sqlite.page import Bell
from executors.sqlite.store import SQLiteStore
from executors.sqlite.sync import LogSync
from taskq.errors import BackendUnavailable, JobExists
from tests.sqlite.workshop import job, said, take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="NOT TESTED: the order of system calls needs strace")


@pytest.fixture
def full(path: Path, open_store: Callable[..., SQLiteStore]) -> SQLiteStore:
    """Give a store at full durability."""
    return open_store(f"sqlite://{path}")


def test_one_sync_for_each_lonely_put(full: SQLiteStore) -> None:
    """At full durability a put that is alone makes one sync, and so does a repeated one: it may have been unsynced."""
    full.put([job("0")])
    before = full._file.syncs
    for number in range(5):
        full.put([job(f"j{number}")])
    full.put([job("j0")])
    assert full._file.syncs - before == 6


def test_no_syncs_at_normal(store: SQLiteStore, member: Any) -> None:
    """At normal durability nothing waits for the disk."""
    store.put([job("a")])
    member.exchange([said(one) for one in take(member)], [], 1)
    assert store._file.syncs == 0


def test_claims_need_no_sync(full: SQLiteStore, join: Callable[..., Any]) -> None:
    """A claim that is lost with the power is only a job that waits again; a verdict is synced."""
    member = join(at=full)
    full.put([job("a")])
    before = full._file.syncs
    claims = take(member)
    member.renew(_record(), [(one.id, one.token) for one in claims])
    assert full._file.syncs == before
    member.exchange([said(one) for one in claims], [], 0)
    assert full._file.syncs == before + 1


def _record() -> Any:
    from tests.sqlite.workshop import worker  # noqa: PLC0415 - only here

    return worker()


def test_threads_share_commits_and_syncs(full: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts of threads that come together are one commit; each one's error is its own, and its changes only its own."""
    full.put([job("taken", key="k")])
    file = full._file
    commits, syncs = file.page.committed, file.syncs
    results: dict[str, Any] = {}

    def put(number: int) -> None:
        options: dict[str, Any] = {"key": "k", "if_exists": "reject"} if number % 4 == 0 else {}
        try:
            results[f"j{number}"] = full.put([job(f"x{number}"), job(f"j{number}", **options)])
        except JobExists as exc:
            results[f"j{number}"] = exc.job_id

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    with file.lock:  # until all of them wait
        for thread in threads:
            thread.start()
        while len(file._errands) < 15:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert file.page.committed - commits <= 3
    assert file.syncs - syncs <= 3
    for number in range(16):
        assert results[f"j{number}"] == ("taken" if number % 4 == 0 else [f"x{number}", f"j{number}"])
        assert (full.get([f"x{number}"]) == [None]) == (number % 4 == 0)


def test_a_sync_covers_what_was_committed_before_it(full: SQLiteStore) -> None:
    """Who finds its commit covered by another's sync makes none of its own."""
    full.put([job("a")])
    file = full._file
    other = LogSync(file.path.with_name("queue.db-wal"), StoreLock(file.path.with_name("queue.db-lock")))
    number = file.page.committed
    other.up_to(number)
    assert other.count == 0  # this process has synced it already
    file.page.count_commit()
    other.up_to(number + 1)
    before = file.syncs
    file.sync(number + 1)
    assert (other.count, file.syncs) == (1, before)
    other.close()
    other._lock.close()


def test_who_syncs_waits_for_company(full: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others have committed around the last sync, the next one waits a moment for as many; alone it does not."""
    full.put([job("a")])
    file = full._file
    page, naps = file.page, []

    def wait(_: Bell, __: int, seconds: float) -> None:
        naps.append(seconds)
        page.count_commit()  # another process does

    monkeypatch.setattr(Bell, "wait", wait)
    full.put([job("b")])
    assert (page.company, naps) == (1, [])
    page.company = 3
    file._connections.get().log._took = 60.0
    before = file.syncs
    full.put([job("c")])
    assert file.syncs == before + 1
    assert len(naps) == 2
    assert max(naps) < 0.01
    assert page.synced == page.committed
    assert page.company == 3


def test_bell(full: SQLiteStore) -> None:
    """Whoever listens is woken by a ring, also by one before it waits; a ring that is lost costs little."""
    bell, heard = full._file.page.lock_bell, threading.Event()

    def listen() -> None:
        rung = bell.listen()
        while bell.listen() == rung:
            bell.wait(rung, 0.5)
        heard.set()

    thread = threading.Thread(target=listen)
    thread.start()
    while not heard.is_set():
        bell.ring()
    thread.join()
    rung = bell.listen()
    bell.ring()
    bell.wait(rung, 0.9)
    bell.wait(bell.listen(), 0.001)


def test_four_processes_share_syncs(path: Path, full: SQLiteStore) -> None:
    """Processes that submit at once need fewer syncs than puts, and all jobs are there."""
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    gate = context.Event()
    children = [context.Process(target=_put_many, args=(str(path), number, gate, counts)) for number in range(4)]
    for child in children:
        child.start()
    gate.set()
    syncs = sum(counts.get(timeout=50) for _ in children)
    for child in children:
        child.join()
    counts.close()
    counts.join_thread()
    assert sum(queue.counts["queued"] for queue in full.queues()) == 800  # type: ignore[index]
    assert syncs < 800


def _put_many(path: str, number: int, gate: Any, counts: Any) -> None:
    store = SQLiteStore(f"sqlite://{path}")
    gate.wait()
    for index in range(200):
        store.put([job(f"{number}-{index}")])
    counts.put(store._file.syncs)
    store.close()


# --- a disk that fails


def test_failed_sync(full: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed sync the call says so, and the next sync first writes the whole log again."""
    full.put([job("a")])
    wrote: list[int] = []
    real = os.pwrite

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("executors.sqlite.sync.sync_data", fail)
        with pytest.raises(BackendUnavailable, match="syncing its log: Input/output error"):
            full.put([job("b")])
    assert full._file.page.suspect
    monkeypatch.setattr("os.pwrite", lambda fd, data, at: wrote.append(len(data)) or real(fd, data, at))
    full.put([job("b")])
    assert sum(wrote) == full._file.path.with_name("queue.db-wal").stat().st_size
    assert not full._file.page.suspect
    assert full._file.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    assert len(full.list()) == 2


SCRIPT = """
import sys
from executors.sqlite.store import SQLiteStore
from taskq.errors import BackendUnavailable
from tests.sqlite.workshop import job
store = SQLiteStore(sys.argv[1])
said = []
for number in range(6):
    try:
        store.put([job(f"j{number}")])
        said.append("kept")
    except BackendUnavailable as exc:
        said.append(type(exc).__name__)
print(*said, len(store.list()))
store.close()
"""


def trace(path: Path, *options: str, script: str = SCRIPT) -> tuple[str, list[str]]:
    """Run a program under strace; return what it printed, and its system calls."""
    calls = path.parent.parent / "calls"
    command = (
        str(STRACE),
        "-f",
        "-qq",
        "-y",
        "-o",
        str(calls),
        *options,
        sys.executable,
        "-c",
        script,
        f"sqlite://{path}",
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, timeout=50, check=True, env=environment)
    return done.stdout.decode().strip(), calls.read_text().splitlines()


@needs_strace
def test_input_output_error(path: Path) -> None:
    """EIO of one sync fails one put, which says so; the jobs are there and the next puts are kept."""
    said_, _ = trace(path, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=8..9")
    assert said_.count("BackendUnavailable") in {1, 2}
    assert said_.endswith("kept 6")
    store = SQLiteStore(f"sqlite://{path}")
    assert store._file.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    assert len(store.list()) == 6
    store.close()


@needs_strace
def test_order_of_calls(path: Path) -> None:
    """A commit is synced when the lock is free again; a checkpoint syncs log, writes database, syncs database."""
    script = SCRIPT.replace("store.close()", "store._file.page.frames = 9999\nstore.put([job('last')])\nstore.close()")
    _, lines = trace(path, "-e", "trace=pwrite64,fdatasync,flock", script=script)
    words = [word for line in lines if (word := _word(line, path))]
    text = " ".join(words)
    put = "lock log+ unlock sync-lock log-sync sync-unlock"
    assert _collapsed(text).count(put) >= 6, _collapsed(text)
    assert "lock log+ log-sync db+ db-sync unlock" in _collapsed(text), _collapsed(text)


def _word(line: str, path: Path) -> str:
    """Say a system call in a word: which file, and what."""
    target = {f"<{path}-wal>": "log", f"<{path}>": "db", f"<{path}-lock>": "lock"}
    kind = next((word for part, word in target.items() if part in line), "")
    if "flock(" in line:
        action = "unlock" if "LOCK_UN" in line else "lock"
        return action if kind == "lock" else f"sync-{action}"
    return kind and (f"{kind}-sync" if "fdatasync(" in line else f"{kind}+")


def _collapsed(text: str) -> str:
    found: list[str] = []
    for word in text.split():
        if not found or found[-1] != word or not word.endswith("+"):
            found.append(word)
    return " ".join(found)
