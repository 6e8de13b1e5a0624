"""How long a claim takes when few and when many jobs wait. Asks taskq's store itself, as its worker does."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.queues.place import Place
    from bench.queues.system import QueueSystem
    from taskq.store import WorkerSession

#: Claims for each figure, of one job each.
CLAIMS = 50
#: Jobs of one submit_many while the queue is filled.
BATCH = 10_000


def compare(system: QueueSystem, place: Place, *, few: int, many: int) -> dict[str, float]:
    """Fill the queue in two steps; return the claim times and what a waiting job takes."""
    from taskq.connect import open_store
    from taskq.store import WorkerRecord

    spent = place.usage()
    store = open_store(system.url)  # type: ignore[attr-defined]
    worker = WorkerRecord(name="bench", host="localhost", pid=1, queues=("default",), processes=1)
    session = store.join(worker)
    _fill(system, few)
    short = _claim_us(session)
    _fill(system, many - few)
    size = place.cost(spent, many)["bytes_per_job"]
    long = _claim_us(session)
    return {"few_us": short, "many_us": long, "slower": long / short, "bytes_per_job": size}


def _fill(system: QueueSystem, count: int) -> None:
    for start in range(0, count, BATCH):
        system.enqueue_many("noop", range(start, min(count, start + BATCH)))


def _claim_us(session: WorkerSession) -> float:
    times = []
    for _ in range(CLAIMS):
        before = time.perf_counter()
        poll = session.poll((), (), 1)
        times.append(time.perf_counter() - before)
        assert len(poll.claims) == 1
    return statistics.median(times) * 1e6
