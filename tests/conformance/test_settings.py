"""The settings of a queue: how many processes, started how, prepared how, replaced when."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue
from taskq.errors import ConfigError, PoolBroken
from tests.sample_tasks import (
    add,
    die,
    fail_to_initialize,
    handler_of,
    hold,
    note_and_remember,
    pid,
    pid_of,
    recall,
    recall_item,
    remember,
    signal_oneself,
    square,
    use_multiprocessing,
)
from tests.scripts import run
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Gate
    from tests.ledger import Ledger
    from tests.variants import Variant

pytestmark = pytest.mark.needs("start_methods", why="its workers have these settings: tests of `taskq worker`")


def test_processes(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """So many jobs run at once as there are processes, each in one of its own."""
    queue = make_queue(processes=3)
    assert queue.processes == 3
    jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(6)]
    eventually(lambda: len(ledger.pids()) == 3, "three jobs to run at once")
    assert len(set(ledger.pids())) == 3
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == ["held"] * 6
    assert os.getpid() not in ledger.pids()


def test_max_workers(make_queue: Callable[..., TaskQueue]) -> None:
    """`max_workers` is another word for `processes`."""
    queue = make_queue(max_workers=1)
    assert queue.processes == 1
    assert len(set(queue.map(pid_of, range(50)))) == 1


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"processes": 0}, "processes"),
        ({"processes": -1}, "processes"),
        ({"processes": "2"}, "processes"),
        ({"processes": 1.5}, "processes"),
        ({"start_method": "thread"}, "start_method"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child"),
        ({"initializer": 5}, "initializer"),
    ],
)
def test_senseless_settings(make_queue: Callable[..., TaskQueue], settings: dict[str, Any], word: str) -> None:
    """A setting that makes no sense is refused with its name, before any process is started."""
    with pytest.raises((ConfigError, TypeError), match=word):
        make_queue(**settings)


@pytest.mark.parametrize("number", [0, -1])
def test_senseless_max_workers(make_queue: Callable[..., TaskQueue], number: int) -> None:
    """`max_workers` below 1 is refused in the words that concurrent.futures has for it."""
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make_queue(max_workers=number)


def test_default_number_of_processes(tmp_path: Path) -> None:
    """Without a number there is one process for each CPU that this process may use, not that the machine has."""
    script = run(
        tmp_path,
        """
        import os
        from taskq import TaskQueue

        if __name__ == "__main__":
            print(TaskQueue().processes, len(os.sched_getaffinity(0)))
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            with TaskQueue() as queue:
                print(queue.processes)
        """,
    )
    all_of_them, allowed, one = map(int, script.stdout.split())
    assert 1 <= all_of_them <= allowed
    assert one == 1


# --- initializer


def test_initializer(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """The initializer runs once in each process, with its arguments, before the first job."""
    queue = make_queue(initializer=note_and_remember, initargs=(ledger.path, {"key": (1, 2)}))
    assert [queue.submit(recall).result(timeout=PATIENCE) for _ in range(10)] == [{"key": (1, 2)}] * 10
    assert list(queue.map(recall_item, range(50))) == [{"key": (1, 2)}] * 50
    pids = set(queue.map(pid_of, range(50)))
    assert pids <= set(ledger.pids())
    assert len(ledger.pids()) == len(set(ledger.pids())) <= 2


def test_initializer_of_a_replacement(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """A process that takes the place of a dead one is initialized too."""
    queue = make_queue(processes=1, initializer=note_and_remember, initargs=(ledger.path, 7))
    queue.options(max_crashes=2).submit(die).exception(timeout=PATIENCE)
    assert queue.submit(recall).result(timeout=PATIENCE) == 7
    assert len(set(ledger.pids())) >= 3


def test_failing_initializer(make_queue: Callable[..., TaskQueue]) -> None:
    """When the initializer fails, the pool is broken: pending and later jobs say so, with its traceback."""
    queue = make_queue(initializer=fail_to_initialize, initargs=("no licence",))
    try:
        jobs = [queue.submit(square, 3) for _ in range(5)]
    except PoolBroken:
        jobs = []
    for job in jobs:
        error = job.exception(timeout=PATIENCE)
        assert isinstance(error, PoolBroken)
        assert "no licence" in f"{error} {error.__cause__}"
        assert "fail_to_initialize" in f"{error} {error.__cause__}"

    def refused() -> PoolBroken | None:
        try:
            queue.submit(square, 3)
        except PoolBroken as exc:
            return exc
        return None

    error = eventually(refused, "submit to raise PoolBroken")
    assert "no licence" in f"{error} {error.__cause__}"
    with pytest.raises(PoolBroken):
        list(queue.map(square, range(3)))


def test_failing_initializer_and_a_map(make_queue: Callable[..., TaskQueue]) -> None:
    """A map over a pool that cannot start raises PoolBroken instead of waiting."""
    queue = make_queue(initializer=fail_to_initialize, initargs=("no licence",))
    with pytest.raises(PoolBroken, match="no licence"):
        list(queue.map(square, range(1_000)))


def test_initializer_that_exits(make_queue: Callable[..., TaskQueue]) -> None:
    """An initializer that ends its process breaks the pool after a few tries, instead of starting it for ever."""
    queue = make_queue(initializer=os._exit, initargs=(5,))
    try:
        error = queue.submit(square, 3).exception(timeout=PATIENCE)
    except PoolBroken as exc:
        error = exc
    assert isinstance(error, PoolBroken)


# --- replacement


@pytest.mark.parametrize("how", ["submit", "map"])
def test_max_tasks_per_child(make_queue: Callable[..., TaskQueue], how: str) -> None:
    """A process runs so many jobs and no more, then another takes its place, and nothing is lost."""
    queue = make_queue(max_tasks_per_child=5)
    if how == "submit":
        jobs = [queue.submit(pid) for _ in range(60)]
        pids = [job.result(timeout=PATIENCE) for job in jobs]
    else:
        pids = list(queue.map(pid_of, range(60)))
    assert len(pids) == 60
    counts = Counter(pids)
    assert max(counts.values()) <= 5
    assert len(counts) >= 12


def test_max_tasks_of_one(make_queue: Callable[..., TaskQueue]) -> None:
    """A fresh process for each job."""
    queue = make_queue(max_tasks_per_child=1)
    jobs = [queue.submit(pid) for _ in range(12)]
    assert len({job.result(timeout=PATIENCE) for job in jobs}) == 12


def test_max_tasks_and_shutdown(make_queue: Callable[..., TaskQueue]) -> None:
    """A shutdown while processes are being replaced still finishes all jobs."""
    queue = make_queue(max_tasks_per_child=1)
    jobs = [queue.submit(add, number, number) for number in range(10)]
    queue.shutdown()
    assert [job.result(timeout=PATIENCE) for job in jobs] == [2 * number for number in range(10)]


def test_replacement_is_no_crash(make_queue: Callable[..., TaskQueue]) -> None:
    """Jobs around a replacement have one attempt and no crash."""
    queue = make_queue(max_tasks_per_child=2)
    jobs = [queue.submit(square, number) for number in range(20)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [number**2 for number in range(20)]
    assert {(job.attempts, job.crashes) for job in jobs} == {(1, 0)}


# --- good citizens


def test_children_may_have_children(make_queue: Callable[..., TaskQueue]) -> None:
    """A job may itself use multiprocessing."""
    queue = make_queue(processes=1)  # of its own: its process keeps a resource tracker as long as it lives
    assert queue.submit(use_multiprocessing, 4).result(timeout=PATIENCE) == 16


def test_children_ignore_ctrl_c(queue: TaskQueue) -> None:
    """A SIGINT to a child process disturbs no job."""
    assert queue.submit(signal_oneself, int(signal.SIGINT)).result(timeout=PATIENCE) == "undisturbed"


@pytest.mark.needs("start_methods", why="a worker's processes leave its signals to it: tests/faults/durable")
def test_parent_handlers_are_not_inherited(make_queue: Callable[..., TaskQueue]) -> None:
    """A signal handler of the parent program does not run in its children."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        found = make_queue(processes=1).submit(handler_of, int(signal.SIGTERM)).result(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "Child" in found


def test_settings_in_the_url(variant: Variant) -> None:
    """The same settings may stand in the URL, and arguments win over it."""
    method = variant.settings.get("start_method", "spawn")
    with TaskQueue(f"{variant.url}?processes=1&start_method={method}&max_tasks_per_child=3") as queue:
        assert queue.processes == 1
        assert len({queue.submit(pid).result(timeout=PATIENCE) for _ in range(6)}) == 2
    with TaskQueue(f"{variant.url}?processes=1&start_method={method}", processes=2) as queue:
        assert queue.processes == 2


def test_value_left_by_one_pool_is_not_in_another(make_queue: Callable[..., TaskQueue]) -> None:
    """Two pools have processes of their own."""
    one = make_queue(processes=1, initializer=remember, initargs=("one",))
    two = make_queue(processes=1)
    assert one.submit(recall).result(timeout=PATIENCE) == "one"
    assert two.submit(recall).result(timeout=PATIENCE) is None
