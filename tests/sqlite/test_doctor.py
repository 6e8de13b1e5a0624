"""What `taskq doctor` finds out about a queue file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.store_steps import job, take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from taskq.executors.sqlite.store import SQLiteStore


def levels(store: SQLiteStore) -> dict[str, str]:
    """Return how each topic fares."""
    return {finding.topic: finding.level for finding in store.doctor()}


def test_healthy(store: SQLiteStore) -> None:
    """Of a healthy file everything is ok, and every line says something."""
    found = store.doctor()
    assert {finding.level for finding in found} == {"ok"}
    assert all(finding.text for finding in found)
    names = {"sqlite", "integrity", "durability", "room", "log", "access", "file system", "workers", "waiting"}
    assert {finding.topic for finding in found} == names


def test_worries(store: SQLiteStore, path: Path, join: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Loose permissions, network file systems, dead workers, old jobs, little room, a long log: each has a cure."""
    member = join("dead")
    store.put([job("a"), job("b")])
    take(member, 1)
    member.fifo.after_fork_in_child()
    path.chmod(0o644)
    store.database.write(lambda tx: tx.execute("UPDATE jobs SET submitted = submitted - 9999").close())
    monkeypatch.setattr("taskq.executors.sqlite.doctor._kind_of_file_system", lambda path: "nfs4")
    monkeypatch.setattr("taskq.executors.sqlite.doctor.LITTLE_ROOM", 1 << 60)
    monkeypatch.setattr("taskq.executors.sqlite.doctor.LONG_LOG", 1)
    found = levels(store)
    bad = {"access": "warning", "file system": "problem", "workers": "problem", "waiting": "warning"}
    assert {topic: level for topic, level in found.items() if level != "ok"} == {
        **bad,
        "room": "warning",
        "log": "warning",
    }
    assert all(finding.cure for finding in store.doctor() if finding.level != "ok")


def test_kind_of_file_system(path: Path, store: SQLiteStore) -> None:
    """The kind of file system is known by its name."""
    found = {finding.topic: finding.text for finding in store.doctor()}["file system"]
    assert found
    assert found != "unknown kind"


def test_damage(store: SQLiteStore, path: Path) -> None:
    """Damage that came after opening is a problem, with the cure."""
    store.put([job(f"j{number}", envelope=b"e" * 900) for number in range(300)])
    store.database.page.frames = 1
    store.database.checkpoint()
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(b"\xa5" * 60_000)
    (found,) = [finding for finding in store.doctor() if finding.topic == "integrity"]
    assert found.level == "problem"
    assert "recover" in found.cure
