"""The parent program dies, is interrupted, or is told to end: its children go with it (rows 5 and 7)."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests import leaks, processes
from tests.processes import is_running
from tests.scripts import Script
from tests.variants import OPEN
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Gate
    from tests.ledger import Ledger
    from tests.variants import Variant

HEAD = """
import json, os, signal, sys, time
from taskq import TaskQueue
from tests import leaks, sample_tasks as tasks
"""


def program(body: str, first: str = "pass") -> str:
    """Return a program that does `first`, opens a queue, and goes on as told."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return f'{HEAD}\nif __name__ == "__main__":\n    {first}\n    queue = {OPEN}\n{lines}\n'


#: Why Ctrl-C of a program on a store is not tested here.
OUTLIVED = "what it leaves in the store goes on in workers: tests/durable"

WORK = {
    "idle": "queue.submit(pow, 2, 3).result()",
    "in Python": "jobs = [queue.submit(tasks.hold, '/no such gate', sys.argv[3]) for _ in range(4)]",
    "in C": "jobs = [queue.submit(pow, 2, 3).result()] + [queue.submit(tasks.spin_in_c) for _ in range(4)]",
    "many short jobs": "import itertools; results = queue.imap(abs, itertools.count()); next(results)",
    "deaf to signals": "jobs = [queue.submit(pow, 2, 3).result()] + [queue.submit(tasks.sleep_deaf) for _ in range(2)]",
}


@pytest.mark.needs("start_methods", why="its jobs run in workers, which outlive it: tests/faults/durable")
@pytest.mark.parametrize("work", WORK)
def test_parent_killed(tmp_path: Path, variant: Variant, ledger: Ledger, work: str) -> None:
    """When the program is killed by SIGKILL, its children are gone soon after, whatever they were doing."""
    body = f"{WORK[work]}\nprint('ready', flush=True)\ntime.sleep(100)"
    with Script(tmp_path, program(body), *variant.for_script(), ledger.path) as script:
        script.wait_for_line("ready")
        if work == "in Python":
            eventually(lambda: len(ledger.texts()) == 2, "two jobs to start")
        assert len(script.left()) >= 3
        os.kill(script.pid, signal.SIGKILL)
        assert script.wait() == -signal.SIGKILL
        script.assert_gone(within=10.0)
    assert not list(tmp_path.glob("pymp-*")), "multiprocessing's temporary folder was left behind"


def test_all_killed_at_once(tmp_path: Path, variant: Variant) -> None:
    """A program all of whose processes are killed at once leaves no named semaphore and no folder."""
    source = program(f"{WORK['idle']}\nprint('ready', flush=True)\ntime.sleep(100)", first="leaks.mark_shared_memory()")
    with Script(tmp_path, source, *variant.for_script()) as script:
        script.wait_for_line("ready")
        processes.end(script.left())
        script.assert_gone(within=10.0)
        assert list(leaks.SHARED_MEMORY.glob(f"*mp-t{script.pid}*")) == []
    assert not list(tmp_path.glob("pymp-*")), "multiprocessing's temporary folder was left behind"


@pytest.mark.needs("start_methods", why="its jobs run in workers, which outlive it: tests/faults/durable")
def test_parent_killed_during_start(tmp_path: Path, variant: Variant) -> None:
    """A program killed while its children are starting up leaves none of them behind."""
    source = program("time.sleep(100)", first="print('ready', flush=True)")
    for _ in range(3):
        with Script(tmp_path, source, *variant.for_script()) as script:
            script.wait_for_line("ready")
            eventually(script.has_children, "the first child to be there")
            os.kill(script.pid, signal.SIGKILL)
            script.wait()
            script.assert_gone(within=10.0)


@pytest.mark.needs("start_methods", why="its jobs run in workers, which outlive it: tests/faults/durable")
def test_parent_killed_with_a_grandchild(tmp_path: Path, variant: Variant, ledger: Ledger, gate: Gate) -> None:
    """A program that a job started may outlive the parent's SIGKILL (known limit), but the pool's children do not."""
    body = "job = queue.submit(tasks.start_grandchild, *sys.argv[3:5])\nprint('ready', flush=True)\ntime.sleep(100)"
    with Script(tmp_path, program(body), *variant.for_script(), ledger.path, gate.path) as script:
        script.wait_for_line("ready")
        grandchild = int(eventually(ledger.texts, "the job to start its program")[0].split()[1])
        child = ledger.pids()[0]
        os.kill(script.pid, signal.SIGKILL)
        script.wait()
        eventually(lambda: not is_running(child), "the pool's child to go", within=10.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(grandchild, signal.SIGKILL)
        script.assert_gone(within=10.0)


@pytest.mark.needs("start_methods", why="its jobs run in workers, which outlive it: tests/faults/durable")
def test_terminated(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """A program that SIGTERM ends, as by default, takes its children with it."""
    body = f"{WORK['in Python']}\nprint('ready', flush=True)\ntime.sleep(100)"
    with Script(tmp_path, program(body), *variant.for_script(), ledger.path) as script:
        script.wait_for_line("ready")
        eventually(lambda: len(ledger.texts()) == 2, "two jobs to start")
        os.kill(script.pid, signal.SIGTERM)
        assert script.wait() == -signal.SIGTERM
        script.assert_gone(within=10.0)


@pytest.mark.needs("start_methods", why=OUTLIVED)
def test_ctrl_c(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """Ctrl-C ends a program that waits in its `with` block: running jobs end, waiting ones never start."""
    body = """
with queue:
    jobs = [queue.submit(tasks.note_and_nap, sys.argv[3], number, 0.5) for number in range(1000)]
    print('ready', flush=True)
    for job in jobs:
        job.result()
"""
    with Script(tmp_path, program(body), *variant.for_script(), ledger.path) as script:
        script.wait_for_line("ready")
        eventually(ledger.texts, "a job to start")
        script.signal_group(signal.SIGINT)
        code = script.wait()
        script.assert_gone()
    assert code in {-signal.SIGINT, 130, 1}, script.stderr
    assert "KeyboardInterrupt" in script.stderr
    assert script.stderr.count("Traceback") <= 2, script.stderr
    counts = ledger.counts()
    started = sum(text.startswith("start") for text in counts)
    assert started < 100
    assert set(counts.values()) == {1}
    assert not list(tmp_path.glob("pymp-*")), "multiprocessing's temporary folder was left behind"


@pytest.mark.needs("start_methods", why=OUTLIVED)
def test_second_ctrl_c(tmp_path: Path, variant: Variant, ledger: Ledger) -> None:
    """A second Ctrl-C ends a program whose running jobs would take for ever."""
    body = """
with queue:
    jobs = [queue.submit(tasks.hold, '/no such gate', sys.argv[3]) for _ in range(10)]
    print('ready', flush=True)
    try:
        jobs[0].result()
    except KeyboardInterrupt:
        print('interrupted', flush=True)
        raise
"""
    with Script(tmp_path, program(body), *variant.for_script(), ledger.path) as script:
        script.wait_for_line("ready")
        eventually(lambda: len(ledger.texts()) == 2, "two jobs to start")
        script.signal_group(signal.SIGINT)
        script.wait_for_line("interrupted")
        script.signal_group(signal.SIGINT)
        code = script.wait()
        script.assert_gone()
    assert code in {-signal.SIGINT, 130, 1}, script.stderr
    assert len(ledger.texts()) == 2


@pytest.mark.needs("start_methods", why=OUTLIVED)
def test_ctrl_c_in_a_map(tmp_path: Path, variant: Variant) -> None:
    """Ctrl-C in the middle of an endless map ends the program, without a flood of tracebacks."""
    body = """
import itertools
with queue:
    for number in queue.imap_unordered(tasks.bits_of, itertools.count()):
        if number and not os.path.exists('seen'):
            open('seen', 'w').close()
            print('ready', flush=True)
"""
    with Script(tmp_path, program(body), *variant.for_script()) as script:
        script.wait_for_line("ready")
        script.signal_group(signal.SIGINT)
        code = script.wait()
        script.assert_gone()
    assert code in {-signal.SIGINT, 130, 1}, script.stderr
    assert script.stderr.count("Traceback") <= 2, script.stderr


@pytest.mark.needs("start_methods", why=OUTLIVED)
def test_interrupt_can_be_survived(tmp_path: Path, variant: Variant) -> None:
    """A program that catches KeyboardInterrupt goes on with the same queue, and gets the result it waited for."""
    body = """
job = queue.submit(time.sleep, 1.0)
print('ready', flush=True)
try:
    job.result()
    print('not interrupted')
except KeyboardInterrupt:
    print('caught', job.result(timeout=30), queue.submit(pow, 2, 3).result(timeout=30), flush=True)
queue.shutdown()
"""
    with Script(tmp_path, program(body), *variant.for_script()) as script:
        script.wait_for_line("ready")
        script.signal_group(signal.SIGINT)
        assert script.wait() == 0, script.stderr
        script.assert_gone()
    assert "caught None 8" in script.stdout
