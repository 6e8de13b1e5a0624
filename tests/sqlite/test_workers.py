"""What workers take from a queue file and tell it, and what happens to their jobs when they die."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable, ConfigError
from taskq.executors.sqlite.claims import LOG_LIMIT
from taskq.failure import Failure
from taskq.states import Reason, State
from taskq.store import ProgressUpdate, Store
from tests.sqlite.workshop import job, said, see, state_of, take, tell, worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import Claim, WorkerSession


def test_order(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """Jobs come by the worker's order of queues, then by priority, then by submit; other queues are not its."""
    member = join(queues=("high", "low"))
    store.put([job("l1", queue="low", priority=9), job("x", queue="other"), job("h1", queue="high")])
    store.put([job("h2", queue="high", priority=1), job("h3", queue="high"), job("h4", queue="high", priority=-1)])
    assert [one.id for one in take(member, 2)] == ["h2", "h1"]
    assert [one.id for one in take(member)] == ["h3", "h4", "l1"]
    assert [one.id for one in take(join("all", queues=()))] == ["x"]


def test_all_queues(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A worker without queues serves all, by name."""
    store.put([job("b", queue="b"), job("a", queue="a"), job("c", queue="c")])
    store.pause("c")
    assert [one.id for one in take(join(queues=()))] == ["a", "b"]


def test_claim(store: SQLiteStore, member: WorkerSession) -> None:
    """A claimed job runs: its attempt is counted and its worker named."""
    store.put([job("a", queue="default")])
    (claim,) = take(member)
    assert (claim.id, claim.attempt, claim.crashes, claim.retries, claim.queue) == ("a", 1, 0, 0, "default")
    record = see(store, "a")
    assert (record.state, record.attempts, record.worker) == (State.RUNNING, 1, "w")
    assert record.started_at is not None


def test_claim_one(store: SQLiteStore, member: WorkerSession) -> None:
    """One job can be taken out of turn, while it waits."""
    store.put([job("a"), job("b", queue="elsewhere"), job("c", delay=60.0)])
    found = member.claim_one("b")
    assert found is not None
    assert found.id == "b"
    assert [member.claim_one(one) for one in ("b", "c", "nobody")] == [None, None, None]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_ends(store: SQLiteStore, member: WorkerSession, state: State) -> None:
    """A job ends as its worker says, with what that says besides, and once only."""
    store.put([job("a")])
    (claim,) = take(member)
    failure = Failure.from_exception(ValueError("no")) if state is State.FAILED else None
    result = b"r" if state is State.SUCCEEDED else None
    more: dict[str, Any] = {"attempts": 3, "crashes": 2, "progress": (4, None), "meta": b"m", "log": b"text"}
    outcome = said(claim, state, failure=failure, result=result, **more)
    assert tell(member, outcome) == tell(member, outcome) == []
    record = see(store, "a")
    assert (record.state, record.result, record.failure) == (state, result, failure)
    assert (record.attempts, record.crashes, record.progress, record.meta) == (3, 2, (4, None), b"m")
    assert store.log("a") == b"text"
    assert record.ended_at is not None


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
    store._database.write(lambda tx: tx.execute("UPDATE jobs SET due = 0").close())
    (again,) = take(member)
    assert (again.attempt, again.retries, again.crashes, again.meta) == (2, 1, 1, b"m")


def test_handed_back(store: SQLiteStore, member: WorkerSession) -> None:
    """A job that never began goes to the front, its attempt not counted."""
    store.put([job("a"), job("b")])
    claims = take(member, 1)
    tell(member, said(claims[0], State.QUEUED, started=False))
    assert see(store, "a").attempts == 0
    assert [one.id for one in take(member)] == ["a", "b"]


def test_refused(store: SQLiteStore, member: WorkerSession) -> None:
    """A job that a worker has no task for comes back after a while, and says for how long it has been refused."""
    store.put([job("a"), job("b")])
    for _ in range(2):
        claims = take(member, 1)
        tell(member, said(claims[0], State.QUEUED, refused=True, started=False, delay=60.0))
        store._database.write(lambda tx: tx.execute("UPDATE jobs SET due = 0, refused = refused - 100").close())
    (claim,) = [one for one in take(member) if one.id == "a"]
    assert 200 <= claim.refused_for < 300
    assert claim.attempt == 1


def test_token_of_another(store: SQLiteStore, member: WorkerSession, join: Callable[..., WorkerSession]) -> None:
    """Only who holds the newest token can say how a job ended, or what it says."""
    store.put([job("a")])
    (old,) = take(member)
    member.leave()
    other = join("other")
    (new,) = take(other)
    late = ProgressUpdate(id="a", token=old.token, log=b"late")
    assert list(other.poll([said(old)], [late], 0).fenced) == ["a", "a"]
    assert tell(other, said(new, result=b"new")) == []
    assert see(store, "a").result == b"new"
    assert store.log("a") == b""
    for token in ("", "x.y", "1", "999.1", f"{new.token}0"):
        assert list(other.poll([], [ProgressUpdate(id="a", token=token)], 0).fenced) == ["a"]


def test_updates(store: SQLiteStore, member: WorkerSession) -> None:
    """What a running job says is seen at once, in pieces and from any byte on."""
    store.put([job("a")])
    (claim,) = take(member)
    for number in range(3):
        member.poll(
            [], [ProgressUpdate(id="a", token=claim.token, progress=(number, 3), meta=b"%d" % number, log=b"abc")], 0
        )
    record = see(store, "a")
    assert (record.progress, record.meta) == ((2, 3), b"2")
    assert (store.log("a"), store.log("a", 4), store.log("a", 99)) == (b"abcabcabc", b"bcabc", b"")


def test_log_limit(store: SQLiteStore, member: WorkerSession) -> None:
    """The first MiB of a log is kept; an ended job's log says at its end how much was left out."""
    store.put([job("a")])
    (claim,) = take(member)
    for letter in (b"a", b"b", b"c"):
        member.poll([], [ProgressUpdate(id="a", token=claim.token, log=letter * 500_000)], 0)
    kept = b"a" * 500_000 + b"b" * 500_000 + b"c" * (LOG_LIMIT - 1_000_000)
    assert store.log("a") == kept
    tell(member, said(claim))
    assert store.log("a") == kept + b"\n... 451,424 bytes left out ...\n"
    assert store.log("a", LOG_LIMIT + 5) == b"451,424 bytes left out ...\n"


# --- unclear failures


def test_claims_of_a_call_that_failed(
    store: SQLiteStore, member: WorkerSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a call fails after its commit, its repetition gives the same claims, and its notes are not written twice."""
    store.put([job("a"), job("b")])
    (first,) = take(member, 1)
    update = ProgressUpdate(id="a", token=first.token, log=b"once")
    with monkeypatch.context() as patch:
        patch.setattr(store._database, "sync", _no_disk)
        patch.setattr(store._database, "place", _at_full_durability(store))
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

    return dataclasses.replace(store._database.place, full=True)


# --- life and death


def test_workers(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """Workers are listed while they live, with what they last said of themselves."""
    member = join("a", queues=("q", "default"))
    join("b")
    (first, second) = store.workers()
    assert (first.name, first.queues, first.processes, first.pid) == ("a", ("q", "default"), 2, os.getpid())
    assert second.name == "b"
    busy = worker("a")
    member.heartbeat(type(busy)(**{**_fields(busy), "running": 2, "succeeded": 5, "stopping": True}), [])
    seen = store.workers()[0]
    assert (seen.running, seen.succeeded, seen.stopping) == (2, 5, True)
    member.leave()
    assert [one.name for one in store.workers()] == ["b"]


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_same_name(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """Two living workers cannot have one name."""
    join("a")
    with pytest.raises(ConfigError, match="'a' is at work here already"):
        store.join(worker("a"))


def test_heartbeat(store: SQLiteStore, member: WorkerSession) -> None:
    """Renewing tells which jobs are held no longer."""
    store.put([job("a"), job("b")])
    held = [(one.id, one.token) for one in take(member)]
    assert member.heartbeat(worker(), held) == []
    tell(member, *(said(one) for one in _claims(held[:1])))
    assert member.heartbeat(worker(), [*held, ("c", "1.1")]) == ["a", "c"]


def _claims(held: list[tuple[str, str]]) -> list[Claim]:
    from taskq.store import Claim as Made  # noqa: PLC0415 - only here

    return [Made(id=job_id, token=token, envelope=b"", queue="", attempt=1) for job_id, token in held]


def die(member: Any) -> None:
    """Do what the kernel does when a worker's process ends."""
    member._fifo.after_fork_in_child()


def freeze(store: SQLiteStore, name: str) -> None:
    """Make a worker look as if it had not renewed for longer than its lease."""
    then = time.monotonic() - Store.lease - 1
    store._database.write(lambda tx: tx.execute("UPDATE workers SET renewed = ? WHERE name = ?", (then, name)).close())


def test_dead_worker(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A dead worker's jobs wait again at once, with one crash more; its late word is fenced; it is listed no more."""
    dead, other = join("dead"), join("other")
    store.put([job("a"), job("b")])
    (first, _) = take(dead)
    die(dead)
    assert [one.name for one in store.workers()] == ["other"]
    assert other.run_maintenance() == 2
    assert other.run_maintenance() == 0
    assert see(store, "a").crashes == 1
    claims = take(other)
    assert [(one.id, one.crashes, one.attempt) for one in claims] == [("a", 1, 2), ("b", 1, 2)]
    assert tell(other, said(first)) == ["a"]


def test_poison(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A job whose workers die `max_crashes` times fails as crashed; the last time it must have begun."""
    keeper = join("keeper", queues=("none",))
    store.put([job("a", max_crashes=2)])
    for number in range(3):
        dead = join(f"dead{number}")
        (claim,) = take(dead)
        assert claim.crashes == min(number, 1)
        if number != 1:
            assert dead.begin([("a", claim.token), ("b", "0.0")]) == ["b"]
        die(dead)
        assert keeper.run_maintenance() == 1
    record = see(store, "a")
    assert (record.state, record.reason, record.crashes) == (State.FAILED, Reason.CRASHED, 2)


def test_the_last_crash_is_nobody_elses(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A job whose next crash is its last is taken alone, by a worker that holds nothing, and before what is behind."""
    first, keeper = join("first"), join("keeper", queues=("none",))
    store.put([job("a", max_crashes=2), job("b", max_crashes=2)])
    assert len(take(first)) == 2
    die(first)
    assert keeper.run_maintenance() == 2
    second, third = join("second"), join("third")
    store.put([job("c"), job("d", priority=1)])
    (urgent,) = take(second)
    assert (urgent.id, take(second)) == ("d", [])
    (alone,) = take(third)
    assert (alone.id, take(third)) == ("a", [])
    tell(second, said(urgent))
    tell(third, said(alone))
    assert [one.id for one in take(second)] == ["b"]
    assert [one.id for one in take(third)] == ["c"]


def test_dead_worker_of_a_cancelled_job(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A job that was wished cancelled is so when its worker dies."""
    dead, other = join("dead"), join("other")
    store.put([job("a")])
    take(dead)
    store.cancel(["a"])
    die(dead)
    other.run_maintenance()
    assert state_of(store, "a") is State.CANCELLED


def test_name_of_a_dead_worker(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """A worker that starts anew under its old name does not inherit the jobs of the dead one: they count a crash."""
    old = join("a")
    store.put([job("x")])
    take(old)
    die(old)
    new = join("a")
    assert take(new) == []
    assert new.run_maintenance() == 1
    assert [one.crashes for one in take(new)] == [1]


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
    me._heartbeat_at -= Store.lease
    me.heartbeat(worker("me"), [])
    assert me.run_maintenance() == 0
    die(dead)
    assert me.run_maintenance() == 1
    me._trust_from = 0.0
    assert me.run_maintenance() == 1


def test_removed_fifo(store: SQLiteStore, join: Callable[..., Any]) -> None:
    """A worker whose FIFO somebody has deleted is not taken for dead, and has a new one with its next renewal."""
    member = join("a")
    os.unlink(member._fifo.path)
    assert [one.name for one in store.workers()] == ["a"]
    member.heartbeat(worker("a"), [])
    assert os.path.exists(member._fifo.path)
    assert [one.name for one in store.workers()] == ["a"]
    store.put([job("x")])
    assert len(take(member)) == 1


def test_leave(store: SQLiteStore, join: Callable[..., WorkerSession]) -> None:
    """Who signs off gives back what it holds, as if it had not been taken."""
    member = join("a")
    store.put([job("x"), job("y")])
    take(member, 1)
    member.leave()
    member.leave()
    assert [(one.id, one.attempt, one.crashes) for one in take(join("b"))] == [("x", 1, 0), ("y", 1, 0)]


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


def test_work_that_came_before(store: SQLiteStore, member: WorkerSession) -> None:
    """A worker that goes to sleep after a submit does not sleep."""
    take(member)
    store.put([job("a")])
    assert wait(member) < 10


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
    page = store._database.page
    for one in members:
        page.flag_worker(one._slot, 1)
    store.put([job("1", queue="q"), job("2", queue="q")])
    assert [one._fifo.drain() for one in members] == [False, True, True, False]
