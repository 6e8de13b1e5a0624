"""Commits and syncs: joined, counted, in the right order, honest about a disk that fails."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, JobExists
from taskq.executors.sqlite.append_log import HEADER
from taskq.executors.sqlite.file_sync import FileSync
from taskq.executors.sqlite.lock import StoreLock
from taskq.executors.sqlite.page import Futex, Page, SyncState
from taskq.executors.sqlite.store import SQLiteStore
from tests.store_steps import job, said, take

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
    before = full.database.syncs
    for number in range(5):
        full.put([job(f"j{number}")])
    full.put([job("j0")])
    assert full.database.syncs - before == 6


def test_no_syncs_at_normal(store: SQLiteStore, member: Any) -> None:
    """At normal durability nothing waits for the disk, once the append log has begun."""
    store.put([job("first")])
    before = store.database.syncs
    store.put([job("a")])
    store.put([job("b", key="k")])
    member.poll([said(one) for one in take(member)], [], 1)
    assert store.database.syncs == before


def test_claims_need_no_sync(full: SQLiteStore, join: Callable[..., Any]) -> None:
    """A claim that is lost with the power is only a job that waits again; an outcome is synced."""
    member = join(at=full)
    full.put([job("a")])
    before = full.database.syncs
    claims = take(member)
    member.heartbeat(_record(), [(one.id, one.token) for one in claims])
    assert full.database.syncs == before
    member.poll([said(one) for one in claims], [], 0)
    assert full.database.syncs == before + 1


def _record() -> Any:
    from tests.store_steps import worker  # noqa: PLC0415 - only here

    return worker()


def test_threads_share_commits_and_syncs(full: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts of threads that come together are one commit; each one's error is its own, and its changes only its own."""
    full.put([job("taken", key="k")])
    file = full.database
    commits, syncs = file.page.wal.committed, file.syncs
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
        while len(file.pending) < 15:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert file.page.wal.committed - commits <= 3
    assert file.syncs - syncs <= 3
    for number in range(16):
        assert results[f"j{number}"] == ("taken" if number % 4 == 0 else [f"x{number}", f"j{number}"])
        assert (full.get([f"x{number}"]) == [None]) == (number % 4 == 0)


#: How a job goes to each file that is synced, and its numbers on the page.
WAYS = pytest.mark.parametrize(
    ("name", "options", "state_of"),
    [("wal", {"key": "k"}, attrgetter("wal")), ("inbox", {}, attrgetter("append_log"))],
    ids=["log", "inbox"],
)


@WAYS
def test_a_sync_covers_what_was_committed_before_it(
    full: SQLiteStore, name: str, options: dict[str, Any], state_of: Callable[[Page], SyncState]
) -> None:
    """Who finds its commit covered by another's sync makes none of its own."""
    full.put([job("first")])
    full.put([job("a", **options)])
    file = full.database
    lock = StoreLock(file.path.with_name("queue.db-lock"))
    other = FileSync(os.open(file.path.with_name(f"queue.db-{name}"), os.O_RDWR), lock, state_of(file.page), 0)
    state = state_of(file.page)
    number = state.committed
    other.up_to(number)
    assert other.count == 0  # this process has synced it already
    state.count_commit()
    other.up_to(number + 1)
    before = file.syncs
    file.sync(number + 1) if name == "wal" else file.sync_append(number + 1)
    assert (other.count, file.syncs) == (1, before)
    other.close()
    lock.close()


def test_sync_waits_for_a_batch(full: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others have committed around the last sync, the next one waits a moment for as many; alone it does not."""
    full.put([job("a")])
    file = full.database
    state, naps = file.page.append_log, []

    def wait(_: Futex, __: int, seconds: float) -> None:
        naps.append(seconds)
        state.count_commit()  # another process does

    monkeypatch.setattr(Futex, "wait", wait)
    full.put([job("b")])
    assert (state.batch, naps) == (1, [])
    state.batch = 3
    file.connections.get().append_log.file.took = 60.0
    before = file.syncs
    full.put([job("c")])
    assert file.syncs == before + 1
    assert len(naps) == 2
    assert max(naps) < 0.01
    assert state.synced == state.committed
    assert state.batch == 3


def test_futex(full: SQLiteStore) -> None:
    """Whoever listens is woken by a ring, also by one before it waits; a ring that is lost costs little."""
    futex, heard = full.database.page.lock_futex, threading.Event()

    def listen() -> None:
        seen = futex.listen()
        while futex.listen() == seen:
            futex.wait(seen, 0.5)
        heard.set()

    thread = threading.Thread(target=listen)
    thread.start()
    while not heard.is_set():
        futex.wake()
    thread.join()
    seen = futex.listen()
    futex.wake()
    futex.wait(seen, 0.9)
    futex.wait(futex.listen(), 0.001)


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
    counts.put(store.database.syncs)
    store.close()


# --- a disk that fails


@WAYS
def test_failed_sync(
    full: SQLiteStore,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    state_of: Callable[[Page], SyncState],
) -> None:
    """After a failed sync the call says so, and the next sync first writes the whole file again."""
    full.put([job("a")])
    wrote: list[int] = []
    real = os.pwrite
    said_ = "log" if name == "wal" else name

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("taskq.executors.sqlite.file_sync.sync_data", fail)
        with pytest.raises(BackendUnavailable, match=f"syncing its {said_}: Input/output error"):
            full.put([job("b", **options)])
    state = state_of(full.database.page)
    assert state.suspect
    monkeypatch.setattr("os.pwrite", lambda fd, data, at: wrote.append(len(data)) or real(fd, data, at))
    full.put([job("b", **options)])
    assert wrote[-1] == full.database.path.with_name(f"queue.db-{name}").stat().st_size
    assert not state.suspect
    assert full.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    assert len(full.list()) == 2


def test_failed_sync_at_the_turn(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the log cannot be synced the append log does not begin anew, and puts say so; once it can, it does."""
    monkeypatch.setattr("taskq.executors.sqlite.append_log.INGEST_AT", 200)
    monkeypatch.setattr("taskq.executors.sqlite.append_log.ROTATE_AT", 300)
    file = store.database.path.with_name("queue.db-inbox")
    kept: list[str] = []

    def put() -> None:
        store.put([job(f"j{len(kept)}")])  # at normal durability nothing but the turn is synced
        kept.append(f"j{len(kept)}")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    put()
    first = file.read_bytes()[: HEADER.size]
    with monkeypatch.context() as patch:
        patch.setattr("taskq.executors.sqlite.file_sync.sync_data", fail)
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match="turning its inbox: Input/output error"):
                while len(kept) < 100:
                    put()
            assert file.read_bytes()[: HEADER.size] == first
    put()
    assert file.read_bytes()[: HEADER.size] != first
    assert [record.id for record in store.list(limit=1000)][::-1] == kept


SCRIPT = """
import sys
from taskq.executors.sqlite.store import SQLiteStore
from taskq.errors import BackendUnavailable
from tests.store_steps import job
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


#: Runs a program in one thread, by which strace counts calls: what the main thread opens, a thread of ours does for it.
IN_A_THREAD = "from concurrent.futures import *; ThreadPoolExecutor(1).submit(exec, {!r}, {{}}).result()"


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
        IN_A_THREAD.format(script),
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
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    assert len(store.list()) == 6
    store.close()


@needs_strace
@pytest.mark.parametrize(("name", "options"), [("inbox", ""), ("log", ', key=f"k{number}"')], ids=["inbox", "log"])
def test_order_of_calls(path: Path, name: str, options: str) -> None:
    """A commit is synced when the lock is free again; a checkpoint syncs log, writes database, syncs database."""
    checkpoint = "store.database.page.frames = 9999\nstore.put([job('last', key='k')])\nstore.close()"
    script = SCRIPT.replace('f"j{number}"', f'f"j{{number}}"{options}').replace("store.close()", checkpoint)
    _, lines = trace(path, "-e", "trace=pwrite64,fdatasync,flock", script=script)
    text = _collapsed(" ".join(word for line in lines if (word := _word(line, path))))
    assert text.count(f"lock {name}+ unlock {name}-sync") >= 5, text
    assert "lock log+ log-sync db+ db-sync unlock" in text, text


@needs_strace
def test_order_of_calls_at_the_turn(path: Path) -> None:
    """The append log begins anew when the log, which has all its jobs, is synced, and not before."""
    small = "from taskq.executors.sqlite import append_log\nappend_log.INGEST_AT, append_log.ROTATE_AT = 200, 300\n"
    _, lines = trace(path, "-e", "trace=pwrite64,fdatasync,flock", script=small + SCRIPT)
    text = _collapsed(" ".join(word for line in lines if (word := _word(line, path))))
    assert text.count("lock log+ log-sync inbox+ unlock") >= 2, text


def _word(line: str, path: Path) -> str:
    """Say a system call in a word: which file, and what."""
    target = {f"<{path}-wal>": "log", f"<{path}-inbox>": "inbox", f"<{path}>": "db", f"<{path}-lock>": "lock"}
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
