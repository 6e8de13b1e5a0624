"""What is left in Redis of jobs that have ended: nothing that stays for ever, whatever they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq import Queue, RateLimit, Repeat
from rq import Retry as RQRetry
from rq.group import Group
from rq.serializers import JSONSerializer

from taskq import Retry, TaskQueue
from tests.rq import stock
from tests.rq.hands import new_job
from tests.sample_tasks import add, die, fail, log_and_leave, square
from tests.waiting import eventually
from tests.worker_process import IMPORTS, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.executors.rq.store import RQStore
    from tests.rq.hands import Hands

#: Keys that are not of any one job: registries, which are swept, and what RQ itself keeps of its queues and limits.
SHARED = ("rq:queues", "rq:workers", "rq:rl-keys", "rq:rl:", "rq:groups", "rq:tq:leases", "rq:tq:parked:")
REGISTRIES = ("rq:finished:", "rq:failed:", "rq:canceled:", "rq:deferred:", "rq:scheduled:")


def put_ours(queue: TaskQueue) -> None:
    """Submit jobs of every shape that end without further ado."""
    first = queue.submit(add, 1, 2)
    bad = queue.submit(fail, "ValueError", "no")
    queue.submit(add, first, queue.submit(add, first, 3))
    queue.submit(add, bad, 1)
    later = queue.options(delay=3600).submit(add, 1, 2)
    queue.submit(add, later, first)
    queue.submit(add, later, 2).cancel()
    later.cancel()
    queue.options(expires=0.001).submit(add, 1, 2)
    queue.options(key="k", priority=2).submit(add, 1, 2)
    queue.options(retry=Retry(1, delay=0)).submit(fail, "ValueError", "no")
    for ttl in (0, 60):
        queue.options(result_ttl=ttl).submit(add, 1, 2)
    queue.options(max_crashes=1).submit(die)
    queue.submit(log_and_leave)
    assert queue.submit(square, 2).cancel()


def put_theirs(client: Any) -> None:
    """Enqueue jobs of every shape as stock RQ does."""
    queue = Queue(connection=client, serializer=JSONSerializer)
    first = queue.enqueue(stock.add, 1, 2)
    queue.enqueue(stock.add, 1, 2, depends_on=[first, queue.enqueue(stock.add, 1, 2)])
    queue.enqueue(stock.boom)
    queue.enqueue(stock.boom, retry=RQRetry(max=1))
    queue.enqueue(stock.add, 1, 2, repeat=Repeat(times=1))
    for _ in range(2):
        queue.enqueue(stock.add, 1, 2, rate_limit=RateLimit("k", 1))
    queue.enqueue(stock.add, 1, 2, result_ttl=0)
    queue.enqueue(stock.add, 1, 2).cancel()
    queue.enqueue(stock.retry_later, 1)
    jobs = [Queue.prepare_data(stock.add, (1, 2), result_ttl=0) for _ in range(2)]
    Group.create(connection=client).enqueue_many(queue, jobs)


def kept_for_ever(client: Any) -> list[bytes]:
    """Return the keys of jobs that have no end."""
    shared = tuple(word.encode() for word in SHARED + REGISTRIES)
    return [key for key in client.keys("*") if client.ttl(key) == -1 and not key.startswith(shared)]


def test_every_key_has_its_end(client: Any, url: str, tmp_path: Path) -> None:
    """When all jobs of all shapes have ended, every key that belongs to one has a TTL."""
    with TaskQueue(url) as queue:
        put_ours(queue)
        put_theirs(client)
        imports = (*IMPORTS, "tests.rq.stock")
        with WorkerProcess(f"{url}?lease=3", tmp_path, imports=imports, arguments=("--drain",)) as worker:
            assert worker.wait() == 0, worker.log()
        with WorkerProcess(f"{url}?lease=3", tmp_path, imports=imports):
            eventually(lambda: not kept_for_ever(client), "every key to have an end")
    assert client.zcard("rq:finished:default") > 5


def test_need_that_has_ended_before(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job that waited for one that had ended, and for another one, leaves nothing at the first."""
    hands = join()
    store.put([new_job(job_id="a")])
    hands.run()
    store.put([new_job(job_id="b"), new_job(job_id="c", depends_on=("a", "b"))])
    hands.run()
    hands.run()
    assert kept_for_ever(client) == []
