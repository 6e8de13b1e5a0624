"""Maps whose input waits, whose results several threads read, and that are closed: on every executor."""

from __future__ import annotations

import contextvars
import gc
import itertools
import queue as queues
import sqlite3
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.sample_tasks import (
    fail_at_multiples,
    hold_item,
    identity,
    make_set,
    make_thing,
    note_and_nap,
    note_of,
    square,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger

HOW = ["map", "imap", "imap_unordered"]


class Tap:
    """An input that gives what it is told to, when it is told to."""

    def __init__(self) -> None:
        self._items: queues.SimpleQueue[Any] = queues.SimpleQueue()
        self.asked = 0
        self.closed = threading.Event()

    def give(self, *items: Any) -> None:
        """Let these items come; None ends the input."""
        for item in items:
            self._items.put(item)

    def flow(self) -> Iterator[Any]:
        """Wait for each item."""
        try:
            while True:
                self.asked += 1
                if (item := self._items.get()) is None:
                    return
                yield item
        finally:
            self.closed.set()


@pytest.fixture
def tap() -> Iterator[Tap]:
    """Give an input that ends with the test, whatever the test did."""
    tap = Tap()
    yield tap
    tap.give(None)


# --- an input that waits


@pytest.mark.parametrize("how", HOW)
def test_a_result_does_not_wait_for_the_input(queue: TaskQueue, tap: Tap, how: str) -> None:
    """Each result comes while the input waits: also the call returns, before the first item is there."""
    results = getattr(queue, how)(square, tap.flow())
    for number in range(5):
        tap.give(number)
        assert next(results) == number**2
    tap.give(None)
    assert list(results) == []


@pytest.mark.parametrize("how", HOW)
def test_request_and_answer(queue: TaskQueue, tap: Tap, how: str) -> None:
    """A program whose next item follows from the last result goes on, however many came quickly before."""
    results = getattr(queue, how)(square, tap.flow())
    tap.give(*range(500))
    assert sorted(itertools.islice(results, 500)) == [number**2 for number in range(500)]
    value = 2
    for _ in range(60):
        tap.give(value)
        value = next(results) % 1000
    tap.give(7, 8, None)
    assert sorted(results) == [49, 64]


@pytest.mark.parametrize("settings", [{"buffersize": 1}, {"chunksize": 1}, {"buffersize": 3, "chunksize": 2}])
def test_request_and_answer_with_bounds(queue: TaskQueue, tap: Tap, settings: dict[str, int]) -> None:
    """Bounds do not hold a result back either, of whole chunks."""
    results = queue.imap(square, tap.flow(), **settings)
    each = settings.get("chunksize", 1)
    for number in range(20):
        tap.give(*[number] * each)
        assert list(itertools.islice(results, each)) == [number**2] * each
    tap.give(None)
    assert list(results) == []


@pytest.mark.parametrize("how", HOW)
def test_an_error_of_a_slow_input_comes_behind_its_results(queue: TaskQueue, how: str) -> None:
    """All results of what came before it are there first; even an exit of the input is the consumer's to hear."""
    may_break = threading.Event()

    def source() -> Iterator[int]:
        yield from range(5)
        assert may_break.wait(PATIENCE)
        raise SystemExit("the input broke")

    results = getattr(queue, how)(square, source())
    assert sorted(itertools.islice(results, 5)) == [0, 1, 4, 9, 16]
    may_break.set()
    with pytest.raises(SystemExit, match="the input broke"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("how", HOW)
def test_a_cursor_of_this_thread_is_read(queue: TaskQueue, how: str) -> None:
    """An SQLite cursor can be the input: it can be used in this thread only."""
    database = sqlite3.connect(":memory:")
    rows = database.execute(
        "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < 99) SELECT x FROM n"
    )
    assert sorted(getattr(queue, how)(identity, rows)) == [(number,) for number in range(100)]
    database.close()


def test_a_generator_bound_to_this_thread_names_the_cure(queue: TaskQueue) -> None:
    """A generator that uses what belongs to this thread fails with its own error, which says what to do."""
    database = sqlite3.connect(":memory:")
    rows = (row[0] for row in [database] for row in row.execute("SELECT 1"))
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        list(queue.imap(square, rows))
    database.close()
    assert any("pass list(" in note and "inside the generator" in note for note in caught.value.__notes__)


def test_a_generator_that_opens_its_own_connection_works(queue: TaskQueue) -> None:
    """What a generator opens itself, it can use to its end, and close."""

    def rows() -> Iterator[int]:
        database = sqlite3.connect(":memory:")
        try:
            for row in database.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3"):
                yield row[0]
        finally:
            database.close()

    assert list(queue.imap(square, rows())) == [1, 4, 9]


def test_the_input_runs_in_the_context_of_the_call(queue: TaskQueue) -> None:
    """Context variables are seen by the input as the caller had set them."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    variable.set(3)
    assert list(queue.imap(square, (variable.get() for _ in range(3)))) == [9, 9, 9]


# --- several threads


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("slow", [False, True], ids=["at hand", "generator"])
def test_threads_share_an_iterator(queue: TaskQueue, how: str, slow: bool) -> None:
    """Each result goes to one of the threads that read an iterator, and none is lost or given twice."""
    count = 3_000
    items: Any = (number for number in range(count)) if slow else range(count)
    results = getattr(queue, how)(identity, items)
    ways: list[Callable[[], list[int]]] = [lambda: list(results), lambda: list(iter(results.__next__, None))]
    with ThreadPoolExecutor(6) as threads:
        shared = iter(results)
        ways.append(lambda: [number for number in shared])  # noqa: C416  # a loop, not a constructor
        parts = [threads.submit(_all_of, way) for way in ways * 2]
        found = [number for part in parts for number in part.result(PATIENCE)]
    assert sorted(found) == list(range(count))


def _all_of(read: Callable[[], list[int]]) -> list[int]:
    try:
        return read()
    except StopIteration:
        return []


def test_threads_share_the_errors(queue: TaskQueue) -> None:
    """An item's error is raised in one thread, and the results behind it go on, in all."""
    results = queue.imap(fail_at_multiples, range(300))

    def read() -> tuple[list[int], int]:
        got, errors = [], 0
        while True:
            try:
                got.append(next(results))
            except StopIteration:
                return got, errors
            except ValueError:
                errors += 1

    with ThreadPoolExecutor(4) as threads:
        parts = [part.result(PATIENCE) for part in [threads.submit(read) for _ in range(4)]]
    assert sorted(number for got, _ in parts for number in got) == [number for number in range(300) if number % 7]
    assert sum(errors for _, errors in parts) == len(range(0, 300, 7))


# --- close


@pytest.mark.parametrize("how", HOW)
def test_close_cancels_what_has_not_started(make_queue: Callable[..., TaskQueue], ledger: Ledger, how: str) -> None:
    """A closed iterator gives no more, twice is as once, and what has not started never runs."""
    queue = make_queue()
    arguments = [(ledger.path, number, 0.02) for number in range(300)]
    if how == "map":
        results: Any = queue.map(note_and_nap, *zip(*arguments, strict=True), chunksize=1, buffersize=300)
    else:
        results = getattr(queue, how)(note_of, arguments, chunksize=1, buffersize=300)
    next(results)
    results.close()
    results.close()
    iter(results).close()
    assert list(results) == []
    with pytest.raises(StopIteration):
        next(results)
    queue.shutdown(wait=True)
    counts = ledger.counts()
    assert sum(counts[f"start {item}"] for item in range(300)) < 150


def test_close_wakes_who_waits(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A thread that waits for a result hears the end when another closes the iterator, in whatever context."""
    results = queue.map(hold_item, [gate.path], [ledger.path], [0], [0])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(list, results)
        eventually(ledger.texts, "the item to start")
        contextvars.copy_context().run(results.close)  # type: ignore[attr-defined]
        assert waiting.result(PATIENCE) == []
    gate.open()


def test_close_ends_the_reading_of_the_input(queue: TaskQueue, tap: Tap) -> None:
    """A generator is read no further once the iterator is closed, and is closed itself."""
    tap.give(1)
    results = queue.imap(square, tap.flow())
    assert next(results) == 1
    eventually(lambda: tap.asked == 2, "the input to be asked for more")
    results.close()
    tap.give(2, 3, 4)
    assert tap.closed.wait(PATIENCE)
    assert tap.asked == 2


def test_a_queue_is_shut_down_while_its_input_waits(make_queue: Callable[..., TaskQueue], tap: Tap) -> None:
    """Shutdown does not wait for an input that gives nothing, and a consumer hears that the map is over."""
    queue = make_queue()
    results = queue.imap(square, tap.flow())
    tap.give(3)
    assert next(results) == 9
    queue.shutdown(wait=True)
    with pytest.raises(BaseException, match="shut down"):
        next(results)


@pytest.mark.parametrize("how", HOW)
def test_yielded_results_are_not_held(queue: TaskQueue, how: str) -> None:
    """Once a result was yielded, the map does not keep it alive, be it large or small."""
    results = getattr(queue, how)(make_thing if "pickle" in queue.capabilities else make_set, range(20))
    for _ in range(20):
        thing = next(results)
        gone = weakref.ref(thing)
        del thing
        gc.collect()
        assert gone() is None
