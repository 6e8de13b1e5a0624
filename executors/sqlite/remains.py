"""What there is yet for a worker's queues when a claim has brought nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.claim import is_work
from taskq.executors.sqlite.damage import LATEST, is_number
from taskq.executors.sqlite.schema import BLOCKED, QUEUED, RUNNING, SCHEDULED
from taskq.store import Remains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.sqlite.schema import Execute

__all__ = ["remains"]

#: Whether a blocked job waits, directly or by way of other blocked ones, for a job that runs, or that a worker serves.
WAITS_FOR_OTHERS = f"""
WITH RECURSIVE above (id) AS (
    SELECT needed FROM needs JOIN jobs ON jobs.n = needs.n WHERE state = {BLOCKED} AND NOT met AND {{served}}
    UNION SELECT needed FROM above JOIN jobs ON jobs.id = above.id JOIN needs ON needs.n = jobs.n
    WHERE jobs.state = {BLOCKED} AND NOT met
)
SELECT EXISTS (
    SELECT 1 FROM above JOIN jobs ON jobs.id = above.id WHERE jobs.state = {RUNNING}
    OR jobs.state = {QUEUED} AND jobs.queue NOT IN (SELECT queue FROM paused)
    AND EXISTS (SELECT 1 FROM workers WHERE queues = '' OR instr(',' || queues || ',', ',' || jobs.queue || ','))
)
"""


def remains(execute: Execute, queues: Sequence[str], refuser: str | None = None) -> Remains:
    """Return what there is yet for these queues, or for any; see `WorkerSession.remains`."""
    served = f"queue IN ({', '.join('?' * len(queues))})" if queues else "1"
    running = f"SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND {served})"
    waiting = WAITS_FOR_OTHERS.format(served=served)
    found = (execute(query, (*queues,)).fetchone()[0] for query in (running, waiting))
    if is_work(execute, queues, refuser) or any(found):
        return Remains(busy=True)
    query = (
        "SELECT count(*), sum(attempts > 0), min(due), min(CASE WHEN attempts > 0 THEN due END), "
        f"max(CASE WHEN attempts > 0 THEN due END) FROM jobs INDEXED BY jobs_due WHERE state = {SCHEDULED} AND {served}"
    )
    scheduled, again, soonest, first, last = execute(query, (*queues,)).fetchone()
    now = time.time()
    if scheduled and not (is_number(soonest) and soonest > now):
        return Remains(busy=True)
    return Remains(scheduled=scheduled, again=again or 0, first=_until(first, now), last=_until(last, now))


def _until(due: Any, now: float) -> float:
    return min(due, LATEST) - now if is_number(due) else 0.0
