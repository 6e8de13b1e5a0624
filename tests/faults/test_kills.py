"""Children killed under load (row 1), while idle (row 2), by their own job (row 16): every job accounted for once."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import JobCrashed
from tests.faults.accounts import ENOUGH, check, submit_under_fire, total_starts
from tests.faults.killing import Killer, children, wait_for_children
from tests.processes import Seen, is_frozen, kill
from tests.sample_tasks import (
    die_at,
    die_at_once,
    hold,
    identity,
    note_and_die,
    note_and_nap,
    pid,
    square,
    zeros,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

pytestmark = pytest.mark.needs("start_methods", why="its processes are the workers': tests/faults/durable")

#: Kills of one test; the soak tests do the same with many more.
KILLS = 25


def test_random_kills_under_load(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """Whatever is killed, whenever: every job has its own result, and no run more than the kills explain."""
    queue = make_queue(processes=3)
    with Killer(KILLS) as killer:
        jobs = submit_under_fire(queue, ledger, killer, at_least=200)
    assert killer.kills == KILLS
    check(jobs, ledger, killer.kills)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9
    wait_for_children(3)


@pytest.mark.parametrize("how", ["map", "imap_unordered"])
def test_random_kills_during_a_map(make_queue: Callable[..., TaskQueue], ledger: Ledger, how: str) -> None:
    """In a map under fire every item gives its result once, and only as many items run again as there were kills."""
    queue = make_queue(processes=3)
    results = getattr(queue.options(max_crashes=ENOUGH), how)(
        partial(note_and_nap, ledger.path, seconds=0.004), range(1_500)
    )
    with Killer(KILLS) as killer:
        got = list(results)
        killer.stop()
    assert (got if how == "map" else sorted(got)) == list(range(1_500))
    assert killer.kills > 5, "the map was over before the killing had begun"
    assert 1_500 <= total_starts(ledger.counts()) <= 1_500 + killer.kills


def test_kills_of_tiny_jobs(make_queue: Callable[..., TaskQueue]) -> None:
    """Kills that land between the microseconds of very short jobs lose and double no result."""
    queue = make_queue(processes=2)
    with Killer(KILLS) as killer:
        count = 0
        while killer.busy:
            assert list(queue.options(max_crashes=ENOUGH).map(square, range(3_000))) == [n**2 for n in range(3_000)]
            count += 1
    assert killer.kills == KILLS
    assert count > 0


def test_kills_of_big_jobs(make_queue: Callable[..., TaskQueue]) -> None:
    """Kills in the middle of big arguments and results tear nothing."""
    queue = make_queue(processes=2)
    bound = queue.options(max_crashes=ENOUGH)
    data = bytes(range(256)) * 8_000
    with Killer(10, pause=(0.01, 0.05)) as killer:
        while killer.busy:
            there, back = bound.submit(identity, data), bound.submit(zeros, 3_000_000)
            assert there.result(timeout=PATIENCE) == data
            assert len(back.result(timeout=PATIENCE)) == 3_000_000


def test_idle_children_killed(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """The death of idle children is invisible: the next jobs run, once each, time after time."""
    queue = make_queue(processes=2)
    killed: list[Seen] = []
    for turn in range(8):
        assert queue.submit(note_and_nap, ledger.path, turn, 0.0).result(timeout=PATIENCE) == turn
        for seen in wait_for_children(2, besides=killed):
            assert kill(seen.pid)
            killed.append(seen)
    job = queue.submit(note_and_nap, ledger.path, "last", 0.0)
    assert job.result(timeout=PATIENCE) == "last"
    assert (job.attempts, job.crashes) == (1, 0)
    assert set(ledger.counts().values()) == {1}


def test_idle_children_are_replaced_without_jobs(make_queue: Callable[..., TaskQueue]) -> None:
    """Dead idle children are replaced without anybody submitting."""
    queue = make_queue(processes=2)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    before = wait_for_children(2)
    for seen in before:
        assert kill(seen.pid)
    eventually(lambda: len(children(besides=before)) == 2, "two new children")
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_exactly_the_victim_runs_again(make_queue: Callable[..., TaskQueue], ledger: Ledger, gate: Gate) -> None:
    """Of two running jobs, the one whose process is killed runs again, and the neighbour does not notice."""
    queue = make_queue(processes=2)
    jobs = {name: queue.submit(hold, gate.path, ledger.path, name) for name in ("victim", "neighbour")}
    waiting = [queue.submit(note_and_nap, ledger.path, number, 0.0) for number in range(40)]
    eventually(lambda: len(ledger.texts()) == 2, "both to start")
    assert kill(ledger.pids("victim")[0])
    eventually(lambda: ledger.counts()["victim"] == 2, "the victim to run again")
    gate.open()
    assert {name: job.result(timeout=PATIENCE) for name, job in jobs.items()} == {name: name for name in jobs}
    assert [job.result(timeout=PATIENCE) for job in waiting] == list(range(40))
    assert (jobs["victim"].attempts, jobs["victim"].crashes) == (2, 1)
    assert (jobs["neighbour"].attempts, jobs["neighbour"].crashes) == (1, 0)
    counts = ledger.counts()
    assert (counts.pop("victim"), set(counts.values())) == (2, {1})


def test_exactly_the_victims_of_a_map_run_again(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """Items that kill their process once run twice; those bundled with them run once, and all give their results."""
    queue = make_queue(processes=2)
    bad = frozenset({5, 6, 70, 199})
    results = queue.map(partial(die_at_once, ledger.path, bad), range(200), chunksize=50)
    assert list(results) == list(range(200))
    assert ledger.counts() == {str(item): 2 if item in bad else 1 for item in range(200)}


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_poison_job(make_queue: Callable[..., TaskQueue], ledger: Ledger, number: int, name: str) -> None:
    """A job that kills its process three times is failed with the signal named; those around it are not delayed."""
    queue = make_queue(processes=2)
    around = [queue.submit(note_and_nap, ledger.path, item, 0.001) for item in range(50)]
    poison = queue.submit(note_and_die, ledger.path, int(number))
    around += [queue.submit(note_and_nap, ledger.path, item, 0.001) for item in range(50, 100)]
    error = poison.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert (error.crashes, error.exitcode) == (3, -number)
    assert name in str(error)
    assert [job.result(timeout=PATIENCE) for job in around] == list(range(100))
    assert {job.crashes for job in around} == {0}
    counts = ledger.counts()
    assert counts.pop("start") == 3
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("how", ["imap", "imap_unordered"])
def test_poison_items(make_queue: Callable[..., TaskQueue], ledger: Ledger, how: str) -> None:
    """A poison item of a map is that item's JobCrashed, after three runs; every other item runs once."""
    queue = make_queue(processes=2)
    bad = frozenset({3, 40})
    results: Any = getattr(queue, how)(
        partial(die_at, ledger.path, bad), range(60), return_exceptions=True, with_index=True
    )
    by_index = dict(results)
    assert {index for index, result in by_index.items() if isinstance(result, JobCrashed)} == bad
    assert {"SIGKILL" in str(by_index[index]) for index in bad} == {True}
    assert all(by_index[index] == index for index in set(range(60)) - bad)
    assert ledger.counts() == {str(item): 3 if item in bad else 1 for item in range(60)}


def test_only_poison(make_queue: Callable[..., TaskQueue]) -> None:
    """Many poison jobs in a row do not break the pool: each is failed as crashed, and the next job runs."""
    queue = make_queue(processes=2)
    bound = queue.options(max_crashes=1)
    results = bound.imap(partial(die_at, "/dev/null", frozenset(range(15))), range(16), return_exceptions=True)
    outcomes: list[Any] = list(results)
    assert [type(outcome) for outcome in outcomes[:15]] == [JobCrashed] * 15
    assert outcomes[15] == 15


# --- frozen


def test_frozen_child(make_queue: Callable[..., TaskQueue], ledger: Ledger, gate: Gate) -> None:
    """A child stopped by SIGSTOP stops no neighbour, and no submit; continued, it ends its job."""
    queue = make_queue(processes=2)
    frozen = queue.submit(hold, gate.path, ledger.path, "frozen")
    eventually(ledger.texts, "the job to start")
    victim = ledger.pids("frozen")[0]
    assert kill(victim, signal.SIGSTOP)
    eventually(lambda: is_frozen(victim), "the child to freeze")
    jobs = [queue.submit(zeros, 300_000) for _ in range(20)] + [
        queue.submit(identity, bytes(500_000)) for _ in range(20)
    ]
    assert [len(job.result(timeout=PATIENCE)) for job in jobs] == [300_000] * 20 + [500_000] * 20
    assert list(queue.map(square, range(500))) == [number**2 for number in range(500)]
    assert not frozen.done()
    gate.open()
    assert kill(victim, signal.SIGCONT)
    assert frozen.result(timeout=PATIENCE) == "frozen"
    assert (frozen.attempts, frozen.crashes) == (1, 0)
    assert ledger.texts() == ["frozen"]


def test_frozen_child_and_a_timeout(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """A frozen child is killed at its job's timeout like any other."""
    queue = make_queue(processes=1)
    victim = queue.submit(pid).result(timeout=PATIENCE)
    job = queue.options(timeout=1.5).submit(note_and_nap, ledger.path, "job", 60)
    assert eventually(ledger.texts, "the job to have begun, as its clock has")
    assert kill(victim, signal.SIGSTOP)
    assert isinstance(job.exception(timeout=PATIENCE), TimeoutError)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_shutdown_with_a_frozen_idle_child(make_queue: Callable[..., TaskQueue]) -> None:
    """A frozen idle child does not keep a shutdown from coming to its end."""
    queue = make_queue(processes=2)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    assert kill(wait_for_children(2)[0].pid, signal.SIGSTOP)
    queue.shutdown()


def test_kills_during_shutdown(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """Children killed while a shutdown waits for the work are replaced, and the work is done."""
    queue = make_queue(processes=2)
    bound = queue.options(max_crashes=ENOUGH)
    jobs = [bound.submit(note_and_nap, ledger.path, number, 0.01) for number in range(150)]
    with Killer(10) as killer:
        queue.shutdown()
        killer.stop()
    assert [job.result(timeout=0) for job in jobs] == list(range(150))
    check(jobs, ledger, killer.kills)


def test_kill_right_at_the_start(make_queue: Callable[..., TaskQueue]) -> None:
    """Children killed while they are starting up are replaced."""
    begin = time.monotonic()
    queue = make_queue(processes=2)
    job = queue.options(max_crashes=ENOUGH).submit(square, 3)
    for _ in range(3):
        for seen in children():
            kill(seen.pid)
    assert job.result(timeout=PATIENCE) == 9
    assert time.monotonic() >= begin
