"""A map on a store: the window between a lazy input and a consumer, with a job of the store for each chunk of items.

    user's iterator ──pull──▶ chunk of items ──put──▶ store ──▶ workers
                        ▲                               │
              window: items read and not yet yielded    ▼ a chunk has ended
    consumer ◀──yield── order ◀── decode ◀── SimpleQueue ◀── listener's thread

The input is read, chunks are sent, and results decoded in the consumer's thread. The results of a chunk leave through a
C iterator (`itertools.chain`). What was read is removed from the store.
"""

from __future__ import annotations

from collections.abc import Sized
from concurrent.futures import CancelledError
from itertools import chain, islice, repeat
from queue import Empty, SimpleQueue
from threading import RLock
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from executors.durable.job import failure_of
from executors.durable.pace import Pace
from executors.durable.results import ItemError, Raising, error_of, of_item, result_of
from taskq.chunks import LIST_DEPTH, read_chunk
from taskq.codec import decode, encode
from taskq.envelope import CHUNK, Template
from taskq.errors import BackendUnavailable, DecodeError, EncodeError
from taskq.ids import new_id
from taskq.progress import Progress
from taskq.result import Failure
from taskq.states import State
from taskq.store import Ended, NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from executors.durable.ear import Listener
    from executors.durable.results import Results
    from taskq.executor import StreamPlan
    from taskq.job import JobOptions
    from taskq.store import Store

__all__ = ["DurableStream"]

#: Nanoseconds that reading one chunk's items may take: a slow input gives small chunks, and results do not wait for it.
_READ_NS: Final = 5_000_000
#: The first look at the clock is after one item, the next ones after this many times more.
_READ_STEP: Final = 4
#: Results, and bytes of them, that an ordered map holds behind a slow item before it stops to read on.
_WAITING_MAX: Final = 20_000
_WAITING_BYTES: Final = 8 * 1024 * 1024
#: Chunks that go to the store in one call, and that are removed from it in one.
_SEND_MAX: Final = 64
_REMOVE_MAX: Final = 64
#: Seconds for which a chunk's result is kept where nobody reads it.
_RESULT_TTL: Final = 60.0
#: Seconds between two looks at how many processes the workers have.
_LOOK: Final = 2.0
#: Bytes of a result above which it is not held once it was yielded.
_LARGE: Final = 64


class _Chunk:
    """Consecutive items of a map that are one job of the store."""

    __slots__ = ("first", "id", "items", "outcomes", "size")

    def __init__(self, first: int, items: int, size: int, outcomes: SimpleQueue[_News]) -> None:
        self.id = new_id()
        self.first = first
        self.items = items
        self.size = size
        self.outcomes = outcomes

    def hear(self, ended: Ended) -> None:
        """Take note of its end; the listener's thread calls."""
        self.outcomes.put((self, ended))


#: What reaches the consumer: a chunk with its end, or with what kept its one item from travelling.
_News: TypeAlias = "tuple[_Chunk, Ended | EncodeError]"


class DurableStream:
    """Run one task over many items. `iterate` once, in one thread."""

    def __init__(  # what one map is made of
        self,
        store: Store,
        listener: Listener,
        items: Iterable[Any],
        plan: StreamPlan,
        *,
        task: str,
        options: JobOptions,
        bound: tuple[tuple[Any, ...], dict[str, Any]] | None,
        on_end: Callable[[DurableStream], None],
    ) -> None:
        self.plan = plan
        self._store = store
        self._listener = listener
        self._task = task
        self._options = options.merged(result_ttl=_RESULT_TTL)
        self._template = Template(CHUNK, task, self._options)
        self._shape = _encode_shape(plan, bound)
        self._input_size = len(items) if isinstance(items, Sized) else None
        self._input: Iterator[Any] = iter(items)
        self._input_error: BaseException | None = None
        self._deadline = None if plan.timeout is None else monotonic() + plan.timeout
        self._outcomes: SimpleQueue[_News] = SimpleQueue()
        self._pace = Pace()
        self._processes = 2
        self._looked_at = -_LOOK
        self._unbounded = False
        self._read = 0
        self._yielded = 0
        self._received = 0
        #: Results behind one that is not there yet, of an ordered map, by first item.
        self._waiting: dict[int, Results] = {}
        self._waiting_bytes = 0
        #: How many items may be on their way at the most when more are read.
        self._refill_at = 0
        self._exhausted = False
        self._reading = RLock()
        self._unsent: list[tuple[_Chunk, NewJob]] = []
        #: Chunks in the store whose end was not heard.
        self._open: dict[str, _Chunk] = {}
        self._finished: list[str] = []
        self._on_end = on_end

    # -- for the consumer's thread

    def iterate(self) -> Iterator[Any]:
        """Begin to read the input, and return the iterator of results."""
        self._listener.start()
        self._fill(promptly=False)
        return chain.from_iterable(self._groups())

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

    def _groups(self) -> Iterator[Iterable[Any]]:
        """Yield the results in groups, each an iterable that may raise at some of its items."""
        ordered, waiting = self.plan.ordered, self._waiting
        label = self._task.partition(":")[2]
        with Progress(total=self._input_size, label=label, enabled=None if self.plan.progress else False) as bar:
            try:
                while self._goes_on():
                    chunk, results = self._next_results(bar)
                    if ordered and chunk.first != self._yielded:
                        waiting[chunk.first] = results
                        self._waiting_bytes += results[1]
                        continue
                    yield self._group(chunk.first, results)
                    while self._yielded in waiting:
                        following = waiting.pop(self._yielded)
                        self._waiting_bytes -= following[1]
                        yield self._group(self._yielded, following)
                if self._input_error is not None:
                    raise self._input_error
            finally:
                self._leave()

    def _goes_on(self) -> bool:
        if self._unsent or (not self._exhausted and self._read - self._yielded - self._spare() <= self._refill_at):
            self._fill()
        return self._yielded < self._read

    # -- results

    def _next_results(self, bar: Progress) -> tuple[_Chunk, Results]:
        """Wait for the next chunk, and return it with what its items came to."""
        timeout = None if self._deadline is None else max(0.0, self._deadline - monotonic())
        try:
            chunk, news = self._outcomes.get(timeout=timeout)
        except Empty:
            done = f"{self._yielded} of {self._read} results were there"
            raise TimeoutError(f"the map was not over after {self.plan.timeout} s: {done}") from None
        self._received += chunk.items
        results = self._results_of(chunk, news)
        failed = sum(type(result) is ItemError for result in results[0]) if results[2] else 0
        bar.advance(chunk.items, failed=failed)
        return chunk, results

    def _results_of(self, chunk: _Chunk, news: Ended | EncodeError) -> Results:
        if isinstance(news, EncodeError):
            return [ItemError(news)], 0, True
        self._open.pop(chunk.id, None)
        self._finished.append(chunk.id)
        if len(self._finished) >= _REMOVE_MAX:
            self._remove_finished()
        failure = failure_of(news)
        if failure is None:
            try:
                return self._read_results(chunk, news.result or b"")
            except DecodeError as error:
                failure = Failure.from_exception(error)
        return [error_of(failure, chunk.id) for _ in range(chunk.items)], 0, True

    def _read_results(self, chunk: _Chunk, result: bytes) -> Results:
        elapsed, values, records = read_chunk(decode(result), chunk.items)
        self._pace.observe(chunk.items, elapsed, len(result))
        if values is not None:
            return values, len(result), False
        return [result_of(record, chunk.id) for record in records or ()], len(result), True

    def _group(self, first: int, results: Results) -> Iterable[Any]:
        """Return the results as the consumer gets them."""
        found, size, mixed = results
        count = len(found)
        self._yielded += count
        if mixed and self.plan.return_exceptions:
            found = [entry.error if type(entry) is ItemError else entry for entry in found]
        elif mixed:
            return Raising(found, first if self.plan.with_index else None)
        group: Iterable[Any] = found
        if size > _LARGE * count:
            found.reverse()
            group = map(found.pop, repeat(-1, count))  # hold no result that was yielded
        return zip(range(first, first + count), group, strict=True) if self.plan.with_index else group

    def _remove_finished(self) -> None:
        """Have the store forget the chunks that were read; where that fails, they expire soon."""
        finished, self._finished = self._finished, []
        try:
            if finished:
                self._store.remove(finished)
        except BackendUnavailable:
            pass

    def _leave(self) -> None:
        """Let go: nobody reads the results any more. Often called by a finalizer, so the rest is done elsewhere."""
        self._exhausted = True
        self._listener.later(self._let_go)

    def _let_go(self) -> None:
        """Remove what is left in the store; what runs is waited for by the queue's shutdown."""
        self._on_end(self)
        self._listener.forget([chunk.id for chunk, _ in self._unsent])
        self._unsent.clear()
        ids = list(self._open)
        try:
            states = self._store.cancel(ids) if ids else []
        except BackendUnavailable:
            states = [State.CANCELLED] * len(ids)
        ended = [job_id for job_id, state in zip(ids, states, strict=True) if state is not State.RUNNING]
        self._listener.forget(ended)
        self._finished += ended
        self._remove_finished()

    # -- the input

    def _fill(self, *, promptly: bool = True) -> None:
        """Read and send chunks while the window has room; `promptly`: and no result is waiting to be yielded."""
        with self._reading:
            while not self._exhausted and (wanted := self._wanted()):
                began = perf_counter_ns()
                items = self._read_items(wanted)
                if items:
                    self._add(self._read, items)
                    self._read += len(items)
                if len(self._unsent) >= _SEND_MAX or perf_counter_ns() - began > _READ_NS:
                    self._send()
                if promptly and not self._outcomes.empty():
                    break  # a slow input must not keep it waiting
            self._send()

    def _wanted(self) -> int:
        """Return how many items the next chunk is to have; 0: the window is full."""
        items = self.plan.chunksize or self._pace.chunk()
        if self._input_size is not None and not self.plan.chunksize:  # leave all processes something of the end
            items = min(items, max(1, (self._input_size - self._read) // (2 * self._processes)))
        if self._unbounded:
            return items
        self._count_processes()
        ahead = self._pace.ahead(items, self._processes)
        limit = items * ahead
        if self.plan.buffersize is not None:
            limit = self.plan.buffersize
            items = min(items, max(1, limit // ahead))
        self._refill_at = limit - items
        return items if self._read - self._yielded - self._spare() <= self._refill_at else 0

    def _count_processes(self) -> None:
        """Ask now and then how many processes take jobs of this queue."""
        if monotonic() - self._looked_at < _LOOK:
            return
        self._looked_at = monotonic()
        queue = self._options.queue
        try:
            found = sum(worker.processes for worker in self._store.workers() if queue in worker.queues)
        except BackendUnavailable:
            return
        self._processes = max(2, found)

    def _spare(self) -> int:
        """Return how many items with results behind a slow one do not count against the window.

        Without it the workers would idle while an ordered map waits for one long job. What the user bounded by
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
            if perf_counter_ns() - started > _READ_NS and not self.plan.chunksize:
                break
            step *= _READ_STEP
        return items

    # -- chunks

    def _add(self, first: int, items: Sequence[Any]) -> None:
        """Make chunks of these items: one, or several where one cannot travel or they are too large together."""
        try:
            envelope = self._template.pack(encode(items, max_depth=LIST_DEPTH, root="items"), self._shape)
            error = None if len(envelope) <= self._store.max_bytes else self._too_large(len(envelope))
        except EncodeError as problem:
            error = problem
        if error is None:
            self._pace.observe_bytes(len(items), len(envelope))
            chunk = _Chunk(first, len(items), len(envelope), self._outcomes)
            label = f"{self._task.partition(':')[2]} items {first} to {first + len(items) - 1}"
            job = NewJob(id=chunk.id, task=self._task, envelope=envelope, options=self._options, label=label)
            self._unsent.append((chunk, job))
        elif len(items) > 1:
            half = len(items) // 2
            self._add(first, items[:half])
            self._add(first + half, items[half:])
        else:
            self._outcomes.put((_Chunk(first, 1, 0, self._outcomes), of_item(first, items[0], error)))

    def _too_large(self, size: int) -> EncodeError:
        limit = self._store.max_bytes
        cure = "pass a path or a key to the data instead, or raise max_bytes in the URL"
        return EncodeError(f"it takes {size:,} bytes, above the limit of {limit:,}: {cure}", "items[0]")

    def _send(self) -> None:
        """Put into the store what was read; what fails stays to be sent by the next call, as the same jobs."""
        while self._unsent:
            batch = self._unsent[:_SEND_MAX]
            self._listener.prepare((chunk.id, chunk) for chunk, _ in batch)
            self._open.update((chunk.id, chunk) for chunk, _ in batch)
            self._store.put([job for _, job in batch], reply_to=self._listener.address)
            self._listener.confirm([chunk.id for chunk, _ in batch])
            del self._unsent[:_SEND_MAX]


def _encode_shape(plan: StreamPlan, bound: tuple[tuple[Any, ...], dict[str, Any]] | None) -> bytes:
    """Encode how a chunk's items become arguments."""
    if bound is None:
        return encode(plan.star)
    args, kwargs = bound
    return encode([plan.star, list(args), dict(kwargs)], root="bound")
