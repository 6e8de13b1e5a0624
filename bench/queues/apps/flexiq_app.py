"""FlexiQ: in a SQLite file."""

from __future__ import annotations

from flexiq import Queue

from bench.queues import jobs
from bench.queues.system import address, way

#: By default it polls each 50 ms and takes one job at a time.
TUNED = {"scheduler_poll_interval_ms": 1, "scheduler_batch_size": 256} if "1 ms" in way() else {}
queue = Queue(db_path=address(), workers=2, **TUNED)
noop = queue.task(name="noop")(jobs.noop)
burn = queue.task(name="burn")(jobs.burn)
