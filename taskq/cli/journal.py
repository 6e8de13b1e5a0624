"""The journal of a map on a store: which job runs which lines; --resume knows those of a killed program.

    chunk of lines ──note──▶ FILE.chunks ──then put──▶ store ──▶ workers
    --resume: jobs that wait are removed, those that run waited for, results of those that ended become rows

A job's result stays in the store until its rows are written. At the end of the map the file goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections import deque
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.chunks import read_chunk
from taskq.cli.streams import write_all
from taskq.codec import decode
from taskq.errors import BackendUnavailable, DecodeError
from taskq.executor import Journaled
from taskq.failure import Failure
from taskq.states import TERMINAL, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskq.cli.jsonl import Done, Lines, Place
    from taskq.cli.row_writer import Output, RowWriter
    from taskq.store import JobRecord, Store

__all__ = ["Journal", "JournaledLines", "Known", "recover"]

#: Results of lines of an earlier run whose rows are not written: by item, with the line's number.
Known: TypeAlias = "dict[int, tuple[int, bytes]]"

#: A chunk as it is noted: its job, and runs of lines as [first item, first line, count]; item -1: no lines.
Chunk: TypeAlias = "tuple[str, list[tuple[int, int, int]]]"

#: Seconds between two looks at chunks that run.
LOOK = 0.2
#: Seconds between two looks at whether a chunk's worker has died.
SWEEP = 5.0
#: Jobs of one call.
BATCH = 200


class Journal:
    """Note chunks in a file, and know whose rows are written. `note` and `row` are for one thread, the rest for any."""

    def __init__(self, descriptor: int, path: str, earlier: Sequence[Chunk]) -> None:
        self.earlier = earlier
        self._descriptor = descriptor
        self._path = path
        self._lock = Lock()
        #: Jobs that the store may still have.
        self._kept = {job_id for job_id, _ in earlier}
        #: By what was sent: its chunk, as [job, rows to come].
        self._chunks: dict[int, list[Any]] = {}
        #: Chunks with all rows handed to the writer, and how far it is when they are written.
        self._told: deque[tuple[int, str]] = deque()
        self._done: set[str] = set()
        self._stays = False
        self._writer: RowWriter | None = None

    @classmethod
    def open(cls, output: Output, *, keep: bool) -> Journal:
        """Open the journal of an output; `keep`: with what an earlier run has noted.

        Raises:
            OSError: it cannot be written there, or is not a file of ours.
        """
        path = f"{Path(f'/proc/self/fd/{output.descriptor}').readlink()}.chunks"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(f"{path} is no file of this user")
        if not keep:
            os.ftruncate(descriptor, 0)
        return cls(descriptor, path, list(_read(descriptor)))

    def write_to(self, writer: RowWriter) -> None:
        """Set the writer of the rows."""
        self._writer = writer

    def note(self, chunks: Sequence[tuple[str, int, int]], place: Callable[[int], Place | None]) -> None:
        """Write down chunks that are about to be put: each its job, the first of what is sent, and how many."""
        rows = []
        with self._lock:
            for job_id, first, count in chunks:
                self._kept.add(job_id)
                entry = [job_id, count]
                self._chunks.update(dict.fromkeys(range(first, first + count), entry))
                rows.append(json.dumps([job_id, _runs([place(sent) for sent in range(first, first + count)])]))
        data = "".join(f"{row}\n" for row in rows).encode()
        write_all(self._descriptor, data, self._path)

    def row(self, sent: int) -> None:
        """Take note that the row of what was sent has been handed to the writer, or that there is none."""
        with self._lock:
            entry = self._chunks.pop(sent, None)
            if entry is None:
                return
            entry[1] -= 1
            if entry[1] == 0 and self._writer is not None:
                self._told.append((self._writer.put_bytes, entry[0]))

    def removable(self, ids: Sequence[str]) -> list[str]:
        """Return those of these jobs whose rows are written."""
        with self._lock:
            written = 0 if self._writer is None else self._writer.written_bytes
            while self._told and self._told[0][0] <= written:
                self._done.add(self._told.popleft()[1])
            found = [job_id for job_id in ids if job_id in self._done]
            self._done.difference_update(found)
            self._kept.difference_update(found)
        return found

    def keep(self) -> None:
        """Have the file stay: the map is not over."""
        self._stays = True

    def finish(self, store: Store) -> None:
        """Remove what the store still has of the map, and the file, where the map is over."""
        if self._stays:
            return
        ids = list(self._kept)
        with contextlib.suppress(BackendUnavailable):  # they expire
            for start in range(0, len(ids), BATCH):
                store.remove(ids[start : start + BATCH])
        with contextlib.suppress(OSError):
            Path(self._path).unlink()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class JournaledLines(Journaled):
    """The lines of a map whose chunks are noted before they are sent."""

    def __init__(self, lines: Lines, journal: Journal) -> None:
        self._lines = lines
        self._journal = journal

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)

    def sending(self, chunks: Sequence[tuple[str, int, int]]) -> None:
        """Note them."""
        self._journal.note(chunks, self._lines.place)

    def removable(self, ids: Sequence[str]) -> list[str]:
        """Return those whose rows are written."""
        return self._journal.removable(ids)


def _runs(places: Sequence[Place | None]) -> list[list[int]]:
    """Return places as runs of neighbours."""
    runs: list[list[int]] = []
    for place in places:
        item, number = (-1, 0) if place is None else place
        if runs:
            first, line, count = runs[-1]
            if (first == item == -1) or (first >= 0 and (item, number) == (first + count, line + count)):
                runs[-1][2] += 1
                continue
        runs.append([item, number, 1])
    return runs


def _read(descriptor: int) -> Iterator[Chunk]:
    """Yield what is noted, each chunk once; a torn end and what is no chunk are passed over."""
    seen = set()
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for line in file:
            try:
                job_id, runs = json.loads(line)
                chunk = (str(job_id), [(int(first), int(number), int(count)) for first, number, count in runs])
            except (ValueError, TypeError):
                continue
            if chunk[0] not in seen:
                seen.add(chunk[0])
                yield chunk


# --- an earlier run


def recover(
    store: Store, chunks: Sequence[Chunk], done: Done, look: Callable[[int], None], take: Callable[[Store], None]
) -> Known:
    """Return results of lines that an earlier run has sent and that have no row; waits for those that run.

    `look` is called with the number of chunks that are waited for, `take` now and then while they run.
    """
    left = [chunk for chunk in chunks if any(not done.has(item) for item, _, _ in _lines(chunk))]
    known: Known = {}
    taken = monotonic()
    while left:
        left = _settle(store, left, known)
        if left:
            look(len(left))
            sleep(LOOK)
            if monotonic() - taken > SWEEP:
                taken = monotonic()
                take(store)
    return {item: outcome for item, outcome in known.items() if not done.has(item)}


def _settle(store: Store, chunks: Sequence[Chunk], known: Known) -> list[Chunk]:
    """Read the chunks that have ended, remove those that wait; return those that run."""
    running = []
    for start in range(0, len(chunks), BATCH):
        some = chunks[start : start + BATCH]
        records = store.get([job_id for job_id, _ in some], payload=True)
        waiting = [record.id for record in records if record and record.state not in {*TERMINAL, State.RUNNING}]
        gone = set(waiting)
        if waiting:
            gone = {job_id for job_id, was in zip(waiting, store.remove(waiting), strict=True) if was}
        for chunk, record in zip(some, records, strict=True):
            if record is None or chunk[0] in gone:
                continue
            if record.state in TERMINAL:
                known.update(_outcomes(chunk, record))
            else:
                running.append(chunk)
    return running


def _outcomes(chunk: Chunk, record: JobRecord) -> Known:
    """Return the results of a chunk that has ended. Lines that failed have none: without a row, they run again."""
    lines = list(_lines(chunk))
    results = _results(record, sum(count for _, _, count in chunk[1]))
    return {item: (number, results[at]) for item, number, at in lines if isinstance(results[at], bytes)}


def _results(record: JobRecord, size: int) -> list[Any]:
    nothing = [None] * size
    if record.state is not State.SUCCEEDED:
        return nothing
    try:
        _, values, records = read_chunk(decode(record.result or b""), size)
        if values is not None:
            return values
        return [None if isinstance(one, Failure) else decode(one) for one in records or ()]
    except DecodeError:
        return nothing


def _lines(chunk: Chunk) -> Iterator[tuple[int, int, int]]:
    """Yield item, line number, and place in the chunk of each line."""
    at = 0
    for first, number, count in chunk[1]:
        if first >= 0:
            for step in range(count):
                yield first + step, number + step, at + step
        at += count
