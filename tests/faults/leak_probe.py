"""Run by the leak tests in a program of its own, whose memory nothing else touches: work, kills, and the difference.

python -m tests.faults.leak_probe URL SETTINGS JOBS KILLS QUEUES     prints one line of JSON
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from taskq import TaskQueue
from tests import leaks
from tests.faults.accounts import ENOUGH
from tests.faults.killing import Killer
from tests.sample_tasks import add, identity, square

#: Jobs that run before the first look: what is made once is made then.
WARM_UP = 2_000

#: Jobs under way at once.
BATCH = 500


def memory_mib() -> float:
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not tell the resident memory")


def work(queue: TaskQueue, jobs: int) -> None:
    """Run so many jobs, half of them through a map, some with errors and big values."""
    bound = queue.options(max_crashes=ENOUGH)
    for start in range(0, jobs, BATCH):
        half = BATCH // 2
        handles = [bound.submit(add, number, start) for number in range(half)]
        assert list(bound.map(square, range(half))) == [number**2 for number in range(half)]
        assert [job.result(timeout=45) for job in handles] == list(range(start, start + half))
        assert len(bound.submit(identity, bytes(200_000)).result(timeout=45)) == 200_000
        assert isinstance(bound.submit(add, 1, "one").exception(timeout=45), TypeError)


def main() -> None:
    """Measure."""
    url, settings, jobs, kills, queues = sys.argv[1], json.loads(sys.argv[2]), *map(int, sys.argv[3:])
    leaks.mark_shared_memory()
    found: dict[str, Any] = {}
    with TaskQueue(url, **settings) as queue:
        work(queue, WARM_UP)
    gc.collect()
    empty, before = leaks.take(), memory_mib()
    for _ in range(queues):
        with TaskQueue(url, **settings) as queue, Killer(kills // queues) as killer:
            work(queue, jobs // queues)
            while killer.busy:
                work(queue, BATCH)
    found["leaks"] = leaks.settle(empty)
    gc.collect()
    found["growth_mib"] = memory_mib() - before
    print(json.dumps(found))


if __name__ == "__main__":
    main()
