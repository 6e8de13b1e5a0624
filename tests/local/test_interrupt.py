"""Ctrl-C in a `with` block: what runs is interrupted where it is, and killed when it does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scripts import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ledger import Ledger

PROGRAM = """
import sys, time
import executors.local
from taskq import TaskQueue
from tests.ledger import note
from tests.sample_tasks import spin_in_c
from tests.waiting import eventually

executors.local.LEAVING_GRACE = 1.0

def tidy(ledger, item=0):
    note(ledger, "start")
    try:
        time.sleep(100)
    finally:
        note(ledger, "tidied")

def spin(ledger):
    note(ledger, "start")
    spin_in_c()

def wait_for_starts(path, jobs):
    lines = lambda: open(path).read().count("start") == jobs
    eventually(lines, "jobs to start")
    raise KeyboardInterrupt

if __name__ == "__main__":
    how, method, ledger = sys.argv[1:]
    jobs = []
    try:
        with TaskQueue(processes=2, start_method=method) as queue:
            if how == "map":
                results = queue.imap(tidy, [ledger] * 5)
                queue.submit(abs, 1)
            else:
                jobs = [queue.submit({"sleep": tidy, "C": spin}[how], ledger) for _ in range(5)]
            wait_for_starts(ledger, 2)
    except KeyboardInterrupt:
        print(*[str(job.state) for job in jobs])
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
def test_jobs_are_interrupted(tmp_path: Path, ledger: Ledger, start_method: str) -> None:
    """Jobs that run get a KeyboardInterrupt, so that they tidy up; those that wait never start; nothing is killed."""
    script = run(tmp_path, PROGRAM, "sleep", start_method, ledger.path)
    assert script.stdout.split() == ["cancelled"] * 5
    assert ledger.counts() == {"start": 2, "tidied": 2}
    assert "killed" not in script.stderr


def test_items_are_interrupted(tmp_path: Path, ledger: Ledger) -> None:
    """The items of a map are, too."""
    script = run(tmp_path, PROGRAM, "map", "forkserver", ledger.path)
    assert ledger.counts() == {"start": 2, "tidied": 2}
    assert "killed" not in script.stderr


def test_what_does_not_end_is_killed(tmp_path: Path, ledger: Ledger) -> None:
    """A job that cannot be interrupted is killed when the grace is over, and stderr says so."""
    script = run(tmp_path, PROGRAM, "C", "forkserver", ledger.path)
    assert script.stdout.split() == ["cancelled"] * 5
    assert ledger.counts() == {"start": 2}
    assert "interrupted, and with it 2 running jobs; what runs on for 1 s is killed" in script.stderr
    assert "killed 2 running jobs" in script.stderr
