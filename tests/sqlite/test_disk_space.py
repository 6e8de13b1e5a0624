"""A full disk: new jobs are refused in words, running ones end, and all goes on when there is room again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, StoreFull
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import State
from tests.cli.command import taskq
from tests.store_steps import job, said, see, state_of, take, tell, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOUNT, UMOUNT = shutil.which("mount"), shutil.which("umount")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 2 MiB."""
    if os.geteuid() != 0 or MOUNT is None or UMOUNT is None:
        pytest.skip("NOT TESTED: a full disk needs root, to mount a small one")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        [MOUNT, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"NOT TESTED: a full disk needs a small one: {done.stderr.decode()}")
    yield folder
    subprocess.run([UMOUNT, "-l", str(folder)], check=True)  # a test that failed may hold it


def fill_with_jobs(store: SQLiteStore) -> list[str]:
    """Put jobs until the store is full; return the accepted ones."""
    kept: list[str] = []
    with pytest.raises(StoreFull, match=r"no room on the disk|bytes are free"):
        for number in range(10_000):
            kept += store.put([job(f"j{number}", envelope=b"e" * 500)])
    return kept


def test_full(small_disk: Path) -> None:
    """At the limit puts are refused and outcomes taken; with room again puts are; the file stays whole."""
    store = SQLiteStore(f"sqlite://{small_disk}/queue.db")
    member = store.join(worker())
    kept = fill_with_jobs(store)
    assert len(kept) > 100
    claims = take(member, 20)
    assert tell(member, *map(said, claims)) == []
    with pytest.raises(StoreFull):
        store.put([job("more", envelope=b"e" * 500_000)])
    assert {record.id for record in store.list(limit=10_000)} == set(kept)
    store.remove(kept[20:])
    assert store.put([job("again")]) == ["again"]
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    member.leave()
    store.close()


def test_really_full(small_disk: Path) -> None:
    """With no byte left outcomes fail in words; repeated, they are taken when there is room, and so are puts."""
    store = SQLiteStore(f"sqlite://{small_disk}/queue.db")
    member = store.join(worker())
    store.put([job(f"j{number}") for number in range(20)])
    claims = take(member, 20)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    failed = _try_outcomes(member, claims)
    with pytest.raises(StoreFull):
        store.put([job("more", envelope=b"e" * 500_000)])
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    filler.unlink()
    assert tell(member, *map(said, failed)) == []
    assert [one.id for one in member.poll([], [], 10).claims] == []
    assert {state_of(store, one.id) for one in claims} == {State.SUCCEEDED}
    store.put([job("more", envelope=b"e" * 5_000)])
    assert see(store, "more").envelope == b"e" * 5_000
    member.leave()
    store.close()


def _try_outcomes(member: Any, claims: list[Any]) -> list[Any]:
    """Tell large results until one is not taken; return those that are still to be told."""
    told = 0
    with pytest.raises(BackendUnavailable, match="no room on the disk"):
        for claim in claims:
            tell(member, said(claim, result=b"r" * 60_000))
            told += 1
    return claims[told:]


@pytest.mark.parametrize("result", [2, 2_000, 30_000])
def test_what_is_kept_is_worked_off(small_disk: Path, result: int) -> None:
    """A disk that jobs have filled is worked off to the last; results that do not fit fail their jobs as StoreFull."""
    store = SQLiteStore(f"sqlite://{small_disk}/queue.db?durability=normal")
    kept: list[str] = []
    with pytest.raises(StoreFull, match=r"no room on the disk|bytes are free"):
        while True:
            kept += store.put([job(f"j{len(kept)}", envelope=b"e" * 50)])
    member = store.join(worker())
    while claims := take(member, 50):
        assert tell(member, *(said(one, result=b"r" * result, log=b"o" * 100) for one in claims)) == []
    records = store.get(kept)
    states = {record and record.state for record in records}
    assert states <= {State.SUCCEEDED, State.FAILED}
    failures = [record.failure.type for record in records if record and record.failure]
    assert set(failures) <= {"taskq.errors.StoreFull"}
    assert bool(failures) == (result > 2)
    assert store.database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    member.leave()
    store.close()


def test_what_the_log_will_add_is_no_room(store: SQLiteStore, member: Any) -> None:
    """Results that stand in the log take their room in the file before it grows by them: others do not get it too."""
    store.put([job("big")])
    (big,) = take(member, 1)
    before = store.database.unused()
    assert tell(member, said(big, result=b"r" * 200_000)) == []
    assert store.database.unused() < before - 190_000
    store.database.connections.get().writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.database.unused() >= 0


def test_result_without_room(store: SQLiteStore, member: Any) -> None:
    """A result that the file cannot take fails its job as StoreFull, and the next ones are told and taken."""
    store.put([job("big"), job("small"), job("next")])
    big, small = take(member, 2)
    writer = store.database.connections.get().writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    found = member.poll([said(big, result=b"r" * 100_000), said(small)], [], 1)
    assert [one.id for one in found.claims] == ["next"]
    ended = see(store, "big")
    assert (ended.state, ended.failure and ended.failure.type) == (State.FAILED, "taskq.errors.StoreFull")
    assert "its result of 100,000 bytes" in str(ended.failure)
    assert state_of(store, "small") is State.SUCCEEDED


def test_no_room_for_a_worker(small_disk: Path) -> None:
    """A worker that begins on a disk without a byte left ends with code 3, and says that there is no room."""
    SQLiteStore(f"sqlite://{small_disk}/queue.db").close()
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    done = taskq(small_disk, "worker", "--url", f"sqlite://{small_disk}/queue.db", "--burst", "-j", 1)
    assert (done.code, "no room on the disk" in done.err) == (3, True), done.err
