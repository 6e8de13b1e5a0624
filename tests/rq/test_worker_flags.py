"""Flags of `rq worker` on our worker: exception handlers, how failures and results are kept, orders of queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue, Retry
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from tests.rq import stock
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rq.hands import Hands

HANDLER = "tests.rq.stock.note_error"


@pytest.fixture
def burst(url: str, tmp_path: Path) -> Callable[..., str]:
    """Give a function that lets a worker with these flags work off all there is, and returns its log."""

    def work(*flags: str) -> str:
        worker = WorkerProcess(url, tmp_path, imports=("tests.rq.stock:boom", "tests.rq.stock:add"), arguments=flags)
        try:
            worker.start()
            assert worker.wait() == 0, worker.log()
            return worker.log()
        finally:
            worker.close()

    return work


@pytest.fixture
def queue(client: Any) -> Any:
    """Give RQ's queue."""
    return Queue(connection=client, serializer=JSONSerializer)


def test_exception_handlers(queue: Any, client: Any, burst: Callable[..., str]) -> None:
    """They are called in their order with each failure, a retried one too, until one returns a false value."""
    job = queue.enqueue(stock.boom, retry=Retry(max=1))
    fine = queue.enqueue(stock.add, 1, 2)
    further = ("tests.rq.stock:note_error_and_stop", HANDLER)
    burst("--burst", *(word for name in (HANDLER, *further) for word in ("--exception-handler", name)))
    said = [f"error {job.id} ValueError no good True", f"last {job.id}"]
    assert [entry.decode() for entry in client.lrange("noted", 0, -1)] == said * 2
    assert job.get_meta() == {"handled": 2}
    assert job in FailedJobRegistry(queue=queue)
    assert "ValueError: no good" in job.latest_result().exc_string
    assert fine.return_value() == 3


def test_failures_that_are_not_listed(queue: Any, client: Any, burst: Callable[..., str]) -> None:
    """Without the default handler a failed job is failed, and retried, but neither its error nor a list shows it."""
    job = queue.enqueue(stock.boom, retry=Retry(max=1))
    after = queue.enqueue(stock.add, 1, 2, depends_on=job)
    burst("--burst", "-d", "--exception-handler", HANDLER)
    assert job.get_status() == "failed"
    assert (FailedJobRegistry(queue=queue).get_job_ids(), job.latest_result()) == ([], None)
    assert client.llen("noted") == 2
    assert after.get_status() == "deferred"


def test_handler_is_no_task(queue: Any, client: Any, burst: Callable[..., str]) -> None:
    """What is named as a handler cannot be called by a job."""
    job = queue.enqueue("tests.rq.stock.note_error", "x", "y", "z", None)
    burst("--burst", "--exception-handler", HANDLER)
    assert job.get_status() != "finished"
    assert client.llen("noted") == 0


def test_handler_that_is_not_there(url: str, tmp_path: Path) -> None:
    """A handler that cannot be imported keeps the worker from starting, with its name."""
    worker = WorkerProcess(url, tmp_path, imports=(), arguments=("--burst", "--exception-handler", "tests.rq.stock.no"))
    try:
        worker.start()
        assert worker.wait() == 2
        assert "--exception-handler tests.rq.stock.no failed" in worker.log()
    finally:
        worker.close()


@pytest.mark.parametrize(("ttl", "left"), [("1234", range(1200, 1235)), ("-1", {-1}), ("0", {-2})])
def test_results_ttl(queue: Any, client: Any, burst: Callable[..., str], ttl: str, left: Any) -> None:
    """It holds for jobs that say nothing: seconds, for ever, or not at all; a job's own stands."""
    job, own = queue.enqueue(stock.add, 1, 2), queue.enqueue(stock.add, 3, 4, result_ttl=77)
    burst("--burst", "--results-ttl", ttl)
    assert client.ttl(job.key) in left
    assert 50 < client.ttl(own.key) <= 77


def test_start_times_tell_the_order(queue: Any, join: Callable[..., Hands]) -> None:
    """Jobs of RQ that one claim takes can be sorted by the time of their start."""
    jobs = [queue.enqueue(stock.add, n, 1) for n in range(5)]
    assert len(join().take()) == 5
    began = [job.started_at for job in jobs if job.refresh() is None]
    assert began == sorted(set(began))
