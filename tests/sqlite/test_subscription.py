"""A subscription on a queue file: what it hears, what wakes it, what it does not miss."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import BackendUnavailable
from taskq.states import State
from tests.store_steps import hear, job, said, take, tell
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.executors.sqlite.store import SQLiteStore
    from taskq.store import WorkerSession


@pytest.fixture
def subscription(store: SQLiteStore) -> Iterator[Any]:
    """Give a subscription and its book."""
    made = Subscriber(store.subscribe())
    yield made
    made.close()


def end_all(member: WorkerSession, state: State = State.SUCCEEDED, **fields: Any) -> None:
    """End everything that waits."""
    tell(member, *(said(one, state, **fields) for one in take(member)))


@pytest.mark.parametrize("own", [True, False])
def test_woken(store: SQLiteStore, member: WorkerSession, subscription: Any, open_store: Any, own: bool) -> None:
    """A sleeping subscription wakes when its jobs end, in less than the second of its own look; foreign jobs too."""
    store.put([job("a")], reply_to=subscription.announce(["a"]) if own else "")
    subscription.expect(["a"])
    hours = []
    for _ in range(5):
        timer = threading.Timer(0.2, lambda: end_all(member))
        timer.start()
        begin = time.monotonic()
        assert set(hear(subscription, 1)) == {"a"}
        hours.append(time.monotonic() - begin)
        timer.join()
        store.remove(["a"])
        store.put([job("a")], reply_to=subscription.announce(["a"]) if own else "")
        subscription.expect(["a"])
    assert min(hours) < 0.9


def test_lost_ring(
    store: SQLiteStore, member: WorkerSession, subscription: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring that is lost costs about a second."""
    monkeypatch.setattr("taskq.executors.sqlite.wakeups.notify", lambda path: False)
    store.put([job("a")], reply_to=subscription.reply_to)
    subscription.expect(["a"])
    timer = threading.Timer(0.1, lambda: end_all(member))
    timer.start()
    assert set(hear(subscription, 1)) == {"a"}
    timer.join()


def test_job_of_another_subscription(
    store: SQLiteStore, member: WorkerSession, subscription: Any, open_store: Any
) -> None:
    """Two clients that submit one id both hear of it, soon."""
    other_store = open_store()
    other = Subscriber(other_store.subscribe())
    store.put([job("a", job_id="a")], reply_to=subscription.reply_to)
    other_store.put([job("a", job_id="a")], reply_to=other.reply_to)
    for one in (subscription, other):
        one.expect(["a"])
    end_all(member)
    assert set(hear(subscription, 1)) == set(hear(other, 1)) == {"a"}


def test_many_jobs(store: SQLiteStore, join: Callable[..., WorkerSession], subscription: Any) -> None:
    """A subscription hears of all of thousands of jobs, whichever it expects when."""
    names = [f"j{number}" for number in range(3000)]
    store.put([job(name) for name in names], reply_to=subscription.reply_to)
    member = join()

    def work() -> None:
        while claims := take(member, 100):
            tell(member, *map(said, claims))

    thread = threading.Thread(target=work)
    thread.start()
    found: set[str] = set()
    for start in range(0, 3000, 500):
        subscription.expect(names[start : start + 500])
        found |= {one.id for one in subscription.wait(5)}
    found |= set(hear(subscription, 3000 - len(found)))
    thread.join()
    assert found == set(names)


def test_large_results(store: SQLiteStore, member: WorkerSession, subscription: Any) -> None:
    """Results of many MiB are told in several pieces."""
    names = [f"j{number}" for number in range(12)]
    store.put([job(name) for name in names], reply_to=subscription.announce(names))
    subscription.expect(names)
    tell(member, *(said(one, result=b"r" * 1_000_000) for one in take(member, 12)))
    first = subscription.wait(10)
    assert 0 < len(first) < 12
    assert len(hear(subscription, 12 - len(first))) == 12 - len(first)


def test_large_results_that_were_there_before(store: SQLiteStore, member: WorkerSession, subscription: Any) -> None:
    """A look reads no more than some MiB of the results that are asked for at once; the next ones bring the rest."""
    names = [f"j{number}" for number in range(12)]
    store.put([job(name) for name in names])
    tell(member, *(said(one, result=b"r" * 1_000_000) for one in take(member, 12)))
    subscription.expect(names)
    first = subscription.wait(10)
    assert 0 < len(first) < 12
    assert {end.id for end in first} | set(hear(subscription, 12 - len(first))) == set(names)


def test_store_away(
    store: SQLiteStore, member: WorkerSession, subscription: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store cannot be reached a subscription waits on, and tells afterwards what it missed."""
    store.put([job("a")], reply_to=subscription.reply_to)
    subscription.expect(["a"])

    def away(work: Any) -> Any:
        raise BackendUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "read", away)
        assert subscription.wait(0.1) == []
    end_all(member)
    assert set(hear(subscription, 1)) == {"a"}


def test_slots(store: SQLiteStore, open_store: Any) -> None:
    """Each subscription has a place of its own, which is free when it is closed or its process is dead."""
    first, second = store.subscribe(), open_store().subscribe()
    assert first.reply_to != second.reply_to
    first.fifo.after_fork_in_child()
    third = store.subscribe()
    assert third.reply_to == first.reply_to
    for one in (second, third):
        one.close()
