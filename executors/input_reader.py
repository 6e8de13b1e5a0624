"""The reader of an input that may make it wait: a thread of its own for each map.

    input ──▶ stock: what was read of a chunk ──▶ hand_on
                         ▲
          a consumer that waits while nothing comes hands it on

It reads a chunk ahead only while the window has room, and rests otherwise. While it is inside the input it holds
nothing of the map, so that one that is dropped ends, whatever the input does; and it never keeps the program from
ending.

Items are read in a C loop that takes a ticket before each. Another thread ends the loop behind the item that is just
being read: it takes the tickets away.
"""

from __future__ import annotations

from contextvars import copy_context
from itertools import chain
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from taskq.executor import StreamPlan

__all__ = ["InputReader"]

#: Nanoseconds of reading a chunk below which the next one may be larger, and above which it is smaller.
_QUICK_NS: Final = 1_000_000
_SLOW_NS: Final = 5_000_000
#: The first look at the clock is after one item, the next ones after this many times more; and so chunks grow.
_STEP: Final = 4
_LIMIT_MAX: Final = 1 << 20
#: Chunks in a row that must be quick, after one that was not, before they grow again.
_PROBATION: Final = 16
#: Stands behind the last item of an input.
_END: Final = object()
#: Returns the second of two arguments, in C: the item that was read for a ticket.
_item: Final[Callable[[None, Any], Any]] = {}.get  # type: ignore[assignment]
#: What to do about an input that belongs to another thread.
_CURE: Final = (
    "taskq reads the input of a map in a thread of its own, so that results never wait for it. What may be used only "
    "in the thread that made it must be opened inside the generator, or be read before: pass list(...)"
)


class Destination(Protocol):
    """The map that an input is read for; what each means stands in `stream.py`."""

    plan: StreamPlan

    @property
    def handing_on(self) -> AbstractContextManager[Any]:
        """The lock that is held while items are handed on."""

    @property
    def is_over(self) -> bool:
        """Whether no more items are wanted."""

    @property
    def keeps_back(self) -> bool:
        """Whether there is something for `send_on` to send."""

    def wanted(self) -> int:
        """Return how many items the next chunk is to have."""

    def hand_on(self, items: Sequence[Any], *, soon: bool) -> None:
        """Have these items run."""

    def send_on(self) -> None:
        """Send what was kept back."""

    def end_input(self, error: BaseException | None = None) -> None:
        """Note that no more items come."""

    def fail(self, error: BaseException) -> None:
        """Note that items could not be handed on."""

    def look_again(self) -> None:
        """Wake a consumer that waits."""


class InputReader:
    """Read one input. `start` once; `read` is the thread's, all else is for any thread."""

    def __init__(self, stream: Destination) -> None:
        self._stream = ref(stream)
        self._chunksize = stream.plan.chunksize
        #: Whether a consumer wants to know when something is read.
        self._awaited = False
        #: As many as items may be read without a look at that.
        self._tickets: list[None] = []
        self._stock: list[Any] = []
        #: Whether the input's end was seen in the stock.
        self._ended = False
        #: How many items were taken out of the stock.
        self._taken = 0
        self._lock = Lock()
        self._resting = False
        self._gate: SimpleQueue[None] = SimpleQueue()
        self._limit = 1
        self._probation = 0
        self._thread: Thread | None = None

    def start(self, source: Iterator[Any]) -> None:
        """Begin, in the context of the caller."""
        self._thread = Thread(target=copy_context().run, args=(self._run, source), name="taskq-input", daemon=True)
        self._thread.start()

    def await_item(self) -> None:
        """Have it wake the consumer when the next item is read."""
        self._awaited = True
        self._tickets.clear()

    def go_on(self) -> None:
        """Have it look again whether there is something to read; never waits."""
        if self._resting:
            self._gate.put(None)

    def end(self) -> None:
        """Have it read no more: the map is over."""
        self.await_item()
        self.go_on()

    def finish(self) -> None:
        """Wait until all is read."""
        self._gate.put(None)
        if self._thread is not None and self._thread is not current_thread():
            self._thread.join()

    def stock(self) -> int:
        """Return how far the input was read, or 0 when nothing of it waits to be handed on."""
        stream = self._stream()
        waits = (self._stock and not self._chunksize) or (stream is not None and stream.keeps_back)
        return self._taken + len(self._stock) if waits else 0

    def hand_on_stock(self) -> None:
        """Hand on what was read of a chunk, because the input has stopped to give."""
        self._limit, self._probation = 1, _PROBATION
        stream = self._stream()
        if stream is not None:
            try:
                if self._chunksize:
                    self._send_rest(stream)
                else:
                    self._hand_on(stream, soon=True)
            except Exception as error:  # noqa: BLE001  # as in the reader's own thread
                stream.fail(error)

    # -- the thread

    def _run(self, source: Iterator[Any]) -> None:
        source = chain(source, (_END,))
        while (wanted := self._next_chunk()) is not None:
            if not wanted:
                self._gate.get()  # the end of the map opens the gate, too
                continue
            over, error = self._read_chunk(source, wanted)
            stream = self._stream()
            if stream is None or stream.is_over:
                return
            try:
                self._hand_on(stream, soon=over or self._limit <= 1)
            except BaseException as problem:  # noqa: BLE001  # the consumer's to hear
                stream.fail(problem)
                return
            if over:
                stream.end_input(error)
                return
            if self._awaited:  # by a consumer that looked between taking the stock and handing it on, and saw nothing
                self._awaited = False
                stream.look_again()
            del stream

    def _next_chunk(self) -> int | None:
        """Return how many items to read now: 0 none yet, None none any more."""
        stream = self._stream()
        if stream is None or stream.is_over:
            return None
        wanted = stream.wanted()
        if not wanted:
            try:
                self._send_rest(stream)
            except Exception as error:  # noqa: BLE001  # the consumer's to hear
                stream.fail(error)
                return None
            self._resting = True
            wanted = stream.wanted()  # again: a consumer that makes room from now on says so, and the map's end does
            if stream.is_over:
                return None
        self._resting = not wanted
        return wanted if self._chunksize else min(wanted, self._limit)

    def _read_chunk(self, source: Iterator[Any], wanted: int) -> tuple[bool, BaseException | None]:
        """Read so many items, fewer of a slow input; return whether it has ended, and the error that ended it."""
        started, left, step = perf_counter_ns(), wanted, wanted if self._chunksize else 1
        while left:
            try:
                read = self._read_some(source, min(step, left))
            except BaseException as error:  # noqa: BLE001  # raised behind the results before it
                return True, _explained(error)
            if self._is_at_end() or (read and self._awaited and self._is_wanted_no_more()):
                return True, None
            left -= read
            elapsed = perf_counter_ns() - started
            if elapsed > _SLOW_NS and not self._chunksize:
                break
            step *= _STEP
        self._adapt(perf_counter_ns() - started)
        return False, None

    def _read_some(self, source: Iterator[Any], most: int) -> int:
        """Read so many items, one where a consumer waits for it, or as many as there are tickets; return how many."""
        before = self._count()
        tickets = self._tickets = [None] * most
        if self._awaited:  # looked at behind the assignment: a consumer that comes later takes these tickets away
            del tickets[1:]
        self._stock.extend(map(_item, tickets, source))
        return self._count() - before

    def _is_at_end(self) -> bool:
        with self._lock:
            self._drop_end(self._stock)
            return self._ended

    def _drop_end(self, items: list[Any]) -> None:
        if items and items[-1] is _END:
            items.pop()
            self._ended = True

    def _count(self) -> int:
        with self._lock:
            return self._taken + len(self._stock)

    def _is_wanted_no_more(self) -> bool:
        """Tell a consumer that waits that something was read; return whether there is none any more."""
        stream = self._stream()
        if stream is not None and self._awaited:
            self._awaited = False
            stream.look_again()
        return stream is None or stream.is_over

    def _adapt(self, elapsed_ns: int) -> None:
        """Make the next chunk larger or smaller, by how long this one took to read."""
        if elapsed_ns > _SLOW_NS:
            self._limit, self._probation = max(1, self._limit // _STEP), _PROBATION
        elif elapsed_ns < _QUICK_NS:
            self._probation -= 1
            if self._probation <= 0:
                self._limit = min(self._limit * _STEP, _LIMIT_MAX)

    def _hand_on(self, stream: Destination, *, soon: bool) -> None:
        with stream.handing_on:
            items = self._take_stock()
            if stream.is_over:
                return
            if items:
                stream.hand_on(items, soon=soon)
            elif soon:
                stream.send_on()

    def _take_stock(self) -> list[Any]:
        with self._lock:
            items = self._stock
            if current_thread() is self._thread:  # which is the only one that adds to it
                self._stock = []
            else:
                items = items[:]
                del self._stock[: len(items)]
            self._drop_end(items)
            self._taken += len(items)
        return items

    def _send_rest(self, stream: Destination) -> None:
        with stream.handing_on:
            stream.send_on()


def _explained(error: BaseException) -> BaseException:
    """Say what to do about an error that is there because of the thread."""
    if "thread" in str(error).lower():
        error.add_note(_CURE)
    return error
