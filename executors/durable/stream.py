"""A map on a store: a job of the store for each chunk of items.

    input ──▶ chunk of items ──put──▶ store ──▶ workers
                                        │
                                        ▼ a chunk has ended
    consumer ◀── news ◀────────── listener's thread

Chunks are sent in the consumer's thread. What was read is removed from the store.
"""

from __future__ import annotations

from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from taskq.chunks import ITEMS_MAX, LIST_DEPTH, read_chunk
from taskq.codec import decode, encode
from taskq.context import wait_named
from taskq.envelope import CHUNK, Template
from taskq.errors import BackendUnavailable, DecodeError, EncodeError, QueueFull
from taskq.executor import Journaled
from taskq.executors.dependencies import jobs_in
from taskq.executors.durable.job import failure_of
from taskq.executors.map_stream import READ_NS, Arrival, MapResults, MapStream, raisable, released
from taskq.failure import Failure
from taskq.ids import new_id
from taskq.states import State
from taskq.store import Ended, NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taskq.executor import StreamPlan
    from taskq.executors.durable.listener import ResultListener
    from taskq.options import JobOptions
    from taskq.store import Store

__all__ = ["ChunkSizer", "DurableStream"]

#: Chunks that go to the store in one call, and that are removed from it in one.
_SEND_MAX: Final = 64
_REMOVE_MAX: Final = 64
#: Seconds for which a chunk's result is kept where it is not read.
_RESULT_TTL: Final = 60.0
#: The same, of a map that may be gone on with.
_JOURNALED_TTL: Final = 86_400.0
#: Nanoseconds of work in one chunk: some hundred times what a store and a worker need for a job.
_TARGET_NS: Final = 50_000_000
#: Items in a chunk at the most: beyond, the cost of a job is nothing any more, and a window of them grows large.
CHUNK_MAX: Final = 4096
#: Bytes of a chunk's items, or of its results.
CHUNK_BYTES: Final = 64 * 1024
#: A chunk holds at most this many times the items of the largest one that came back, and one slow chunk counts at
#: most so much.
_STEP: Final = 2
_SLOW_STEP: Final = 4
#: Weight of the newest chunk in the running mean.
_WEIGHT: Final = 0.3
#: Nanoseconds of work that lie ready for each process, so that it does not run dry while this side reads and sends.
_AHEAD_NS: Final = 150_000_000
#: Chunks that lie ready for each process, at least and at the most.
_AHEAD_MIN, _AHEAD_MAX = 3, 16
#: Items on their way at the most.
ITEMS_AHEAD: Final = 80_000
#: Seconds between two looks at how many processes the workers have.
_LOOK: Final = 2.0


class _Chunk:
    """Consecutive items of a map that are one job of the store."""

    __slots__ = ("first", "id", "items", "size", "tell")

    def __init__(self, first: int, items: int, size: int, tell: Callable[[_News], None]) -> None:
        self.id = new_id()
        self.first = first
        self.items = items
        self.size = size
        self.tell = tell

    def on_ended(self, ended: Ended) -> None:
        """Take note of its end; the listener's thread calls."""
        self.tell((self, ended))


#: What reaches the consumer: a chunk with its end, or with what kept its one item from travelling.
_News: TypeAlias = "tuple[_Chunk, Ended | EncodeError]"
#: The results of a chunk, its bytes, and whether errors to be raised stand among them.
_Results: TypeAlias = "tuple[list[Any], int, bool]"


class DurableStream(MapStream):
    """Run one task over many items on a store's workers."""

    def __init__(  # what one map is made of
        self,
        store: Store,
        listener: ResultListener,
        items: Iterable[Any],
        plan: StreamPlan,
        *,
        task: str,
        options: JobOptions,
        bound: tuple[tuple[Any, ...], dict[str, Any]] | None,
        on_end: Callable[[DurableStream], None],
    ) -> None:
        super().__init__(items, plan, task.partition(":")[2])
        self._store = store
        self._listener = listener
        self._task = task
        self._journal = items if isinstance(items, Journaled) else None
        self._options = options.merged(result_ttl=_RESULT_TTL if self._journal is None else _JOURNALED_TTL)
        self._template = Template(CHUNK, task, self._options)
        self._shape = _encode_shape(plan, bound)
        self._sizer = ChunkSizer()
        self._processes = 2
        self._looked_at = -_LOOK
        self._unsent: list[tuple[_Chunk, NewJob]] = []
        self._unsent_since = 0
        #: Chunks in the store whose end was not heard.
        self._open: dict[str, _Chunk] = {}
        self._finished: list[str] = []
        self._on_end = on_end

    def iterate(self) -> MapResults:
        """Begin to read the input, and return the iterator of results."""
        self._listener.start()
        return super().iterate()

    # -- results

    def _arrive(self, news: _News) -> Arrival:
        chunk, ended = news
        results = self._results_of(chunk, ended)
        failed = sum(type(result) is _ItemError for result in results[0]) if results[2] else 0
        return Arrival(chunk.first, chunk.items, failed=failed, size=results[1], results=results)

    def _results_of(self, chunk: _Chunk, news: Ended | EncodeError) -> _Results:
        if isinstance(news, EncodeError):
            return [_ItemError(news)], 0, True
        self._open.pop(chunk.id, None)
        self._finished.append(chunk.id)
        if len(self._finished) % _REMOVE_MAX == 0:
            self._remove_finished()
        failure = failure_of(news)
        if failure is None:
            try:
                return self._read_results(chunk, news.result or b"")
            except DecodeError as error:
                failure = Failure.from_exception(error)
        return [_error_of(failure, chunk.id) for _ in range(chunk.items)], 0, True

    def _read_results(self, chunk: _Chunk, result: bytes) -> _Results:
        elapsed, values, records = read_chunk(decode(result), chunk.items)
        self._sizer.observe(chunk.items, elapsed, len(result))
        if values is not None:
            return values, len(result), False
        return [_value_of(record, chunk.id) for record in records or ()], len(result), True

    def _group(self, arrival: Arrival) -> Iterable[Any]:
        first = arrival.first
        found, _, mixed = arrival.results
        count = len(found)
        if mixed and self.plan.return_exceptions:
            found = [entry.error if type(entry) is _ItemError else entry for entry in found]
        elif mixed:
            return _RaisingResults(found, first if self.plan.with_index else None)
        return released(list(zip(range(first, first + count), found, strict=True)) if self.plan.with_index else found)

    def _remove_finished(self) -> None:
        """Have the store forget the chunks that were read; where that fails, they expire soon."""
        finished, self._finished = self._finished, []
        if self._journal is not None:
            read, finished = finished, self._journal.removable(finished)
            self._finished += set(read).difference(finished)
        try:
            if finished:
                self._store.remove(finished)
        except (BackendUnavailable, QueueFull):
            pass

    def _delivers_here(self) -> bool:
        return self._listener.is_this_thread()

    def _wait_for_change(self, timeout: float | None) -> bool:
        return wait_named(super()._wait_for_change, timeout, self._awaited)

    def _awaited(self) -> str:
        """Return the id of the chunk that is in the store for longest."""
        return next(iter(self._open.copy()), "")

    def _let_go(self) -> None:
        self._listener.call_later(self._withdraw)  # a finalizer may be the caller

    def _withdraw(self) -> None:
        """Remove what is left in the store; what runs is waited for by the queue's shutdown."""
        self._on_end(self)
        self._listener.unsubscribe([chunk.id for chunk, _ in self._unsent])
        self._unsent.clear()
        ids = list(self._open)
        try:
            states = self._store.cancel(ids) if ids else []
        except (BackendUnavailable, QueueFull):
            states = [State.CANCELLED] * len(ids)
        ended = [job_id for job_id, state in zip(ids, states, strict=True) if state is not State.RUNNING]
        self._listener.unsubscribe(ended)
        if left := set(ids).difference(ended):
            self._listener.ask(left)  # their put may have been interrupted
        self._finished += ended
        self._remove_finished()

    # -- the input

    def _fill(self, *, promptly: bool = True) -> None:
        with self.handing_on:
            while not self._exhausted and (wanted := self.wanted()):
                began = perf_counter_ns()
                items = self._read_items(wanted)
                if items:
                    self.hand_on(items, soon=perf_counter_ns() - began > READ_NS)
                if promptly and self._news:
                    break
            self.send_on()

    def hand_on(self, items: Sequence[Any], *, soon: bool) -> None:
        now = perf_counter_ns()
        if not self._unsent:
            self._unsent_since = now
        self._add(self._read, items)
        self._read += len(items)
        if soon or len(self._unsent) >= _SEND_MAX or now - self._unsent_since > READ_NS:
            self.send_on()

    @property
    def keeps_back(self) -> bool:
        return bool(self._unsent)

    def wanted(self) -> int:
        """Return how many items the next chunk is to have; 0: the window is full."""
        items = min(self.plan.chunksize or self._sizer.chunk(), ITEMS_MAX)
        if self._input_size is not None and not self.plan.chunksize:  # leave all processes something of the end
            items = min(items, max(1, (self._input_size - self._read) // (2 * self._processes)))
        if not self._unbounded:
            self._count_processes()
        return self._room(items, self._sizer.ahead(items, self._processes))

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

    # -- chunks

    def _add(self, first: int, items: Sequence[Any]) -> None:
        """Make chunks of these items: one, or several where one cannot travel or they are too large together."""
        try:
            envelope = self._template.pack(encode(items, max_depth=LIST_DEPTH, root="items"), self._shape)
            error = None if len(envelope) <= self._store.max_bytes else self._too_large(len(envelope))
        except EncodeError as problem:
            error = problem
        if error is None:
            self._sizer.observe_bytes(len(items), len(envelope))
            chunk = _Chunk(first, len(items), len(envelope), self.tell)
            name = self._options.label or self._task.partition(":")[2]
            label = f"{name} items {first} to {first + len(items) - 1}"
            job = NewJob(id=chunk.id, task=self._task, envelope=envelope, options=self._options, label=label)
            self._unsent.append((chunk, job))
        elif len(items) > 1:
            half = len(items) // 2
            self._add(first, items[:half])
            self._add(first + half, items[half:])
        else:
            self.tell((_Chunk(first, 1, 0, self.tell), _refusal_of(first, items[0], error)))

    def _too_large(self, size: int) -> EncodeError:
        limit = self._store.max_bytes
        cure = "pass a path or a key to the data instead, or raise max_bytes in the URL"
        return EncodeError(f"it takes {size:,} bytes, above the limit of {limit:,}: {cure}", "items[0]")

    def send_on(self) -> None:
        """Put into the store what was read; what fails stays to be sent by the next call, as the same jobs."""
        while self._unsent:
            batch = self._unsent[:_SEND_MAX]
            reply_to = self._listener.subscribe_new([(chunk.id, chunk) for chunk, _ in batch])
            self._open.update((chunk.id, chunk) for chunk, _ in batch)
            if self._journal is not None:
                self._journal.sending([(chunk.id, chunk.first, chunk.items) for chunk, _ in batch])
            self._store.put([job for _, job in batch], reply_to=reply_to)
            if not reply_to:
                self._listener.ask([chunk.id for chunk, _ in batch])
            del self._unsent[:_SEND_MAX]


def _encode_shape(plan: StreamPlan, bound: tuple[tuple[Any, ...], dict[str, Any]] | None) -> bytes:
    """Encode how a chunk's items become arguments."""
    if bound is None:
        return encode(plan.star)
    args, kwargs = bound
    return encode([plan.star, list(args), dict(kwargs)], root="bound")


# --- how large a chunk is


class ChunkSizer:
    """What was measured of one map."""

    def __init__(self) -> None:
        #: Nanoseconds per item, running mean; None: no chunk is back yet.
        self.ns: float | None = None
        self._bytes = 0.0
        self._known_to = 0

    def observe(self, items: int, elapsed_ns: int, result_bytes: int) -> None:
        """Take note of a chunk that is back."""
        sample = elapsed_ns / items
        if self.ns is None:
            self.ns = sample
        else:
            self.ns += _WEIGHT * (min(sample, _SLOW_STEP * self.ns) - self.ns)
        self._known_to = max(items, self._known_to)
        self.observe_bytes(items, result_bytes)

    def observe_bytes(self, items: int, size: int) -> None:
        """Take note of the bytes that so many items or results took."""
        sample = size / items
        self._bytes = max(sample, self._bytes + _WEIGHT * (sample - self._bytes))

    def chunk(self) -> int:
        """Return how many items the next chunk should hold."""
        if self.ns is None:
            return 1
        items = min(_TARGET_NS / max(self.ns, 1.0), _STEP * self._known_to, CHUNK_MAX)
        if self._bytes:
            items = min(items, CHUNK_BYTES / self._bytes)
        return max(1, int(items))

    def ahead(self, items: int, processes: int) -> int:
        """Return how many chunks of so many items may be on their way to so many processes."""
        work = max((self.ns or _TARGET_NS) * items, 1.0)
        each = min(max(_AHEAD_NS / work, _AHEAD_MIN), _AHEAD_MAX)
        return max(2, min(int(each * processes), ITEMS_AHEAD // items))


# --- the results of one chunk


class _ItemError:
    """Stands among the results where one is an error to be raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _refusal_of(index: int, item: Any, error: EncodeError) -> EncodeError:
    """Return the refusal of a single item, named by its place in the input."""
    if jobs_in(item):
        return EncodeError("a map does not wait for jobs: pass their results", f"items[{index}]")
    return EncodeError(error.problem, error.path.replace("items[0]", f"items[{index}]", 1))


def _value_of(record: bytes | Failure, job_id: str) -> Any:
    """Return the value of a record, or its error."""
    if isinstance(record, Failure):
        return _error_of(record, job_id)
    try:
        return decode(record)
    except DecodeError as error:
        return _ItemError(error)


def _error_of(failure: Failure, job_id: str) -> _ItemError:
    """Return the error to be raised for a failure."""
    return _ItemError(raisable(failure.to_exception(job_id)))


class _RaisingResults:
    """Yield results, and raise the errors among them at their places. Holds none that it has given."""

    def __init__(self, results: list[Any], index: int | None) -> None:
        self._results = list(results if index is None else enumerate(results, index))
        self._results.reverse()
        self._indexed = index is not None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __length_hint__(self) -> int:
        return len(self._results)

    def __next__(self) -> Any:
        try:
            result = self._results.pop()
        except IndexError:
            raise StopIteration from None
        entry = result[1] if self._indexed else result
        if type(entry) is _ItemError:
            raise entry.error
        return result
