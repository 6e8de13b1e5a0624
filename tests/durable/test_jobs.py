"""Handles to jobs of a store: they ask only when asked, are told when waited for, and settle once."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent import futures
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry, State, TaskQueue
from taskq.codec import encode
from taskq.errors import (
    BackendUnavailable,
    DependencyFailed,
    EncodeError,
    JobExists,
    JobLost,
    JobNotFound,
    QueueClosed,
    StoreFull,
    TaskRefused,
)
from taskq.executors.durable.job import DurableJob
from taskq.failure import Failure
from taskq.wait_book import ended_of
from tests.sample_tasks import add, capture, divide, fail_until, identity, square, total
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.store import JobRecord
    from tests.ledger import Ledger
    from tests.observed_store import ObservedStore, ThreadWorker


def succeed(store: ObservedStore, job_id: str, value: Any) -> None:
    """End a job as a worker would."""
    store.end(job_id, State.SUCCEEDED, result=encode(value), attempts=1)


# --- what is asked, and when


def test_submit_is_one_call(queue: TaskQueue, store: ObservedStore) -> None:
    """A submit is one put and nothing else: no subscription, no thread."""
    jobs = [queue.submit(square, number) for number in range(5)]
    assert store.calls == ["put"] * 5
    assert len({job.id for job in jobs}) == 5
    assert not any(thread.name == "taskq-listener" for thread in threading.enumerate())


def test_state_asks_the_store(queue: TaskQueue, store: ObservedStore) -> None:
    """As long as nobody waits, each question is one to the store, and none opens a subscription."""
    job = queue.submit(square, 3)
    assert (job.state, job.done(), job.running(), job.cancelled()) == (State.QUEUED, False, False, False)
    assert (job.attempts, job.crashes, job.reason, job.progress) == (0, 0, None, None)
    assert "pending" in repr(job)
    assert "subscribe" not in store.calls
    succeed(store, job.id, 9)
    assert (job.done(), job.state, job.attempts, job.result()) == (True, State.SUCCEEDED, 1, 9)
    assert "subscribe" not in store.calls


def test_an_ended_job_asks_nothing_more(queue: TaskQueue, store: ObservedStore) -> None:
    """What is known stays known, also when the store has forgotten the job."""
    job = queue.submit(square, 3)
    succeed(store, job.id, 9)
    assert job.done()
    store.remove([job.id])
    store.calls.clear()
    assert (job.result(), job.exception(), job.state, job.done(), job.cancel()) == (
        9,
        None,
        State.SUCCEEDED,
        True,
        False,
    )
    assert store.calls == []


def test_waiters_share_one_subscription(queue: TaskQueue, store: ObservedStore) -> None:
    """All that wait are served by one thread; jobs that are waited for are not asked about one by one."""
    jobs = [queue.submit(square, number) for number in range(200)]
    timer = threading.Timer(0.05, lambda: [succeed(store, job.id, number) for number, job in enumerate(jobs)])
    timer.start()
    store.calls.clear()
    done, pending = futures.wait(jobs, timeout=PATIENCE)
    timer.join()
    assert (len(done), len(pending)) == (200, 0)
    assert store.calls.count("subscribe") == 1
    assert store.calls.count("get") == 0
    assert sum(thread.name == "taskq-listener" for thread in threading.enumerate()) == 1
    assert [job.result() for job in jobs] == list(range(200))


def test_told_to_who_waits_while_another_asks(
    queue: TaskQueue, store: ObservedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has asked how a job stands leaves the outcome alone that who waits for it has heard meanwhile."""
    job = queue.submit(identity, [9])
    assert isinstance(job, DurableJob)
    succeed(store, job.id, [9])
    get = store.get
    results: list[Any] = []

    def overtaken(ids: Sequence[str], **options: Any) -> list[JobRecord | None]:
        records = get(ids, **options)
        if options.get("payload"):
            results.append(job.try_end(ended_of(job.id, records[0])))
            results.append(job.result())
        return records

    monkeypatch.setattr(store, "get", overtaken)
    assert job.state is State.SUCCEEDED
    assert results == [True, [9]]
    assert job.result() is results[1]


def test_told_to_who_waits_by_another(queue: TaskQueue, store: ObservedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a job leaves its outcome to a thread that is about to tell it."""
    job = queue.submit(square, 3)
    assert isinstance(job, DurableJob)
    succeed(store, job.id, 9)
    ended = ended_of(job.id, store.get([job.id], payload=True)[0])
    settle = job.settle
    answers: list[bool] = []

    def overtaken(*outcome: Any) -> None:
        with futures.ThreadPoolExecutor(1) as other:
            answers.append(other.submit(job.try_end, ended).result(timeout=PATIENCE))
        settle(*outcome)

    monkeypatch.setattr(job, "settle", overtaken)
    job.on_ended(ended)
    assert answers == [False]
    assert job.result() == 9


def test_as_completed(queue: TaskQueue, store: ObservedStore) -> None:
    """`as_completed` yields jobs as the store tells of them."""
    jobs = [queue.submit(square, number) for number in range(3)]
    ended = futures.as_completed(jobs, timeout=PATIENCE)
    succeed(store, jobs[1].id, 1)
    assert next(ended) is jobs[1]
    store.end(jobs[2].id, State.FAILED, failure=Failure.crashed(-9, 3), crashes=3)
    assert next(ended) is jobs[2]
    assert jobs[0].cancel()
    assert next(ended) is jobs[0]


def test_callback_keeps_its_job(queue: TaskQueue, store: ObservedStore) -> None:
    """A job with a callback that nobody holds is still told, in the listener's thread."""
    calls: list[tuple[Any, str]] = []
    job = queue.submit(square, 3)
    job_id = job.id
    job.add_done_callback(lambda ended: calls.append((ended.result(), threading.current_thread().name)))
    del job
    succeed(store, job_id, 9)
    eventually(lambda: calls == [(9, "taskq-listener")], "the callback to be called")


def test_unheld_jobs_are_let_go(queue: TaskQueue, store: ObservedStore) -> None:
    """A handle that nobody holds is not kept by the queue, also after its end was heard."""
    job = queue.submit(square, 3)
    succeed(store, job.id, [1])
    assert job.result(timeout=PATIENCE) == [1]
    watch = weakref.ref(job)
    del job
    eventually(lambda: watch() is None, "the handle to be let go")


def test_await(queue: TaskQueue, worker: ThreadWorker) -> None:
    """`await` works, for many jobs at once."""

    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(queue.submit(square, number)) for number in range(50)))

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == [number**2 for number in range(50)]


def test_settled_once(queue: TaskQueue, store: ObservedStore) -> None:
    """However many learn of a job's end at the same time, it is told once."""
    for number in range(50):
        calls: list[Any] = []
        job = queue.submit(square, number)
        job.add_done_callback(calls.append)
        start = threading.Barrier(3)

        def ask(job: Any = job, start: threading.Barrier = start) -> None:
            start.wait(PATIENCE)
            eventually(lambda: job.state is State.SUCCEEDED, "the job to end")

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait(PATIENCE)
        succeed(store, job.id, number)
        for thread in threads:
            thread.join()
        assert job.result(timeout=PATIENCE) == number
        eventually(lambda calls=calls, job=job: calls == [job], "the callback to be called, once")


# --- how jobs end


def test_failures(queue: TaskQueue, worker: ThreadWorker, ledger: Ledger) -> None:
    """What a task raises is raised, with its attempts; a retry policy is the worker's to follow."""
    job = queue.submit(divide, 1, 0)
    assert isinstance(job.exception(timeout=PATIENCE), ZeroDivisionError)
    assert (job.state, job.reason, job.attempts) == ("failed", "error", 1)
    assert "return left / right" in str(job.exception().__cause__)  # type: ignore[union-attr]
    again = queue.options(retry=Retry(3, delay=0)).submit(fail_until, ledger.path, 3)
    again.result(timeout=PATIENCE)
    assert again.attempts == 3


def test_lost_job(queue: TaskQueue, store: ObservedStore) -> None:
    """A job that the store no longer has ends as lost, whether it is waited for or asked about."""
    waited, asked = queue.submit(square, 1), queue.submit(square, 2)
    store.remove([waited.id, asked.id])
    with pytest.raises(JobLost) as raised:
        waited.result(timeout=PATIENCE)
    assert raised.value.job_id == waited.id
    assert (asked.state, asked.reason) == ("failed", "lost")
    assert isinstance(asked.exception(), JobLost)


def test_result_that_cannot_be_read(queue: TaskQueue, store: ObservedStore) -> None:
    """A result that is no message is an error of its job, each time it is asked for."""
    job = queue.submit(square, 1)
    store.end(job.id, State.SUCCEEDED, result=b"\xc1")
    for _ in range(2):
        assert "no message of taskq" in str(job.exception(timeout=PATIENCE))


def test_cancel(queue: TaskQueue, store: ObservedStore) -> None:
    """A waiting job is cancelled for certain; one that runs is asked; one that has ended stays as it is."""
    waiting, running, ended = (queue.submit(square, number) for number in range(3))
    store.records[running.id].state = State.RUNNING
    succeed(store, ended.id, 4)
    called: list[Any] = []
    waiting.add_done_callback(called.append)
    assert [waiting.cancel(), running.cancel(), ended.cancel()] == [True, False, False]
    assert (waiting.state, waiting.cancelled(), called) == (State.CANCELLED, True, [waiting])
    with pytest.raises(futures.CancelledError):
        waiting.result()
    assert store.control_requests == {running.id}
    assert ended.result(timeout=PATIENCE) == 4


def test_kill_waits_for_the_worker(queue: TaskQueue, store: ObservedStore) -> None:
    """`cancel(kill=True)` of a running job returns when the worker has told the end."""
    job = queue.submit(square, 3)
    store.records[job.id].state = State.RUNNING
    timer = threading.Timer(0.05, lambda: store.end(job.id, State.CANCELLED))
    timer.start()
    assert job.cancel(kill=True) is True
    timer.join()
    assert job.state is State.CANCELLED


def test_lost_job_cannot_be_cancelled(queue: TaskQueue, store: ObservedStore) -> None:
    """Cancelling a job that the store does not have finds out that it is lost."""
    job = queue.submit(square, 3)
    store.remove([job.id])
    assert job.cancel() is False
    assert job.state is State.FAILED


def test_words_of_a_job(queue: TaskQueue, store: ObservedStore) -> None:
    """Progress, notes and log are read from the store, also after the end."""
    job = queue.submit(square, 3)
    store.end(job.id, State.SUCCEEDED, result=encode(9), progress=(3, 10), meta=encode({"page": (1,)}))
    store.logs[job.id] = "zwölf\n".encode()
    assert job.result(timeout=PATIENCE) == 9
    assert (job.progress, job.meta, job.logs()) == ((3, 10), {"page": (1,)}, "zwölf\n")


# --- which job


def test_key(queue: TaskQueue, store: ObservedStore) -> None:
    """A taken key gives the same handle while somebody holds it; a job that ended frees it."""
    bound = queue.options(key="k")
    first = bound.submit(square, 1)
    assert bound.submit(square, 2) is first
    with pytest.raises(JobExists) as raised:
        queue.options(key="k", if_exists="reject").submit(square, 3)
    assert raised.value.job_id == first.id
    succeed(store, first.id, 1)
    assert bound.submit(square, 4).id != first.id


def test_own_id(queue: TaskQueue, store: ObservedStore) -> None:
    """The same id is the same job, ended or not."""
    bound = queue.options(job_id="mine")
    first = bound.submit(square, 1)
    assert (first.id, bound.submit(square, 2) is first) == ("mine", True)
    succeed(store, "mine", 1)
    assert bound.submit(square, 2).result(timeout=PATIENCE) == 1
    assert len(store.records) == 1
    with pytest.raises(ValueError, match="submit_many makes several"):
        bound.submit_many(square, [(1,)])


def test_find(queue: TaskQueue, store: ObservedStore) -> None:
    """A job is found by its id: the handle that is held, or a new one."""
    job = queue.submit(square, 3)
    assert queue.job(job.id) is job
    job_id = job.id
    del job
    succeed(store, job_id, 9)
    assert queue.job(job_id).result(timeout=PATIENCE) == 9
    with pytest.raises(JobNotFound, match="no-such-job"):
        queue.job("no-such-job")


# --- what is submitted


def test_jobs_as_arguments(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """Jobs among the arguments are needed, each once, and their results come in their places."""
    left, right = queue.submit(square, 3), queue.submit(square, 4)
    job = queue.submit(capture, left, [right, {"again": left}], key=right)
    assert store.records[job.id].depends_on == (left.id, right.id)
    assert job.result(timeout=PATIENCE) == ((9, [16, {"again": 9}]), {"key": 16})
    assert queue.submit(total, [left, right]).result(timeout=PATIENCE) == 25


def test_failed_dependency(queue: TaskQueue, worker: ThreadWorker) -> None:
    """A job whose dependency failed fails without an attempt, and names it."""
    bad = queue.submit(divide, 1, 0)
    job = queue.submit(identity, bad)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, DependencyFailed)
    assert bad.id in str(error)
    assert "ZeroDivisionError" in str(error)
    assert (error.job_id, job.attempts) == (job.id, 0)


def test_job_of_another_queue(queue: TaskQueue, store: ObservedStore) -> None:
    """A job that lives elsewhere is refused, with what to do."""
    with (
        TaskQueue("local://?processes=1") as other,
        pytest.raises(EncodeError, match=r"another queue: pass its result"),
    ):
        queue.submit(identity, [other.submit(square, 3)])
    assert store.records == {}


def test_too_large(queue: TaskQueue, store: ObservedStore) -> None:
    """A job above the limit is refused by the submit, with its size and the cure."""
    with pytest.raises(EncodeError, match=r"takes 1,100,0\d\d bytes, above the limit of 1,048,576.*max_bytes"):
        queue.submit(identity, b"x" * 1_100_000)
    store.max_bytes = 2_000_000
    queue.submit(identity, b"x" * 1_100_000)
    assert len(store.records) == 1


def test_function_of_the_main_program(queue: TaskQueue) -> None:
    """A function of `__main__` is refused: no worker could import it."""

    def task() -> None:
        """Do nothing."""

    task.__module__, task.__qualname__ = "__main__", "task"
    with pytest.raises(TaskRefused):
        queue.submit(task)


def test_submit_many(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """Many calls go to the store in few puts, and none goes when one of them cannot travel."""
    jobs = queue.submit_many(add, ((number, 1) for number in range(2_500)))
    assert store.puts == [1000, 1000, 500]
    assert [job.result(timeout=PATIENCE) for job in jobs] == list(range(1, 2_501))
    with pytest.raises(EncodeError):
        queue.submit_many(identity, [(1,), (object(),)])
    assert len(store.puts) == 3
    assert queue.submit_many(add, []) == []


def test_submit_many_large_calls(queue: TaskQueue, store: ObservedStore) -> None:
    """Large calls are spread over more puts, so that none is too large for a store."""
    queue.submit_many(identity, [(b"x" * 1_000_000,) for _ in range(20)])
    assert sum(store.puts) == 20
    assert max(store.puts) < 12


def test_submit_many_that_fails_half_way(queue: TaskQueue, store: ObservedStore) -> None:
    """When the store fails between two puts, what was put is cancelled: all or nothing."""
    put = store.put

    def fail_the_second(*args: Any, **kwargs: Any) -> list[str]:
        if store.puts:
            raise BackendUnavailable("gone")
        return put(*args, **kwargs)

    store.put = fail_the_second  # type: ignore[method-assign]
    with pytest.raises(BackendUnavailable):
        queue.submit_many(square, [(number,) for number in range(1_500)])
    assert {record.state for record in store.records.values()} == {State.CANCELLED}


def test_submit_many_whose_withdrawal_fails(queue: TaskQueue, store: ObservedStore) -> None:
    """When what was put cannot be cancelled either, the first error is raised, and says what may be left."""
    put = store.put

    def lose_the_second(*args: Any, **kwargs: Any) -> list[str]:
        if store.puts:
            store.fail_next = 1
            raise StoreFull("no room")
        return put(*args, **kwargs)

    store.put = lose_the_second  # type: ignore[method-assign]
    with pytest.raises(StoreFull, match="no room") as raised:
        queue.submit_many(square, [(number,) for number in range(1_500)])
    (note,) = raised.value.__notes__
    assert "1,500" in note
    assert "cannot be reached" in note


def test_submit_many_whose_last_put_may_be_kept(queue: TaskQueue, store: ObservedStore) -> None:
    """When the answer to a put is lost, what it may have kept is cancelled like the rest."""
    store.lose_reply = True
    with pytest.raises(BackendUnavailable, match="reply was lost"):
        queue.submit_many(square, [(number,) for number in range(5)])
    assert [record.state for record in store.records.values()] == [State.CANCELLED] * 5


def test_label_shows_no_secret(queue: TaskQueue, store: ObservedStore) -> None:
    """What lists show of a call leaves out what is long, and what stands under a telling name."""
    queue.submit(capture, "a.jpg", 5, "x" * 50, [1], password="s3cret", token=7)
    queue.submit(connect, "ann", "s3cret", "redis://ann:s3cret@h")
    labels = [record.label for record in store.records.values()]
    assert labels[0] == "capture('a.jpg', 5, <50 characters>, <list>, password=***, token=***)"
    assert labels[1] == "connect('ann', ***, 'redis://ann:***@h')"


def connect(user: str, password: str, url: str) -> None:
    """Take a secret."""


# --- trouble


def test_store_that_cannot_be_reached(queue: TaskQueue, store: ObservedStore) -> None:
    """A submit that the store does not take raises, and the next one works."""
    store.fail_next = 1
    with pytest.raises(BackendUnavailable):
        queue.submit(square, 1)
    assert queue.submit(square, 2).state is State.QUEUED


def test_subscription_that_fails(queue: TaskQueue, store: ObservedStore) -> None:
    """While the store is away waiters wait; when it is back they hear what they missed."""
    first = queue.submit(square, 1)
    first.add_done_callback(lambda _: None)
    second = queue.submit(square, 2)
    eventually(lambda: "ask" in store.calls, "the listener to be there")
    store.fail_next = 2
    with pytest.raises(TimeoutError):
        second.result(timeout=0.01)
    succeed(store, first.id, 1)
    succeed(store, second.id, 4)
    assert (first.result(timeout=PATIENCE), second.result(timeout=PATIENCE)) == (1, 4)


def test_subscription_that_breaks(queue: TaskQueue, store: ObservedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription that can hear nothing any more ends the waiting with an error, never a hang."""
    job = queue.submit(square, 1)
    job.add_done_callback(lambda _: None)
    monkeypatch.setattr(
        store.subscriptions[0], "wait", lambda _timeout: (_ for _ in ()).throw(RuntimeError("the subscription broke"))
    )
    store.subscriptions[0].wake()
    assert "the subscription broke" in str(job.exception(timeout=PATIENCE))
    assert "the subscription broke" in str(queue.submit(square, 2).exception(timeout=PATIENCE))


# --- the end


def test_shutdown_waits_for_what_is_held(queue: TaskQueue, store: ObservedStore) -> None:
    """Shutdown waits for jobs whose handle is held or that have a callback; the others are safe in the store."""
    held, called, dropped = (queue.submit(square, number) for number in range(3))
    heard: list[Any] = []
    called.add_done_callback(lambda ended: heard.append(ended.result()))
    called_id = called.id
    del called, dropped
    closer = threading.Thread(target=queue.shutdown)
    closer.start()
    succeed(store, held.id, "held")
    closer.join(0.05)
    assert closer.is_alive()
    succeed(store, called_id, "called")
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert (held.result(), heard) == ("held", ["called"])
    assert store.closed
    assert [subscription.closed for subscription in store.subscriptions] == [True]
    with pytest.raises(QueueClosed):
        queue.submit(square, 1)
    queue.shutdown()


def test_shutdown_that_cancels(queue: TaskQueue, store: ObservedStore) -> None:
    """With `cancel_futures` what waits is cancelled, and what runs is waited for."""
    running, *waiting = [queue.submit(square, number) for number in range(1_200)]
    store.records[running.id].state = State.RUNNING
    timer = threading.Timer(0.05, lambda: succeed(store, running.id, "done"))
    timer.start()
    queue.shutdown(cancel_futures=True)
    timer.join()
    assert all(job.cancelled() for job in waiting)
    assert running.result() == "done"


def test_shutdown_with_grace(queue: TaskQueue, store: ObservedStore) -> None:
    """What has not ended after the grace is killed."""
    job = queue.submit(square, 1)
    store.records[job.id].state = State.RUNNING
    killer = threading.Thread(
        target=lambda: (
            eventually(lambda: job.id in store.control_requests, "the kill") and store.end(job.id, State.CANCELLED)
        )
    )
    killer.start()
    queue.shutdown(grace=0.05)
    killer.join()
    assert job.cancelled()


def test_shutdown_without_waiting(queue: TaskQueue, store: ObservedStore) -> None:
    """After `shutdown(wait=False)` handles still hear of their ends, and a patient shutdown may follow."""
    job = queue.submit(square, 1)
    queue.shutdown(wait=False)
    succeed(store, job.id, 1)
    assert job.result(timeout=PATIENCE) == 1
    queue.shutdown()
    assert store.closed


def test_interrupt_leaves_the_jobs_alone(queue: TaskQueue, store: ObservedStore) -> None:
    """Ctrl-C in a `with` block ends the program's part, not the jobs in the store."""
    with pytest.raises(KeyboardInterrupt), queue:
        job = queue.submit(square, 1)
        raise KeyboardInterrupt
    assert job.state is State.QUEUED


def test_dropped_queue(store: ObservedStore, queue: TaskQueue) -> None:
    """A queue that nobody holds lives as long as its jobs are waited for, and then lets go of its thread."""
    other = TaskQueue("memory://")
    job = other.submit(square, 3)
    del other
    timer = threading.Timer(0.05, succeed, (store, job.id, 9))
    timer.start()
    assert job.result(timeout=PATIENCE) == 9
    timer.join()
    assert not store.closed
    del job, timer
    eventually(
        lambda: store.closed and all(subscription.closed for subscription in store.subscriptions), "the queue to let go"
    )


def test_pause(queue: TaskQueue, store: ObservedStore) -> None:
    """Pauses are the store's."""
    queue.pause("high")
    queue.pause()
    queue.resume("high")
    assert store.paused == {"default"}
    with pytest.raises(ValueError, match="queue"):
        queue.pause("two words")


def test_forked_process(queue: TaskQueue, store: ObservedStore) -> None:
    """In a forked process the queue hears by a subscription of its own, also for jobs that the parent waits for."""
    job = queue.submit(square, 3)
    job.add_done_callback(lambda _: None)
    eventually(lambda: "ask" in store.calls, "the parent to listen")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            succeed(store, job.id, 9)  # in the child's copy of the store
            code = 0 if job.result(timeout=PATIENCE) == 9 and queue.submit(square, 4).id else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not job.done()
    succeed(store, job.id, 9)
    assert job.result(timeout=PATIENCE) == 9
