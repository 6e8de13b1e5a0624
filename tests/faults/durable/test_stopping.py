"""Workers that are told to stop (row 7): what runs gets its grace, the rest goes back, a second signal ends it now."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from taskq import State
from tests import processes
from tests.faults.durable.fleet import PATIENCE, check, wait_for_starts
from tests.sample_forks import is_there, leave_an_orphan
from tests.sample_tasks import hold, note_item
from tests.waiting import eventually
from tests.worker_process import IMPORTS

if TYPE_CHECKING:
    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_warm_stop(fleet: Fleet, ledger: Ledger, gate: Gate, number: int) -> None:
    """At the first signal a worker starts nothing more, ends what runs, gives back what waits, and exits with 0."""
    worker = fleet.start()
    running = [fleet.queue.submit(hold, gate.path, ledger.path, f"running {item}") for item in range(2)]
    eventually(lambda: len(ledger.texts()) == 2, "both jobs to start")
    waiting = [fleet.queue.submit(note_item, ledger.path, item) for item in range(30)]
    worker.signal(number)
    eventually(lambda: (found := worker.record()) is None or found.stopping, "the worker to be stopping")
    gate.open()
    assert worker.wait(PATIENCE) == 0, worker.log()
    worker.assert_gone()
    assert worker.record() is None, "it has not signed off"
    assert [job.result(timeout=PATIENCE) for job in running] == ["running 0", "running 1"]
    assert {fleet.record(job.id).state for job in waiting} == {State.QUEUED}
    assert {fleet.record(job.id).attempts for job in waiting} == {0}
    assert len(ledger.texts()) == 2
    fleet.start(processes=1)
    assert [job.result(timeout=PATIENCE) for job in waiting] == list(range(30))
    assert ledger.texts()[2:] == [str(item) for item in range(30)], "what was given back has lost its place"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_all_processes(fleet: Fleet, ledger: Ledger, gate: Gate, number: int) -> None:
    """A signal that a process manager sends to all of a worker's processes leaves what runs its grace, too."""
    worker = fleet.start()
    running = [fleet.queue.submit(hold, gate.path, ledger.path, f"running {item}") for item in range(2)]
    eventually(lambda: len(ledger.texts()) == 2, "both jobs to start")
    for seen in processes.of_session(worker.pid):
        os.kill(seen.pid, number)
    eventually(lambda: (found := worker.record()) is None or found.stopping, "the worker to be stopping")
    gate.open()
    assert worker.wait(PATIENCE) == 0, worker.log()
    assert [job.result(timeout=PATIENCE) for job in running] == ["running 0", "running 1"]
    assert "child_died" not in worker.log()
    assert len(ledger.texts()) == 2


def test_grace_that_is_over(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """Jobs that do not end in their grace are ended, go back to the front, and their attempt is not counted."""
    worker = fleet.start(arguments=("--grace", "1"))
    running = [fleet.queue.submit(hold, gate.path, ledger.path, f"running {item}") for item in range(2)]
    eventually(lambda: len(ledger.texts()) == 2, "both jobs to start")
    behind = fleet.queue.submit(note_item, ledger.path, "behind")
    assert worker.stop(PATIENCE) == 1, worker.log()
    worker.assert_gone()
    assert {fleet.record(job.id).state for job in running} == {State.QUEUED}
    gate.open()
    fleet.start(processes=1)
    assert [job.result(timeout=PATIENCE) for job in running] == ["running 0", "running 1"]
    assert behind.result(timeout=PATIENCE) == "behind"
    assert ledger.texts()[-1] == "behind", "what was given back has lost its place"
    assert {(fleet.record(job.id).attempts, fleet.record(job.id).crashes) for job in running} == {(1, 0)}


def test_second_signal(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """A second signal ends a worker at once; its jobs go back, their attempts not counted."""
    worker = fleet.start()
    running = [fleet.queue.submit(hold, gate.path, ledger.path, f"running {item}") for item in range(2)]
    eventually(lambda: len(ledger.texts()) == 2, "both jobs to start")
    worker.signal(signal.SIGTERM)
    eventually(lambda: (found := worker.record()) is None or found.stopping, "the worker to be stopping")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10.0) == 1, worker.log()
    worker.assert_gone()
    assert {fleet.record(job.id).state for job in running} == {State.QUEUED}
    gate.open()
    fleet.start()
    assert [job.result(timeout=PATIENCE) for job in running] == ["running 0", "running 1"]
    assert {(fleet.record(job.id).attempts, fleet.record(job.id).crashes) for job in running} == {(1, 0)}


def test_workers_come_and_go(fleet: Fleet, ledger: Ledger) -> None:
    """Workers that are stopped and replaced one by one, as in a rolling update, lose and double nothing."""
    fleet.start()
    jobs = fleet.submit(ledger, 300)
    for turn in range(1, 4):
        wait_for_starts(ledger, 60 * turn)
        fleet.start()
        assert fleet.workers[-2].stop(PATIENCE) == 0, fleet.workers[-2].log()
    check(jobs, ledger)
    assert set(ledger.counts().values()) == {1}


def test_idle_worker_stops_at_once(fleet: Fleet) -> None:
    """A worker that has nothing to do ends at the first signal, and signs off."""
    worker = fleet.start()
    assert worker.stop(10.0) == 0, worker.log()
    worker.assert_gone()
    assert worker.record() is None


def test_burst(fleet: Fleet, ledger: Ledger) -> None:
    """With `--burst` a worker ends by itself when the queue is empty, everything done."""
    jobs = fleet.submit(ledger, 40, 0.0)
    worker = fleet.prepare(arguments=("--burst",))
    worker.start()
    assert worker.wait(PATIENCE) == 0, worker.log()
    assert all(fleet.has_ended(job.id) for job in jobs)
    check(jobs, ledger)


def test_max_jobs(fleet: Fleet, ledger: Ledger) -> None:
    """With `--max-jobs` a worker ends after so many jobs, and the others wait for the next one."""
    jobs = fleet.submit(ledger, 40, 0.0)
    worker = fleet.prepare(arguments=("--max-jobs", "10"))
    worker.start()
    assert worker.wait(PATIENCE) == 0, worker.log()
    assert sum(fleet.has_ended(job.id) for job in jobs) == 10
    fleet.start()
    check(jobs, ledger)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_process_1_reaps_orphans(fleet: Fleet) -> None:
    """A worker that is process 1, as in a container without an init, leaves no zombie of what jobs have left."""
    fleet.start(
        prefix=("unshare", "--fork", "--pid", "--mount-proc", "--kill-child"),
        imports=(*IMPORTS, "tests.sample_forks"),
    )
    orphan = fleet.queue.submit(leave_an_orphan).result(timeout=PATIENCE)
    gone = "the orphan to be reaped by its worker"
    eventually(lambda: not fleet.queue.submit(is_there, orphan).result(timeout=PATIENCE), gone)
