"""A map in flight: the window between a lazy input and a consumer, whatever runs the items.

    user's iterator ──read──▶ chunk of items ──▶ what runs them
                        ▲                              │
              window: items read and not yet yielded   ▼ news of a chunk
    consumer ◀──yield── order ◀── arrive ◀────── SimpleQueue

The input is read, and results are decoded, in the consumer's thread. The results of one chunk leave through a C
iterator (`itertools.chain`), at a fortieth of a microsecond per item; a Python `__next__` would cost twice that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sized
from concurrent.futures import CancelledError
from itertools import chain, islice, repeat
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import Deadlock
from taskq.locks import CallLock
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from taskq.executor import StreamPlan

__all__ = ["READ_NS", "Arrival", "MapStream", "raisable", "released"]

#: Nanoseconds that reading one chunk's items may take: a slow input gives small chunks, and results do not wait for it.
READ_NS: Final = 5_000_000
#: The first look at the clock is after one item, the next ones after this many times more.
_READ_STEP: Final = 4
#: Results, and bytes of them, that an ordered map holds behind a slow item before it stops to read on.
_WAITING_MAX: Final = 20_000
_WAITING_BYTES: Final = 8 * 1024 * 1024


class Arrival:
    """Items that have ended: `count` from `first` on, `failed` of them with an error, and their results' bytes."""

    __slots__ = ("count", "failed", "first", "results", "size")

    def __init__(self, first: int, count: int, *, failed: int, size: int, results: Any) -> None:
        self.first = first
        self.count = count
        self.failed = failed
        self.size = size
        self.results = results


class MapStream(ABC):
    """Run one function over many items. `iterate` once, in one thread."""

    def __init__(self, items: Iterable[Any], plan: StreamPlan, label: str) -> None:
        self.plan = plan
        self._label = label
        self._input_size = len(items) if isinstance(items, Sized) else None
        self._input: Iterator[Any] = iter(items)
        self._input_error: BaseException | None = None
        self._deadline = None if plan.timeout is None else monotonic() + plan.timeout
        #: What was heard of chunks, as `_arrive` takes it; None: the rest will never run.
        self._news: SimpleQueue[Any] = SimpleQueue()
        #: Whether the window has no bound any more, because the queue is closing.
        self._unbounded = False
        self._read = 0
        self._yielded = 0
        self._received = 0
        #: Arrivals behind one that is not there yet, of an ordered map, by first item.
        self._waiting: dict[int, Arrival] = {}
        self._waiting_bytes = 0
        #: How many items may be on their way at the most when more are read.
        self._refill_at = 0
        self._exhausted = False
        self._reading = CallLock()

    def iterate(self) -> Iterator[Any]:
        """Begin to read the input, and return the iterator of results."""
        try:
            self._fill(promptly=False)
            return chain.from_iterable(self._groups())
        except BaseException:
            self._leave()
            raise

    def close(self, *, cancel: bool) -> None:
        """Prepare for the end of the queue: read the rest of a finite input now, as `concurrent.futures` does.

        The rest of an input that may be endless is not read: its consumer hears CancelledError behind the results.
        """
        with self._reading:
            if self._exhausted:
                return
            if self.plan.finite and not cancel:
                self._unbounded = True
                self._fill(promptly=False)
                return
            self._exhausted = True
            self._input_error = CancelledError(
                "the queue was shut down before the map had read all its input: use the results inside `with`"
            )

    # -- what depends on who runs the items

    @abstractmethod
    def _fill(self, *, promptly: bool = True) -> None:
        """Read and hand on chunks while the window has room; `promptly`: and no result is waiting to be yielded."""

    @abstractmethod
    def _arrive(self, news: Any) -> Arrival:
        """Return the items that ended with this piece of news."""

    @abstractmethod
    def _group(self, arrival: Arrival) -> Iterable[Any]:
        """Return the results as the consumer gets them: an iterable that may raise at some of its items."""

    @abstractmethod
    def _leave(self) -> None:
        """Let go: nobody reads the results any more. Often called by a finalizer."""

    @abstractmethod
    def _delivers_here(self) -> bool:
        """Return whether this is the thread that brings the news of chunks: what waits in it, waits for ever."""

    # -- results

    def _groups(self) -> Iterator[Iterable[Any]]:
        """Yield the results in groups."""
        ordered, waiting = self.plan.ordered, self._waiting
        enabled = None if self.plan.progress else False
        with Progress(total=self._input_size, label=self._label, enabled=enabled) as bar:
            try:
                while self._goes_on():
                    arrival = self._arrive(self._next_news())
                    self._received += arrival.count
                    bar.advance(arrival.count, failed=arrival.failed)
                    if ordered and arrival.first != self._yielded:
                        waiting[arrival.first] = arrival
                        self._waiting_bytes += arrival.size
                        continue
                    self._yielded += arrival.count
                    yield self._group(arrival)
                    while self._yielded in waiting:
                        arrival = waiting.pop(self._yielded)
                        self._waiting_bytes -= arrival.size
                        self._yielded += arrival.count
                        yield self._group(arrival)
                if self._input_error is not None:
                    raise self._input_error
            finally:
                self._leave()

    def _goes_on(self) -> bool:
        if not self._exhausted and self._read - self._yielded - self._spare() <= self._refill_at:
            self._fill()
        return self._yielded < self._read

    def _next_news(self) -> Any:
        if self._news.empty() and self._delivers_here():
            raise Deadlock(
                "a callback reads a map in the thread that would bring its results: read it in a thread of your own"
            )
        timeout = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        try:
            news = self._news.get(timeout=timeout)
        except Empty:
            done = f"{self._yielded} of {self._read} results were there"
            raise TimeoutError(f"the map was not over after {self.plan.timeout} s: {done}") from None
        if news is None:
            raise CancelledError("the queue was shut down before the map was over")
        return news

    # -- the input

    def _room(self, items: int, ahead: int) -> int:
        """Return how many items to read now, at most `items`, when `ahead` chunks of so many may be on their way.

        0: the window is full.
        """
        if self._unbounded:
            return items
        limit = items * ahead
        if self.plan.buffersize is not None:
            limit = self.plan.buffersize
            items = min(items, max(1, limit // ahead))
        self._refill_at = limit - items
        return items if self._read - self._yielded - self._spare() <= self._refill_at else 0

    def _spare(self) -> int:
        """Return how many items with results behind a slow one do not count against the window.

        Without it the processes would idle while an ordered map waits for one long job. What the user bounded by
        `buffersize` stays so.
        """
        if not self._waiting or self.plan.buffersize is not None or self._waiting_bytes > _WAITING_BYTES:
            return 0
        return min(self._received - self._yielded, _WAITING_MAX)

    def _read_items(self, wanted: int) -> list[Any]:
        """Read so many items, fewer when the input is slow or ends."""
        items: list[Any] = []
        started = perf_counter_ns()
        step = wanted if self.plan.chunksize else 1
        while (part := min(step, wanted - len(items))) > 0:
            expected = len(items) + part
            try:
                items.extend(islice(self._input, part))
            except Exception as error:  # noqa: BLE001  # the input's error is raised behind the results before it
                self._input_error = error
            if len(items) < expected:
                self._exhausted = True
                break
            if perf_counter_ns() - started > READ_NS and not self.plan.chunksize:
                break
            step *= _READ_STEP
        return items


def released(results: list[Any]) -> Iterator[Any]:
    """Yield these results without holding any that was yielded."""
    results.reverse()
    return map(results.pop, repeat(-1, len(results)))


def raisable(error: BaseException) -> BaseException:
    """Return the error as an iterator may raise it: StopIteration would pass for the end of the map."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("the task raised StopIteration")
    wrapped.__cause__ = error
    return wrapped
