"""`map`: the order, errors, timeout and laziness that `concurrent.futures` and the builtin lead users to expect."""

from __future__ import annotations

import itertools
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.sample_tasks import (
    add,
    capture,
    divide,
    fail_at,
    hold,
    hold_item,
    identity,
    make_thing,
    nap,
    note_and_nap,
    note_item,
    pid_of,
    square,
    stop_iteration,
    tidy_up_when_interrupted,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

#: Most items that may be read ahead when the library chooses: what keeps two processes busy, with room to spare.
WINDOW = 100_000


class Source:
    """An iterator that counts what was taken from it, and who took it."""

    def __init__(self, items: Any) -> None:
        self._items = iter(items)
        self.taken = 0
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.threads.add(threading.get_ident())
        item = next(self._items)
        self.taken += 1
        return item


def test_order(queue: TaskQueue) -> None:
    """Results come in the order of the items, whichever is ready first."""
    seconds = [0.05, 0.0, 0.02, 0.0, 0.01]
    assert list(queue.map(nap, seconds)) == seconds


@pytest.mark.parametrize("count", [0, 1, 2, 1_000, 20_000])
def test_any_number_of_items(queue: TaskQueue, count: int) -> None:
    """No item, one item, and many items: one result each."""
    assert list(queue.map(square, range(count))) == [number**2 for number in range(count)]


def test_several_iterables(queue: TaskQueue) -> None:
    """Several iterables are zipped, and the shortest ends the map, as with the builtin."""
    assert list(queue.map(pow, range(10), itertools.count(2))) == list(map(pow, range(10), itertools.count(2)))
    assert list(queue.map(add, range(5), range(3))) == [0, 2, 4]


def test_tuples_are_one_argument(queue: TaskQueue) -> None:
    """An item that is a tuple is passed as one argument."""
    assert list(queue.map(identity, [(1, 2), (3, 4)])) == [(1, 2), (3, 4)]
    assert list(queue.map(capture, [(1, 2)])) == [(((1, 2),), {})]


@pytest.mark.parametrize("chunksize", [None, 1, 3, 6, 40, 50, 1_000])
def test_chunksize(queue: TaskQueue, chunksize: int | None) -> None:
    """The size of chunks changes no result."""
    assert list(queue.map(pow, range(40), range(40), chunksize=chunksize)) == list(map(pow, range(40), range(40)))


@pytest.mark.parametrize("chunksize", [0, -1, 1.5, "3", True])
def test_invalid_chunksize(queue: TaskQueue, chunksize: Any) -> None:
    """A chunk size that is no whole number from 1 is a ValueError with that value in it."""
    with pytest.raises(ValueError, match=str(chunksize)):
        list(queue.map(square, range(40), chunksize=chunksize))


@pytest.mark.parametrize("buffersize", [0, -1, 1.5, "3"])
def test_invalid_buffersize(queue: TaskQueue, buffersize: Any) -> None:
    """A buffer size that is no whole number from 1 is a ValueError or TypeError with that value in it."""
    with pytest.raises((ValueError, TypeError), match=str(buffersize)):
        list(queue.map(square, range(40), buffersize=buffersize))


def test_not_iterable(queue: TaskQueue) -> None:
    """What cannot be iterated is refused by the call itself, with a TypeError."""
    with pytest.raises(TypeError):
        queue.map(square, 5)  # type: ignore[arg-type]


def test_exception_at_its_place(queue: TaskQueue) -> None:
    """Items before a bad one give their results, then its exception is raised."""
    results = queue.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_exception_in_a_chunk(queue: TaskQueue) -> None:
    """An item's failure is its own: those of the same chunk keep their results."""
    results = queue.map(fail_at, itertools.repeat(7), range(10), chunksize=10)
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="item 7 is bad"):
        next(results)


def test_stop_iteration_in_a_task(queue: TaskQueue) -> None:
    """A task that raises StopIteration does not make the map end early, as if there were no more items."""
    with pytest.raises(RuntimeError):
        list(queue.map(stop_iteration, range(3)))
    assert type(queue.submit(stop_iteration, 0).exception(timeout=PATIENCE)) is StopIteration


def test_timeout(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """What is not there `timeout` seconds after the call raises TimeoutError; what was there came before it."""
    results = queue.map(
        hold_item, *map(itertools.repeat, (gate.path, ledger.path, 2)), range(3), timeout=1.5, chunksize=1
    )
    got = []
    with pytest.raises(TimeoutError):
        for result in results:
            got.append(result)  # noqa: PERF402 - kept although the loop raises
    gate.open()
    assert got in ([0, 1], [0], [])  # a slow machine may not even reach those
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4


def test_timeout_that_is_not_reached(queue: TaskQueue) -> None:
    """A timeout that is long enough changes nothing."""
    assert list(queue.map(square, range(1_000), timeout=PATIENCE)) == [number**2 for number in range(1_000)]


def test_results_after_shutdown(make_queue: Callable[..., TaskQueue]) -> None:
    """A map that was begun before the shutdown gives all its results after it."""
    queue = make_queue()
    results = queue.map(abs, range(-5, 5))
    queue.shutdown(wait=True)
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_work_starts_at_the_call(queue: TaskQueue, ledger: Ledger) -> None:
    """Jobs run from the moment of the call, not only when the first result is asked for."""
    results = queue.map(note_item, [ledger.path] * 4, range(4))
    eventually(lambda: len(ledger.texts()) == 4, "the items to run without anybody asking")
    assert list(results) == [0, 1, 2, 3]


def test_all_processes_work(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """Items that take their time are spread over the processes."""
    results = queue.map(hold, [gate.path] * 4, [ledger.path] * 4)
    eventually(lambda: len(set(ledger.pids())) == 2, "both processes to take an item")
    gate.open()
    assert list(results) == ["held"] * 4
    assert len(set(queue.map(pid_of, range(10)))) <= 2


# --- lazy input


def test_endless_input(queue: TaskQueue) -> None:
    """An endless input is no obstacle: results come, and the input is read a bounded window ahead."""
    source = Source(itertools.count())
    results = queue.map(square, source)
    for number in range(5_000):
        assert next(results) == number**2
        assert source.taken <= number + WINDOW
    del results


def test_input_is_read_in_one_thread(queue: TaskQueue) -> None:
    """The input may be any iterator, also one that must be used in the thread that used it first."""
    source = Source(range(2_000))
    assert list(queue.map(square, source)) == [number**2 for number in range(2_000)]
    assert len(source.threads - {threading.get_ident()}) == 1


def test_input_is_not_read_while_nobody_asks(queue: TaskQueue) -> None:
    """While the consumer rests, so does the input, once the window is full."""
    source = Source(itertools.count())
    results = queue.map(square, source, buffersize=40, chunksize=1)
    assert next(results) == 0
    eventually(lambda: source.taken == 40, "the window to be full")
    assert [queue.submit(square, 5).result(timeout=PATIENCE) for _ in range(100)] == [25] * 100
    assert source.taken == 40
    del results


def test_buffersize_bounds_the_input(queue: TaskQueue) -> None:
    """With `buffersize`, never more items are read than were yielded plus so many."""
    source = Source(itertools.count())
    results = queue.map(square, source, buffersize=8)
    assert source.taken <= 8
    for number in range(200):
        assert next(results) == number**2
        assert source.taken <= number + 1 + 8
    del results


@pytest.mark.parametrize("buffersize", [1, 2, 7, 1_000])
@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_buffersize_changes_no_result(queue: TaskQueue, buffersize: int, chunksize: int | None) -> None:
    """Whatever the buffer and the chunks, all results come in order."""
    results = queue.map(square, range(50), buffersize=buffersize, chunksize=chunksize)
    assert list(results) == [number**2 for number in range(50)]


def test_input_that_raises(queue: TaskQueue) -> None:
    """An error of the input itself comes after the results of all items that it gave before."""

    def source() -> Iterator[int]:
        yield from range(100)
        raise LookupError("the input broke")

    results = queue.map(square, source())
    assert list(itertools.islice(results, 100)) == [number**2 for number in range(100)]
    with pytest.raises(LookupError, match="the input broke"):
        next(results)
    assert list(results) == []


def test_input_that_raises_at_once(queue: TaskQueue) -> None:
    """An error of the input before its first item is raised as it is."""

    def source() -> Iterator[int]:
        raise LookupError("nothing here")
        yield 1

    with pytest.raises(LookupError, match="nothing here"):
        list(queue.map(square, source()))


def test_dropped_half_way(make_queue: Callable[..., TaskQueue], ledger: Ledger) -> None:
    """An iterator that is dropped cancels what has not started."""
    queue = make_queue()
    seconds = [0.02] * 300
    results = queue.map(note_and_nap, [ledger.path] * 300, range(300), seconds, chunksize=1, buffersize=300)
    assert next(results) == 0
    del results
    queue.shutdown(wait=True)
    counts = ledger.counts()
    starts = sum(counts[f"start {item}"] for item in range(300))
    assert starts < 150
    assert starts == sum(counts[f"end {item}"] for item in range(300))


def test_two_maps_at_once(queue: TaskQueue) -> None:
    """Two maps that are read in turn do not disturb each other."""
    pairs = zip(queue.map(square, range(500)), queue.map(add, range(500), range(500)), strict=True)
    assert list(pairs) == [(number**2, 2 * number) for number in range(500)]


def test_map_of_a_map(queue: TaskQueue) -> None:
    """The results of one map may be the input of another."""
    assert list(queue.map(add, queue.map(square, range(200)), range(200))) == [n**2 + n for n in range(200)]


@pytest.mark.needs("pickle", why="no message between machines may name a type to build")
def test_results_are_let_go(queue: TaskQueue) -> None:
    """The iterator keeps no reference to a result that it has yielded."""
    for thing in queue.map(make_thing, range(10)):
        watch = weakref.ref(thing)
        del thing
        assert watch() is None


def test_one_error_among_many(queue: TaskQueue) -> None:
    """A division by zero among thousands is raised as what it is."""
    with pytest.raises(ZeroDivisionError):
        list(queue.map(divide, range(3_000), (1_500 - number for number in range(3_000))))


@pytest.mark.parametrize("chunksize", [1, 4], ids=["lines", "chunks"])
def test_map_that_is_left_is_interrupted(make_queue: Callable[..., TaskQueue], ledger: Ledger, chunksize: int) -> None:
    """When a queue is left, as by Ctrl-C, KeyboardInterrupt ends what runs, so that it tidies up; no more begins."""
    queue = make_queue()
    items = range(8 * chunksize)
    results = queue.imap_unordered(partial(tidy_up_when_interrupted, ledger.path), items, chunksize=chunksize)
    eventually(ledger.texts, "an item to start")
    if "durable" in queue.capabilities:
        queue.shutdown(cancel_futures=True, grace=0.1)
    else:
        queue.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    del results
    begun = [text.split()[1] for text in ledger.texts() if text.startswith("start")]
    assert 1 <= len(begun) <= 4
    eventually(
        lambda: sorted(ledger.texts()) == sorted(f"{what} {item}" for what in ("start", "tidied") for item in begun),
        "what ran to tidy up, and nothing else to start",
    )
