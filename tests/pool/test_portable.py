"""The pool on platforms without memfd, pidfd and F_SETSIG (macOS): simulated by hiding them, with fork."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

import pytest

from taskq import JobCrashed, TaskQueue
from tests.faults.killing import children
from tests.sample_tasks import die, identity, pid, spin_in_c, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskQueue]:
    """Give a queue whose children are forked from a process that lacks what only Linux has."""
    for module, name in ((os, "memfd_create"), (os, "pidfd_open"), (fcntl, "F_SETSIG")):
        monkeypatch.delattr(module, name, raising=False)
    with TaskQueue("local://", processes=2, start_method="fork") as queue:
        yield queue


def test_jobs_and_maps_run(queue: TaskQueue) -> None:
    """Everything works without what only Linux has."""
    assert queue.submit(square, 3).result(PATIENCE) == 9
    assert list(queue.map(identity, range(20_000))) == list(range(20_000))
    assert queue.submit(identity, b"x" * 3_000_000).result(PATIENCE) == b"x" * 3_000_000


def test_a_crash_is_seen_and_named(queue: TaskQueue) -> None:
    """A job that kills its process fails as crashed, by the end of the child's socket alone."""
    with pytest.raises(JobCrashed, match="SIGKILL"):
        queue.submit(die).result(PATIENCE)
    assert queue.submit(square, 3).result(PATIENCE) == 9


def test_an_idle_child_is_replaced(queue: TaskQueue) -> None:
    """The death of an idle child is invisible, and a new one takes its place."""
    victim = queue.submit(pid).result(PATIENCE)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(pids := {seen.pid for seen in children()} - {victim}) == 2 and pids, "a new child is there")
    assert list(queue.map(square, range(100))) == [n * n for n in range(100)]


def test_a_timeout_kills(queue: TaskQueue) -> None:
    """A job past its timeout is killed, and the pool goes on."""
    with pytest.raises(TimeoutError):
        queue.options(timeout=0.2).submit(spin_in_c).result(PATIENCE)
    assert queue.submit(square, 4).result(PATIENCE) == 16
