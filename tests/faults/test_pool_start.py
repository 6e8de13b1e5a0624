"""Processes that cannot be started: fork that fails, a forkserver that is killed, descriptors that run out."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import resource
import signal
from multiprocessing import forkserver, resource_tracker, util
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.accounts import ENOUGH
from tests.faults.killing import children, wait_for_children
from tests.processes import is_running, kill
from tests.sample_tasks import hold, nap, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

pytestmark = pytest.mark.needs("start_methods", why="its processes are the workers': tests/faults/durable")


class Refusal:
    """Let process starts fail for a while, whichever way they go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        resource_tracker.ensure_running()  # multiprocessing itself leaks a semaphore when this one cannot start
        self.refused = 0
        self._left = 0
        for owner, name in (
            (os, "fork"),
            (util, "spawnv_passfds"),
            (forkserver, "connect_to_new_process"),
        ):
            patch.setattr(owner, name, self._guard(getattr(owner, name)))

    def _guard(self, start: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._left > 0:
                self._left -= 1
                self.refused += 1
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return start(*args, **kwargs)

        return guarded

    def refuse(self, times: int) -> None:
        """Let the next so many starts fail."""
        self._left = times


def test_start_that_fails_for_a_while(make_queue: Callable[..., TaskQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    """When processes cannot be started for a while, jobs wait, and the pool recovers to its full size."""
    refusal = Refusal(monkeypatch)
    queue = make_queue(processes=2)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    before = wait_for_children(2)
    refusal.refuse(6)
    for seen in before:
        assert kill(seen.pid)
    jobs = [queue.options(max_crashes=ENOUGH).submit(square, number) for number in range(50)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [number**2 for number in range(50)]
    assert refusal.refused == 6
    wait_for_children(2)


def test_shutdown_while_starts_fail(make_queue: Callable[..., TaskQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown comes to its end even when no process can be started any more and work is left: it is cancelled."""
    refusal = Refusal(monkeypatch)
    queue = make_queue(processes=1)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    refusal.refuse(1_000_000)
    assert kill(wait_for_children(1)[0].pid)
    eventually(lambda: refusal.refused > 0, "a start to be refused")
    job = queue.submit(square, 3)
    queue.shutdown(cancel_futures=True)
    assert job.done()


def test_first_start_that_fails(make_queue: Callable[..., TaskQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even the first process can be started, it is said at once, or made good later; it is no hang."""
    refusal = Refusal(monkeypatch)
    refusal.refuse(1)
    try:
        queue = make_queue(processes=1)
        result = queue.submit(square, 3).result(timeout=PATIENCE)
    except OSError as exc:
        assert exc.errno == errno.EAGAIN  # noqa: PT017 - either outcome is right
    else:
        assert result == 9


def test_out_of_descriptors(make_queue: Callable[..., TaskQueue]) -> None:
    """When the program runs out of descriptors for a while, the pool recovers once there are some again."""
    queue = make_queue(processes=2)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    before = wait_for_children(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.dup(0) for _ in range(highest - lowest)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers, default=highest) + 1, hard))
        for seen in before:
            os.kill(seen.pid, signal.SIGKILL)  # pidfd_open would need a descriptor
        job = queue.options(max_crashes=ENOUGH).submit(square, 3)
        concurrent.futures.wait([job], timeout=0.5)  # what the dead ones freed may even be enough
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
    assert job.result(timeout=PATIENCE) == 9
    wait_for_children(2)


def test_forkserver_killed_under_load(make_queue: Callable[..., TaskQueue], ledger: Ledger, gate: Gate) -> None:
    """The death of multiprocessing's forkserver costs no job, and the pool comes back to its full size."""
    queue = make_queue(processes=2)
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)  # noqa: SLF001  # nothing public tells
    if server is None:
        pytest.skip("this start method has used no forkserver in this run")
    bound = queue.options(max_crashes=ENOUGH)
    held = bound.submit(hold, gate.path, ledger.path)
    jobs = [bound.submit(nap, 0.005) for _ in range(200)]
    eventually(ledger.texts, "a job to run")
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not is_running(server), "the forkserver to die")
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0.005] * 200
    gate.open()
    assert held.result(timeout=PATIENCE) == "held"
    for seen in children():
        kill(seen.pid)
    assert [queue.submit(square, number).result(timeout=PATIENCE) for number in range(20)] == [n**2 for n in range(20)]
    wait_for_children(2)
