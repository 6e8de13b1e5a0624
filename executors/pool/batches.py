"""Batches: what goes to a child at once.

    CallBatch   jobs made by submit, one function
    MapChunk   consecutive items of a map

Both can be cut at any job, so that what a dead or stopped child did not start goes to another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from taskq.executors.pool import payloads, protocol
from taskq.executors.pool.jobs import DEFAULTS, Outcome, PoolJob
from taskq.job import ENDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskq.executors.pool.functions import Function
    from taskq.options import JobOptions


def _is_exact(options: JobOptions) -> bool:
    """Tell whether a job must be run by itself: its time is watched, or its first crash is its last."""
    return bool(options.timeout or options.soft_timeout) or options.max_crashes == 1


class CallBatch:
    """Jobs of one function, in order."""

    __slots__ = ("count", "function", "jobs", "options")

    def __init__(self, function: Function, jobs: list[PoolJob]) -> None:
        self.function = function
        self.jobs = jobs
        self.count = len(jobs)
        self.options = jobs[0].options or DEFAULTS

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def abandoned(self) -> bool:
        """Whether no one waits for it any more."""
        return all(job.done() for job in self.jobs)

    def order(self) -> tuple[protocol.Order, bytes]:
        """Return the message to a child."""
        jobs = self.jobs
        first, options = jobs[0], self.options
        if first.bare_encoding is not None:
            encoding, payload = first.bare_encoding, first.payload
        else:
            encoding = payloads.MSGPACK
            payload = b"\xdd" + len(jobs).to_bytes(4, "big") + b"".join([job.payload for job in jobs])
        return protocol.Order(
            bytes=len(payload),
            kind=protocol.CALLS,
            flags=protocol.EXACT if _is_exact(options) or first.crashes else 0,
            encoding=encoding,
            attempt=first.attempt,
            function=self.function.number,
            jobs=len(jobs),
            first=first.number,
            soft=options.soft_timeout or 0.0,
        ), payload

    def part(self, start: int, stop: int) -> list[WorkItem]:
        """Return jobs `start` to `stop`."""
        return [*self.jobs[start:stop]]

    def singles(self, start: int, stop: int) -> list[WorkItem]:
        """Return jobs `start` to `stop`, each to be run alone."""
        for job in self.jobs[start:stop]:
            job.isolated = True
        return self.part(start, stop)

    def record(self, at: int, jobs: int, encoding: int, data: bytes) -> None:
        """Record the outcomes of `jobs` jobs from the one at `at`."""
        if encoding == payloads.MSGPACK:
            for job, value in zip(self.jobs[at : at + jobs], payloads.unpack_scalars(data), strict=True):
                if job.future_state not in ENDED:
                    job.settle(value)
        elif self.jobs[at].future_state not in ENDED:
            self.jobs[at].settle(Outcome(encoding, data))
        if self.jobs[at].bare_encoding is not None and encoding != payloads.FAILURE:
            self.jobs[at].payload = b""  # its handle may be held for long; one that failed may be run again

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return sum([len(job.payload) for job in self.jobs])

    def history(self, at: int) -> tuple[int, int]:
        """Return the job's current attempt and its crashes."""
        return self.jobs[at].attempt, self.jobs[at].crashes

    def retries(self, at: int) -> int:
        """Return how many retries of the job were counted."""
        job = self.jobs[at]
        return job.attempt - 1 - job.crashes - job.uncounted

    def is_rerun_here(self, at: int) -> bool:
        """Tell whether the pool runs the job again when it asks for that."""
        return self.jobs[at].is_rerun_here

    def again(self, at: int, *, crashed: bool = False, counted: bool = True) -> WorkItem:
        """Return the job for its next attempt."""
        job = self.jobs[at]
        job.attempt += 1
        job.crashes += crashed
        job.uncounted += not counted
        job.isolated = True
        return job

    def count_crash(self, at: int) -> int:
        """Count one more crash; return how many there are."""
        self.jobs[at].crashes += 1
        return self.jobs[at].crashes

    def ask_to_stop(self) -> None:
        """Note that all of them are to end."""
        for job in self.jobs:
            job.stop_requested = True

    def is_asked_to_stop(self, at: int) -> bool:
        """Tell whether the job was cancelled while it ran."""
        return self.jobs[at].stop_requested

    def drop(self, at: int) -> None:
        """Record that the job was cancelled."""
        if not self.jobs[at].done():
            self.jobs[at].drop()


class Sink(Protocol):
    """Where the results of a map go."""

    dropped: bool
    function: Function

    def put(self, first: int, jobs: int, encoding: int, data: bytes) -> None:
        """Take the outcomes of items `first` and on."""

    def cancel(self) -> None:
        """Note that what was not started will never be."""


class MapChunk:
    """Consecutive items of a map. Keeps the items until they are done, to encode them again if a child dies."""

    __slots__ = (
        "attempt", "count", "crashes", "encoding", "first", "function", "items", "options", "payload", "sink", "star",
        "stream", "uncounted",
    )  # fmt: skip

    def __init__(  # a record
        self,
        function: Function,
        sink: Sink,
        stream: int,
        first: int,
        items: Sequence[Any],
        *,
        star: bool,
        options: JobOptions,
        encoding: int,
        payload: bytes,
        attempt: int = 1,
        crashes: int = 0,
        uncounted: int = 0,
    ) -> None:
        self.function = function
        self.sink = sink
        self.stream = stream
        self.first = first
        self.items = items
        self.count = len(items)
        self.star = star
        self.options = options
        self.encoding = encoding
        self.payload = payload
        self.attempt = attempt
        self.crashes = crashes
        self.uncounted = uncounted

    def __len__(self) -> int:
        return len(self.items)

    @property
    def abandoned(self) -> bool:
        """Whether no one waits for it any more."""
        return self.sink.dropped

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.payload)

    def order(self) -> tuple[protocol.Order, bytes]:
        """Return the message to a child."""
        options = self.options
        exact = _is_exact(options) or self.crashes
        return protocol.Order(
            bytes=len(self.payload),
            kind=protocol.CHUNK,
            flags=(protocol.STAR if self.star else 0) | (protocol.EXACT if exact else 0),
            encoding=self.encoding,
            attempt=self.attempt,
            function=self.function.number,
            jobs=len(self.items),
            stream=self.stream,
            first=self.first,
            soft=options.soft_timeout or 0.0,
        ), self.payload

    def part(self, start: int, stop: int) -> list[WorkItem]:
        """Return items `start` to `stop` as batches of their own."""
        return [self._cut(start, stop)] if start < stop else []

    def singles(self, start: int, stop: int) -> list[WorkItem]:
        """Return items `start` to `stop`, each to be run alone."""
        return [batch for at in range(start, stop) for batch in self.part(at, at + 1)]

    def record(self, at: int, jobs: int, encoding: int, data: bytes) -> None:
        """Record the outcomes of `jobs` items from the one at `at`."""
        self.sink.put(self.first + at, jobs, encoding, data)

    def history(self, at: int) -> tuple[int, int]:  # noqa: ARG002  # all items of a chunk share one history
        """Return the current attempt and the crashes."""
        return self.attempt, self.crashes

    def retries(self, at: int) -> int:  # noqa: ARG002
        """Return how many retries were counted."""
        return self.attempt - 1 - self.crashes - self.uncounted

    def is_rerun_here(self, at: int) -> bool:  # noqa: ARG002
        """Tell whether the pool runs an item again when it asks for that."""
        return True

    def again(self, at: int, *, crashed: bool = False, counted: bool = True) -> WorkItem:
        """Return one item for its next attempt."""
        item = self._cut(at, at + 1)
        item.attempt += 1
        item.crashes += crashed
        item.uncounted += not counted
        return item

    def count_crash(self, at: int) -> int:  # noqa: ARG002
        """Count one more crash; return how many there are."""
        self.crashes += 1
        return self.crashes

    def ask_to_stop(self) -> None:
        """Do nothing: its map tells."""

    def is_asked_to_stop(self, at: int) -> bool:  # noqa: ARG002
        """Tell whether the map was given up."""
        return self.sink.dropped

    def drop(self, at: int) -> None:  # only a map that was given up is dropped
        """Do nothing: nobody waits for it."""

    def _cut(self, start: int, stop: int) -> MapChunk:
        items = self.items[start:stop]
        if len(items) == len(self.items):
            encoding, payload = self.encoding, self.payload
        else:
            # These items could be encoded before; the strict codec's choice is remembered by its encoding.
            encoding, payload = payloads.pack(items, strict=self.encoding == payloads.CODEC, root="items")
        return MapChunk(
            self.function, self.sink, self.stream, self.first + start, items,
            star=self.star, options=self.options, encoding=encoding, payload=payload,
            attempt=self.attempt, crashes=self.crashes, uncounted=self.uncounted,
        )  # fmt: skip


#: What goes to a child at once.
Batch: TypeAlias = CallBatch | MapChunk
#: What waits in the backlog: jobs are joined into CallBatch when a child has room.
WorkItem: TypeAlias = PoolJob | MapChunk
