"""A map in flight: the window between a lazy input and a consumer.

    user's iterator ──pull──▶ Chunk ──post──▶ dispatcher ──▶ children
                        ▲                                       │
              window: items read and not yet yielded           put (first item, count, encoding, bytes)
                        │                                       ▼
    consumer ◀──yield── decode, order ◀── SimpleQueue ◀── dispatcher's thread

The input is read, and results are decoded, in the consumer's thread. The results of one chunk leave through a C
iterator (`itertools.chain`), at a fortieth of a microsecond per item; a Python `__next__` would cost twice that.
"""

from __future__ import annotations

from collections.abc import Sized
from concurrent.futures import CancelledError
from itertools import chain, islice, repeat
from queue import Empty, SimpleQueue
from threading import RLock
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from executors.pool import values
from executors.pool.dispatcher import DEPTH
from executors.pool.work import Chunk
from taskq.errors import EncodeError
from taskq.progress import Progress
from taskq.result import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from executors.pool.dispatcher import Dispatcher
    from executors.pool.jobs import Function
    from taskq.executor import StreamPlan
    from taskq.job import JobOptions

#: Nanoseconds that reading one chunk's items may take: a slow input gives small chunks, and results do not wait for it.
_READ_NS: Final = 5_000_000
#: Nanoseconds of work below which the last chunks are not shortened: less is not worth a message.
_SHORT_NS: Final = 1_000_000
#: Results, and bytes of them, that an ordered map holds behind a slow item before it stops to read on.
_WAITING_MAX: Final = 20_000
_WAITING_BYTES: Final = 8 * 1024 * 1024
#: Encodings of results that may be large objects; plain scalars are left in their list.
LET_GO: Final = frozenset({values.PICKLE, values.CODEC})
#: The first look at the clock is after one item, the next ones after this many times more.
_READ_STEP: Final = 4


class Stream:
    """Run one function over many items. `iterate` once, in one thread; `put` and `cancel` are the dispatcher's."""

    def __init__(  # what one map is made of
        self,
        dispatcher: Dispatcher,
        function: Function,
        items: Iterable[Any],
        plan: StreamPlan,
        options: JobOptions,
        *,
        number: int,
        session: str,
        strict: bool,
        processes: int,
        on_end: Callable[[Stream], None],
    ) -> None:
        self.dropped = False
        self.number = number
        self.function = function
        self.plan = plan
        self._dispatcher = dispatcher
        self._input_size = len(items) if isinstance(items, Sized) else None
        self._input: Iterator[Any] = iter(items)
        self._input_error: BaseException | None = None
        self._options = options
        self._session = session
        self._strict = strict
        self._deadline = None if plan.timeout is None else monotonic() + plan.timeout
        self._outcomes: SimpleQueue[tuple[int, int, int, bytes] | None] = SimpleQueue()
        #: Chunks that may be read ahead of what was yielded; None: no bound, the queue is closing.
        self._chunks_ahead: int | None = (DEPTH + 1) * processes
        self._processes = processes
        self._read = 0
        self._yielded = 0
        self._received = 0
        #: Outcomes behind one that is not there yet, of an ordered map: jobs, encoding, bytes by first item.
        self._waiting: dict[int, tuple[int, int, bytes]] = {}
        self._waiting_bytes = 0
        #: How many items may be on their way at the most when more are read.
        self._refill_at = 0
        self._exhausted = False
        self._reading = RLock()
        self._on_end = on_end

    # -- for the dispatcher's thread

    def put(self, first: int, jobs: int, encoding: int, data: bytes) -> None:
        """Take outcomes of items `first` and on."""
        self._outcomes.put((first, jobs, encoding, data))

    def cancel(self) -> None:
        """Take note that the rest of the items will never run."""
        self._exhausted = True
        self._outcomes.put(None)

    # -- for the consumer's thread

    def iterate(self) -> Iterator[Any]:
        """Begin to read the input, and return the iterator of results."""
        self._fill(promptly=False)
        return chain.from_iterable(self._groups())

    def close(self, *, cancel: bool) -> None:
        """Prepare for the end of the queue: read the rest of a finite input now, as `concurrent.futures` does.

        The rest of an input that may be endless is not read: its consumer hears CancelledError behind the results.
        """
        with self._reading:
            if self.dropped or self._exhausted:
                return
            if self.plan.finite and not cancel:
                self._chunks_ahead = None
                self._fill(promptly=False)
                return
            self._exhausted = True
            self._input_error = CancelledError(
                "the queue was shut down before the map had read all its input: use the results inside `with`"
            )

    def _groups(self) -> Iterator[Iterable[Any]]:
        """Yield the results in groups, each an iterable that may raise at its first item."""
        ordered = self.plan.ordered
        waiting = self._waiting
        with _bar(self.plan, self.function, self._input_size) as bar:
            try:
                while self._goes_on():
                    first, jobs, encoding, data = self._next_outcome()
                    self._received += jobs
                    bar.advance(jobs, failed=encoding == values.FAILURE)
                    if ordered and first != self._yielded:
                        waiting[first] = jobs, encoding, data
                        self._waiting_bytes += len(data)
                        continue
                    self._yielded += jobs
                    yield self._decode(first, jobs, encoding, data)
                    while (first := self._yielded) in waiting:
                        jobs, encoding, data = waiting.pop(first)
                        self._waiting_bytes -= len(data)
                        self._yielded += jobs
                        yield self._decode(first, jobs, encoding, data)
                if self._input_error is not None:
                    raise self._input_error
            finally:
                self._leave()

    def _goes_on(self) -> bool:
        if not self._exhausted and self._read - self._yielded - self._spare() <= self._refill_at:
            self._fill()
        return self._yielded < self._read

    def _next_outcome(self) -> tuple[int, int, int, bytes]:
        timeout = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except Empty:
            done = f"{self._yielded} of {self._read} results were there"
            raise TimeoutError(f"the map was not over after {self.plan.timeout} s: {done}") from None
        if outcome is None:
            raise CancelledError("the queue was shut down before the map was over")
        return outcome

    def _decode(self, first: int, jobs: int, encoding: int, data: bytes) -> Iterable[Any]:
        plan = self.plan
        if encoding != values.FAILURE:
            try:
                results: Iterable[Any] = values.unpack(encoding, data)
            except Exception as unreadable:  # noqa: BLE001  # their class may fail to be rebuilt here in any way
                errors: list[BaseException] = [unreadable] * jobs
                results = errors if plan.return_exceptions else _Raising(errors)
        else:
            failure, pickled = values.unpack_failure(data)
            error = values.rebuild(failure, pickled, f"{self._session}-{self.number}.{first}")
            if isinstance(error, StopIteration):  # raised from `next` it would pass for the end of the map
                error = _as_runtime_error(error)
            results = [error] if plan.return_exceptions else _Raising([error])
        if encoding in LET_GO and isinstance(results, list):
            results.reverse()
            results = map(results.pop, repeat(-1, jobs))  # hold no result that was yielded
        if plan.with_index and not isinstance(results, _Raising):
            return zip(range(first, first + jobs), results, strict=True)
        return results

    def _leave(self) -> None:
        """Let go: nobody reads the results any more."""
        self.dropped = True
        self._on_end(self)

    # -- the input

    def _fill(self, *, promptly: bool = True) -> None:
        """Read and queue chunks while the window has room; `promptly`: and no result is waiting to be yielded."""
        with self._reading:
            while not self._exhausted:
                jobs = self.plan.chunksize or self.function.pace.frame()
                if self._chunks_ahead is not None:
                    limit = jobs * self._chunks_ahead
                    if self.plan.buffersize is not None:
                        limit = self.plan.buffersize
                        jobs = min(jobs, max(1, limit // self._chunks_ahead))
                    self._refill_at = limit - jobs
                    if self._read - self._yielded - self._spare() > self._refill_at:
                        return
                items = self._read_items(self._shortened(jobs))
                if items:
                    self._queue(items)
                if promptly and not self._outcomes.empty():
                    return  # a slow input must not keep it waiting

    def _shortened(self, jobs: int) -> int:
        """Return how many items to read at once: fewer and fewer where the end is near, so that no child ends late."""
        pace = self.function.pace
        if self._input_size is None or self.plan.chunksize or pace.ns is None:
            return jobs
        share = (self._input_size - self._read) // (DEPTH * self._processes)
        return min(jobs, max(share, int(_SHORT_NS / max(pace.ns, 1.0)), 1))

    def _spare(self) -> int:
        """Return how many items with results behind a slow one do not count against the window.

        Without it the processes would idle while an ordered map waits for one long job. What the user bounded by
        `buffersize` stays so.
        """
        if not self._waiting or self.plan.buffersize is not None or self._waiting_bytes > _WAITING_BYTES:
            return 0
        return min(self._received - self._yielded, _WAITING_MAX)

    def _read_items(self, jobs: int) -> list[Any]:
        """Read so many items, fewer when the input is slow or ends."""
        items: list[Any] = []
        started = perf_counter_ns()
        step = jobs if self.plan.chunksize else 1
        while (wanted := min(step, jobs - len(items))) > 0:
            expected = len(items) + wanted
            try:
                items.extend(islice(self._input, wanted))
            except Exception as error:  # noqa: BLE001  # the input's error is raised behind the results before it
                self._input_error = error
            if len(items) < expected:
                self._exhausted = True
                break
            if perf_counter_ns() - started > _READ_NS and not self.plan.chunksize:
                break
            step *= _READ_STEP
        return items

    def _queue(self, items: Sequence[Any]) -> None:
        first = self._read
        self._read += len(items)
        try:
            encoding, payload = values.pack(items, strict=self._strict, root="items")
        except (EncodeError, values.JobInside):
            self._queue_singly(first, items)
        else:
            self.function.pace.observe_bytes(len(items), len(payload))
            self._post(first, items, encoding, payload)

    def _queue_singly(self, first: int, items: Sequence[Any]) -> None:
        """Queue what can travel; what cannot is an error of its own item."""
        for index, item in enumerate(items, first):
            try:
                encoding, payload = values.pack_one(item, strict=self._strict, root="item")
            except values.JobInside:
                error = EncodeError("a map does not wait for jobs: pass their results", f"items[{index}]")
                self.put(index, 1, values.FAILURE, values.pack_failure(Failure.from_exception(error), error))
            except EncodeError as error:
                self.put(index, 1, values.FAILURE, values.pack_failure(Failure.from_exception(error), error))
            else:
                self._post(index, [item], encoding, payload)

    def _post(self, first: int, items: Sequence[Any], encoding: int, payload: bytes) -> None:
        self._dispatcher.post(
            Chunk(
                self.function,
                self,
                self.number,
                first,
                items,
                star=self.plan.star,
                options=self._options,
                encoding=encoding,
                payload=payload,
            )
        )


def _as_runtime_error(error: StopIteration) -> RuntimeError:
    wrapped = RuntimeError("the task raised StopIteration")
    wrapped.__cause__ = error
    return wrapped


class _Raising:
    """Stands where items failed: raises their errors one by one, then ends."""

    def __init__(self, errors: list[BaseException]) -> None:
        self._errors = iter(errors)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        raise next(self._errors)


def _bar(plan: StreamPlan, function: Function, total: int | None) -> Progress:
    return Progress(total=total, label=function.name, enabled=None if plan.progress else False)
