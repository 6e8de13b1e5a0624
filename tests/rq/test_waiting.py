"""An idle worker wakes when there is work or a control request, and sleeps otherwise."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from tests.rq.hands import new_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.rq.store import RQStore
    from tests.rq.hands import Hands

#: Far above what any wait below takes, far below a test's time.
LONG = 20.0


def woken_by(hands: Hands, act: Callable[[], object]) -> float:
    """Return how long an idle worker waits when this happens meanwhile."""
    assert hands.take() == []
    timer = threading.Timer(0.1, act)
    timer.start()
    start = monotonic()
    hands.session.wait(LONG, -1)
    timer.join()
    return monotonic() - start


def test_put_wakes(store: RQStore, join: Callable[..., Hands]) -> None:
    """A put into any of its queues wakes it, again and again."""
    hands = join(queues=("a", "b"))
    for queue in ("b", "a", "b"):
        assert woken_by(hands, lambda queue=queue: store.put([new_job(queue=queue)])) < LONG / 2
        assert len(hands.run()) == 1


def test_stock_client_wakes(join: Callable[..., Hands], client: Any) -> None:
    """What a stock client pushes wakes it too, and stays in the queue."""
    hands = join()
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    assert woken_by(hands, lambda: queue.enqueue("math.sqrt", 4)) < LONG / 2
    assert len(queue) == 1


def test_stock_client_schedules(join: Callable[..., Hands], client: Any) -> None:
    """What a stock client schedules, which tells nobody, is run in time by a worker that knows of stock clients."""
    hands = join()
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    queue.enqueue("math.sqrt", 4)
    assert len(hands.take()) == 1
    assert hands.take() == []
    queue.enqueue_in(timedelta(seconds=1), "math.sqrt", 9)
    start = monotonic()
    hands.session.wait(LONG, -1)
    assert monotonic() - start < LONG / 2
    assert taken_when_due(hands) < LONG / 2


def test_due_job_wakes(store: RQStore, join: Callable[..., Hands]) -> None:
    """A job whose time comes wakes it, whether it was put before it fell asleep or after."""
    hands = join()
    store.put([new_job(delay=0.2)])
    assert hands.take() == []
    assert taken_when_due(hands) < LONG / 2
    assert woken_by(hands, lambda: store.put([new_job(delay=0.1)])) < LONG / 2
    assert taken_when_due(hands) < LONG / 2


def taken_when_due(hands: Hands) -> float:
    """Return how long it takes an idle worker until it has the one job that is due soon."""
    start = monotonic()
    while not hands.take():
        hands.session.wait(LONG, -1)
    return monotonic() - start


def test_what_happens_while_it_cannot_hear(store: RQStore, join: Callable[..., Hands]) -> None:
    """A worker whose connection was lost asks once more: for what was put before the new one stood."""
    hands = join()
    watch = hands.session.notifications
    watch.disconnect()
    listen = watch.listen

    def listen_late() -> None:
        watch.listen = listen  # type: ignore[method-assign]
        store.put([new_job(delay=0.1)])
        listen()

    watch.listen = listen_late  # type: ignore[method-assign]
    assert hands.take() == []
    start = monotonic()
    hands.session.wait(LONG, -1)
    assert monotonic() - start < LONG / 2


def test_resume_wakes(store: RQStore, join: Callable[..., Hands]) -> None:
    """A queue with jobs that is resumed wakes it."""
    hands = join()
    store.put([new_job()])
    store.pause("default")
    assert woken_by(hands, lambda: store.resume("default")) < LONG / 2


def test_descriptor_wakes(join: Callable[..., Hands]) -> None:
    """The descriptor that it was given wakes it, also when it wants no work."""
    hands = join()
    read, write = os.pipe()
    try:
        os.write(write, b"x")
        start = monotonic()
        hands.session.wait(LONG, read)
        assert monotonic() - start < LONG / 2
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("why", ["paused", "suspended", "full"])
def test_waiting_jobs_that_it_cannot_take_do_not_keep_it_busy(
    store: RQStore, join: Callable[..., Hands], client: Any, why: str
) -> None:
    """With jobs in a queue that is paused, or while it wants none, it sleeps instead of asking again and again."""
    hands = join()
    if why == "paused":
        store.pause("default")
    elif why == "suspended":
        client.set("rq:suspended", 1)
    store.put([new_job() for _ in range(5)])
    used = process_time()
    for _ in range(5):
        hands.session.poll([], [], 0 if why == "full" else 3)
        hands.session.wait(0.1, -1)
    assert process_time() - used < 0.25
    assert store.client.command("LLEN", "rq:queue:default") == 5


def test_it_sleeps(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """An idle worker sends next to nothing."""
    hands = join(queues=("a", "b", "c"))
    hands.take()
    before = client.info("stats")["total_commands_processed"]
    hands.session.wait(1.0, -1)
    assert client.info("stats")["total_commands_processed"] - before < 30
