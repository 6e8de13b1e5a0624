"""Shutdown in every combination: with work waiting, running, done; with and without `wait` and `cancel_futures`."""

from __future__ import annotations

import threading
import weakref
from concurrent import futures
from typing import TYPE_CHECKING

import pytest

from taskq import State
from taskq.errors import QueueClosed
from taskq.executors import local
from taskq.executors.pool import pool
from tests.sample_tasks import Thing, hold, make_thing, nap, nothing, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger
    from tests.variants import Variant


def test_submit_after_shutdown(make_queue: Callable[..., TaskQueue]) -> None:
    """After `shutdown` every way to hand over work raises QueueClosed, which is a RuntimeError."""
    queue = make_queue()
    bound = queue.options(priority=1)
    queue.shutdown()
    for use in (
        lambda: queue.submit(pow, 2, 5),
        lambda: queue.submit_many(pow, [(2, 5)]),
        lambda: bound.submit(pow, 2, 5),
        lambda: queue.map(square, [1]),
        lambda: queue.imap(square, [1]),
        lambda: queue.imap_unordered(square, [1]),
        lambda: queue.starmap(pow, [(2, 5)]),
    ):
        with pytest.raises(QueueClosed):
            list(use())  # type: ignore[arg-type]
    assert issubclass(QueueClosed, RuntimeError)


def test_shutdown_of_an_unused_queue(make_queue: Callable[..., TaskQueue]) -> None:
    """A queue that never had a job closes like any other."""
    make_queue().shutdown()


def test_shutdown_twice(make_queue: Callable[..., TaskQueue]) -> None:
    """A second shutdown, of whatever kind, does nothing."""
    queue = make_queue()
    job = queue.submit(square, 3)
    for wait in (True, False):
        for cancel in (True, False):
            queue.shutdown(wait=wait, cancel_futures=cancel)
    assert job.cancelled() or job.result() == 9


def test_shutdown_finishes_pending_work(make_queue: Callable[..., TaskQueue]) -> None:
    """`shutdown()` returns when all jobs have ended, also those that had not started."""
    queue = make_queue()
    jobs = [queue.submit(nap, 0.01) for _ in range(50)]
    queue.shutdown()
    assert all(job.done() for job in jobs)
    assert [job.result() for job in jobs] == [0.01] * 50


def test_shutdown_without_waiting(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """`shutdown(wait=False)` returns at once; running and waiting jobs still come to their end."""
    queue = make_queue(processes=1)
    jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(3)]
    eventually(ledger.texts, "the first job to start")
    queue.shutdown(wait=False)
    assert not any(job.done() for job in jobs)
    with pytest.raises(QueueClosed):
        queue.submit(nothing)
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == ["held"] * 3


def test_shutdown_that_cancels(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """`cancel_futures` cancels what has not started, lets what runs end, and waits for it."""
    queue = make_queue(processes=1)
    jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(30)]
    eventually(ledger.texts, "the first job to start")
    closer = threading.Thread(target=queue.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    eventually(lambda: all(job.cancelled() for job in jobs[1:]), "the waiting jobs to be cancelled")
    assert closer.is_alive()
    assert not jobs[0].done()
    gate.open()
    closer.join(PATIENCE)
    assert not closer.is_alive(), "shutdown did not return after the last job"
    assert jobs[0].result(timeout=PATIENCE) == "held"
    assert ledger.texts() == ["held"]
    assert {job.state for job in jobs[1:]} == {State.CANCELLED}
    with pytest.raises(futures.CancelledError):
        jobs[-1].result(timeout=PATIENCE)


def test_shutdown_that_cancels_without_waiting(
    make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger
) -> None:
    """`shutdown(wait=False, cancel_futures=True)` cancels what waits, returns, and what runs ends by itself."""
    queue = make_queue(processes=1)
    jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(10)]
    eventually(ledger.texts, "the first job to start")
    queue.shutdown(wait=False, cancel_futures=True)
    assert not jobs[0].done()
    eventually(lambda: all(job.cancelled() for job in jobs[1:]), "the waiting jobs to be cancelled")
    gate.open()
    assert jobs[0].result(timeout=PATIENCE) == "held"


def test_cancelling_after_a_patient_shutdown(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A shutdown that cancels, on top of one that does not, cancels what still waits."""
    queue = make_queue(processes=1)
    jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(10)]
    eventually(ledger.texts, "the first job to start")
    queue.shutdown(wait=False)
    queue.shutdown(wait=False, cancel_futures=True)
    eventually(lambda: all(job.cancelled() for job in jobs[1:]), "the waiting jobs to be cancelled")
    gate.open()
    assert jobs[0].result(timeout=PATIENCE) == "held"


def test_shutdown_finishes_delayed_and_retried_work(make_queue: Callable[..., TaskQueue]) -> None:
    """Jobs that wait for their time are pending work too: a patient shutdown waits for them."""
    queue = make_queue()
    job = queue.options(delay=0.3).submit(square, 5)
    queue.shutdown()
    assert job.done()
    assert job.result() == 25


def test_with(make_queue: Callable[..., TaskQueue]) -> None:
    """Leaving the `with` block waits for all jobs, and closes."""
    with make_queue() as queue:
        jobs = [queue.submit(nap, 0.02) for _ in range(6)]
    assert all(job.done() for job in jobs)
    with pytest.raises(QueueClosed):
        queue.submit(nothing)


def test_with_and_an_error(make_queue: Callable[..., TaskQueue]) -> None:
    """An exception leaves the `with` block as it is, and the queue is closed."""
    with pytest.raises(LookupError, match="in the block"), make_queue() as queue:
        job = queue.submit(square, 4)
        raise LookupError("in the block")
    futures.wait([job], timeout=PATIENCE)
    assert job.done()
    with pytest.raises(QueueClosed):
        queue.submit(nothing)


def test_with_and_an_error_while_jobs_run(
    make_queue: Callable[..., TaskQueue],
    gate: Gate,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An exception leaves the block though a job in it never ends; in a store the job goes on, else it is killed."""
    monkeypatch.setattr(local, "LEAVING_GRACE", 0.2)
    monkeypatch.setattr(pool, "_WORD_AFTER", 0.1)
    with pytest.raises(LookupError, match="in the block"), make_queue(processes=1) as queue:
        jobs = [queue.submit(hold, gate.path, ledger.path) for _ in range(3)]
        eventually(ledger.texts, "the first job to start")
        raise LookupError("in the block")
    if "durable" in queue.capabilities:
        gate.open()
        assert [job.result(timeout=PATIENCE) for job in jobs] == ["held"] * 3
    else:
        assert all(job.cancelled() for job in jobs)
        assert "left by LookupError; 1 running job may take 0.2 s" in capsys.readouterr().err


def test_shutdown_in_a_callback(make_queue: Callable[..., TaskQueue]) -> None:
    """A callback that shuts the queue down without waiting does not tie it up."""
    queue = make_queue()
    called = threading.Event()

    def close(_job: object) -> None:
        queue.shutdown(wait=False)
        called.set()

    job = queue.submit(nap, 0.05)
    job.add_done_callback(close)
    assert called.wait(PATIENCE), "the callback hung in shutdown"
    with pytest.raises(QueueClosed):
        queue.submit(nothing)


def test_shutdown_from_many_threads(make_queue: Callable[..., TaskQueue]) -> None:
    """Several threads may shut down at once; all of them return when the work has ended."""
    queue = make_queue()
    jobs = [queue.submit(nap, 0.02) for _ in range(20)]
    with futures.ThreadPoolExecutor(6) as threads:
        for future in [threads.submit(queue.shutdown) for _ in range(6)]:
            future.result(timeout=PATIENCE)
    assert all(job.done() for job in jobs)


def test_cancelled_job_does_not_hold_up_shutdown(make_queue: Callable[..., TaskQueue]) -> None:
    """A job that is submitted and at once cancelled does not keep `shutdown` waiting."""
    for _ in range(5):
        queue = make_queue(processes=1)
        queue.submit(nothing).result(timeout=PATIENCE)
        queue.submit(nothing).cancel()
        closer = threading.Thread(target=queue.shutdown)
        closer.start()
        closer.join(PATIENCE)
        assert not closer.is_alive(), "shutdown waits for a cancelled job"


def test_dropped_queue(variant: Variant) -> None:
    """A queue that nobody holds any more finishes its jobs, and then its processes go (the leak guard looks)."""
    queue = variant.open()  # not by a fixture, so that no reference stays
    jobs = [queue.submit(nap, 0.01) for _ in range(10)]
    del queue
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0.01] * 10


def test_many_queues_one_after_another(make_queue: Callable[..., TaskQueue]) -> None:
    """Opening and closing queues again and again leaves nothing behind (the leak guard looks)."""
    for number in range(5):
        with make_queue() as queue:
            assert queue.submit(square, number).result(timeout=PATIENCE) == number**2


def test_two_queues_at_once(make_queue: Callable[..., TaskQueue]) -> None:
    """Two queues side by side do not notice each other; closing one leaves the other at work."""
    first, second = make_queue(processes=1), make_queue(processes=1)
    one, two = first.submit(square, 2), second.submit(square, 3)
    first.shutdown()
    assert one.result(timeout=PATIENCE) == 4
    assert two.result(timeout=PATIENCE) == 9
    assert list(second.map(square, range(50))) == [number**2 for number in range(50)]


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_arguments_are_let_go(queue: TaskQueue) -> None:
    """Once a job has ended, neither the queue nor its job keep the arguments alive."""
    thing = Thing()
    watch = weakref.ref(thing)
    job = queue.submit(Thing.touch, thing)
    job.result(timeout=PATIENCE)
    del thing
    eventually(lambda: watch() is None, "the argument of an ended job to be let go")


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_results_are_let_go(queue: TaskQueue) -> None:
    """Once nobody holds a job, its result is let go."""
    job = queue.submit(make_thing, 0)
    watch = weakref.ref(job.result(timeout=PATIENCE))
    gone = weakref.ref(job)
    del job
    eventually(lambda: watch() is None and gone() is None, "the job and its result to be let go")
