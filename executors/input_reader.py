"""The reader of an input that may make it wait: a thread of its own for each map.

    input ──▶ stock: what was read of a chunk ──▶ hand_on
                         ▲
          a consumer that waits while nothing comes hands it on

It reads a chunk ahead only while the window has room, and rests otherwise. While it is inside the input it holds
nothing of the map, so that one that is dropped ends, whatever the input does; and it never keeps the program from
ending.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from itertools import islice
from queue import SimpleQueue
from threading import Lock, Thread, current_thread
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
        self.awaited = False
        self._stock: deque[Any] = deque()
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

    def go_on(self) -> None:
        """Have it look again whether there is something to read; never waits."""
        if self._resting:
            self._gate.put(None)

    def end(self) -> None:
        """Have it read no more: the map is over."""
        self.awaited = True
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
            if self.awaited:  # by a consumer that looked between taking the stock and handing it on, and saw nothing
                self.awaited = False
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
            wanted = stream.wanted()  # again: a consumer that makes room from now on says so
        self._resting = not wanted
        return wanted if self._chunksize else min(wanted, self._limit)

    def _read_chunk(self, source: Iterator[Any], wanted: int) -> tuple[bool, BaseException | None]:
        """Read so many items, fewer of a slow input; return whether it has ended, and the error that ended it."""
        started, left, step = perf_counter_ns(), wanted, wanted if self._chunksize else 1
        append = self._stock.append
        while left:
            part = min(step, left)
            before = self._count()
            try:
                for item in islice(source, part):
                    append(item)
                    if self.awaited and self._is_wanted_no_more():
                        return True, None
            except BaseException as error:  # noqa: BLE001  # raised behind the results before it
                return True, _explained(error)
            if self._count() - before < part:
                return True, None
            left -= part
            elapsed = perf_counter_ns() - started
            if elapsed > _SLOW_NS and not self._chunksize:
                break
            step *= _STEP
        self._adapt(perf_counter_ns() - started)
        return False, None

    def _count(self) -> int:
        with self._lock:
            return self._taken + len(self._stock)

    def _is_wanted_no_more(self) -> bool:
        """Tell a consumer that waits that something was read; return whether there is nobody any more."""
        stream = self._stream()
        if stream is not None and self.awaited:
            self.awaited = False
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
        stock = self._stock
        with self._lock:
            if current_thread() is self._thread:  # only this thread appends to it
                items = list(stock)
                stock.clear()
            else:
                items = [stock.popleft() for _ in range(len(stock))]
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
