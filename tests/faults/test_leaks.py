"""Leaks (row 21): after jobs and kills, processes, threads, descriptors, semaphores and memory are as before."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import leaks
from tests.sample_tasks import divide, square
from tests.scripts import LIMIT, ROOT
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.variants import Variant

#: Growth of the parent's resident memory that is allowed, in MiB.
GROWTH_MIB = 10.0


def probe(variant: Variant, *, jobs: int, kills: int, queues: int, limit: float = LIMIT) -> None:
    """Run the probe in a program of its own, and fail on what it found."""
    command = [sys.executable, "-m", "tests.faults.leak_probe", *variant.for_script(), jobs, kills, queues]
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["leaks"] == []
    assert found["growth_mib"] <= GROWTH_MIB, f"the parent grew by {found['growth_mib']:.1f} MiB"


@pytest.mark.needs("start_methods", why="kills the children of the program; durable ones: tests/faults/durable")
def test_nothing_grows(variant: Variant) -> None:
    """After thousands of jobs, kills, and queues opened and closed, everything is back."""
    probe(variant, jobs=8_000, kills=12, queues=3)


def test_nothing_waits_for_the_collector(variant: Variant, make_queue: Callable[..., TaskQueue]) -> None:
    """A closed queue is gone at once, descriptors, threads and processes; no garbage collection is needed for it."""
    with make_queue() as queue:  # what is made once is made here
        queue.submit(square, 1).result(timeout=PATIENCE)
    gc.collect()
    gc.disable()
    try:
        before = leaks.take()
        for _ in range(3):
            queue = make_queue()
            assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
            queue.shutdown()
            del queue
        after = leaks.take()
    finally:
        gc.enable()
    for kind in ("process", "thread", "descriptor"):
        fresh = after.kinds()[kind].keys() - before.kinds()[kind].keys()
        assert not fresh, [after.kinds()[kind][identity] for identity in fresh]


@pytest.mark.parametrize("how", ["imap", "imap_unordered"])
def test_abandoned_iterators_leave_nothing(make_queue: Callable[..., TaskQueue], how: str) -> None:
    """Hundreds of iterators, dropped at all stages of their life, leave nothing behind (the guard looks)."""
    queue = make_queue()
    for number in range(200):
        results = getattr(queue, how)(square, range(1_000))
        for _ in range(number % 5):
            next(results)
        del results
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_failed_jobs_are_let_go(make_queue: Callable[..., TaskQueue]) -> None:
    """Exceptions of failed jobs hold no cycle that keeps the jobs alive."""
    import weakref  # noqa: PLC0415 - used here only

    queue = make_queue()
    gc.collect()
    gc.disable()
    try:
        job = queue.submit(divide, 1, 0)
        with contextlib.suppress(ZeroDivisionError):
            job.result(timeout=PATIENCE)
        watch = weakref.ref(job)
        del job
        eventually(lambda: watch() is None, "the job to be let go by the pool's own thread, too")
    finally:
        gc.enable()
