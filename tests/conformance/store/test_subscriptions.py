"""What clients hear of jobs that end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq.failure import Failure
from taskq.states import Reason, State
from tests.store_steps import hear, job, said, take, tell
from tests.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskq.store import Store, WorkerSession


@pytest.fixture
def subscription(store: Store) -> Iterator[Any]:
    """Give a subscription and its book."""
    made = Subscriber(store.subscribe())
    yield made
    made.close()


def end_all(member: WorkerSession, state: State = State.SUCCEEDED, **fields: Any) -> None:
    """End everything that waits."""
    tell(member, *(said(one, state, **fields) for one in take(member)))


def test_hears_how_jobs_ended(store: Store, member: WorkerSession, subscription: Any) -> None:
    """A subscription tells each expected job once, with its outcome."""
    store.put([job("a"), job("b", queue="never")], reply_to=subscription.reply_to)
    subscription.expect(["a", "b"])
    assert subscription.wait(0) == []
    failure = Failure.from_exception(ValueError("no"))
    end_all(member, State.FAILED, failure=failure, attempts=2, crashes=1)
    (told,) = subscription.wait(10)
    assert (told.id, told.state, told.failure, told.attempts, told.crashes) == ("a", State.FAILED, failure, 2, 1)
    assert subscription.wait(0) == []
    store.cancel(["b"])
    assert [one.state for one in subscription.wait(10)] == [State.CANCELLED]


def test_ended_before(store: Store, member: WorkerSession, subscription: Any) -> None:
    """Jobs that ended before they were expected are told, put with the subscription's address or not."""
    store.put([job("own")], reply_to=subscription.reply_to)
    store.put([job("other")])
    end_all(member)
    assert subscription.wait(0) == []
    subscription.expect(["own"])
    assert set(hear(subscription, 1)) == {"own"}
    subscription.expect(["other"])
    assert set(hear(subscription, 1)) == {"other"}


def test_ended_before_the_subscription(store: Store, member: WorkerSession) -> None:
    """A subscription that is made after the end hears of it too."""
    store.put([job("a")])
    end_all(member)
    subscription = Subscriber(store.subscribe())
    subscription.expect(["a"])
    assert hear(subscription, 1)["a"].result == b"a"
    subscription.close()


def test_not_expected(store: Store, member: WorkerSession, subscription: Any) -> None:
    """Nobody hears of jobs that he does not expect (any more)."""
    store.put([job("a"), job("b")], reply_to=subscription.reply_to)
    subscription.expect(["a", "b"])
    subscription.forget(["a"])
    end_all(member)
    assert set(hear(subscription, 1)) == {"b"}
    assert subscription.wait(0) == []


def test_expect_wakes(store: Store, member: WorkerSession, subscription: Any) -> None:
    """A wait that is under way hears of a job that is expected meanwhile and ended long ago."""
    store.put([job("a")])
    end_all(member)
    timer = threading.Timer(0.1, lambda: subscription.expect(["a"]))
    timer.start()
    assert set(hear(subscription, 1)) == {"a"}
    timer.join()


def test_wake_and_close(store: Store, subscription: Any) -> None:
    """`wake` and `close` end a wait; a closed subscription hears nothing."""
    alone = subscription.subscription
    for end in (alone.wake, alone.close):
        timer = threading.Timer(0.1, end)
        timer.start()
        assert not alone.wait(None)  # or it would never end
        timer.join()
    alone.close()
    assert not alone.wait(None)


def test_timeout(subscription: Any) -> None:
    """A wait ends after its time."""
    begin = time.monotonic()
    assert not subscription.subscription.wait(0.2)
    assert time.monotonic() - begin > 0.15


def test_removed_job(store: Store, subscription: Any) -> None:
    """A job that is not kept any more, or never was, is told as lost."""
    store.put([job("a")], reply_to=subscription.reply_to)
    subscription.expect(["a", "nobody"])
    store.remove(["a"])
    found = hear(subscription, 2)
    assert {one.failure.reason for one in found.values() if one.failure} <= {Reason.LOST}
    assert found["nobody"].failure is not None


def test_cost_of_waiting(store: Store, member: WorkerSession, subscription: Any) -> None:
    """A wait for a job that nobody announced costs no more beside many jobs that have ended than beside few."""

    def cost(count: int, name: str) -> float:
        """Return the seconds of CPU time of each of `count` waits, one after the other."""
        ids = [f"{name}{number}" for number in range(count)]
        store.put([job(one) for one in ids])
        while claims := take(member, count):
            tell(member, *map(said, claims))
        begin = time.thread_time()
        for one in ids:
            subscription.expect([one])
            assert set(hear(subscription, 1)) == {one}
            assert subscription.wait(0) == []
        return (time.thread_time() - begin) / count

    few = min(cost(100, name) for name in "abc")
    many = cost(3000, "m")
    assert many < 2 * few, f"{many * 1e6:.0f} us for each of many, {few * 1e6:.0f} us for each of few"
