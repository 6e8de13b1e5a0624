"""Jobs that fork: nothing but the job's own process serves the queue, however the copies end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests import processes
from tests.sample_forks import (
    ENDINGS,
    ask_in_copy,
    fork_and_wait,
    fork_and_write,
    fork_at,
    fork_in_coroutine,
    fork_in_thread,
    leave_a_copy,
    run_with_preexec,
    square_in_processes,
    square_in_queue_of_copy,
)
from tests.sample_tasks import add, identity, pid, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

WORKER_IMPORTS = ("tests.sample_forks",)


def assert_works(queue: TaskQueue) -> None:
    """Fail unless jobs of several kinds give their own results."""
    jobs = [
        queue.submit(function, *args)
        for number in range(8)
        for function, args in ((square, (number,)), (add, (number, 1000)), (identity, (-number,)))
    ]
    expected = [value for number in range(8) for value in (number * number, number + 1000, -number)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == expected


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_copies_end_by_themselves(queue: TaskQueue, ending: str) -> None:
    """A copy of a job's process ends as a program of its own, and the jobs behind it get their own outcomes."""
    code = ENDINGS[ending][1]
    assert [queue.submit(fork_and_wait, ending).result(timeout=PATIENCE) for _ in range(3)] == [code] * 3
    assert_works(queue)


def test_copies_of_coroutines_and_threads(queue: TaskQueue) -> None:
    """It makes no difference that the job is a coroutine, or that a thread of it forks."""
    for function in (fork_in_coroutine, fork_in_thread):
        for ending in ("return", "exit"):
            assert queue.submit(function, ending).result(timeout=PATIENCE) == 0
    assert_works(queue)


def test_copies_run_no_items(queue: TaskQueue, ledger: Ledger) -> None:
    """A copy that returns in the midst of a map runs none of the items behind it."""
    bound = [(ledger.path, frozenset({3, 11}), item) for item in range(20)]
    assert list(queue.starmap(fork_at, bound, chunksize=10)) == list(range(20))
    assert ledger.counts() == {str(item): 1 for item in range(20)}


def test_copies_close_their_files(queue: TaskQueue, tmp_path: Path) -> None:
    """What a copy has written is in its file when it has ended."""
    path = tmp_path / "file"
    assert queue.submit(fork_and_write, str(path)).result(timeout=PATIENCE) == 0
    assert path.read_text(encoding="utf-8") == "written"


def test_death_beside_a_copy(make_queue: Callable[..., TaskQueue], gate: Gate) -> None:
    """A job's process that dies while its copy lives on is replaced, and the copy's end disturbs nobody."""
    queue = make_queue(processes=1)
    own, copy = queue.submit(leave_a_copy, gate.path).result(timeout=PATIENCE)
    assert_works(queue)
    os.kill(own, signal.SIGKILL)
    assert queue.submit(pid).result(timeout=PATIENCE) != own
    assert processes.is_running(copy)
    gate.open()
    eventually(lambda: not processes.is_running(copy), "the copy to end")
    assert_works(queue)


def test_copies_tell_nothing(queue: TaskQueue, ledger: Ledger) -> None:
    """A copy knows which job it belongs to; what only the job's own process can tell, it is refused."""
    job_id = queue.submit(ask_in_copy, ledger.path).result(timeout=PATIENCE)
    named, *refusals = ledger.texts()
    assert named == job_id
    assert len(refusals) == 3
    assert all("own process" in refusal for refusal in refusals)
    assert_works(queue)


def test_copies_have_queues(queue: TaskQueue) -> None:
    """A copy of a job's process makes a queue of its own, and runs jobs on it."""
    assert queue.submit(square_in_queue_of_copy).result(timeout=PATIENCE) == 0
    assert_works(queue)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_inside(make_queue: Callable[..., TaskQueue], method: str) -> None:
    """A job can use multiprocessing, by fork and by fresh processes."""
    queue = make_queue(processes=1)
    assert queue.submit(square_in_processes, method).result(timeout=PATIENCE) == [5, 1, 2]
    assert_works(queue)


def test_preexec(queue: TaskQueue) -> None:
    """A job can start a program with code between fork and exec."""
    assert queue.submit(run_with_preexec).result(timeout=PATIENCE) == 0
    assert_works(queue)
