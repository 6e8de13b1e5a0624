"""RQ's `at_front`: whatever brings such a job into its queue puts it before all that waits, older jobs too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue, RateLimit, Retry
from rq.job import Dependency
from rq.serializers import JSONSerializer

from tests.rq import stock
from tests.rq.hands import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rq.hands import Hands


def dependent(queue: Any, hands: Hands) -> Any:
    """Bring it there by the end of a job that it needs."""
    parent = queue.enqueue(stock.boom)
    needs = Dependency(jobs=[parent], allow_failure=True, enqueue_at_front=True)
    job = queue.enqueue(stock.add, 1, 2, depends_on=needs, job_id="front")
    return job, lambda: hands.tell(*map(failed, hands.take(1)))


def retried(queue: Any, hands: Hands) -> Any:
    """Bring it there by a retry."""
    job = queue.enqueue(stock.boom, retry=Retry(max=1, enqueue_at_front=True), job_id="front")
    return job, lambda: hands.tell(*map(failed, hands.take(1)))


def limited(queue: Any, hands: Hands) -> Any:
    """Bring it there by a rate limit that gives it a slot."""
    queue.enqueue(stock.boom, rate_limit=RateLimit("k", 1))
    job = queue.enqueue(stock.boom, rate_limit=RateLimit("k", 1), at_front=True, job_id="front")
    return job, lambda: hands.tell(*map(failed, hands.take(1)))


def scheduled(queue: Any, hands: Hands) -> Any:
    """Bring it there by its time."""
    job = queue.enqueue_at(datetime.now(UTC) - timedelta(1), stock.add, 1, 2, at_front=True, job_id="front")
    return job, hands.run_maintenance


@pytest.mark.parametrize("bring", [dependent, retried, limited, scheduled])
def test_before_older_ones(client: Any, join: Callable[..., Hands], bring: Callable[..., Any]) -> None:
    """It stands before jobs that were made before it."""
    queue = Queue(connection=client, serializer=JSONSerializer)
    old = Queue("elsewhere", connection=client, serializer=JSONSerializer)
    older = [old.enqueue(stock.add, n, 1).id for n in range(3)]
    job, come = bring(queue, join())
    for job_id in older:
        client.rpush(queue.key, job_id)
    come()
    assert queue.job_ids == [job.id, *older]
