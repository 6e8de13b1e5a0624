"""The clock of a worker's machine jumps by an hour (row 19): nobody is taken for dead, nothing runs early or late."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.durable.fleet import PATIENCE, check, wait_for_starts
from tests.sample_tasks import clock, hold, note_item
from tests.scripts import ROOT
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Gate
    from tests.faults.durable.fleet import Fleet
    from tests.ledger import Ledger
    from tests.worker_process import WorkerProcess

#: Python imports this before anything else: from then on `time.time` jumps when the file JUMP appears.
PATCH = """
import os, time

real, real_ns, path, by = time.time, time.time_ns, os.environ["JUMP"], float(os.environ["JUMP_BY"])

def jumped():
    return by if os.path.exists(path) else 0.0

time.time = lambda: real() + jumped()
time.time_ns = lambda: real_ns() + int(jumped() * 1e9)
"""

HOUR = 3600.0


def start_with_clock(fleet: Fleet, folder: Path, by: float) -> WorkerProcess:
    """Start a worker whose clock jumps when the file "jump" appears in the folder."""
    (folder / "sitecustomize.py").write_text(PATCH, encoding="utf-8")
    variables = {"PYTHONPATH": f"{folder}:{ROOT}", "JUMP": str(folder / "jump"), "JUMP_BY": str(by)}
    return fleet.start(variables=variables)


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_jump_under_load(fleet: Fleet, ledger: Ledger, tmp_path: Path, by: float) -> None:
    """A jump of one worker's clock in the middle of the work costs no job, and doubles none."""
    start_with_clock(fleet, tmp_path, by)
    fleet.start()
    jobs = fleet.submit(ledger, 250)
    wait_for_starts(ledger, 60)
    (tmp_path / "jump").touch()
    check(jobs, ledger)
    assert set(ledger.counts().values()) == {1}


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_jump_during_a_long_job(fleet: Fleet, ledger: Ledger, gate: Gate, tmp_path: Path, by: float) -> None:
    """A worker whose clock jumps while it runs a long job keeps the job, also past its lease; so do its neighbours."""
    jumping = start_with_clock(fleet, tmp_path, by)
    jobs = [fleet.queue.submit(hold, gate.path, ledger.path, f"job {number}") for number in range(4)]
    eventually(lambda: len(ledger.texts()) == 2, "two jobs to start")
    fleet.start()
    eventually(lambda: len(ledger.texts()) == 4, "four jobs to start")
    (tmp_path / "jump").touch()
    time.sleep(5)  # the fault itself: longer than the lease
    assert ledger.counts() == {f"job {number}": 1 for number in range(4)}
    assert jumping.record() is not None, "it is taken for dead"
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == [f"job {number}" for number in range(4)]
    assert {fleet.record(job.id).crashes for job in jobs} == {0}


@pytest.mark.parametrize("fleet", ["redis"], indirect=True)
@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_jump_and_delayed_jobs(fleet: Fleet, ledger: Ledger, tmp_path: Path, by: float) -> None:
    """Where the store has the clock, a worker whose own jumps runs delayed jobs neither early nor never."""
    start_with_clock(fleet, tmp_path, by)
    (tmp_path / "jump").touch()
    begin = time.monotonic()
    soon = fleet.queue.options(delay=1.5).submit(note_item, ledger.path, "soon")
    later = fleet.queue.options(delay=1_800).submit(note_item, ledger.path, "later")
    assert soon.result(timeout=PATIENCE) == "soon"
    assert ledger.entries()[0].at - begin >= 1.5
    assert ledger.texts() == ["soon"]
    assert later.cancel() is True
    there = fleet.queue.submit(clock).result(timeout=PATIENCE)
    assert abs(there - time.time() - by) < HOUR / 2, "the clock of that worker has not jumped at all"
