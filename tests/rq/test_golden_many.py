"""What a job may call, each with whatever it may be told: a burst of stock RQ over them and one of ours leave the same.

The comparison of `test_golden`, which declares the differences, of single jobs. Each is named by what it is, so that
all run in one database: what that says of each is picked from it.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis
from rq import Queue, Repeat, Retry
from rq.job import Callback
from rq.serializers import JSONSerializer

from taskq import perform
from taskq.executors.rq import stock_jobs
from tests.rq import stock
from tests.rq.golden import state
from tests.rq.test_golden import ADD, BOOM, KINDER, by_ours, by_stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_server import RedisServer

    State = dict[str, tuple[Any, str]]

CALLS: dict[str, tuple[Any, ...]] = {
    "sum": (ADD, 1, 2),
    "none": ("tests.rq.stock.stop_nothing", 1, 2),
    "nested": ("tests.rq.stock.give", [1, {"a": [None, True, "\u00e9"]}]),
    "unwritable": ("tests.rq.stock.give_lock",),
    "whoami": ("tests.rq.stock.whoami",),
    "raises": (BOOM,),
    "wrong-arguments": (ADD, 1),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "description": {"description": "a job of ours"},
    "meta": {"meta": {"page": 7, "who": "ann"}},
    "result-ttl": {"result_ttl": 2_000},
    "failure-ttl": {"failure_ttl": 5_000},
    "kept": {"result_ttl": -1, "failure_ttl": -1},
    "forgotten": {"result_ttl": 0},
    "timeout": {"job_timeout": 30},
    "no-timeout": {"job_timeout": -1},
    "ttl": {"ttl": 9_000},
    "at-front": {"at_front": True},
    "retry": {"retry": Retry(1)},
    "retry-later": {"retry": Retry(2, interval=[1_000, 2_000])},
    "repeat": {"repeat": Repeat(times=1)},
    "repeat-later": {"repeat": Repeat(times=2, interval=1_000)},
    "on-success": {"on_success": Callback(stock.note_where)},
    "on-failure": {"on_failure": Callback(stock.note_where)},
    "on-stopped": {"on_stopped": Callback(stock.note_where)},
    "callback-and-retry": {"on_failure": Callback(stock.note_where), "retry": Retry(1)},
}

SHAPES = {f"{call}-with-{option}": (call, option) for call in CALLS for option in OPTIONS}

NAME = re.compile("|".join(sorted(SHAPES, key=len, reverse=True)))

#: TTLs that these jobs ask for, and RQ's own: far enough apart to be told though time has passed.
TTLS = (60, 500, 2_000, 5_000, 9_000, 31_536_000)

#: Seconds that may have passed.
PASSED = 200


@pytest.fixture(scope="module")
def both(redis_server: RedisServer) -> Iterator[tuple[State, State]]:
    """Give what all shapes leave: run by stock RQ, and by ours."""
    url = redis_server.fresh_url()
    perform.allow(["tests.rq.stock"])
    with ExitStack() as stack:
        client: Any = stack.enter_context(redis.Redis.from_url(url))
        yield run(by_stock, client, url), run(by_ours, client, url)
        stock_jobs.client_of(url).connection_pool.disconnect()
        stock_jobs.client_of.cache_clear()
        client.connection_pool.disconnect()


def run(worker: Callable[[Any, str], None], client: Any, url: str) -> State:
    """Enqueue all shapes, work them off, and return the state that they leave."""
    client.flushdb()
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    for name, (call, option) in SHAPES.items():
        queue.enqueue(*CALLS[call], job_id=name, **OPTIONS[option])
    worker(client, url)
    return state(client, {}, told)


def told(seconds: int) -> str:
    """Return which TTL was asked for, by what is left of it."""
    return "none" if seconds < 0 else next((str(ttl) for ttl in TTLS if 0 <= ttl - seconds < PASSED), str(seconds))


def by_shape(whole: State) -> dict[str, State]:
    """Return what a state says of each job: its keys, and its entries in those that it shares."""
    found: dict[str, State] = {name: {} for name in SHAPES}
    for key, (value, ttl) in whole.items():
        if key.startswith("rq:executions:"):
            continue
        if mine := NAME.search(key):
            found[mine[0]][key] = (value, ttl)
        for entry in [] if mine or not isinstance(value, list) else value:
            if said := NAME.search(str(entry)):
                found[said[0]].setdefault(key, ([], "shared"))[0].append(entry)
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_same_record(option: str, both: tuple[State, State]) -> None:
    """Both leave the same keys, fields and TTLs of a job, and the same entries in queues and registries."""
    theirs, ours = map(by_shape, both)
    for name in (name for name, shape in SHAPES.items() if shape[1] == option):
        assert ours[name].keys() == theirs[name].keys(), name
        for key, (value, ttl) in ours[name].items():
            their_value, their_ttl = theirs[name][key]
            assert value == their_value, key
            assert ttl == their_ttl or (their_ttl == "none" and key.startswith(KINDER)), key


def test_all_are_seen(both: tuple[State, State]) -> None:
    """Each shape has left something to compare, but those that RQ forgets; nothing else is left in either world."""
    for whole in both:
        silent = {name for name, said in by_shape(whole).items() if not said}
        assert silent == {f"{call}-with-forgotten" for call in ("sum", "none", "nested", "unwritable", "whoami")}
    assert both[0].keys() - both[1].keys() <= {key for key in both[0] if key.startswith("rq:executions:")}
    assert both[1].keys() - both[0].keys() <= {"rq:suspended"}
