"""Cancelling: a job that waits, one that runs and is asked, one that runs and is killed."""

from __future__ import annotations

from concurrent import futures
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taskq import State
from tests.sample_tasks import (
    cancel_by_exception,
    hold,
    nap,
    pid,
    see_cancelled,
    spin_in_c,
    square,
    stop_when_cancelled,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


def test_cancel_of_a_waiting_job(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A job that waits is cancelled at once: it never runs, and says so in every way that a Future has."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path, "busy")
    eventually(ledger.texts, "the only process to be busy")
    jobs = [queue.submit(hold, gate.path, ledger.path, f"job {number}") for number in range(20)]
    called: list[object] = []
    jobs[7].add_done_callback(called.append)
    assert jobs[7].cancel() is True
    assert jobs[7].cancelled()
    assert jobs[7].done()
    assert not jobs[7].running()
    assert jobs[7].state is State.CANCELLED
    assert called == [jobs[7]]
    with pytest.raises(futures.CancelledError):
        jobs[7].result(timeout=PATIENCE)
    with pytest.raises(futures.CancelledError):
        jobs[7].exception(timeout=PATIENCE)
    assert jobs[7].cancel() is True
    gate.open()
    assert busy.result(timeout=PATIENCE) == "busy"
    assert [job.result(timeout=PATIENCE) for job in jobs if job is not jobs[7]] == [
        f"job {number}" for number in range(20) if number != 7
    ]
    assert "job 7" not in ledger.texts()


def test_cancel_of_the_next_job(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """Also the job that is next in line, perhaps in its process's hands already, either is cancelled or runs."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path, "busy")
    eventually(ledger.texts, "the only process to be busy")
    following = queue.submit(hold, gate.path, ledger.path, "following")
    assert eventually(following.cancel, "the job behind the running one to be cancelled")
    gate.open()
    assert busy.result(timeout=PATIENCE) == "busy"
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9
    assert following.cancelled()
    assert ledger.texts() == ["busy"]


def test_cancel_of_an_ended_job(queue: TaskQueue) -> None:
    """A job that has ended cannot be cancelled, and keeps its result."""
    job = queue.submit(square, 3)
    job.result(timeout=PATIENCE)
    assert job.cancel() is False
    assert job.cancel(kill=True) is False
    assert (job.cancelled(), job.result()) == (False, 9)


def test_wait_sees_a_cancelled_job(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """`wait` and `as_completed` count a cancelled job as done, also when they began before."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    jobs = [queue.submit(nap, 0) for _ in range(5)]
    with futures.ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(futures.wait, jobs, PATIENCE)
        completed = threads.submit(lambda: set(futures.as_completed(jobs, PATIENCE)))
        for job in jobs:  # the next in line may be in a worker's hands already, which has to be asked
            eventually(job.cancel, "a waiting job to be cancelled")
        assert waiting.result(timeout=PATIENCE).done == set(jobs)
        assert completed.result(timeout=PATIENCE) == set(jobs)
    gate.open()
    busy.result(timeout=PATIENCE)


def test_cancel_of_all_waiting_jobs(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """Of thousands of waiting jobs, those that `cancel` said it cancelled never run, and all others do."""
    queue = make_queue()
    jobs = [queue.submit(hold, gate.path, ledger.path, str(number)) for number in range(2_000)]
    eventually(lambda: len(ledger.texts()) == 2, "both processes to be busy")
    cancelled = {str(number) for number, job in enumerate(jobs) if number % 3 == 0 and job.cancel()}
    gate.open()
    ran = {job.result(timeout=PATIENCE) for job in jobs if not job.cancelled()}
    assert ran == {str(number) for number in range(2_000)} - cancelled
    queue.shutdown()
    assert ledger.counts() == dict.fromkeys(ran, 1)
    assert len(cancelled) > 600


def test_running_job_is_asked_to_stop(queue: TaskQueue, ledger: Ledger) -> None:
    """Cancelling a running job returns False; the job sees that it is asked, and its result is its own."""
    job = queue.submit(stop_when_cancelled, ledger.path)
    eventually(ledger.texts, "the job to start")
    assert job.cancel() is False
    assert job.result(timeout=PATIENCE) == "stopped"
    assert ledger.texts() == ["started", "stopped"]
    assert (job.cancelled(), job.state) == (False, State.SUCCEEDED)


def test_asking_one_job_asks_no_other(queue: TaskQueue, ledger: Ledger, gate: Gate) -> None:
    """A job that was asked to stop leaves no request behind for the next one in its process."""
    for _ in range(4):
        job = queue.submit(stop_when_cancelled, ledger.path)
        eventually(lambda: ledger.counts()["started"] > ledger.counts()["stopped"], "the job to start")
        assert job.cancel() is False
        job.result(timeout=PATIENCE)
    jobs = [queue.submit(see_cancelled) for _ in range(20)]
    assert not any(job.result(timeout=PATIENCE) for job in jobs)


def test_job_that_agrees_to_be_cancelled(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that is asked and raises JobCancelled ends as cancelled."""
    job = queue.submit(cancel_by_exception, ledger.path)
    eventually(ledger.texts, "the job to start")
    job.cancel()
    with pytest.raises(futures.CancelledError):
        job.result(timeout=PATIENCE)
    assert job.state is State.CANCELLED
    assert job.cancelled()


@pytest.mark.parametrize("where", ["in Python", "in C"])
def test_kill_of_a_running_job(make_queue: Callable[..., TaskQueue], ledger: Ledger, gate: Gate, where: str) -> None:
    """`cancel(kill=True)` ends a running job wherever it is; it ends as cancelled, once, and others go on."""
    queue = make_queue()
    other = queue.submit(hold, gate.path, ledger.path, "other")
    job = queue.submit(hold, gate.path, ledger.path, "victim") if where == "in Python" else queue.submit(spin_in_c)
    eventually(lambda: "other" in ledger.texts(), "the neighbour to start")
    assert eventually(job.running, "the victim to run")
    if where == "in Python":
        eventually(lambda: "victim" in ledger.texts(), "the victim to start")
    assert job.cancel(kill=True) is True
    with pytest.raises(futures.CancelledError):
        job.result(timeout=PATIENCE)
    assert (job.cancelled(), job.state) == (True, State.CANCELLED)
    assert not other.done()
    gate.open()
    assert other.result(timeout=PATIENCE) == "other"
    assert [queue.submit(square, number).result(timeout=PATIENCE) for number in range(50)] == [n**2 for n in range(50)]
    assert ledger.counts()["other"] == 1
    assert ledger.counts()["victim"] == (where == "in Python")


def test_kill_of_a_waiting_job_kills_nobody(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """`cancel(kill=True)` of a job that waits cancels it and leaves the processes alone."""
    queue = make_queue(processes=1)
    before = queue.submit(pid).result(timeout=PATIENCE)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    jobs = [queue.submit(nap, 0) for _ in range(10)]
    assert jobs[5].cancel(kill=True) is True
    gate.open()
    assert busy.result(timeout=PATIENCE) == "held"
    assert queue.submit(pid).result(timeout=PATIENCE) == before
    assert (jobs[5].cancelled(), busy.crashes) == (True, 0)


def started(ledger: Ledger, text: str) -> bool:
    """Return whether a job has noted this."""
    return text in ledger.texts()


def test_kills_in_a_row(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """Killing job after job never tires the pool: each ends as cancelled, the last one has its result."""
    queue = make_queue(processes=1)
    for number in range(6):
        job = queue.submit(hold, "/no such gate", ledger.path, str(number))
        eventually(partial(started, ledger, str(number)), "the job to start")
        job.cancel(kill=True)
        with pytest.raises(futures.CancelledError):
            job.result(timeout=PATIENCE)
    assert queue.submit(square, 6).result(timeout=PATIENCE) == 36
    assert len(set(ledger.pids())) == 6


def test_cancel_races_with_the_end(queue: TaskQueue) -> None:
    """Whether `cancel` or the job is faster: True means it never has a result; False means it always has.

    Unless a worker has it in its hands and has not begun: it is asked, and the job may still end as cancelled.
    """
    for number in range(300):
        job = queue.submit(square, number)
        if job.cancel():
            assert job.cancelled()
            with pytest.raises(futures.CancelledError):
                job.result(timeout=PATIENCE)
        else:
            outcome = futures.wait([job], PATIENCE).done
            assert outcome == {job}
            assert job.cancelled() <= ("durable" in queue.capabilities)
            assert job.cancelled() or job.result() == number**2


def test_kill_races_with_the_end(queue: TaskQueue) -> None:
    """Killing jobs that are about to end loses nothing: each is cancelled or has its own result."""
    for number in range(30):
        jobs = [queue.submit(square, number + step) for step in range(4)]
        jobs[0].cancel(kill=True)
        for step, job in enumerate(jobs):
            if step or not job.done() or not job.cancelled():
                try:
                    assert job.result(timeout=PATIENCE) == (number + step) ** 2
                except futures.CancelledError:
                    assert step == 0
