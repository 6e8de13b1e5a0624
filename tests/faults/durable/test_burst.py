"""`--burst` and `--drain`: such a worker ends when its queues have nothing more for it, and says what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq import Retry, State
from tests.faults.durable.fleet import PATIENCE
from tests.sample_tasks import add, fail, fail_until, hold, note_item
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger
    from tests.worker_process import WorkerProcess


def run_burst(fleet: Fleet, *arguments: str) -> WorkerProcess:
    """Start one that ends by itself, and return it when it has."""
    worker = fleet.prepare(arguments=arguments)
    worker.start()
    assert worker.wait(PATIENCE) == 0, worker.log()
    return worker


def test_what_ends_bring(fleet: Fleet) -> None:
    """Chains of dependents and retries without delay, which the end of the last job brings, are run too."""
    first = fleet.queue.submit(add, 1, 2)
    second = fleet.queue.submit(add, first, 3)
    third = fleet.queue.submit(add, second, 4)
    retried = fleet.queue.options(retry=Retry(2, delay=0)).submit(fail, "ValueError", "no")
    run_burst(fleet, "--burst")
    assert third.result(timeout=PATIENCE) == 10
    assert (retried.state, fleet.record(retried.id).attempts) == (State.FAILED, 3)


def test_retries_that_are_due_later(fleet: Fleet, ledger: Ledger) -> None:
    """A burst leaves delayed retries and says so; a drain runs them, and leaves what was only put for later."""
    retried = fleet.queue.options(retry=Retry(5, delay=40.0, jitter=False)).submit(fail_until, ledger.path, 9)
    later = fleet.queue.options(delay=3600).submit(add, 1, 2)
    worker = run_burst(fleet, "--burst")
    assert "retries_left" in worker.log()
    assert "jobs=1" in worker.log()
    assert retried.state is State.SCHEDULED
    retried.cancel()
    short = fleet.queue.options(retry=Retry(5, delay=0.6, jitter=False)).submit(fail_until, ledger.path, 4)
    worker = run_burst(fleet, "--drain")
    assert short.result(timeout=PATIENCE) == 4
    assert "retries_left" not in worker.log()
    assert later.state is State.SCHEDULED


def test_what_runs_elsewhere(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """A burst waits for a job in another worker, of another queue too, that a job of its own queues waits for."""
    fleet.start(queues=["other"], processes=1)
    running = fleet.queue.options(queue="other").submit(hold, gate.path, ledger.path, "x")
    middle = fleet.queue.options(queue="other").submit(add, running, "y")
    last = fleet.queue.submit(add, middle, "z")
    eventually(lambda: ledger.texts() == ["x"], "the other worker's job to run")
    ready = fleet.queue.submit(note_item, ledger.path, "ready")
    worker = fleet.prepare(arguments=("--burst",))
    worker.start()
    ready.result(timeout=PATIENCE)
    gate.open()
    assert worker.wait(PATIENCE) == 0, worker.log()
    assert last.state is State.SUCCEEDED


def test_paused_queue(fleet: Fleet) -> None:
    """A burst ends although jobs wait in a queue that is paused, and leaves them."""
    job = fleet.queue.submit(add, 1, 2)
    fleet.queue.pause("default")
    run_burst(fleet, "--burst")
    assert job.state is State.QUEUED
