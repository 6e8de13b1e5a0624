"""Maps on a store: chunks as jobs, a bounded window, each item's failure its own, nothing left in the store."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from taskq import State, envelope, perform
from taskq.codec import encode
from taskq.errors import BackendUnavailable, ConfigError, DecodeError, EncodeError, JobCancelled, JobCrashed, JobLost
from taskq.executors.durable.stream import CHUNK_BYTES, CHUNK_MAX, ITEMS_AHEAD, ChunkSizer
from taskq.failure import Failure
from taskq.store import WorkerRecord
from tests.conformance.test_map import Source
from tests.sample_tasks import add, divide, fail_at, identity, square, stop_iteration, zeros
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from taskq import TaskQueue
    from taskq.store import JobRecord
    from tests.observed_store import ObservedStore, ThreadWorker


def in_chunks(store: ObservedStore) -> list[JobRecord]:
    """Return the jobs that are there."""
    return list(store.records.values())


@pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
@pytest.mark.parametrize("settings", [{}, {"chunksize": 7}, {"buffersize": 3}, {"chunksize": 5, "buffersize": 2}])
def test_all_results(queue: TaskQueue, worker: ThreadWorker, how: str, settings: dict[str, int]) -> None:
    """Every item gives its result, in order unless that is not wanted."""
    results = list(getattr(queue, how)(square, range(500), **settings))
    assert (sorted(results) if how == "imap_unordered" else results) == [number**2 for number in range(500)]


def test_nothing_is_left_in_the_store(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """What was read is removed, also when the map failed or was dropped half way."""
    list(queue.map(square, range(3_000)))
    list(queue.imap(partial(fail_at, 3), range(6), return_exceptions=True))
    with pytest.raises(ZeroDivisionError):
        list(queue.map(divide, [1] * 100, [1] * 50 + [0] * 50))
    results = queue.imap(square, itertools.count())
    assert next(results) == 0
    del results
    queue.shutdown()
    assert all(store.options[found.id].result_ttl == 60 for found in in_chunks(store))
    left = [found for found in in_chunks(store) if found.state is not State.CANCELLED]
    assert len(left) <= 1, "only what ran when the map was dropped is left to expire"


def test_a_chunk_is_one_job(queue: TaskQueue, store: ObservedStore) -> None:
    """Items travel many to a job, with the options of the map, and under a label that says which."""
    results = queue.options(queue="high", priority=3, timeout=5).imap(square, range(10), chunksize=4)
    jobs = in_chunks(store)
    assert [job.label for job in jobs] == ["square items 0 to 3", "square items 4 to 7", "square items 8 to 9"]
    assert {(job.queue, job.priority, job.task) for job in jobs} == {("high", 3, "tests.sample_tasks:square")}
    found = envelope.head(jobs[0].envelope)
    assert (found.kind, found.options.timeout) == (envelope.CHUNK, 5)
    assert store.puts == [3]
    del results


@pytest.mark.parametrize("name", ["delay", "at", "expires", "key", "job_id"])
def test_options_of_single_jobs(queue: TaskQueue, name: str) -> None:
    """Options that say something of one job are refused."""
    from datetime import UTC, datetime  # noqa: PLC0415 - one value of this table

    value = {"delay": 5, "expires": 5, "at": datetime.now(UTC), "key": "k", "job_id": "j"}[name]
    with pytest.raises(ConfigError, match=name):
        queue.options(**{name: value}).map(square, [1])  # type: ignore[misc]


def test_bound_arguments(queue: TaskQueue, worker: ThreadWorker) -> None:
    """What is bound to a partial goes with every chunk."""
    assert list(queue.imap(partial(add, right=10), range(50))) == list(range(10, 60))
    assert list(queue.starmap(partial(add, 1), [(2,), (3,)])) == [3, 4]


def test_error_of_an_item(queue: TaskQueue, worker: ThreadWorker) -> None:
    """One item's failure is raised at its place, and the others of its chunk have their results."""
    results = queue.imap(partial(fail_at, 3), range(6), chunksize=6)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3 is bad"):
        next(results)
    assert list(results) == [4, 5]
    pairs = list(queue.imap(partial(fail_at, 1), range(3), chunksize=3, return_exceptions=True, with_index=True))
    assert [pairs[0], pairs[2]] == [(0, 0), (2, 2)]
    assert (pairs[1][0], type(pairs[1][1])) == (1, ValueError)  # type: ignore[index]


def test_index_beside_errors(queue: TaskQueue, worker: ThreadWorker) -> None:
    """The indices stay right around an item that raises."""
    results = queue.imap(partial(fail_at, 1), range(4), chunksize=4, with_index=True)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="item 1"):
        next(results)
    assert list(results) == [(2, 2), (3, 3)]


def test_stop_iteration_of_a_task(queue: TaskQueue, worker: ThreadWorker) -> None:
    """A task that raises StopIteration does not end the map."""
    assert len(list(queue.imap(stop_iteration, range(20), return_exceptions=True))) == 20


@pytest.mark.parametrize(
    ("state", "failure", "kind"),
    [
        (State.FAILED, Failure.crashed(-9, 3), JobCrashed),
        (State.FAILED, Failure.lost(), JobLost),
        (State.CANCELLED, None, JobCancelled),
        (State.FAILED, None, JobLost),
    ],
)
def test_chunk_that_fails(
    queue: TaskQueue, store: ObservedStore, state: State, failure: Failure | None, kind: type[Exception]
) -> None:
    """What befalls a whole chunk befalls each of its items."""
    results = queue.imap(square, range(5), chunksize=3, return_exceptions=True)
    first, second = in_chunks(store)
    store.end(first.id, state, failure=failure)
    store.end(second.id, State.SUCCEEDED, result=encode(b"\xc1"))
    assert [type(result) for result in results] == [kind] * 3 + [DecodeError] * 2


def test_items_that_cannot_travel(queue: TaskQueue, worker: ThreadWorker) -> None:
    """An item that cannot travel, is too large or is a job is its own error, with its place; the others run."""
    items: list[Any] = [1, object(), 3, b"x" * 2_000_000, queue.submit(square, 2), 6]
    results = list(queue.imap(identity, items, return_exceptions=True, chunksize=6))
    assert [results[0], results[2], results[5]] == [1, 3, 6]
    errors = [results[index] for index in (1, 3, 4)]
    assert all(isinstance(error, EncodeError) for error in errors)
    assert [error.path for error in errors] == ["items[1]", "items[3]", "items[4]"]
    assert [
        word
        for word, error in zip(("object", "above the limit", "does not wait for jobs"), errors, strict=True)
        if word in str(error)
    ] == ["object", "above the limit", "does not wait for jobs"]


def test_large_results(queue: TaskQueue, worker: ThreadWorker) -> None:
    """Results that are large together make the chunks small again; one that is too large fails alone."""
    sizes = [10_000] * 100 + [3_000_000]
    results = list(queue.imap(zeros, sizes, return_exceptions=True))
    assert [len(result) for result in results[:-1]] == sizes[:-1]
    assert isinstance(results[-1], EncodeError)


# --- the window


def test_input_is_read_a_window_ahead(queue: TaskQueue, worker: ThreadWorker) -> None:
    """An endless input is read a bounded number of items ahead, in one thread."""
    source = Source(itertools.count())
    results = queue.imap(square, source)
    for number in range(20_000):
        assert next(results) == number**2
        assert source.taken <= number + ITEMS_AHEAD + 2 * CHUNK_MAX
    assert len(source.threads) == 1
    del results


def test_buffersize(queue: TaskQueue, store: ObservedStore) -> None:
    """`buffersize` bounds what is read."""
    source = Source(itertools.count())
    results = queue.imap(square, source, buffersize=5)
    eventually(lambda: source.taken == 5, "the buffer to be full")
    del results


def test_window_grows_with_the_workers(queue: TaskQueue, store: ObservedStore) -> None:
    """Many processes get many chunks ahead; those of workers on other queues do not count."""
    few = Source(itertools.count())
    first = queue.imap(square, few)
    eventually(lambda: few.taken == 6, "the window of the first map to be full")
    worker = WorkerRecord(name="w", host="h", pid=1, queues=("default",), processes=50)
    store.workers_now = [worker, WorkerRecord(name="o", host="h", pid=2, queues=("other",), processes=500)]
    many = Source(itertools.count())
    second = queue.imap(square, many)
    assert few.taken == 6
    eventually(lambda: many.taken == 150, "that of the second one")
    del first, second


def test_slow_input(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """Results do not wait for an input that is slow: each item is sent when it is there."""
    arrived = threading.Event()

    def source() -> Any:
        yield 1
        assert arrived.wait(PATIENCE)
        yield 2

    results = queue.imap(square, source(), buffersize=1)
    assert next(results) == 1
    arrived.set()
    assert list(results) == [4]


def test_error_of_the_input(queue: TaskQueue, worker: ThreadWorker) -> None:
    """An error of the input comes behind the results of what it gave before."""

    def source() -> Any:
        yield from range(50)
        raise LookupError("the input broke")

    results = queue.imap(square, source())
    assert list(itertools.islice(results, 50)) == [number**2 for number in range(50)]
    with pytest.raises(LookupError, match="the input broke"):
        next(results)


def test_timeout(queue: TaskQueue) -> None:
    """A map that nobody works on raises TimeoutError in its time, and says how far it was."""
    with pytest.raises(TimeoutError, match="0 of 3 results were there"):
        list(queue.map(square, range(3), timeout=0.05))


def test_drop(queue: TaskQueue, store: ObservedStore) -> None:
    """Dropping the iterator cancels the chunks that wait, and removes all that ended."""
    results = queue.imap(square, itertools.count())
    assert {job.state for job in in_chunks(store)} == {State.QUEUED}
    next_one = next(iter(in_chunks(store)))
    store.end(next_one.id, State.SUCCEEDED, result=encode(perform.perform_chunk(next_one.envelope, "j", 1)))
    assert next(results) == 0
    del results
    eventually(lambda: in_chunks(store) == [], "the chunks to be cancelled and removed")


# --- trouble and the end


def test_put_whose_reply_is_lost(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """A put that has to be repeated makes no second chunk, and loses no item."""
    source = Source(range(2_000))
    results = queue.imap(square, source, chunksize=10)
    got = list(itertools.islice(results, 100))
    before = len(set(store.options))
    assert got == [number**2 for number in range(100)]
    assert before <= 200
    assert list(results) == [number**2 for number in range(100, 2_000)]
    assert len(store.options) == 200


def test_store_that_goes_away(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """When chunks cannot be sent, the consumer hears why; and what was sent is given up."""
    results = queue.imap(square, itertools.count())
    assert next(results) == 0
    store.lose_reply = True
    with pytest.raises(BackendUnavailable):
        for _ in range(100_000):
            next(results)
    queue.shutdown()


def test_shutdown_reads_a_finite_input(queue: TaskQueue, worker: ThreadWorker) -> None:
    """A map over a collection gives all its results after the shutdown."""
    results = queue.map(square, range(3_000))
    queue.shutdown()
    assert list(results) == [number**2 for number in range(3_000)]


def test_shutdown_ends_an_endless_input(queue: TaskQueue, worker: ThreadWorker) -> None:
    """The rest of an endless input is not read; the consumer hears so behind the results."""
    results = queue.imap(square, itertools.count())
    queue.shutdown()
    with pytest.raises(CancelledError):
        for _ in range(200_000):
            next(results)


def test_shutdown_that_cancels(queue: TaskQueue) -> None:
    """A cancelling shutdown ends an open map."""
    results = queue.imap(square, itertools.count())
    queue.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        next(results)


def test_map_outlives_its_queue_object(queue: TaskQueue, store: ObservedStore, worker: ThreadWorker) -> None:
    """A map whose queue nobody holds any more comes to its end."""
    from taskq import TaskQueue as Queue  # noqa: PLC0415 - beside the fixture of that name

    results = Queue("memory://").map(square, range(1_000))
    assert list(results) == [number**2 for number in range(1_000)]


# --- the pace


def test_pace_grows_and_shrinks() -> None:
    """Chunks double while they are short, and stop at the work, the count or the bytes that one may have."""
    pace = ChunkSizer()
    sizes = []
    for _ in range(20):
        sizes.append(pace.chunk())
        pace.observe(sizes[-1], sizes[-1] * 100, 3 * sizes[-1])
    assert sizes[:5] == [1, 2, 4, 8, 16]
    assert sizes[-1] == CHUNK_MAX
    for _ in range(20):
        pace.observe(100, 1_000_000_000, 300)
    assert 4 <= pace.chunk() <= 10
    pace.observe_bytes(1, 10_000)
    assert pace.chunk() <= CHUNK_BYTES / 10_000


def test_one_slow_chunk_does_not_count_for_ever() -> None:
    """One chunk that took a second among many short ones changes the size by a bounded factor."""
    pace = ChunkSizer()
    for _ in range(20):
        pace.observe(100, 10_000_000, 0)
    before = pace.chunk()
    pace.observe(100, 10_000_000_000, 0)
    assert before / 4 <= pace.chunk() <= before


def test_window_is_bounded() -> None:
    """However many processes there are, so many items are on their way at the most, and always two chunks."""
    pace = ChunkSizer()
    pace.observe(1, 100, 1)
    assert pace.ahead(1, 1) >= 3
    assert pace.ahead(4096, 10_000) * 4096 <= ITEMS_AHEAD
    assert pace.ahead(1_000_000, 4) == 2
