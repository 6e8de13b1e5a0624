"""A burst on jobs of stock RQ: what RQ brings back by itself is worked off too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rq import Queue, RateLimit, Repeat, Retry
from rq.serializers import JSONSerializer

from tests.rq import stock
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path


def test_what_rq_brings_back(url: str, client: Any, tmp_path: Path) -> None:
    """Dependents, immediate retries, repeats and jobs behind a rate limit are run before the worker ends."""
    queue = Queue(connection=client, serializer=JSONSerializer)
    first = queue.enqueue(stock.add, 1, 2)
    jobs = [first, queue.enqueue(stock.add, 3, 4, depends_on=first)]
    jobs.append(queue.enqueue(stock.add, 1, 1, repeat=Repeat(times=2)))
    jobs += [queue.enqueue(stock.add, n, 2, rate_limit=RateLimit("k", 1)) for n in range(3)]
    bad = queue.enqueue(stock.boom, retry=Retry(max=2))
    worker = WorkerProcess(url, tmp_path, imports=("tests.rq.stock",), arguments=("--burst",))
    try:
        worker.start()
        assert worker.wait() == 0, worker.log()
    finally:
        worker.close()
    assert [job.get_status() for job in [*jobs, bad]] == ["finished"] * len(jobs) + ["failed"]
    assert client.hget(f"rq:job:{bad.id}", "tq_attempts") == b"3"
