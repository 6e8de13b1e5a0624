"""Workers with different --import at one queue: each runs what it can, and leaves the rest to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq import State
from taskq.states import Reason
from tests import ledger as ledgers
from tests.cli.command import taskq
from tests.faults.durable.fleet import PATIENCE
from tests.sample_tasks import add, hold, note_item
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger


def test_left_to_the_other(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """What one worker cannot run stays queued in its place for a busy one that can; what is behind it is run."""
    other = fleet.start(processes=1)
    busy = fleet.queue.submit(hold, gate.path, ledger.path, "busy")
    eventually(lambda: ledger.texts() == ["busy"], "the other worker to be busy")
    lacking = fleet.start(imports=["tests.ledger"])
    ahead = fleet.queue.submit_many(note_item, [(ledger.path, item) for item in range(20)])
    behind = [fleet.queue.submit(ledgers.note, ledger.path, f"behind {item}") for item in range(5)]
    for job in behind:
        job.result(timeout=PATIENCE)
    assert {fleet.record(job.id).state for job in ahead} <= {State.QUEUED, State.RUNNING}
    assert {fleet.record(job.id).attempts for job in ahead if fleet.record(job.id).state is State.QUEUED} <= {0}
    refused = [fleet.record(job.id).refusal for job in ahead]
    assert any(found and "--import tests.sample_tasks" in found.message for found in refused)
    gate.open()
    assert busy.result(timeout=PATIENCE) == "busy"
    assert [job.result(timeout=PATIENCE) for job in ahead] == list(range(20))
    assert [text for text in ledger.texts() if text.isdigit()] == [str(item) for item in range(20)], "order is lost"
    assert lacking.stop() == other.stop() == 0


def test_nobody_left(fleet: Fleet) -> None:
    """When the worker is gone to which a job was left, the other takes it again, and it waits for one that knows it."""
    other = fleet.start(processes=1)
    fleet.queue.pause("default")
    job = fleet.queue.submit(add, 1, 2)
    other.freeze()
    fleet.start(imports=["tests.ledger"], processes=1)
    fleet.queue.resume("default")
    eventually(lambda: fleet.record(job.id).refusal is not None, "the job to be refused")
    other.close()
    eventually(lambda: fleet.record(job.id).state is State.SCHEDULED, "the job to be taken again")
    found = fleet.record(job.id).refusal
    assert found is not None
    assert found.reason is Reason.UNKNOWN_TASK
    where = ("--url", fleet.url)
    assert "--import tests.sample_tasks" in taskq(fleet.folder, "status", job.id, *where).out
    assert "refused" in taskq(fleet.folder, "status", *where).out
    report = taskq(fleet.folder, "doctor", *where).out
    assert "1 of the newest waiting jobs were refused by workers" in report
    assert "--import tests.sample_tasks" in report
    fleet.start(processes=1)
    assert job.result(timeout=PATIENCE) == 3


def test_burst_of_one_that_lacks_it(fleet: Fleet, ledger: Ledger, gate: Gate) -> None:
    """A burst ends when all that waits is left to another worker."""
    fleet.start(processes=1)
    busy = fleet.queue.submit(hold, gate.path, ledger.path, "busy")
    eventually(lambda: ledger.texts() == ["busy"], "the other worker to be busy")
    job = fleet.queue.submit(add, 1, 2)
    burst = fleet.prepare(imports=["tests.ledger"], arguments=("--burst",))
    burst.start()
    eventually(lambda: fleet.record(job.id).refusal is not None, "the job to be refused")
    gate.open()
    assert burst.wait(PATIENCE) == 0, burst.log()
    assert [job.result(timeout=PATIENCE), busy.result(timeout=PATIENCE)] == [3, "busy"]
