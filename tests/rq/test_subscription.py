"""A subscription on Redis: what its one connection brings, who reads it, what is asked for."""

from __future__ import annotations

import os
import resource
import threading
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from taskq import perform
from taskq.codec import decode
from taskq.errors import BackendUnavailable
from taskq.executors.rq.subscription import RQSubscription
from taskq.states import Reason, State
from taskq.store import JobOutcome, News
from tests.rq.hands import failed, new_job, succeeded
from tests.subscriber import Subscriber
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq.executors.rq.store import RQStore
    from taskq.store import Ended
    from tests.rq.hands import Hands


@pytest.fixture
def subscription(store: RQStore) -> Iterator[Subscriber]:
    """Give a subscription and its book."""
    made = Subscriber(store.subscribe())
    yield made
    made.close()


@pytest.fixture
def alone(subscription: Subscriber) -> RQSubscription:
    """Give the subscription alone."""
    assert isinstance(subscription.subscription, RQSubscription)
    return subscription.subscription


def hear(subscription: Subscriber, count: int) -> dict[str, Ended]:
    """Return the next ends that it hears."""
    found: dict[str, Ended] = {}

    def all_heard() -> bool:
        for ended in subscription.wait(0.5):
            assert ended.id not in found
            found[ended.id] = ended
        return len(found) >= count

    eventually(all_heard, f"{count} ends to be heard")
    return found


def test_ends_of_each_kind(store: RQStore, join: Callable[..., Hands], subscription: Subscriber) -> None:
    """Values, errors and cancels are heard, each once."""
    jobs = [new_job(), new_job(), new_job(delay=60)]
    store.put(jobs, reply_to=subscription.reply_to)
    subscription.expect([job.id for job in jobs])
    hands = join()
    one, two = hands.take()
    hands.tell(succeeded(one, {"a": 1}), failed(two))
    store.cancel([jobs[2].id])
    found = hear(subscription, 3)
    assert decode(found[one.id].result or b"") == {"a": 1}
    failure = found[two.id].failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "no good")
    assert found[jobs[2].id].state is State.CANCELLED
    assert found[one.id].attempts == 1
    assert subscription.wait(0.05) == []


@pytest.mark.parametrize("size", [10, 200_000, 900_000])
def test_results_of_any_size(store: RQStore, join: Callable[..., Hands], subscription: Subscriber, size: int) -> None:
    """A result that is too large to travel with the news is fetched."""
    job = new_job()
    store.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    hands = join()
    hands.tell(succeeded(*hands.take(), "x" * size))
    assert decode(hear(subscription, 1)[job.id].result or b"") == "x" * size


def test_ended_before_it_was_expected(store: RQStore, join: Callable[..., Hands], subscription: Subscriber) -> None:
    """A job that had ended when it was expected is told by the next wait, whether its news had come before or not."""
    first, second = new_job(), new_job()
    store.put([first], reply_to=subscription.reply_to)
    store.put([second])
    join().run()
    assert subscription.wait(0.05) == []
    subscription.expect([first.id, second.id])
    assert set(hear(subscription, 2)) == {first.id, second.id}


def test_late_subscription_of_another_process(
    store: RQStore, join: Callable[..., Hands], subscription: Subscriber
) -> None:
    """A subscription hears of jobs that somebody else submitted, beside the submitter's own subscription."""
    own = Subscriber(store.subscribe())
    try:
        waiting, running = new_job(), new_job()
        store.put([running, waiting], reply_to=own.reply_to)
        hands = join()
        (claim,) = hands.take(1)
        subscription.expect([waiting.id, running.id])
        own.expect([waiting.id, running.id])
        assert subscription.wait(0.05) == []
        hands.tell(succeeded(claim))
        hands.run()
        assert set(hear(subscription, 2)) == set(hear(own, 2)) == {waiting.id, running.id}
    finally:
        own.close()


def test_put_again_by_another_client(store: RQStore, join: Callable[..., Hands], subscription: Subscriber) -> None:
    """A client that submits a job that is there already hears of its end at once too."""
    own = Subscriber(store.subscribe())
    try:
        job = new_job(job_id="shared")
        store.put([job], reply_to=own.reply_to)
        store.put([job], reply_to=subscription.reply_to)
        subscription.expect(["shared"])
        assert subscription.wait(0.05) == []
        join().run()
        assert [ended.id for ended in subscription.wait(0.5)] == ["shared"]
    finally:
        own.close()


def test_forgotten_at_once_is_told_first(store: RQStore, join: Callable[..., Hands], subscription: Subscriber) -> None:
    """A job with result_ttl=0 is gone at its end, and its value is heard all the same."""
    job = new_job(result_ttl=0)
    store.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    join().run()
    assert store.get([job.id]) == [None]
    assert decode(hear(subscription, 1)[job.id].result or b"") == 3


def test_job_without_news_is_found(store: RQStore, subscription: Subscriber, client: Any) -> None:
    """A job whose end nobody told, as a stock worker's, is found by looking."""
    job = new_job()
    store.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id])
    assert subscription.wait(0.05) == []
    client.hset(f"rq:job:{job.id}", "status", "finished")
    client.xadd(f"rq:results:{job.id}", {"type": 1, "return_value": "Kg=="})
    assert decode(hear(subscription, 1)[job.id].result or b"") == 42


def test_lost_job(store: RQStore, subscription: Subscriber, client: Any) -> None:
    """Jobs that the store no longer has are told as lost; so is one that never was."""
    job = new_job()
    store.put([job], reply_to=subscription.reply_to)
    subscription.expect([job.id, "never"])
    client.flushdb()
    found = hear(subscription, 2)
    assert [found[job_id].failure.reason for job_id in (job.id, "never")] == [Reason.LOST, Reason.LOST]  # type: ignore[union-attr]


def test_job_of_stock_rq(store: RQStore, join: Callable[..., Hands], subscription: Subscriber, client: Any) -> None:
    """The value of a job that stock RQ enqueued is heard as any other."""
    perform.allow(["math:sqrt"])
    job = Queue("default", connection=client, serializer=JSONSerializer).enqueue("math.sqrt", 16)
    subscription.expect([job.id])
    assert subscription.wait(0.05) == []
    hands = join()
    (claim,) = hands.take()
    foreign: Any = claim.foreign
    function, args, _ = foreign.order()
    result = function(*args)
    hands.tell(JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=result))
    assert decode(hear(subscription, 1)[job.id].result or b"") == 4.0


@pytest.mark.parametrize("expected", ["before", "afterwards"])
def test_redis_goes_away_before_a_record_is_read(
    store: RQStore,
    join: Callable[..., Hands],
    subscription: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
    expected: str,
) -> None:
    """Ends in hand are told, too, when Redis goes away before the record of one that is too large for news is read."""
    jobs = [new_job(), new_job()]
    ids = [job.id for job in jobs]
    store.put(jobs, reply_to=subscription.reply_to)
    if expected == "before":
        subscription.expect(ids)
    assert subscription.wait(0.05) == []
    hands = join()
    small, large = hands.take()
    hands.tell(succeeded(small), succeeded(large, "x" * 200_000))
    if expected == "afterwards":
        subscription.expect(ids)
    call, away = store.client.call, [True]

    def call_later(script: Any, *arguments: Any, **options: Any) -> Any:
        if away and script.name == "get":
            away.pop()
            raise BackendUnavailable("Redis is away")
        return call(script, *arguments, **options)

    monkeypatch.setattr(store.client, "call", call_later)
    found = hear(subscription, 2)
    assert not away
    assert decode(found[large.id].result or b"") == "x" * 200_000


def test_wake(alone: RQSubscription) -> None:
    """`wake` ends a wait of another thread."""
    threading.Timer(0.05, alone.wake).start()
    assert not alone.wait(None)


def test_many(store: RQStore, join: Callable[..., Hands], subscription: Subscriber) -> None:
    """5,000 ends are heard, each once."""
    jobs = [new_job() for _ in range(5000)]
    store.put(jobs, reply_to=subscription.reply_to)
    subscription.expect([job.id for job in jobs])
    hands = join()
    while hands.run(500):
        pass
    assert set(hear(subscription, 5000)) == {job.id for job in jobs}


def test_nothing_is_left(store: RQStore, join: Callable[..., Hands], subscription: Subscriber, client: Any) -> None:
    """Every key that serves subscriptions has an end."""
    jobs = [new_job(), new_job()]
    store.put(jobs, reply_to=subscription.reply_to)
    other = Subscriber(store.subscribe())
    other.expect([jobs[0].id])
    other.wait(0.05)
    join().run()
    assert all(client.ttl(key) > 0 for key in client.keys("rq:tq:replies:*") + client.keys("rq:tq:ears:*"))
    other.close()
    other.close()


def test_descriptors_above_what_select_takes(store: RQStore) -> None:
    """A subscription hears in a program that has more than a thousand descriptors open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_200:
        pytest.skip(f"this machine allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_200), hard))
    fillers = [os.dup(0) for _ in range(1_050)]
    try:
        subscription = Subscriber(store.subscribe())
        try:
            subscription.expect(["no such job"])
            assert [end.id for end in subscription.wait(PATIENCE)] == ["no such job"]
        finally:
            subscription.close()
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- waiting for one job


@pytest.fixture
def listening(alone: RQSubscription, monkeypatch: pytest.MonkeyPatch) -> Iterator[News]:
    """Have a thread wait for all, as a listener does, and sleep; give the news that it gets."""
    heard = News()
    over, asleep, sleep = threading.Event(), threading.Event(), alone.sleep

    def noted(deadline: float | None) -> list[int]:
        asleep.set()
        return sleep(deadline)

    def listen() -> None:
        while not over.is_set():
            news = alone.wait(None)
            heard.ended += news.ended
            heard.renewed |= news.renewed

    monkeypatch.setattr(alone, "sleep", noted)
    thread = threading.Thread(target=listen)
    thread.start()
    assert asleep.wait(PATIENCE)
    yield heard
    over.set()
    alone.wake()
    thread.join()


def in_a_moment(work: Callable[[], Any]) -> threading.Timer:
    """Have something done by another thread, when this one has begun to wait."""
    timer = threading.Timer(0.1, work)
    timer.start()
    return timer


def ids(news: News) -> list[str]:
    """Return the jobs that have ended by this news."""
    return [ended.id for ended in news.ended]


def test_one_is_heard_by_who_waits(
    store: RQStore, join: Callable[..., Hands], alone: RQSubscription, listening: News
) -> None:
    """Who waits for one job hears of its end himself, and the thread that waits for all sleeps on."""
    hands = join()
    for _ in range(3):
        job = new_job()
        store.put([job], reply_to=alone.reply_to)
        timer = in_a_moment(hands.run)
        assert ids(alone.wait_here(job.id, PATIENCE)) == [job.id]
        timer.join()
    assert not listening


@pytest.mark.parametrize("size", [10, 900_000])
def test_one_with_a_result_of_any_size(
    store: RQStore, join: Callable[..., Hands], alone: RQSubscription, listening: News, size: int
) -> None:
    """A result that is too large to travel with the news is fetched for who waits."""
    hands, job = join(), new_job()
    store.put([job], reply_to=alone.reply_to)
    timer = in_a_moment(lambda: hands.run(value="x" * size))
    (ended,) = alone.wait_here(job.id, PATIENCE).ended
    assert decode(ended.result or b"") == "x" * size
    timer.join()
    assert not listening


def test_others_that_end_meanwhile(
    store: RQStore, join: Callable[..., Hands], alone: RQSubscription, listening: News
) -> None:
    """Who waits for one job gets the news of others too; his own is told by the thread then."""
    first, second = new_job(), new_job()
    store.put([first, second], reply_to=alone.reply_to)
    hands = join()
    one, two = hands.take()
    timer = in_a_moment(lambda: hands.tell(succeeded(one)))
    assert ids(alone.wait_here(second.id, PATIENCE)) == [first.id]
    timer.join()
    hands.tell(succeeded(two))
    eventually(lambda: ids(listening) == [second.id], "the other end")


@pytest.mark.parametrize("timeout", [0.0, 0.1, None])
def test_one_that_does_not_end(  # noqa: PLR0917  # fixtures
    store: RQStore,
    join: Callable[..., Hands],
    alone: RQSubscription,
    listening: News,
    timeout: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits for a job in vain, or is woken, comes back; the thread that waits for all tells its end."""
    monkeypatch.setattr("taskq.executors.rq.subscription.LOOK_EVERY", 1000)
    monkeypatch.setattr("taskq.executors.rq.subscription.SILENCE", 1000)
    job = new_job()
    store.put([job], reply_to=alone.reply_to)
    heard_at = alone.heard_at
    timer = in_a_moment(alone.wake)
    assert not alone.wait_here(job.id, timeout)
    assert alone.heard_at == heard_at, "it came back because Redis answered"
    timer.join()
    join().run()
    eventually(lambda: ids(listening) == [job.id], "the end")


def test_only_one_waits_by_himself(
    store: RQStore, join: Callable[..., Hands], alone: RQSubscription, listening: News
) -> None:
    """While somebody waits for a job by himself, others come back at once, and the ends of their jobs are told."""
    jobs = [new_job() for _ in range(4)]
    store.put(jobs, reply_to=alone.reply_to)
    found: list[Ended] = []
    first = threading.Thread(target=lambda: found.extend(alone.wait_here(jobs[0].id, PATIENCE).ended))
    first.start()
    eventually(lambda: not alone.turn.acquire(blocking=False) or alone.turn.release(), "the first to wait")
    for job in jobs[1:]:
        assert not alone.wait_here(job.id, PATIENCE)
    join().run()
    first.join()
    eventually(lambda: {end.id for end in [*found, *listening.ended]} == {job.id for job in jobs}, "all ends")


def test_connection_lost_while_one_waits(
    store: RQStore, join: Callable[..., Hands], alone: RQSubscription, listening: News, client: Any
) -> None:
    """A connection that breaks under who waits for one job is replaced, said, and the end is heard."""
    job = new_job()
    store.put([job], reply_to=alone.reply_to)
    timer = in_a_moment(lambda: client.client_kill_filter(_type="normal", skipme=True))
    assert not alone.wait_here(job.id, PATIENCE)
    timer.join()
    eventually(lambda: listening.renewed, "a new connection")
    join().run()
    eventually(lambda: ids(listening) == [job.id], "the end")


def test_interrupted_in_the_midst_of_an_answer(
    store: RQStore,
    join: Callable[..., Hands],
    alone: RQSubscription,
    listening: News,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupt between the two parts of an answer loses no end: the connection is not trusted any more."""
    job = new_job()
    store.put([job], reply_to=alone.reply_to)
    connection = alone.connection
    assert connection is not None
    read, parts = type(connection).read, []

    def interrupted(self: Any) -> Any:
        if self is connection and threading.current_thread() is threading.main_thread():
            parts.append(read(self))
            raise KeyboardInterrupt
        return read(self)

    monkeypatch.setattr(type(connection), "read", interrupted)
    timer = in_a_moment(join().run)
    with pytest.raises(KeyboardInterrupt):
        alone.wait_here(job.id, PATIENCE)
    timer.join()
    assert len(parts) == 1
    eventually(lambda: listening.renewed, "a new connection")
    alone.ask([job.id])
    alone.wake()
    eventually(lambda: ids(listening) == [job.id], "the end")


def test_read_by_another_thread_meanwhile(alone: RQSubscription, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was woken by news which somebody else has read by then goes on to wait."""
    assert not alone.wait(0.05)
    connection, heard_at = alone.connection, alone.heard_at
    assert connection is not None
    with monkeypatch.context() as patched:
        patched.setattr(alone, "sleep", lambda _: [connection.fileno()])
        assert not alone.wait(0.0)
    assert (alone.connection, alone.heard_at) == (connection, heard_at), "it waited for an answer"


def test_without_epoll(store: RQStore, join: Callable[..., Hands], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be taken out of another thread's sleep, as on macOS, only that thread waits."""
    monkeypatch.setattr("taskq.executors.rq.subscription._HAS_EPOLL", False)
    subscription = Subscriber(store.subscribe())
    try:
        assert not subscription.subscription.waits_here
        assert subscription.wait(0.05) == []
        jobs = [new_job(), new_job()]
        store.put(jobs, reply_to=subscription.reply_to)
        subscription.expect([job.id for job in jobs])
        timer = in_a_moment(join().run)
        assert set(hear(subscription, 2)) == {job.id for job in jobs}
        timer.join()
    finally:
        subscription.close()


def test_closed_while_one_waits(store: RQStore, alone: RQSubscription, listening: News) -> None:
    """Who waits for a job when the subscription is closed comes back."""
    job = new_job()
    store.put([job], reply_to=alone.reply_to)
    timer = in_a_moment(alone.close)
    assert not alone.wait_here(job.id, PATIENCE)
    timer.join()
    assert not alone.wait_here(job.id, PATIENCE)
    assert not listening
