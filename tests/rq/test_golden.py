"""Each shape of job, run once through stock RQ and once through ours, leaves the same keys, fields and TTLs.

Declared differences, where ours is kinder to the memory or tells more:
- result streams of failed jobs, and hashes of cancelled ones, get a TTL (stock RQ keeps them for ever);
- `rq:executions:<id>` is gone with the last execution, and so are its leftovers in stock RQ after its own TTL;
- a job that is about to run again keeps no TTL.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue, Repeat, Retry, SimpleWorker
from rq.group import Group
from rq.job import Callback, Job
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer

from taskq import perform
from taskq.executors.rq import stock_jobs
from taskq.executors.rq.store import RQStore
from taskq.failure import Failure
from taskq.states import State
from taskq.store import JobOutcome
from tests.rq import stock
from tests.rq.golden import state
from tests.rq.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Shape = Callable[[Queue], list[Job]]

ADD, BOOM = "tests.rq.stock.add", "tests.rq.stock.boom"


@pytest.fixture(autouse=True)
def trusted(url: str) -> Iterator[None]:
    """Let this process run the functions of these tests, and close what jobs have opened in it."""
    perform.allow(["tests.rq.stock"])
    yield
    stock_jobs.client_of(url).connection_pool.disconnect()
    stock_jobs.client_of.cache_clear()


class Deaf(SimpleWorker):
    """RQ's own worker without its thread for commands, which takes a second to end, and without signal handlers."""

    def subscribe(self) -> None:
        pass

    def _install_signal_handlers(self) -> None:
        pass


def by_stock(client: Any, _url: str) -> None:
    """Work off what is there by RQ's own worker."""
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    worker = Deaf([queue], name="crew", connection=client, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="CRITICAL")
    worker.connection.connection_pool.disconnect()  # RQ may have made one of its own, and leaves it open


def by_ours(_client: Any, url: str) -> None:
    """Work off what is there by our session, the function called here instead of in a pool's child."""
    store = RQStore(f"{url}?allow_callbacks=1")
    hands = Hands(store, "crew", ("default",))
    while claims := hands.take(1):
        hands.tell(*map(outcome, claims))
    hands.close()
    store.close()


def outcome(claim: Any) -> JobOutcome:
    """Run a claimed job of stock RQ."""
    try:
        function, args, _ = claim.foreign.order()
        return JobOutcome(id=claim.id, token=claim.token, state=State.SUCCEEDED, result=function(*args), seconds=0.1)
    except Exception as error:  # noqa: BLE001  # it is the job's
        return JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=Failure.from_exception(error))


def plain(queue: Queue) -> list[Job]:
    """Enqueue the shape: plain."""
    return [queue.enqueue(ADD, 1, 2)]


def many(queue: Queue) -> list[Job]:
    """Enqueue the shape: many."""
    return queue.enqueue_many([Queue.prepare_data(ADD, (1, n), job_id=f"many-{n}") for n in range(3)])


def none(queue: Queue) -> list[Job]:
    """Enqueue the shape: none."""
    return [queue.enqueue("tests.rq.stock.stop_nothing", 1, 2)]


def failing(queue: Queue) -> list[Job]:
    """Enqueue the shape: failing."""
    return [queue.enqueue(BOOM)]


def kept(queue: Queue) -> list[Job]:
    """Enqueue the shape: kept."""
    return [queue.enqueue(ADD, 1, 2, result_ttl=-1), queue.enqueue(ADD, 1, 2, result_ttl=40, failure_ttl=50)]


def forgotten(queue: Queue) -> list[Job]:
    """Enqueue the shape: forgotten."""
    return [queue.enqueue(ADD, 1, 2, result_ttl=0)]


def failure_kept(queue: Queue) -> list[Job]:
    """Enqueue the shape: failure kept."""
    return [queue.enqueue(BOOM, failure_ttl=50)]


def retried(queue: Queue) -> list[Job]:
    """Enqueue the shape: retried."""
    return [queue.enqueue(BOOM, retry=Retry(2))]


def retried_later(queue: Queue) -> list[Job]:
    """Enqueue the shape: retried later."""
    return [queue.enqueue(BOOM, retry=Retry(3, interval=[100, 200, 300]))]


def repeated(queue: Queue) -> list[Job]:
    """Enqueue the shape: repeated."""
    return [queue.enqueue(ADD, 1, 2, repeat=Repeat(times=2))]


def repeated_later(queue: Queue) -> list[Job]:
    """Enqueue the shape: repeated later."""
    return [queue.enqueue(ADD, 1, 2, repeat=Repeat(times=2, interval=[100, 200]))]


def returned_retry(queue: Queue) -> list[Job]:
    """Enqueue the shape: returned retry."""
    return [queue.enqueue("tests.rq.stock.retry_later", 2)]


def scheduled(queue: Queue) -> list[Job]:
    """Enqueue the shape: scheduled."""
    return [queue.enqueue_in(timedelta(hours=1), ADD, 1, 2)]


def dependent(queue: Queue) -> list[Job]:
    """Enqueue the shape: dependent."""
    first = queue.enqueue(ADD, 1, 2)
    return [first, queue.enqueue(ADD, 3, 4, depends_on=first)]


def dependent_on_two(queue: Queue) -> list[Job]:
    """Enqueue the shape: dependent on two."""
    jobs = [queue.enqueue(ADD, 1, 2), queue.enqueue(ADD, 3, 4)]
    return [*jobs, queue.enqueue(ADD, 5, 6, depends_on=jobs)]


def dependent_of_failed(queue: Queue) -> list[Job]:
    """Enqueue the shape: dependent of failed."""
    first = queue.enqueue(BOOM)
    return [first, queue.enqueue(ADD, 3, 4, depends_on=first)]


def dependent_that_allows_failure(queue: Queue) -> list[Job]:
    """Enqueue the shape: dependent that allows failure."""
    from rq.job import Dependency  # noqa: PLC0415

    first = queue.enqueue(BOOM)
    return [first, queue.enqueue(ADD, 3, 4, depends_on=Dependency([first], allow_failure=True))]


def with_meta(queue: Queue) -> list[Job]:
    """Enqueue the shape: with meta."""
    return [queue.enqueue("tests.rq.stock.whoami", meta={"a": 1})]


def with_callbacks(queue: Queue) -> list[Job]:
    """Enqueue the shape: with callbacks."""
    calls = {"on_success": Callback(stock.note_success), "on_failure": Callback(stock.note_failure)}
    return [queue.enqueue(ADD, 1, 2, **calls), queue.enqueue(BOOM, **calls)]


def unique(queue: Queue) -> list[Job]:
    """Enqueue the shape: unique."""
    return [queue.enqueue(ADD, 1, 2, job_id="only-one", unique=True)]


def rate_limited(queue: Queue) -> list[Job]:
    """Enqueue the shape: rate limited."""
    return [queue.enqueue(ADD, 1, n, rate_limit=RateLimit("slow", 1)) for n in range(3)]


def rate_limited_and_failing(queue: Queue) -> list[Job]:
    """Enqueue the shape: rate limited and failing."""
    return [queue.enqueue(BOOM, n, rate_limit=RateLimit("slow", 1)) for n in range(3)]


def grouped(queue: Queue) -> list[Job]:
    """Enqueue the shape: grouped."""
    group = Group.create(queue.connection, name="crowd")
    return group.enqueue_many(queue, [Queue.prepare_data(ADD, (1, n), job_id=f"of-{n}") for n in range(2)])


SHAPES = (
    plain, many, none, failing, kept, forgotten, failure_kept, retried, retried_later, repeated, repeated_later,
    returned_retry, scheduled, dependent, dependent_on_two, dependent_of_failed, dependent_that_allows_failure,
    with_meta, with_callbacks, unique, rate_limited, rate_limited_and_failing, grouped,
)  # fmt: skip

#: Keys whose TTL stock RQ leaves out.
KINDER = ("rq:results:", "rq:job::")


def run(
    shape: Callable[[Queue], list[Job]], worker: Callable[[Any, str], None], client: Any, url: str
) -> dict[str, Any]:
    """Return the state that a shape leaves."""
    client.flushdb()
    jobs = shape(Queue("default", connection=client, serializer=JSONSerializer))
    names = {job.id: f"JOB{number}" for number, job in enumerate(jobs)}
    worker(client, url)
    return state(client, names)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.__name__ for shape in SHAPES])
def test_same_state(shape: Shape, client: Any, url: str) -> None:
    """Stock RQ's worker and ours leave the same."""
    theirs, ours = run(shape, by_stock, client, url), run(shape, by_ours, client, url)
    assert ours.keys() - {"rq:suspended"} == {key for key in theirs if not key.startswith("rq:executions:")}
    for key, (value, ttl) in ours.items():
        their_value, their_ttl = theirs[key]
        assert value == their_value, key
        assert ttl == their_ttl or (their_ttl == "none" and key.startswith(KINDER)), key
