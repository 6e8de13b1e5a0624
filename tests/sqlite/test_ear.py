"""An ear on a queue file: what it hears, what wakes it, what it does not miss."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable
from taskq.result import Failure
from taskq.states import Reason, State
from tests.sqlite.workshop import hear, job, said, take, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import Membership


@pytest.fixture
def ear(store: SQLiteStore) -> Iterator[Any]:
    """Give an ear."""
    made = store.ear()
    yield made
    made.close()


def end_all(member: Membership, state: State = State.SUCCEEDED, **fields: Any) -> None:
    """End everything that waits."""
    tell(member, *(said(one, state, **fields) for one in take(member)))


def test_hears_how_jobs_ended(store: SQLiteStore, member: Membership, ear: Any) -> None:
    """An ear tells each expected job once, with its outcome."""
    store.put([job("a"), job("b", queue="never")], reply_to=ear.address)
    ear.expect(["a", "b"])
    assert ear.wait(0) == []
    failure = Failure.from_exception(ValueError("no"))
    end_all(member, State.FAILED, failure=failure, attempts=2, crashes=1)
    (told,) = ear.wait(10)
    assert (told.id, told.state, told.failure, told.attempts, told.crashes) == ("a", State.FAILED, failure, 2, 1)
    assert ear.wait(0) == []
    store.cancel(["b"])
    assert [one.state for one in ear.wait(10)] == [State.CANCELLED]


def test_ended_before(store: SQLiteStore, member: Membership, ear: Any) -> None:
    """Jobs that ended before they were expected are told, put with the ear's address or not."""
    store.put([job("own")], reply_to=ear.address)
    store.put([job("other")])
    end_all(member)
    assert ear.wait(0) == []
    ear.expect(["own"])
    assert set(hear(ear, 1)) == {"own"}
    ear.expect(["other"])
    assert set(hear(ear, 1)) == {"other"}


def test_ended_before_the_ear(store: SQLiteStore, member: Membership) -> None:
    """An ear that is made after the end hears of it too."""
    store.put([job("a")])
    end_all(member)
    ear = store.ear()
    ear.expect(["a"])
    assert hear(ear, 1)["a"].result == b"a"
    ear.close()


def test_not_expected(store: SQLiteStore, member: Membership, ear: Any) -> None:
    """Nobody hears of jobs that he does not expect (any more)."""
    store.put([job("a"), job("b")], reply_to=ear.address)
    ear.expect(["a", "b"])
    ear.forget(["a"])
    end_all(member)
    assert set(hear(ear, 1)) == {"b"}
    assert ear.wait(0) == []


@pytest.mark.parametrize("own", [True, False])
def test_woken(store: SQLiteStore, member: Membership, ear: Any, open_store: Any, own: bool) -> None:
    """A sleeping ear wakes when its jobs end, in less than the second of its own look; foreign jobs too."""
    store.put([job("a")], reply_to=ear.address if own else "")
    ear.expect(["a"])
    hours = []
    for _ in range(5):
        timer = threading.Timer(0.2, lambda: end_all(member))
        timer.start()
        begin = time.monotonic()
        assert set(hear(ear, 1)) == {"a"}
        hours.append(time.monotonic() - begin)
        timer.join()
        store.remove(["a"])
        store.put([job("a")], reply_to=ear.address if own else "")
        ear.expect(["a"])
    assert min(hours) < 0.9


def test_lost_ring(store: SQLiteStore, member: Membership, ear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring that is lost costs about a second."""
    monkeypatch.setattr("taskq.executors.sqlite.wake.ring", lambda path: False)
    store.put([job("a")], reply_to=ear.address)
    ear.expect(["a"])
    timer = threading.Timer(0.1, lambda: end_all(member))
    timer.start()
    assert set(hear(ear, 1)) == {"a"}
    timer.join()


def test_expect_wakes(store: SQLiteStore, member: Membership, ear: Any) -> None:
    """A wait that is under way hears of a job that is expected meanwhile and ended long ago."""
    store.put([job("a")])
    end_all(member)
    timer = threading.Timer(0.1, lambda: ear.expect(["a"]))
    timer.start()
    assert set(hear(ear, 1)) == {"a"}
    timer.join()


def test_wake_and_close(store: SQLiteStore, ear: Any) -> None:
    """`wake` and `close` end a wait; a closed ear hears nothing."""
    for end in (ear.wake, ear.close):
        timer = threading.Timer(0.1, end)
        timer.start()
        begin = time.monotonic()
        assert ear.wait(20) == []
        assert time.monotonic() - begin < 10
        timer.join()
    ear.close()
    assert ear.wait(20) == []


def test_timeout(ear: Any) -> None:
    """A wait ends after its time."""
    begin = time.monotonic()
    assert ear.wait(0.2) == []
    assert 0.15 < time.monotonic() - begin < 10


def test_removed_job(store: SQLiteStore, ear: Any) -> None:
    """A job that is not kept any more, or never was, is told as lost."""
    store.put([job("a")], reply_to=ear.address)
    ear.expect(["a", "nobody"])
    store.remove(["a"])
    found = hear(ear, 2)
    assert {one.failure.reason for one in found.values() if one.failure} <= {Reason.LOST}
    assert found["nobody"].failure is not None


def test_job_of_another_ear(store: SQLiteStore, member: Membership, ear: Any, open_store: Any) -> None:
    """Two clients that submit one id both hear of it, soon."""
    other_store = open_store()
    other = other_store.ear()
    store.put([job("a", job_id="a")], reply_to=ear.address)
    other_store.put([job("a", job_id="a")], reply_to=other.address)
    for one in (ear, other):
        one.expect(["a"])
    end_all(member)
    assert set(hear(ear, 1)) == set(hear(other, 1)) == {"a"}


def test_many_jobs(store: SQLiteStore, join: Callable[..., Membership], ear: Any) -> None:
    """An ear hears of all of thousands of jobs, whichever it expects when."""
    names = [f"j{number}" for number in range(3000)]
    store.put([job(name) for name in names], reply_to=ear.address)
    member = join()

    def work() -> None:
        while claims := take(member, 100):
            tell(member, *map(said, claims))

    thread = threading.Thread(target=work)
    thread.start()
    found: set[str] = set()
    for start in range(0, 3000, 500):
        ear.expect(names[start : start + 500])
        found |= {one.id for one in ear.wait(5)}
    found |= set(hear(ear, 3000 - len(found)))
    thread.join()
    assert found == set(names)


def test_large_results(store: SQLiteStore, member: Membership, ear: Any) -> None:
    """Results of many MiB are told in several pieces."""
    names = [f"j{number}" for number in range(12)]
    store.put([job(name) for name in names], reply_to=ear.address)
    ear.expect(names)
    tell(member, *(said(one, result=b"r" * 1_000_000) for one in take(member, 12)))
    first = ear.wait(10)
    assert 0 < len(first) < 12
    assert len(hear(ear, 12 - len(first))) == 12 - len(first)


def test_store_away(store: SQLiteStore, member: Membership, ear: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store cannot be reached an ear waits on, and tells afterwards what it missed."""
    store.put([job("a")], reply_to=ear.address)
    ear.expect(["a"])

    def away(work: Any) -> Any:
        raise BackendUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store._file, "read", away)
        assert ear.wait(0.1) == []
    end_all(member)
    assert set(hear(ear, 1)) == {"a"}


def test_slots(store: SQLiteStore, open_store: Any) -> None:
    """Each ear has a place of its own, which is free when it is closed or its process is dead."""
    first, second = store.ear(), open_store().ear()
    assert first.address != second.address
    first._fifo.after_fork_in_child()
    third = store.ear()
    assert third.address == first.address
    for one in (second, third):
        one.close()
