"""Promises that need their full times: recovery with the default lease (P4), and leaks of clients and workers (21)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sample_tasks import add, hold, identity, square
from tests.scripts import run
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger

#: Seconds within which the jobs of a dead worker run again.
PROMISE = 30.0

#: Growth of memory that is allowed, as in faults.md row 21.
GROWTH_MIB = 10.0


@pytest.mark.parametrize("scheme", ["sqlite", "redis"])
def test_recovery_with_the_default_lease(
    fresh_url: Callable[[str, str], str],
    make_fleet: Callable[..., Fleet],
    ledger: Ledger,
    gate: Gate,
    scheme: str,
) -> None:
    """With nothing set, the job of a killed worker runs again elsewhere within 30 s."""
    fleet = make_fleet(fresh_url(scheme, ""))
    victim = fleet.start()
    job = fleet.queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    fleet.start()
    victim.kill_machine()
    begin = time.monotonic()
    eventually(lambda: len(ledger.texts()) == 2, "the job to start again", within=PROMISE)
    assert time.monotonic() - begin <= PROMISE
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"


def memory_mib(pid: int | str) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not tell the resident memory")


def descriptors(pid: int) -> int:
    """Return how many descriptors a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def work(fleet: Fleet, jobs: int) -> None:
    """Run so many jobs, half of them through a map, some with errors and big values."""
    for start in range(0, jobs, 500):
        handles = fleet.queue.submit_many(add, [(number, start) for number in range(250)])
        assert list(fleet.queue.map(square, range(250))) == [number**2 for number in range(250)]
        assert [job.result(timeout=PATIENCE) for job in handles] == list(range(start, start + 250))
        assert len(fleet.queue.submit(identity, bytes(200_000)).result(timeout=PATIENCE)) == 200_000
        assert isinstance(fleet.queue.submit(add, 1, "one").exception(timeout=PATIENCE), TypeError)


def test_worker_does_not_grow(fleet: Fleet) -> None:
    """After thousands of jobs a worker has the processes and descriptors that it had, and hardly more memory."""
    worker = fleet.start()
    work(fleet, 2_000)
    before = memory_mib(worker.pid), descriptors(worker.pid), len(worker.left())
    work(fleet, 6_000)
    eventually(lambda: descriptors(worker.pid) <= before[1], "the worker's descriptors to be back")
    assert len(worker.left()) == before[2]
    assert memory_mib(worker.pid) - before[0] <= GROWTH_MIB


PROBE = """
import gc, json, sys
from taskq import TaskQueue
from tests import leaks
from tests.faults.durable.fleet import Fleet
from tests.faults.durable.test_promises import memory_mib, work

class Client:
    def __init__(self, queue):
        self.queue = queue

def turn(jobs):
    with TaskQueue(sys.argv[1]) as queue:
        work(Client(queue), jobs)

turn(2_000)
gc.collect()
gc.disable()
empty, before = leaks.take(), memory_mib("self")
for _ in range(3):
    turn(2_000)
found = leaks.settle(empty)
gc.enable()
gc.collect()
print(json.dumps({"leaks": found, "growth_mib": memory_mib("self") - before}))
"""


def test_client_does_not_grow(fleet: Fleet, tmp_path: Path) -> None:
    """After thousands of jobs and several queues a client's program is as it was, and its memory nearly so."""
    fleet.start()
    found = json.loads(run(tmp_path, PROBE, fleet.url).stdout)
    assert found["leaks"] == []
    assert found["growth_mib"] <= GROWTH_MIB, f"the client grew by {found['growth_mib']:.1f} MiB"
