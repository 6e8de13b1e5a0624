"""Ctrl-C in a `with` block: what runs is interrupted where it is, and killed when it does not end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests import processes
from tests.scripts import Script, run
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Gate
    from tests.ledger import Ledger

PROGRAM = """
import sys, time
import taskq.executors.local
from taskq import TaskQueue
from tests.ledger import note
from tests.sample_tasks import spin_in_c
from tests.waiting import eventually

taskq.executors.local.LEAVING_GRACE = 1.0

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


HANDLES = """
import signal, sys
from taskq import TaskQueue
from tests.sample_tasks import hold

if __name__ == "__main__":
    method, gate, ledger = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: print("told", flush=True))
    with TaskQueue(processes=1, start_method=method) as queue:
        print(queue.submit(hold, gate, ledger, "held").result(40), flush=True)
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_all_processes(tmp_path: Path, ledger: Ledger, gate: Gate, number: int, start_method: str) -> None:
    """A signal that a program handles itself, sent to all of its processes, does not end its jobs."""
    with Script(tmp_path, HANDLES, start_method, gate.path, ledger.path) as script:
        eventually(lambda: ledger.texts() == ["held"], "the job to start")
        for seen in processes.of_session(script.pid):
            os.kill(seen.pid, number)
        script.wait_for_line("told")
        gate.open()
        assert script.wait() == 0, script.stderr
        assert script.wait_for_line("held") == ""
        assert ledger.texts() == ["held"], "it was started once"
