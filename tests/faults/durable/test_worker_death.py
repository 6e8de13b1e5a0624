"""Workers that are killed (row 5), that freeze past their lease (row 6), and jobs that kill them (row 16)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from taskq import State
from taskq.errors import JobCrashed
from tests.faults.durable.fleet import PATIENCE, check, total_starts, wait_for_starts
from tests.processes import is_frozen
from tests.sample_tasks import hold_and_sign, hold_seen, kill_worker, nap, note_and_die, note_and_nap, square
from tests.scripts import Script
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger


@pytest.mark.parametrize("how", ["kill", "kill_machine"])
def test_killed_worker(fleet: Fleet, ledger: Ledger, how: str) -> None:
    """A worker that is killed takes its children with it, and others run what it had begun: nothing is lost."""
    victim, _other = fleet.start(), fleet.start()
    jobs = fleet.submit(ledger, 200)
    wait_for_starts(ledger, 60)
    before = fleet.pids(victim)
    getattr(victim, how)()
    victim.assert_gone(within=10.0)
    excuse = fleet.excuse(before, jobs)
    assert check(jobs, ledger, [excuse]) <= 16, "more ran again than the victim can have had in its hands"


def test_all_workers_killed(fleet: Fleet, ledger: Ledger) -> None:
    """When all workers are killed the jobs wait, and the next worker runs them."""
    workers = [fleet.start(), fleet.start()]
    jobs = fleet.submit(ledger, 120)
    wait_for_starts(ledger, 30)
    pids = [fleet.pids(worker) for worker in workers]
    for worker in workers:
        worker.kill_machine()
    excuses = [fleet.excuse(before, jobs) for before in pids]
    assert not all(job.done() for job in jobs)
    fleet.start()
    check(jobs, ledger, excuses)


def test_killed_worker_runs_long_jobs_again(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """The jobs that ran in the dead worker are started again, and know that a crash was before."""
    victim = fleet.start()
    jobs = [fleet.queue.submit(hold_seen, gate.path, ledger.path, f"job {number}") for number in range(2)]
    eventually(lambda: all(fleet.record(job.id).progress for job in jobs), "the store to hear that both have begun")
    fleet.start()
    victim.kill()
    eventually(lambda: ledger.counts() == {"job 0": 2, "job 1": 2}, "both jobs to start again")
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == ["job 0", "job 1"]
    assert {(fleet.record(job.id).attempts, fleet.record(job.id).crashes) for job in jobs} == {(2, 1)}


def test_job_that_outlives_its_workers(fleet: Fleet, ledger: Ledger) -> None:
    """A job whose workers die again and again is failed as crashed when it has had its crashes, not run for ever."""
    job = fleet.queue.options(max_crashes=2).submit(hold_seen, "/no such gate", ledger.path, "held")
    for death in (1, 2):
        worker = fleet.start()
        eventually(
            lambda wanted=death: len(ledger.texts()) == wanted and fleet.record(job.id).progress,
            "the store to hear that the job has begun",
        )
        worker.kill_machine()
    fleet.start()
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert fleet.record(job.id).crashes == 2
    assert len(ledger.texts()) == 2


def test_poison_job(fleet: Fleet, ledger: Ledger) -> None:
    """A job that kills its process three times is failed as crashed; the jobs around it run once each."""
    fleet.start()
    poison = fleet.queue.options(priority=1).submit(note_and_die, ledger.path)
    jobs = fleet.submit(ledger, 60, 0.001)
    error = poison.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert error.crashes == 3
    check(jobs, ledger)
    assert ledger.counts()["start"] == 3


def test_job_that_kills_its_worker(fleet: Fleet, ledger: Ledger) -> None:
    """Only the job that kills its worker again and again counts crashes and fails, not those that died with it.

    The first death, within moments of the start, may leave it open which job had begun.
    """
    jobs = fleet.submit(ledger, 12, 0.0)
    poison = fleet.queue.submit(kill_worker, ledger.path)
    jobs += [fleet.queue.submit(note_and_nap, ledger.path, 12 + number, 0.0) for number in range(12)]
    deaths = 0
    while not fleet.has_ended(poison.id) and deaths < 4:
        worker = fleet.prepare(processes=1, arguments=("--start-method", "fork"))
        worker.start()
        assert worker.wait(PATIENCE) == -signal.SIGKILL, worker.log()
        deaths += 1
    fleet.start()
    error = poison.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert error.crashes == 3
    assert [job.result(timeout=PATIENCE) for job in jobs] == list(range(24))
    counts = ledger.counts()
    assert counts["poison"] == deaths
    assert {fleet.record(job.id).crashes for job in jobs} == {0}
    assert max(counts[f"start {number}"] for number in range(12, 24)) == 1


@pytest.mark.parametrize("what", ["daemon", "machine"])
def test_frozen_worker(fleet: Fleet, ledger: Ledger, gate: Gate, what: str) -> None:
    """What a worker holds that freezes past its lease runs elsewhere; its own outcome comes too late and is refused."""
    frozen = fleet.start()
    job = fleet.queue.submit(hold_and_sign, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    if what == "machine":
        frozen.freeze()
    else:
        frozen.signal(signal.SIGSTOP)
        eventually(lambda: is_frozen(frozen.pid), "the daemon to freeze")
    other = fleet.start()
    eventually(lambda: ledger.counts()["start"] == 2, "the job to start elsewhere")
    gate.open()
    signature = job.result(timeout=PATIENCE)
    first, second = ledger.pids("start")
    assert signature == second
    frozen.thaw()  # its attempt ends now, or is ended because the lease is over
    eventually(lambda: (found := frozen.record()) is not None and found.running == 0, "the frozen worker to be idle")
    assert first != second
    assert fleet.queue.job(job.id).result(timeout=PATIENCE) == signature
    assert fleet.record(job.id).state is State.SUCCEEDED
    other.stop()
    assert fleet.queue.submit(square, 3).result(timeout=PATIENCE) == 9, "the thawed worker takes no jobs"


def test_short_freeze(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """A freeze shorter than the lease costs nothing: the job goes on, and runs once."""
    frozen, _other = fleet.start(), fleet.start()
    job = fleet.queue.submit(hold_and_sign, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    frozen.freeze()
    frozen.thaw()
    gate.open()
    assert job.result(timeout=PATIENCE) == ledger.pids("start")[0]
    assert total_starts(ledger) == 0
    assert ledger.counts() == {"start": 1, "end": 1}


def test_killed_client(fleet: Fleet, ledger: Ledger, tmp_path: Path) -> None:
    """A program that is killed right behind its submits loses none of them."""
    source = """
import sys, time
from taskq import TaskQueue
from tests.sample_tasks import note_and_nap

queue = TaskQueue(sys.argv[1])
for number in range(1000):
    print(queue.submit(note_and_nap, sys.argv[2], number, 0.0).id, flush=True)
time.sleep(100)
"""
    with Script(tmp_path, source, fleet.url, ledger.path) as script:
        eventually(lambda: script.stdout.count("\n") > 100, "a hundred jobs to be submitted")
        os.kill(script.pid, signal.SIGKILL)
        script.wait()
    accepted = script.stdout.split("\n")[:-1]
    fleet.start()
    for number, job_id in enumerate(accepted):
        assert fleet.queue.job(job_id).result(timeout=PATIENCE) == number
    assert set(ledger.counts().values()) == {1}


def test_dying_children_under_load(fleet: Fleet, ledger: Ledger) -> None:
    """Children of the workers that are killed while jobs run cost their own jobs one crash, and no other anything."""
    worker = fleet.start()
    jobs = fleet.submit(ledger, 150, 0.01, max_crashes=1_000)
    kills = 0
    while kills < 6:
        wait_for_starts(ledger, 10 * (kills + 1))
        victim = ledger.entries()[-1].pid
        if victim in fleet.pids(worker):
            os.kill(victim, signal.SIGKILL)
            kills += 1
    assert [job.result(timeout=PATIENCE) for job in jobs] == list(range(150))
    assert total_starts(ledger) <= 150 + kills
    assert sum(fleet.record(job.id).crashes for job in jobs) <= kills
    assert fleet.queue.submit(nap, 0.0).result(timeout=PATIENCE) == 0.0
