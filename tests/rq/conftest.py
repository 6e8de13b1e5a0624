"""A database of its own for each test, a store on it, and RQ's own client beside it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from taskq.executors.rq.store import RQStore
from tests.rq.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Put back the signal handlers that RQ's own workers set when a test runs them here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """Give the URL of an empty database."""
    return redis_server.fresh_url()


@pytest.fixture
def store(url: str) -> Iterator[RQStore]:
    """Give a store on it."""
    made = RQStore(url)
    yield made
    made.close()


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Give redis-py's client of it, as RQ's own classes take it."""
    made: Any = redis.Redis.from_url(url)
    yield made
    made.close()
    made.connection_pool.disconnect()


@pytest.fixture
def join(store: RQStore) -> Iterator[Callable[..., Hands]]:
    """Give a function that signs workers on; they leave at the end."""
    made: list[Hands] = []

    def join(name: str = "w1", queues: tuple[str, ...] = ("default",), at: RQStore | None = None) -> Hands:
        hands = Hands(at or store, name, queues)
        made.append(hands)
        return hands

    yield join
    for hands in made:
        hands.close()
