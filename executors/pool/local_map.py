"""A map on the local pool: chunks of items go to the dispatcher, and come back as it has them.

    input ──▶ MapChunk ──post──▶ dispatcher ──▶ children
                                                │
                                               put (first item, count, encoding, bytes)
                                                ▼
    consumer ◀── news ◀────────────── dispatcher's thread

An item that cannot travel never leaves: its error takes its place among the news.
"""

from __future__ import annotations

from operator import length_hint
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import EncodeError
from taskq.executors.map_stream import CANCELLED, Arrival, MapStream, raisable, released
from taskq.executors.pool import payloads
from taskq.executors.pool.batches import MapChunk
from taskq.executors.pool.child_handle import DEPTH
from taskq.failure import Failure
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from taskq.executor import StreamPlan
    from taskq.executors.pool.functions import Function
    from taskq.executors.pool.pool import ProcessPool
    from taskq.options import JobOptions

__all__ = ["LET_GO", "LocalMap"]

#: Encodings of results that may be large objects; plain scalars are left in their list.
LET_GO: Final = frozenset({payloads.PICKLE, payloads.CODEC, payloads.BARE_BYTES})


class LocalMap(MapStream):
    """Run one function over many items on the pool; `put` and `cancel` are the dispatcher's."""

    def __init__(  # what one map is made of
        self,
        pool: ProcessPool,
        function: Function,
        items: Iterable[Any],
        plan: StreamPlan,
        options: JobOptions,
        *,
        number: int,
        session: str,
        strict: bool,
        processes: int,
        on_end: Callable[[LocalMap], None],
    ) -> None:
        super().__init__(items, plan, function.name)
        self.dropped = False
        self.number = number
        self.function = function
        self._pool = pool
        self._options = options
        self._session = session
        self._strict = strict
        self._processes = processes
        self._on_end = on_end

    # -- for the dispatcher's thread

    def put(self, first: int, jobs: int, encoding: int, data: bytes) -> None:
        """Take outcomes of items `first` and on."""
        self.tell((first, jobs, encoding, data))

    def cancel(self) -> None:
        """Note that the rest of the items will never run."""
        self.end_input()
        self.tell(CANCELLED)

    # -- for the consumer's thread

    def _arrive(self, news: tuple[int, int, int, bytes]) -> Arrival:
        first, jobs, encoding, data = news
        failed = encoding == payloads.FAILURE
        return Arrival(first, jobs, failed=failed, size=len(data), results=(encoding, data))

    def _group(self, arrival: Arrival) -> Iterable[Any]:
        plan, first, jobs = self.plan, arrival.first, arrival.count
        encoding, data = arrival.results
        if encoding != payloads.FAILURE:
            try:
                results: Iterable[Any] = payloads.unpack(encoding, data)
            except Exception as unreadable:  # noqa: BLE001  # their class may fail to be rebuilt here in any way
                pass_on(unreadable)
                errors: list[BaseException] = [unreadable] * jobs
                results = errors if plan.return_exceptions else _Raising(errors)
        else:
            failure, pickled = payloads.unpack_failure(data)
            error = raisable(payloads.rebuild(failure, pickled, f"{self._session}-{self.number}.{first}"))
            results = [error] if plan.return_exceptions else _Raising([error])
        if isinstance(results, _Raising):
            return results
        if plan.with_index:
            results = list(zip(range(first, first + jobs), results, strict=True))
        return released(results) if encoding in LET_GO and isinstance(results, list) else results

    def _delivers_here(self) -> bool:
        return self._pool.delivers_here()

    def _let_go(self) -> None:
        self.dropped = True
        self._on_end(self)
        self._pool.end_map(self)

    # -- the input

    def _fill(self, *, promptly: bool = True) -> None:
        with self.handing_on:
            while not self._exhausted and (wanted := self.wanted()):
                items = self._read_items(wanted)
                if items:
                    self._queue(items)
                if promptly and self._news:
                    return

    def wanted(self) -> int:
        ahead = (DEPTH + 1) * self._processes
        return self._shortened(self._room(self.plan.chunksize or self.function.sizer.next_size(), ahead))

    def hand_on(self, items: Sequence[Any], *, soon: bool) -> None:  # noqa: ARG002  # a chunk is sent at once
        self._queue(items)

    def _shortened(self, jobs: int) -> int:
        """Return how many items to read at once: fewer where the end is near."""
        pace = self.function.sizer
        if self._input_size is None or self.plan.chunksize or pace.ns is None:
            return jobs
        return min(jobs, pace.share(self._input_size - self._read, DEPTH * self._processes))

    def _queue(self, items: Sequence[Any]) -> None:
        first = self._read
        self._read += len(items)
        try:
            encoding, payload = payloads.pack(items, strict=self._strict, root="items")
        except (EncodeError, payloads.JobInside):
            self._queue_singly(first, items)
        else:
            self.function.sizer.observe_bytes(len(items), len(payload))
            self._post(first, items, encoding, payload)

    def _queue_singly(self, first: int, items: Sequence[Any]) -> None:
        """Queue what can travel; what cannot is an error of its own item."""
        for index, item in enumerate(items, first):
            try:
                encoding, payload = payloads.pack_one(item, strict=self._strict, root="item")
            except payloads.JobInside:
                error = EncodeError("a map does not wait for jobs: pass their results", f"items[{index}]")
                self.put(index, 1, payloads.FAILURE, payloads.pack_failure(Failure.from_exception(error), error))
            except EncodeError as error:
                self.put(index, 1, payloads.FAILURE, payloads.pack_failure(Failure.from_exception(error), error))
            else:
                self._post(index, [item], encoding, payload)

    def _post(self, first: int, items: Sequence[Any], encoding: int, payload: bytes) -> None:
        self._pool.post(
            MapChunk(
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


class _Raising:
    """Stands where items failed: raises their errors one by one, then ends."""

    def __init__(self, errors: list[BaseException]) -> None:
        self._errors = iter(errors)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __length_hint__(self) -> int:
        return length_hint(self._errors)

    def __next__(self) -> Any:
        raise next(self._errors)
