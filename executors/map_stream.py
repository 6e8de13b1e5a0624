"""A map in flight: the window between a lazy input and its consumers, whatever runs the items.

    user's iterator ──read──▶ chunk of items ──▶ what runs them
                        ▲                              │
              window: items read and not yet yielded   ▼ news of a chunk
    consumers ◀──yield── order ◀── arrive ◀────── news

An input that has its items at hand (a list, a range) is read in the consumer's thread. Any other may make its reader
wait, so it has one of its own (`input_reader.py`): a result that is there is never held back by the input.

Results are decoded in the consumer's thread. Those of one chunk leave through a C iterator (`itertools.chain`), at a
fortieth of a microsecond per item; a Python `__next__` would cost several times that. Any thread may read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sized
from concurrent.futures import CancelledError
from itertools import chain, islice, repeat
from operator import length_hint
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import Deadlock
from taskq.executors.input_reader import InputReader
from taskq.locks import CallLock, pass_on
from taskq.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from taskq.executor import StreamPlan

__all__ = ["READ_NS", "Arrival", "MapResults", "MapStream", "raisable", "released"]

#: Nanoseconds that reading one chunk's items may take: a slow input gives small chunks, and results do not wait for it.
READ_NS: Final = 5_000_000
#: The first look at the clock is after one item, the next ones after this many times more.
_READ_STEP: Final = 4
#: Results, and bytes of them, that an ordered map holds behind a slow item before it stops to read on.
_WAITING_MAX: Final = 20_000
_WAITING_BYTES: Final = 8 * 1024 * 1024
#: Seconds without a further item, with a consumer waiting, after which what was read of a chunk is sent.
_STALLED: Final = 0.001
#: Stands for no item, and for the news that the rest will never run.
_NOTHING: Final = object()
CANCELLED: Final = object()


class Arrival:
    """Items that have ended: `count` from `first` on, `failed` of them with an error, and their results' bytes."""

    __slots__ = ("count", "failed", "first", "results", "size")

    def __init__(self, first: int, count: int, *, failed: int, size: int, results: Any) -> None:
        self.first = first
        self.count = count
        self.failed = failed
        self.size = size
        self.results = results


class MapResults(Iterator[Any]):
    """The results of a map. Any number of threads may read it: each gets the next that is left."""

    def __init__(self, stream: MapStream) -> None:
        self._stream = stream
        #: What is being yielded: an iterator whose every step is one for all threads.
        self._group: Iterator[Any] = iter(())
        self._lock = CallLock()

    def __iter__(self) -> Iterator[Any]:  # noqa: PYI034  # a quicker one, over what is left
        reading = _Reading.from_iterable(_Groups(self))
        reading.close = self.close  # type: ignore[attr-defined]  # typeshed says that it is a chain
        return reading

    def __next__(self) -> Any:
        while True:
            group = self._group
            item = next(group, _NOTHING)
            if item is not _NOTHING:
                return item
            if not self._advance(group):
                raise StopIteration

    def close(self) -> None:
        """Want no more results: what has not started will not, and a reader that waits for a result gets the end."""
        self._stream.leave()

    def __del__(self) -> None:
        self._stream.leave()

    def rest(self) -> Iterator[Any] | None:
        """Return an iterator over what is left of the present group, or the next one; None at the end."""
        while True:
            group = self._group
            if hasattr(group, "__length_hint__"):
                if length_hint(group):
                    return group
            elif (item := next(group, _NOTHING)) is not _NOTHING:
                return chain(released([item]), group)
            if not self._advance(group):
                return None

    def _advance(self, group: Iterator[Any]) -> bool:
        """Go on to the next group, unless another thread has; return False at the end."""
        with self._lock:
            if self._group is group:
                following = self._stream.next_group()
                if following is None:
                    return False
                self._group, self._stream.taken = following, self._stream.offered  # in one step for signal handlers
            return True


class _Reading(chain[Any]):
    """What a `for` loop over the results reads, in C."""

    close: Any


class _Groups:
    """The groups of results that are left, as `chain` takes them; a class, because threads may meet in it."""

    def __init__(self, results: MapResults) -> None:
        self._results = results

    def __iter__(self) -> _Groups:
        return self

    def __next__(self) -> Iterator[Any]:
        group = self._results.rest()
        if group is None:
            raise StopIteration
        return group


class MapStream(ABC):
    """Run one function over many items. `iterate` once."""

    def __init__(self, items: Iterable[Any], plan: StreamPlan, label: str) -> None:
        self.plan = plan
        self._label = label
        self._input_size = len(items) if isinstance(items, Sized) else None
        self._input: Iterator[Any] = iter(items)
        self._input_error: BaseException | None = None
        self._deadline = None if plan.timeout is None else monotonic() + plan.timeout
        #: What was heard of chunks, as `_arrive` takes it, and a token for each; a token alone: look again.
        self._news: deque[Any] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._heard: object = None
        #: Whether the window has no bound any more, because the queue is closing.
        self._unbounded = False
        self._read = 0
        self._yielded = 0
        self._received = 0
        #: Arrivals that were not yielded, by first item: of an ordered map, those behind one that is not there yet.
        self._waiting: dict[int, Arrival] = {}
        self._waiting_bytes = 0
        #: How many items may be on their way at the most when more are read.
        self._refill_at = 0
        self._exhausted = False
        #: Why no more items can be handed on; raised as soon as no result is there.
        self._failure: BaseException | None = None
        #: Whether the map was given up; the list of tickets is empty then.
        self._left = False
        self._tickets = [None]
        #: The arrival whose results `next_group` has returned, and the one of which it is known that they are yielded.
        self.offered: Arrival | None = None
        self.taken: Arrival | None = None
        #: Held while items are handed on; never while an input may wait that has a reader of its own.
        self.handing_on: AbstractContextManager[Any] = CallLock()
        self._reader: InputReader | None = None
        self._bar: Progress | None = None

    def iterate(self) -> MapResults:
        """Begin to read the input, and return the iterator of results."""
        try:
            if self.plan.at_hand:
                self._fill(promptly=False)
            else:
                self._reader, source = InputReader(self), self._input
                self._input = iter(())
                self._reader.start(source)
        except BaseException:
            self.leave()
            raise
        return MapResults(self)

    def close(self, *, cancel: bool) -> None:
        """Prepare for the end of the queue: read the rest of a finite input now, as `concurrent.futures` does.

        The rest of an input that may be endless is not read: its consumer hears CancelledError behind the results.
        """
        with self.handing_on:
            if self._exhausted:
                return
            if not self.plan.finite or cancel:
                message = "the queue was shut down before the map had read all its input: use the results inside `with`"
                self.end_input(CancelledError(message))
                return
            self._unbounded = True
            if self._reader is None:
                self._fill(promptly=False)
        if self._reader is not None:
            self._reader.finish()

    def leave(self) -> None:
        """Give the map up: no more results are wanted. Often called by a finalizer."""
        try:
            self._tickets.pop()  # by one thread only
        except IndexError:
            return
        self._left = self._exhausted = True
        if self._reader is not None:
            self._reader.end()
        self._wake.put(None)
        self._waiting.clear()
        self._news.clear()
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.__exit__(GeneratorExit, None, None)
        self._let_go()

    # -- what depends on who runs the items

    @abstractmethod
    def _fill(self, *, promptly: bool = True) -> None:
        """Read and hand on chunks while the window has room; `promptly`: and no result is waiting to be yielded."""

    @abstractmethod
    def wanted(self) -> int:
        """Return how many items the next chunk is to have; 0: the window is full."""

    @abstractmethod
    def hand_on(self, items: Sequence[Any], *, soon: bool) -> None:
        """Have these items run, in any thread that holds `handing_on`; `soon`: more may not come for long."""

    @property
    def keeps_back(self) -> bool:
        """Whether `hand_on` has kept something back, which `send_on` sends."""
        return False

    def send_on(self) -> None:  # noqa: B027  # most keep nothing back
        """Send what `hand_on` has kept back."""

    @abstractmethod
    def _arrive(self, news: Any) -> Arrival:
        """Return the items that ended with this piece of news."""

    @abstractmethod
    def _group(self, arrival: Arrival) -> Iterable[Any]:
        """Return the results as consumers get them: every step of its iterator is one for all threads.

        An iterator that may raise has a `__length_hint__`.
        """

    @abstractmethod
    def _delivers_here(self) -> bool:
        """Return whether this is the thread that brings the news of chunks: what waits in it, waits for ever."""

    @abstractmethod
    def _let_go(self) -> None:
        """Let go of what is in flight. Often called by a finalizer."""

    # -- for who brings news

    def tell(self, news: Any) -> None:
        """Take a piece of news; in any thread."""
        if not self._left:
            self._news.append(news)
            self._wake.put(None)

    # -- for the input's reader

    def end_input(self, error: BaseException | None = None) -> None:
        """Note that no more items come, and of the error that ended them."""
        if not self._exhausted:
            self._input_error = error
            self._exhausted = True
        self._wake.put(None)
        if self._reader is not None:
            self._reader.end()

    def fail(self, error: BaseException) -> None:
        """Note that items could not be handed on."""
        self._failure = error
        self._exhausted = True
        self._wake.put(None)

    def look_again(self) -> None:
        """Have a consumer that waits see that something was read."""
        self._wake.put(None)

    @property
    def is_over(self) -> bool:
        """Whether no more items are wanted."""
        return self._exhausted

    # -- results

    def next_group(self) -> Iterator[Any] | None:
        """Return the next results; None at the end. Waits; one thread at a time."""
        if self._bar is None and self.plan.progress:
            self._bar = Progress(total=self._input_size, label=self._label, enabled=None).__enter__()
        waiting, ordered = self._waiting, self.plan.ordered
        while not self._left:
            if self.taken is not None:
                self._count_taken(self.taken)
            if not self._exhausted and self.has_room():
                self._refill()
            # The arrival to be yielded next, if it is there.
            self.offered = waiting.get(self._yielded) if ordered else next(iter(waiting.values()), None)
            if self.offered is not None:
                return iter(self._group(self.offered))
            if self._failure is not None or (self._exhausted and self._yielded >= self._read):
                self._end()
            elif self._wait():
                self._receive()
        return None

    def _end(self) -> None:
        """Let go at the end, and raise what it ended with."""
        error = self._failure or self._input_error
        self._failure = self._input_error = None
        if error is None and self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        self.leave()
        if error is not None:
            raise error

    def _count_taken(self, taken: Arrival) -> None:
        """Forget the arrival that was taken: each step can be interrupted, and the next call goes on behind it."""
        self._yielded, self._waiting_bytes, taken.count, taken.size = (
            self._yielded + taken.count,
            self._waiting_bytes - taken.size,
            0,
            0,
        )
        self._waiting.pop(taken.first, None)
        self.taken = None

    def _wait(self) -> bool:
        """Return whether there is news, after waiting for something to change."""
        if self._news:
            if not self._wake.empty():
                self._wake.get_nowait()
            return True
        if self._delivers_here():
            raise Deadlock(
                "a callback reads a map in the thread that would bring its results: read it in a thread of your own"
            )
        reader = self._reader
        if reader is not None:
            reader.await_item()
        seen = None if reader is None else reader.stock()
        left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        if self._news:
            return True
        if not self._wait_for_change(left if not seen else min(_STALLED, _STALLED if left is None else left)):
            if reader is not None and seen and reader.stock() == seen:
                reader.hand_on_stock()
            if self._deadline is not None and monotonic() >= self._deadline:
                done = f"{self._yielded} of {self._read} results were there"
                self.leave()
                raise TimeoutError(f"the map was not over after {self.plan.timeout} s: {done}") from None
        return bool(self._news)

    def _wait_for_change(self, timeout: float | None) -> bool:
        """Wait for something to change; return whether it has, in time."""
        try:
            self._wake.get(timeout=timeout)
        except Empty:
            return False
        return True

    def _receive(self) -> None:
        """Take the oldest news. It is only forgotten when all is done that follows from it."""
        try:
            news = self._news[0]
            if news is CANCELLED:
                self.leave()
                raise CancelledError("the queue was shut down before the map was over")
            if news is not self._heard:
                arrival = self._arrive(news)
                self._heard = news
                self._waiting_bytes += arrival.size
                self._received += arrival.count
                self._waiting[arrival.first] = arrival
                if self._bar is not None:
                    self._bar.advance(arrival.count, failed=arrival.failed)
            self._news.popleft()
            self._heard = None
        except IndexError:  # another thread has closed the map
            if not self._left:
                raise

    # -- the input

    def _refill(self) -> None:
        """Have the input read on, since the window has room."""
        if self._reader is not None:
            self._reader.go_on()
            return
        try:
            self._fill()
        except BaseException:  # what was read may have gone nowhere
            self.leave()
            raise

    def has_room(self) -> bool:
        """Tell whether more items may be read."""
        ahead = self._read - self._yielded - (self._spare() if self._waiting else 0)
        return ahead <= self._refill_at or self._unbounded

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
        return items if self.has_room() else 0

    def _spare(self) -> int:
        """Return how many items with results behind a slow one do not count against the window.

        Without it the processes would idle while an ordered map waits for one long job. What the user bounded by
        `buffersize` stays so.
        """
        if self.plan.buffersize is not None or self._waiting_bytes > _WAITING_BYTES:
            return 0
        return min(self._received - self._yielded, _WAITING_MAX)

    def _read_items(self, wanted: int) -> list[Any]:
        """Read so many items of an input at hand, fewer when it is slow or ends."""
        items: list[Any] = []
        started = perf_counter_ns()
        step = wanted if self.plan.chunksize else 1
        while (part := min(step, wanted - len(items))) > 0:
            expected = len(items) + part
            try:
                items.extend(islice(self._input, part))
            except Exception as error:  # noqa: BLE001  # the input's error is raised behind the results before it
                pass_on(error)
                self._input_error = error
            if len(items) < expected:
                self._exhausted = True
                break
            if perf_counter_ns() - started > READ_NS and not self.plan.chunksize:
                break
            step *= _READ_STEP
        return items


class _Released(map):  # type: ignore[type-arg]  # it takes its parameter in annotations only
    """Results that are not held once they were yielded; what is left of them stands in a list."""

    left: list[Any]

    def __length_hint__(self) -> int:
        return len(self.left)


def released(results: list[Any]) -> Iterator[Any]:
    """Yield these results without holding any that was yielded."""
    results.reverse()
    yielding = _Released(results.pop, repeat(-1, len(results)))
    yielding.left = results
    return yielding


def raisable(error: BaseException) -> BaseException:
    """Return the error as an iterator may raise it: StopIteration would pass for the end of the map."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("the task raised StopIteration")
    wrapped.__cause__ = error
    return wrapped
