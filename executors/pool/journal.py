"""The child's output: a journal in shared memory that is the proof of what has been done.

    run job → write its record → store COMMIT → next job ...   batch over or journal full → flush to the parent

A result is safe before the next job starts: if the process dies, the parent reads the rest of the journal. A flush
leaves the bytes where they are and names the half when the parent has emptied the other one, and sends them through
the socket when it has not, so the child never waits for the parent to keep up.

Order matters: the flush is sent before COMMIT tells that it was. The parent trusts the journal only when both agree on
the number of flushes, so a death between the two cannot make it read records twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskq.executors.pool.protocol import (
    COMMIT,
    COMMIT_SHIFT,
    CONSUMED,
    ON_SOCKET,
    RECORD,
    REGION_BYTES,
    REPORT,
    RESULTS,
    SIZE_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.protocol import SharedPage

#: Bytes from which leaving a flush in shared memory beats copying it through the socket.
_SHARE_FROM: Final = 16 * 1024


class Journal:
    """Write records of finished jobs. `done` is the sequence number after the last one."""

    def __init__(self, page: SharedPage, send: Callable[[bytes], None]) -> None:
        self._words = page.words
        self._halves = page.journal
        self._half = page.journal[0]
        self._number = 0
        self._send = send
        self._used = 0
        self._flushes = 0
        self._shared = 0
        self.done = 0

    def commit(self, jobs: int, encoding: int, payload: bytes) -> None:
        """Record the outcome of the next `jobs` jobs."""
        body = self._used + RECORD.size
        end = body + len(payload)
        if end > REGION_BYTES:
            self.flush()
            body = RECORD.size
            end = body + len(payload)
            if end > REGION_BYTES:
                self._send_alone(jobs, encoding, payload)
                return
        RECORD.pack_into(self._half, self._used, jobs, encoding, len(payload))
        self._half[body:end] = payload
        self._used = end
        self.done += jobs
        self._words[COMMIT] = self._flushes << COMMIT_SHIFT | end

    def flush(self, flags: int = 0, elapsed_ns: int = 0) -> None:
        """Hand what is committed to the parent. Nothing is sent when there is nothing to say."""
        used = self._used
        if not used and not flags:
            return
        if used >= _SHARE_FROM and self._words[CONSUMED] == self._shared:
            self._shared += 1
            self._send(REPORT.pack(used, RESULTS, flags, 1 + self._number, self.done, elapsed_ns))
            self._number ^= 1
            self._half = self._halves[self._number]
        else:
            header = REPORT.pack(used, RESULTS, flags, ON_SOCKET, self.done, elapsed_ns)
            self._send(header + bytes(self._half[:used]))
        self._begin_next()

    def _send_alone(self, jobs: int, encoding: int, payload: bytes) -> None:
        """Send a record that no journal half can hold. Until it has arrived, its job counts as running."""
        self.done += jobs
        record = RECORD.pack(jobs, encoding, min(len(payload), SIZE_MAX))
        self._send(REPORT.pack(len(record) + len(payload), RESULTS, 0, ON_SOCKET, self.done, 0) + record)
        self._send(payload)
        self._begin_next()

    def _begin_next(self) -> None:
        self._used = 0
        self._flushes += 1
        self._words[COMMIT] = self._flushes << COMMIT_SHIFT
