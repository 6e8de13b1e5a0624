"""Hours of use in minutes: `pytest -m soak` (all of it about half an hour on two cores)."""

from __future__ import annotations

import itertools
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.accounts import ENOUGH, check, submit_under_fire, total_starts
from tests.faults.killing import Killer
from tests.faults.leak_probe import memory_mib
from tests.faults.test_leaks import probe
from tests.sample_tasks import (
    die,
    divide,
    identity,
    note_and_nap,
    spin_in_c,
    square,
)
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq import Job, TaskQueue
    from tests.ledger import Ledger
    from tests.variants import Variant

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1_800),
    pytest.mark.needs("start_methods", why="its processes are the workers'"),
]


@pytest.mark.parametrize("turn", range(3))
def test_200_kills_under_load(make_queue: Callable[..., TaskQueue], ledger: Ledger, turn: int) -> None:
    """200 random kills under load: every job its own result, no run more than the kills explain."""
    queue = make_queue(processes=4)
    with Killer(200, pause=(0.0, 0.05)) as killer:
        jobs = submit_under_fire(queue, ledger, killer, at_least=1_000)
        killer.join()
    check(jobs, ledger, killer.kills)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_2000_kills_under_load(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """2,000 random kills."""
    queue = make_queue(processes=4)
    with Killer(2_000, pause=(0.0, 0.04)) as killer:
        jobs = submit_under_fire(queue, ledger, killer, at_least=1_000)
        killer.join()
    check(jobs, ledger, killer.kills)


def test_200_kills_of_a_map(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """200 random kills while one map runs: all results in order, as many extra runs as kills at most."""
    queue = make_queue(processes=4)
    with Killer(200, pause=(0.0, 0.05)) as killer:
        items = itertools.takewhile(lambda _: killer.busy, itertools.count())
        task = partial(note_and_nap, ledger.path, seconds=0.002)
        got = list(queue.options(max_crashes=ENOUGH).map(task, items))
        killer.join()
    assert got == list(range(len(got)))
    assert len(got) <= total_starts(ledger.counts()) <= len(got) + killer.kills


def test_200_kills_of_tiny_jobs(make_queue: Callable[..., TaskQueue]) -> None:
    """200 random kills that land between microseconds: no result lost, none doubled."""
    queue = make_queue(processes=4)
    with Killer(200, pause=(0.0, 0.02)) as killer:
        while killer.busy:
            bound = queue.options(max_crashes=ENOUGH)
            results: Any = bound.imap_unordered(square, range(20_000), with_index=True)
            assert sorted(results) == [(number, number**2) for number in range(20_000)]


def test_50000_jobs_and_500_kills(variant: Variant) -> None:
    """After 50,000 jobs and 500 kills nothing is left and the parent has grown by 10 MiB at most."""
    probe(variant, jobs=50_000, kills=500, queues=10, limit=1_500)


def test_everything_at_once(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """Jobs that end, fail, hang in C, crash, time out and are cancelled, with kills on top: one outcome each."""
    queue = make_queue(processes=4)
    patient, timed, poison = (
        queue.options(max_crashes=ENOUGH),
        queue.options(max_crashes=ENOUGH, timeout=0.5),
        queue.options(max_crashes=2),
    )
    jobs: dict[str, list[Job[object]]] = {kind: [] for kind in ("good", "bad", "stuck", "deadly", "dropped")}
    with Killer(100, pause=(0.01, 0.2)) as killer:
        number = 0
        while killer.busy or number < 3_000:
            jobs["good"].append(patient.submit(note_and_nap, ledger.path, number, 0.002))
            if number % 10 == 0:
                jobs["bad"].append(patient.submit(divide, 1, 0))
            if number % 300 == 0:
                jobs["stuck"].append(timed.submit(spin_in_c))
                jobs["deadly"].append(poison.submit(die))
            if number % 7 == 0:
                jobs["dropped"].append(patient.submit(identity, number))
                jobs["dropped"][-1].cancel(kill=number % 2 == 0)
            number += 1
            if number % 50 == 0:
                jobs["good"][-1].result(timeout=120)
    outcomes = {
        kind: {type(job.exception(120)).__name__ for job in jobs[kind]} for kind in ("good", "bad", "stuck", "deadly")
    }
    assert outcomes == {
        "good": {"NoneType"},
        "bad": {"ZeroDivisionError"},
        "stuck": {"JobTimeout"},
        "deadly": {"JobCrashed"},
    }
    queue.shutdown()
    assert all(job.done() for kind in jobs.values() for job in kind)
    check(jobs["good"], ledger, killer.kills + len(jobs["deadly"]) * 2 + len(jobs["dropped"]))  # type: ignore[arg-type]


def test_million_items(make_queue: Callable[..., TaskQueue]) -> None:
    """A million items, read lazily, make the parent grow by 20 MB at most."""
    queue = make_queue()
    assert sum(queue.imap(square, range(20_000))) > 0
    before = memory_mib()
    count = sum(1 for _ in queue.imap_unordered(square, iter(range(1_000_000))))
    assert count == 1_000_000
    assert memory_mib() - before <= 20


def test_slow_consumer_of_big_results(make_queue: Callable[..., TaskQueue]) -> None:
    """An endless map of 10 KB results with a slow consumer takes a bounded amount of memory."""
    queue = make_queue()
    data = os.urandom(10_000)
    results = queue.imap_unordered(identity, itertools.repeat(data))
    next(results)
    before = memory_mib()
    for _ in range(500):
        assert next(results) == data
        time.sleep(0.005)  # the consumer is slow: that is the test
    assert memory_mib() - before <= 50
    del results


def test_many_queues(make_queue: Callable[..., TaskQueue], tmp_path: Path) -> None:
    """A hundred queues one after another, closed in every way, leave nothing behind (the guard looks)."""
    for number in range(100):
        queue = make_queue(processes=1 + number % 3)
        job = queue.submit(square, number)
        if number % 2:
            assert job.result(timeout=PATIENCE) == number**2
        queue.shutdown(wait=number % 3 == 0, cancel_futures=number % 5 == 0)
