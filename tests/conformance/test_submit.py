"""One job: submit, its handle, and everything that `concurrent.futures` and asyncio do with a Future."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Job, State
from taskq import job as job_module
from taskq.errors import Deadlock, EncodeError, JobExists, JobNotFound
from tests.sample_errors import Unpicklable
from tests.sample_tasks import (
    add,
    capture,
    divide,
    hold,
    hold_then_fail,
    identity,
    job_facts,
    nap,
    note_item,
    nothing,
    square,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes, as a rule."""
    times = []
    for _ in range(9):
        start = time.monotonic()
        work()
        times.append(time.monotonic() - start)
    return sorted(times)[4]


class Interrupter:
    """Interrupts the main thread at a moment that is drawn, unless that does not wait any more by then."""

    def __init__(self) -> None:
        self.came = 0
        self._waiting = False
        self._pool = futures.ThreadPoolExecutor(1)

    def interrupt(self, *_: object) -> None:
        """Be the handler of the signal."""
        if self._waiting:
            self.came += 1
            raise KeyboardInterrupt

    def result(self, submit: Callable[[], Job[Any]], within: float) -> Any:
        """Return the result of what is submitted, if need be by waiting once more."""
        sent = self._pool.submit(self._send, random.uniform(0, within))
        job = submit()
        try:
            self._waiting = True
            job.result(timeout=PATIENCE)
        except KeyboardInterrupt:
            pass
        finally:
            self._waiting = False
        sent.result()
        return job.result(timeout=PATIENCE)

    def _send(self, delay: float) -> None:
        time.sleep(delay)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)

    def close(self) -> None:
        """End its thread."""
        self._pool.shutdown()


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    """Give an interrupter."""
    made = Interrupter()
    before = signal.signal(signal.SIGUSR2, made.interrupt)
    yield made
    made.close()
    signal.signal(signal.SIGUSR2, before)


def test_result(queue: TaskQueue) -> None:
    """A job's result is what its function returned."""
    job = queue.submit(add, 2, 40)
    assert job.result(timeout=PATIENCE) == 42
    assert job.exception() is None
    assert job.done()
    assert not job.cancelled()
    assert not job.running()


def test_job_is_a_future(queue: TaskQueue) -> None:
    """A job is a Future of the standard library, and a queue an Executor of it."""
    job = queue.submit(nothing)
    assert isinstance(job, futures.Future)
    assert isinstance(job, Job)
    assert isinstance(queue, futures.Executor)
    assert job.result(timeout=PATIENCE) is None


def test_keywords_of_any_name(queue: TaskQueue) -> None:
    """A task's keywords never collide with those of `submit`."""
    job = queue.submit(capture, 1, self=2, fn=3, timeout=4, args=5, kwargs=6)
    assert job.result(timeout=PATIENCE) == ((1,), {"self": 2, "fn": 3, "timeout": 4, "args": 5, "kwargs": 6})


def test_function_is_positional_only(queue: TaskQueue) -> None:
    """A call without a function is a TypeError, as for the standard executors."""
    with pytest.raises(TypeError):
        queue.submit(fn=capture, arg=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        queue.submit()  # type: ignore[call-overload]


def test_exception(queue: TaskQueue) -> None:
    """What a task raises, `exception` returns and `result` raises: the same object each time."""
    job = queue.submit(divide, 1, 0)
    error = job.exception(timeout=PATIENCE)
    assert type(error) is ZeroDivisionError
    with pytest.raises(ZeroDivisionError) as raised:
        job.result()
    assert raised.value is error
    assert job.done()


def test_result_times_out(queue: TaskQueue, gate: Gate) -> None:
    """`result` and `exception` give up after their timeout, and the job goes on."""
    job = queue.submit(hold, gate.path)
    with pytest.raises(TimeoutError):
        job.result(timeout=0.05)
    with pytest.raises(futures.TimeoutError):
        job.exception(timeout=0)
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"


def test_state_and_attempts(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A job runs, and is then one that succeeded in one attempt without a crash."""
    job = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    assert eventually(lambda: job.state is State.RUNNING, "the job to be called running")
    assert job.running()
    assert not job.done()
    gate.open()
    job.result(timeout=PATIENCE)
    assert (job.state, job.reason, job.attempts, job.crashes) == (State.SUCCEEDED, None, 1, 0)


def test_state_of_a_waiting_job(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A job behind others is queued, not running, and has no attempt."""
    queue = make_queue(processes=1)
    first = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the first job to start")
    others = [queue.submit(square, number) for number in range(100)]
    assert others[-1].state is State.QUEUED
    assert not others[-1].running()
    assert others[-1].attempts == 0
    gate.open()
    assert first.result(timeout=PATIENCE) == "held"
    assert [job.result(timeout=PATIENCE) for job in others] == [number**2 for number in range(100)]


def test_failed_state(queue: TaskQueue) -> None:
    """A job whose task raised has failed, for the reason "error"."""
    job = queue.submit(divide, 1, 0)
    job.exception(timeout=PATIENCE)
    assert (job.state, job.reason, job.attempts) == ("failed", "error", 1)


def test_ids(queue: TaskQueue) -> None:
    """Every job has an id of its own, which it also sees inside, and by which the queue finds it."""
    jobs = [queue.submit(job_facts) for _ in range(50)]
    assert len({job.id for job in jobs}) == 50
    assert {type(job.id) for job in jobs} == {str}
    assert all(job.id for job in jobs)
    assert [job.result(timeout=PATIENCE) for job in jobs] == [(job.id, 1) for job in jobs]


def test_job_by_id(queue: TaskQueue, gate: Gate) -> None:
    """A job is found by its id while it runs; an id that never was is not."""
    job = queue.submit(hold, gate.path)
    found = queue.job(job.id)
    assert found.id == job.id
    gate.open()
    assert found.result(timeout=PATIENCE) == "held"
    with pytest.raises(JobNotFound, match="no-such-job"):
        queue.job("no-such-job")


def test_many_jobs_in_flight(queue: TaskQueue) -> None:
    """Thousands of jobs submitted in one go all end, each with its own result."""
    jobs = [queue.submit(square, number) for number in range(3_000)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [number**2 for number in range(3_000)]


def test_submit_many(queue: TaskQueue) -> None:
    """`submit_many` gives the jobs of all calls in their order, from any iterable of argument tuples."""
    jobs = queue.submit_many(add, ((number, 1) for number in range(100)))
    assert isinstance(jobs, list)
    assert [job.result(timeout=PATIENCE) for job in jobs] == list(range(1, 101))
    assert queue.submit_many(add, []) == []


def test_submit_many_is_all_or_nothing(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """When one call of `submit_many` cannot travel, none of them runs."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    with pytest.raises(EncodeError):
        queue.submit_many(hold, [(gate.path, ledger.path, "first"), (gate.path, ledger.path, Unpicklable())])
    gate.open()
    busy.result(timeout=PATIENCE)
    queue.shutdown()
    assert ledger.texts() == ["held"]


def test_submit_many_begins_nothing_before_all_are_checked(queue: TaskQueue, ledger: Ledger) -> None:
    """A call that cannot travel, or an input that fails, at the end of many keeps all before it from beginning."""

    def calls() -> Iterator[tuple[str, str]]:
        yield from ((ledger.path, str(number)) for number in range(200))
        raise LookupError("no more")

    with pytest.raises(EncodeError):
        queue.submit_many(note_item, [*((ledger.path, str(n)) for n in range(200)), (ledger.path, Unpicklable())])
    with pytest.raises(LookupError, match="no more"):
        queue.submit_many(note_item, calls())
    assert queue.submit(note_item, ledger.path, "end").result(timeout=PATIENCE) == "end"
    assert ledger.texts() == ["end"]


def test_submit_many_takes_back_only_its_own(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """A refused `submit_many` cancels what it made, and not the job of another whose key it has met."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    key = f"key-{os.urandom(6).hex()}"
    other = queue.options(key=key).submit(hold, gate.path, ledger.path, "other")
    with pytest.raises(EncodeError):
        queue.options(key=key).submit_many(hold, [(gate.path, ledger.path, "mine"), (gate.path, Unpicklable())])
    with pytest.raises(JobExists):
        queue.options(key=key, if_exists="reject").submit_many(hold, [(gate.path, ledger.path, "mine")])
    fresh = queue.options(key=f"{key}-2", if_exists="reject")
    with pytest.raises(JobExists):
        fresh.submit_many(hold, [(gate.path, ledger.path, "mine"), (gate.path, ledger.path, "again")])
    gate.open()
    assert other.result(timeout=PATIENCE) == "other"
    busy.result(timeout=PATIENCE)
    queue.shutdown()
    assert ledger.texts() == ["held", "other"]


def test_interrupted_at_any_moment(queue: TaskQueue, interrupter: Interrupter) -> None:
    """Whoever is interrupted while he waits for a job may wait again, and gets its result; the next job runs, too."""
    assert queue.submit(add, 0, 0).result(timeout=PATIENCE) == 0
    took = timed(lambda: queue.submit(add, 0, 0).result(timeout=PATIENCE))
    for number in range(5_000):
        assert interrupter.result(lambda: queue.submit(add, number, 1), 1.5 * took) == number + 1  # noqa: B023  # at once
        assert queue.submit(add, number, 2).result(timeout=PATIENCE) == number + 2
        if interrupter.came >= 15:
            return
    raise AssertionError(f"only {interrupter.came} interrupts came while it waited")


# --- callbacks


def test_callback_before_the_end(queue: TaskQueue, gate: Gate) -> None:
    """Callbacks added while a job runs are called once, in their order, with the job, which is done by then."""
    calls: list[tuple[str, Any, bool]] = []
    job = queue.submit(hold, gate.path)
    job.add_done_callback(lambda ended: calls.append(("first", ended, ended.done())))
    job.add_done_callback(lambda ended: calls.append(("second", ended, ended.done())))
    assert calls == []
    gate.open()
    eventually(lambda: len(calls) == 2, "both callbacks to be called")
    assert calls == [("first", job, True), ("second", job, True)]


def test_callback_is_not_called_by_who_waits(queue: TaskQueue) -> None:
    """A thread that waits for one job never runs the callbacks of another one: it may hold locks that they want."""
    slow = queue.submit(nap, 0.6)
    waiter = threading.Thread(target=slow.result)
    waiter.start()
    threads: list[threading.Thread] = []
    for _ in range(3):
        queue.submit(nothing).add_done_callback(lambda _: threads.append(threading.current_thread()))
    eventually(lambda: len(threads) == 3, "the callbacks to be called")
    waiter.join()
    assert waiter not in threads


def test_callback_after_the_end(queue: TaskQueue) -> None:
    """A callback added to a job that has ended is called at once, in the caller's thread."""
    job = queue.submit(nothing)
    job.result(timeout=PATIENCE)
    threads: list[threading.Thread] = []
    job.add_done_callback(lambda _: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_callback_that_raises(queue: TaskQueue, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged, and neither the other callbacks nor later jobs notice."""
    calls: list[str] = []
    job = queue.submit(hold, gate.path)
    job.add_done_callback(lambda _: 1 / 0)
    job.add_done_callback(lambda _: calls.append("called"))
    with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
        gate.open()
        eventually(lambda: calls, "the second callback to be called")
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_callback_may_submit_and_wait(queue: TaskQueue, gate: Gate) -> None:
    """A callback may submit further jobs; the chain of them comes to its end."""
    results: list[int] = []
    ended = threading.Event()

    def go_on(job: futures.Future[int]) -> None:
        results.append(job.result())
        if len(results) == 20:
            ended.set()
        else:
            queue.submit(add, results[-1], 1).add_done_callback(go_on)

    queue.submit(add, 0, 1).add_done_callback(go_on)
    assert ended.wait(PATIENCE), f"the chain of callbacks stopped at {results}"
    assert results == list(range(1, 21))


def test_callback_that_waits(queue: TaskQueue, gate: Gate) -> None:
    """A callback that waits for another job, or reads a map, in the thread that would bring it, is refused at once."""
    errors: list[BaseException] = []
    other = queue.submit(hold, gate.path)
    first = queue.submit(nap, 0.2)

    def wait(_job: object) -> None:
        for use in (other.result, other.exception, lambda: other.result(PATIENCE), lambda: list(queue.map(abs, [1]))):
            try:
                use()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    first.add_done_callback(wait)
    eventually(lambda: len(errors) == 4, "the waits to be refused")
    assert [type(error) for error in errors] == [Deadlock] * 4
    assert other.id in str(errors[0])
    gate.open()
    assert other.result(timeout=PATIENCE) == "held"
    assert list(queue.map(abs, [-1])) == [1]


def test_callback_that_waits_by_the_library(
    queue: TaskQueue, gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback that waits for another job by `concurrent.futures.wait` is named in the log; one that looks is not."""
    monkeypatch.setattr(job_module, "NAMED_AFTER", 0.05)
    other = queue.submit(hold, gate.path)
    looked, waited = threading.Event(), threading.Event()
    first = queue.submit(nap, 0.2)
    first.add_done_callback(lambda _: (futures.wait([other], timeout=0), looked.set()))
    assert looked.wait(PATIENCE)
    second = queue.submit(nap, 0.2)
    second.add_done_callback(lambda _: (futures.wait([other], timeout=1), waited.set()))
    assert waited.wait(PATIENCE)
    said = [message for message in caplog.messages if "a callback waits for jobs" in message]
    assert len(said) == 1
    gate.open()


# --- concurrent.futures


def some(*jobs: Job[Any]) -> list[Job[Any]]:
    """Put jobs of different results into one list."""
    return list(jobs)


def test_wait_for_all(queue: TaskQueue) -> None:
    """`wait` returns all jobs as done once they are, failed ones too."""
    jobs = {queue.submit(divide, 1, number) for number in range(5)}
    done, pending = futures.wait(jobs, timeout=PATIENCE)
    assert (done, pending) == (jobs, set())


def test_wait_for_the_first(queue: TaskQueue, gate: Gate) -> None:
    """`wait` returns when the first job is done, and the others are still pending."""
    held, quick = queue.submit(hold, gate.path), queue.submit(square, 2)
    done, pending = futures.wait(some(held, quick), timeout=PATIENCE, return_when=futures.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {held})
    gate.open()
    assert held.result(timeout=PATIENCE) == "held"


def test_wait_for_the_first_exception(queue: TaskQueue, gate: Gate, tmp_path: Any) -> None:
    """`wait` returns at the first failure among those that end, without waiting for the rest."""
    held = queue.submit(hold, gate.path)
    failing = queue.submit(divide, 1, 0)
    done, pending = futures.wait(some(held, failing), timeout=PATIENCE, return_when=futures.FIRST_EXCEPTION)
    assert (done, pending) == ({failing}, {held})
    gate.open()
    held.result(timeout=PATIENCE)


def test_wait_wakes_at_an_exception_that_comes_late(queue: TaskQueue, gate: Gate, tmp_path: Any) -> None:
    """`wait(FIRST_EXCEPTION)` that began before the failure wakes at it."""
    never = tmp_path / "second gate"
    held, failing = queue.submit(hold, str(never)), queue.submit(hold_then_fail, gate.path, "late")
    opener = threading.Timer(0.1, gate.open)
    opener.start()
    done, pending = futures.wait(some(held, failing), timeout=PATIENCE, return_when=futures.FIRST_EXCEPTION)
    opener.join()
    assert (done, pending) == ({failing}, {held})
    never.touch()
    held.result(timeout=PATIENCE)


def test_wait_times_out(queue: TaskQueue, gate: Gate) -> None:
    """`wait` gives up after its timeout and tells done and pending jobs apart."""
    quick, held = queue.submit(square, 3), queue.submit(hold, gate.path)
    quick.result(timeout=PATIENCE)
    done, pending = futures.wait(some(quick, held), timeout=0.05)
    assert (done, pending) == ({quick}, {held})
    gate.open()
    held.result(timeout=PATIENCE)


def test_as_completed(queue: TaskQueue, gate: Gate) -> None:
    """`as_completed` yields each job once, in the order in which they end, also when it is named twice."""
    held, quick = queue.submit(hold, gate.path), queue.submit(square, 4)
    ended = futures.as_completed(some(held, quick, held), timeout=PATIENCE)
    assert next(ended) is quick
    gate.open()
    assert list(ended) == [held]


def test_as_completed_times_out(queue: TaskQueue, gate: Gate) -> None:
    """`as_completed` raises TimeoutError, saying how many jobs have not ended."""
    jobs = some(queue.submit(hold, gate.path), queue.submit(square, 5))
    jobs[1].result(timeout=PATIENCE)
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(futures.as_completed(jobs, timeout=0.05))
    gate.open()
    jobs[0].result(timeout=PATIENCE)


def test_many_waiters_of_one_job(queue: TaskQueue, gate: Gate) -> None:
    """Any number of threads may wait for one job; all get its result."""
    job = queue.submit(hold, gate.path)
    with futures.ThreadPoolExecutor(16) as threads:
        waiting = [threads.submit(job.result, PATIENCE) for _ in range(16)]
        gate.open()
        assert [future.result() for future in waiting] == ["held"] * 16


# --- asyncio


def test_await(queue: TaskQueue) -> None:
    """`await job` gives the result, or raises what the task raised."""

    async def main() -> tuple[int, str]:
        result = await queue.submit(square, 6)
        try:
            await queue.submit(divide, 1, 0)
        except ZeroDivisionError as exc:
            return result, type(exc).__name__
        return result, "nothing raised"

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == (36, "ZeroDivisionError")


def test_await_of_an_ended_job(queue: TaskQueue) -> None:
    """A job that has ended can be awaited, any number of times."""
    job = queue.submit(square, 7)
    job.result(timeout=PATIENCE)

    async def main() -> list[int]:
        return [await job, await job]

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == [49, 49]


def test_gather_and_wrap_future(queue: TaskQueue) -> None:
    """Jobs can be wrapped and gathered in an event loop."""

    async def main() -> list[int]:
        wrapped = [asyncio.wrap_future(queue.submit(square, number)) for number in range(50)]
        return await asyncio.gather(*wrapped)

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == [number**2 for number in range(50)]


def test_run_in_executor(queue: TaskQueue) -> None:
    """A queue serves as an event loop's executor."""

    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(queue, add, 3, 4)

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == 7


def test_waiting_does_not_block_the_loop(queue: TaskQueue, gate: Gate) -> None:
    """While a job is awaited, the event loop runs other things: here the one that lets the job end."""

    async def open_gate() -> None:
        await asyncio.sleep(0)
        gate.open()

    async def main() -> str:
        job = queue.submit(hold, gate.path)
        opener = asyncio.create_task(open_gate())
        result = await job
        await opener
        return result

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == "held"


def test_cancelled_await_cancels_the_job(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """Cancelling the task that awaits a job which has not started cancels the job."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    jobs = [queue.submit(nap, 0) for _ in range(10)]

    async def main() -> None:
        async def wait() -> float:
            return await jobs[-1]

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert eventually(jobs[-1].cancelled, "the job to be cancelled")
    gate.open()
    assert busy.result(timeout=PATIENCE) == "held"
    assert [job.result(timeout=PATIENCE) for job in jobs[:-1]] == [0] * 9


# --- threads


def test_submit_from_many_threads(queue: TaskQueue) -> None:
    """Jobs submitted from many threads at once all come back to the right one."""
    start = threading.Barrier(12)

    def use(base: int) -> list[int]:
        start.wait(PATIENCE)
        jobs = [queue.submit(add, base, number) for number in range(100)]
        mapped = list(queue.map(identity, range(base, base + 100)))
        return [job.result(timeout=PATIENCE) for job in jobs] + mapped

    with futures.ThreadPoolExecutor(12) as threads:
        got = list(threads.map(use, range(0, 12_000, 1_000)))
    assert got == [2 * list(range(base, base + 100)) for base in range(0, 12_000, 1_000)]


def test_shape_of_repr(queue: TaskQueue) -> None:
    """A job's repr tells its state, and never raises."""
    job = queue.submit(divide, 1, 0)
    repr(job)
    job.exception(timeout=PATIENCE)
    assert "ZeroDivisionError" in repr(job) or "failed" in repr(job)
