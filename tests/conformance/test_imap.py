"""`imap`, `imap_unordered`, `starmap`: Pool's names and meaning, lazy on both ends, each item's error its own."""

from __future__ import annotations

import itertools
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry
from taskq.errors import JobTimeout, QueueClosed
from tests.conformance.test_map import WINDOW, Source
from tests.sample_tasks import (
    add,
    divide,
    fail_at,
    fail_item_once,
    hold_item,
    identity,
    nap,
    note_and_nap,
    square,
    stop_iteration,
)
from tests.sample_tasks import sleep_at as hang_at
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

IMAPS = ["imap", "imap_unordered"]


def run(queue: Any, how: str, fn: Callable[..., Any], items: Any, **settings: Any) -> Iterator[Any]:
    """Call the method of this name."""
    results: Iterator[Any] = getattr(queue, how)(fn, items, **settings)
    return results


@pytest.mark.parametrize("how", IMAPS)
@pytest.mark.parametrize("chunksize", [None, 1, 7, 500])
def test_all_results(queue: TaskQueue, how: str, chunksize: int | None) -> None:
    """Every item gives one result; `imap` keeps the order."""
    results = list(run(queue, how, square, range(300), chunksize=chunksize))
    assert (results if how == "imap" else sorted(results)) == [number**2 for number in range(300)]


def test_starmap(queue: TaskQueue) -> None:
    """`starmap` spreads each item over the arguments, lazily and in order."""
    assert list(queue.starmap(add, ((number, 1) for number in range(300)))) == list(range(1, 301))
    assert list(queue.starmap(divmod, [[7, 2], (9, 4)])) == [(3, 1), (2, 1)]


def test_starmap_of_what_cannot_be_spread(queue: TaskQueue) -> None:
    """An item that is no sequence of arguments is that item's TypeError."""
    results = queue.starmap(add, [(1, 2), 3, (4, 5)], return_exceptions=True)  # type: ignore[list-item]
    first, bad, last = list(results)
    assert (first, type(bad), last) == (3, TypeError, 9)


def test_unordered_overtakes(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """`imap_unordered` yields what is ready while another item is still running."""
    task = partial(hold_item, gate.path, ledger.path, 0)
    results = queue.imap_unordered(task, range(200))
    assert sorted(itertools.islice(results, 199)) == list(range(1, 200))
    gate.open()
    assert list(results) == [0]


@pytest.mark.needs("start_methods", why="in a store a chunk is one job with one outcome, and its size was asked for")
def test_unordered_overtakes_within_a_chunk(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """No finished result is stranded behind a slow one of its own chunk, nor an unstarted item behind it."""
    task = partial(hold_item, gate.path, ledger.path, 20)
    results = queue.imap_unordered(task, range(60), chunksize=60)
    got = set(itertools.islice(results, 20))
    gate.open()
    got |= set(results)
    assert got == set(range(60))
    assert ledger.counts() == {str(item): 1 for item in range(60)}


@pytest.mark.parametrize("how", IMAPS)
def test_goes_on_behind_an_error(queue: TaskQueue, how: str) -> None:
    """After an item's error has been raised, `next` gives the other items, as Pool's does."""
    results = run(queue, how, partial(divide, 12), [1, 2, 0, 3, 0, 4])
    values, errors = [], 0
    while True:
        try:
            values.append(next(results))
        except StopIteration:
            break
        except ZeroDivisionError:
            errors += 1
    assert errors == 2
    assert (values if how == "imap" else sorted(values, reverse=True)) == [12, 6, 4, 3]


def test_errors_in_their_places(queue: TaskQueue) -> None:
    """`imap` raises each error at its item's place, in the same chunk or not."""
    results = queue.imap(partial(fail_at, 3), range(6), chunksize=6)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3 is bad"):
        next(results)
    assert list(results) == [4, 5]


@pytest.mark.parametrize("how", IMAPS)
def test_return_exceptions(queue: TaskQueue, how: str) -> None:
    """`return_exceptions` yields each error in its item's place, with the remote traceback as its cause."""
    results = list(run(queue, how, partial(fail_at, 3), range(6), return_exceptions=True))
    bad = [result for result in results if isinstance(result, ValueError)]
    assert [str(error) for error in bad] == ["item 3 is bad"]
    assert "fail_at" in str(bad[0].__cause__)
    good = [result for result in results if not isinstance(result, ValueError)]
    assert (good if how == "imap" else sorted(good)) == [0, 1, 2, 4, 5]
    if how == "imap":
        assert results[3] is bad[0]


@pytest.mark.parametrize("how", IMAPS)
def test_with_index(queue: TaskQueue, how: str) -> None:
    """`with_index` pairs each result with the place of its item in the input."""
    results = dict(run(queue, how, square, range(10, 400), with_index=True))
    assert results == {index: (index + 10) ** 2 for index in range(390)}


@pytest.mark.parametrize("how", IMAPS)
def test_with_index_and_exceptions(queue: TaskQueue, how: str) -> None:
    """`with_index` and `return_exceptions` tell which item failed."""
    items = [5, 0, 2, 0]
    results = dict(run(queue, how, partial(divide, 10), items, with_index=True, return_exceptions=True))
    assert [index for index, result in sorted(results.items()) if isinstance(result, ZeroDivisionError)] == [1, 3]
    assert (results[0], results[2]) == (2, 5)


@pytest.mark.parametrize("how", IMAPS)
def test_progress_changes_no_result(queue: TaskQueue, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`progress=True` yields the same, and writes nothing to stdout."""
    results = list(run(queue, how, square, range(100), progress=True))
    assert sorted(results) == [number**2 for number in range(100)]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("how", IMAPS)
def test_stop_iteration_in_a_task(queue: TaskQueue, how: str) -> None:
    """A task that raises StopIteration does not end the results: all items are accounted for."""
    results = list(run(queue, how, stop_iteration, range(20), return_exceptions=True))
    assert len(results) == 20
    assert all(isinstance(result, (StopIteration, RuntimeError)) for result in results)
    with pytest.raises(RuntimeError):
        list(run(queue, how, stop_iteration, range(20)))


@pytest.mark.parametrize("how", [*IMAPS, "starmap"])
@pytest.mark.parametrize("settings", [{"chunksize": 0}, {"buffersize": 0}, {"chunksize": -3}])
def test_invalid_settings(queue: TaskQueue, how: str, settings: dict[str, int]) -> None:
    """A chunk or buffer size below 1 is a ValueError that names it."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        list(run(queue, how, identity, [(1,)], **settings))


# --- lazy input


@pytest.mark.parametrize("how", IMAPS)
def test_endless_input(queue: TaskQueue, how: str) -> None:
    """An endless input is read a bounded window ahead of the consumer, however long it goes on."""
    source = Source(itertools.count())
    results = run(queue, how, square, source)
    for number in range(20_000):
        next(results)
        assert source.taken <= number + WINDOW
    del results


@pytest.mark.parametrize("how", IMAPS)
def test_buffersize_bounds_the_input(queue: TaskQueue, how: str) -> None:
    """With `buffersize`, never more items are read than were yielded plus so many."""
    source = Source(itertools.count())
    results = run(queue, how, square, source, buffersize=5)
    assert source.taken <= 5
    for number in range(100):
        next(results)
        assert source.taken <= number + 1 + 5
    del results


@pytest.mark.parametrize("how", IMAPS)
def test_input_that_raises(queue: TaskQueue, how: str) -> None:
    """An error of the input comes after the results of all items before it, and then the iterator is at its end."""

    def source() -> Iterator[int]:
        yield from range(50)
        raise LookupError("the input broke")

    results = run(queue, how, square, source())
    assert sorted(itertools.islice(results, 50)) == [number**2 for number in range(50)]
    with pytest.raises(LookupError, match="the input broke"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("how", IMAPS)
def test_dropped_half_way(make_queue: Callable[..., TaskQueue], ledger: Ledger, how: str) -> None:
    """An iterator that is dropped cancels what has not started, and lets the input go."""
    queue = make_queue()
    source = Source(itertools.count())
    results = run(queue, how, partial(note_and_nap, ledger.path, seconds=0.02), source, chunksize=1, buffersize=200)
    next(results)
    taken = source.taken
    del results
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9
    queue.shutdown(wait=True)
    assert source.taken == taken
    assert sum(text.startswith("start") for text in ledger.texts()) < 100


def test_closed_half_way(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """A shutdown that cancels ends an open iterator instead of hanging it."""
    queue = make_queue()
    results = queue.imap(partial(note_and_nap, ledger.path, seconds=0.01), itertools.count(), buffersize=50)
    assert next(results) == 0
    queue.shutdown(wait=True, cancel_futures=True)
    with pytest.raises((QueueClosed, StopIteration, CancelledError)):
        for _ in range(10_000):
            next(results)


def test_nothing_runs_twice(queue: TaskQueue, ledger: Ledger) -> None:
    """Every item runs once."""
    results = queue.imap_unordered(partial(note_and_nap, ledger.path, seconds=0.0), range(500))
    assert sorted(results) == list(range(500))
    assert ledger.counts() == {f"{word} {item}": 1 for word in ("start", "end") for item in range(500)}


# --- options of single jobs, for each item


@pytest.mark.parametrize("how", IMAPS)
def test_timeout_of_an_item(queue: TaskQueue, how: str) -> None:
    """A job timeout holds for each item: those that hang time out, all others give their results."""
    bad = frozenset({3, 17})
    bound = queue.options(timeout=0.5)
    results = dict(run(bound, how, partial(hang_at, bad), range(40), with_index=True, return_exceptions=True))
    assert {index for index, result in results.items() if isinstance(result, JobTimeout)} == bad
    assert all(results[index] == index for index in set(range(40)) - bad)


@pytest.mark.parametrize("how", IMAPS)
def test_retry_of_an_item(queue: TaskQueue, ledger: Ledger, how: str) -> None:
    """A retry policy holds for each item: only those that failed run again, and they give their results."""
    bad = frozenset({2, 11, 12})
    bound = queue.options(retry=Retry(2, delay=0.01, on=(OSError,)))
    results = list(run(bound, how, partial(fail_item_once, ledger.path, bad), range(30)))
    assert (results if how == "imap" else sorted(results)) == list(range(30))
    assert ledger.counts() == {str(item): 2 if item in bad else 1 for item in range(30)}


def test_slow_consumer(queue: TaskQueue, gate: Gate) -> None:
    """Results that nobody fetches yet do not keep other jobs from running."""
    results = queue.imap(square, itertools.count(), buffersize=100)
    assert next(results) == 0
    assert eventually(lambda: queue.submit(add, 1, 1).result(timeout=PATIENCE) == 2, "another job to run")
    assert list(itertools.islice(results, 500)) == [number**2 for number in range(1, 501)]
    del results


def test_many_open_iterators(queue: TaskQueue) -> None:
    """Many iterators may be open at once, and dropped in any order."""
    iterators = [queue.imap(square, itertools.count(start)) for start in range(12)]
    assert [next(results) for results in iterators] == [start**2 for start in range(12)]
    del iterators[::2]
    assert [next(results) for results in iterators] == [(start + 1) ** 2 for start in range(1, 12, 2)]


def test_mixed_durations(queue: TaskQueue) -> None:
    """Items of very different lengths all come back, in order."""
    seconds = [0.05 if number % 25 == 0 else 0.0 for number in range(200)]
    assert list(queue.imap(nap, seconds)) == seconds
