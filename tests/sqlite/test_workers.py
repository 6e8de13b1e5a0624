"""What workers take from a queue file and tell it, and what happens to their jobs when they die."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable
from taskq.failure import Failure
from taskq.states import State
from taskq.store import ProgressUpdate, Store
from tests.store_steps import job, said, see, take, tell, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession


def test_retry_later(store: SQLiteStore, member: WorkerSession) -> None:
    """A job that is to run again waits its delay, keeps its meta, and counts a retry."""
    store.put([job("a")])
    (claim,) = take(member)
    outcome = said(
        claim, State.SCHEDULED, delay=60.0, failure=Failure.from_exception(ValueError()), meta=b"m", crashes=1
    )
    assert tell(member, outcome) == tell(member, outcome) == []
    record = see(store, "a")
    assert (record.state, record.retries, record.crashes, record.attempts) == (State.SCHEDULED, 1, 1, 1)
    assert record.due_at == pytest.approx(time.time() + 60, abs=30)
    assert record.failure is None
    store.database.write(lambda tx: tx.execute("UPDATE jobs SET due = 0").close())
    (again,) = take(member)
    assert (again.attempt, again.retries, again.crashes, again.meta) == (2, 1, 1, b"m")


def test_refused(store: SQLiteStore, member: WorkerSession) -> None:
    """A job that a worker has no task for comes back after a while, and says for how long it has been refused."""
    store.put([job("a"), job("b")])
    for _ in range(2):
        claims = take(member, 1)
        tell(member, said(claims[0], State.QUEUED, refused=True, started=False, delay=60.0))
        store.database.write(lambda tx: tx.execute("UPDATE jobs SET due = 0, refused = refused - 100").close())
    (claim,) = [one for one in take(member) if one.id == "a"]
    assert 200 <= claim.refused_for < 300
    assert claim.attempt == 1


def test_all_queues(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A worker without queues serves all, by name."""
    store.put([job("b", queue="b"), job("a", queue="a"), job("c", queue="c")])
    store.pause("c")
    assert [one.id for one in take(join(queues=()))] == ["a", "b"]


# --- unclear failures


def test_claims_of_a_call_that_failed(
    store: SQLiteStore, member: WorkerSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a call fails after its commit, its repetition gives the same claims, and its notes are not written twice."""
    store.put([job("a"), job("b")])
    (first,) = take(member, 1)
    update = ProgressUpdate(id="a", token=first.token, log=b"once")
    with monkeypatch.context() as patch:
        patch.setattr(store.database, "sync", _no_disk)
        patch.setattr(store.database, "place", _at_full_durability(store))
        with pytest.raises(BackendUnavailable):
            member.poll([said(first)], [update], 5)
    found = member.poll([said(first)], [update], 5)
    assert ([one.id for one in found.claims], found.fenced) == (["b"], [])
    assert store.log("a") == b"once"
    assert member.poll([], [], 5).claims == []


def _no_disk(number: int) -> None:
    raise BackendUnavailable("the disk is gone")


def _at_full_durability(store: SQLiteStore) -> Any:
    import dataclasses  # noqa: PLC0415 - only here

    return dataclasses.replace(store.database.place, full=True)


# --- life and death


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def die(member: Any) -> None:
    """Do what the kernel does when a worker's process ends."""
    member.fifo.after_fork_in_child()


def freeze(store: SQLiteStore, name: str) -> None:
    """Make a worker look as if it had not renewed for longer than its lease."""
    then = time.monotonic() - Store.lease - 1
    store.database.write(lambda tx: tx.execute("UPDATE workers SET renewed = ? WHERE name = ?", (then, name)).close())


def test_frozen_worker(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A worker that has not renewed for a lease loses its jobs though it lives; it is told when it wakes."""
    frozen, other = join("frozen"), join("other")
    store.put([job("a")])
    (claim,) = take(frozen)
    assert other.run_maintenance() == 0
    freeze(store, "frozen")
    assert other.run_maintenance() == 1
    assert [one.name for one in store.workers()] == ["other"]
    assert frozen.heartbeat(worker("frozen"), [(claim.id, claim.token)]) == ["a"]
    assert tell(frozen, said(claim)) == ["a"]
    assert [one.name for one in store.workers()] == ["frozen", "other"]


def test_own_freeze(store: SQLiteStore, join: Callable[..., Any]) -> None:
    """Who was frozen himself calls nobody frozen for a lease: all may have been; the dead he buries."""
    other, dead, me = join("other"), join("dead"), join("me")
    store.put([job("a"), job("b")])
    take(other, 1)
    take(dead, 1)
    freeze(store, "other")
    freeze(store, "me")
    me._heartbeat_at -= Store.lease  # noqa: SLF001  # as if time had passed
    me.heartbeat(worker("me"), [])
    assert me.run_maintenance() == 0
    die(dead)
    assert me.run_maintenance() == 1
    me._trust_from = 0.0  # noqa: SLF001  # as if time had passed
    assert me.run_maintenance() == 1


def test_removed_fifo(store: SQLiteStore, join: Callable[..., Any]) -> None:
    """A worker whose FIFO somebody has deleted is not taken for dead, and has a new one with its next renewal."""
    member = join("a")
    os.unlink(member.fifo.path)
    assert [one.name for one in store.workers()] == ["a"]
    member.heartbeat(worker("a"), [])
    assert os.path.exists(member.fifo.path)
    assert [one.name for one in store.workers()] == ["a"]
    store.put([job("x")])
    assert len(take(member)) == 1


# --- waking


def wait(member: WorkerSession, seconds: float = 20.0, wake_fd: int = -1) -> float:
    """Let a worker wait; return for how long it did."""
    begin = time.monotonic()
    member.wait(seconds, wake_fd)
    return time.monotonic() - begin


@pytest.mark.parametrize("options", [{}, {"delay": 0.2}])
def test_woken_by_a_submit(
    store: SQLiteStore, member: WorkerSession, open_store: Callable[[], SQLiteStore], options: dict[str, float]
) -> None:
    """A worker that needs work is woken by a submit through another store, and for a scheduled job at its time."""
    other = open_store()
    assert take(member) == []
    timer = threading.Timer(0.1, lambda: other.put([job("a", **options)]))
    timer.start()
    found: list[Any] = []
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        wait(member)
        found = take(member)
    timer.join()
    assert [one.id for one in found] == ["a"]
    assert time.monotonic() < deadline - 8


def test_full_worker_sleeps(store: SQLiteStore, member: Any) -> None:
    """A worker that got all it wanted is not woken by more work, but by a control request."""
    store.put([job("a"), job("b")])
    (claim,) = take(member, 1)
    assert wait(member, 0.3) >= 0.25
    timer = threading.Timer(0.1, lambda: store.cancel([claim.id]))
    timer.start()
    assert wait(member) < 10
    timer.join()
    assert [request.job_id for request in member.poll([], [], 0).control_requests] == ["a"]


def test_other_things_wake(store: SQLiteStore, member: WorkerSession) -> None:
    """A worker wakes by its own descriptor, by resume, and by a job that is put back or released."""
    take(member)
    reader, writer = os.pipe()
    os.write(writer, b".")
    assert wait(member, wake_fd=reader) < 10
    assert select.select([reader], [], [], 0)[0] == [reader]  # not read: it is the caller's
    os.close(reader)
    os.close(writer)
    store.pause("default")
    store.put([job("a")])
    assert take(member) == []
    wait(member, 0.0)
    timer = threading.Timer(0.1, lambda: store.resume("default"))
    timer.start()
    assert wait(member) < 10
    timer.join()
    assert [one.id for one in take(member)] == ["a"]


def test_lost_wake_up(store: SQLiteStore, member: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up that is lost costs about a second."""
    monkeypatch.setattr("taskq.executors.sqlite.wakeups.notify", lambda path: False)
    take(member)
    timer = threading.Timer(0.1, lambda: store.put([job("a")]))
    timer.start()
    assert wait(member) < 10
    timer.join()


def test_one_job_wakes_one_worker(store: SQLiteStore, join: Callable[..., Any]) -> None:
    """Of several workers that need work as many are woken as there are jobs, and only those that serve the queue."""
    members = [join(name, queues=(queue,)) for name, queue in (("a", "x"), ("b", "q"), ("c", "q"), ("d", "q"))]
    page = store.database.page
    for one in members:
        page.flag_worker(one.slot, 1)
    store.put([job("1", queue="q"), job("2", queue="q")])
    assert [one.fifo.drain() for one in members] == [False, True, True, False]
