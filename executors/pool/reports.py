"""Reports of a child as the parent reads them: from its socket, and early from its journal.

socket    [ header | body ] [ header | body ] ...     a body may lie in a half of the journal instead
journal   records that are committed and not sent yet; what is read of them is left out of the report that follows
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, TypeAlias

from taskq.executors.pool import payloads, protocol
from taskq.executors.pool.protocol import ON_SOCKET, RECORD, REPORT, SIZE_MAX, Report

if TYPE_CHECKING:
    from socket import socket

#: Jobs, encoding and payload of one record.
Record: TypeAlias = tuple[int, int, bytes]

#: Bytes asked of the socket at once. More would be taken from the system and given back with every read.
_READ = 1 << 16
#: Bytes of a value up to which it is joined with others, and records that are joined at the most.
_JOINED_MAX = 256
_JOINED_RECORDS = 256
#: Bytes of records up to which they are copied at once.
_COPIED_MAX = 1 << 16


class _LargeResult:
    """A result that comes in a report of its own, received into memory of its size."""

    __slots__ = ("_buffer", "_got", "_view", "record", "report")

    def __init__(self, report: Report, head: bytes | bytearray | memoryview) -> None:
        """`head` is what is there behind the report's header: a record's header and what was read with it."""
        self.report = report
        jobs, encoding, _ = RECORD.unpack_from(head)
        self.record = jobs, encoding
        self._buffer = BytesIO()
        self._buffer.seek(report.bytes - RECORD.size - 1)
        self._buffer.write(b"\0")
        self._view = self._buffer.getbuffer()
        self._got = len(head) - RECORD.size
        self._view[: self._got] = head[RECORD.size :]

    def receive(self, sock: socket) -> int:
        """Read what is there; return how many bytes."""
        count = sock.recv_into(self._view[self._got :])
        self._got += count
        return count

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self._got == len(self._view)

    def take(self) -> Record:
        """Return the record."""
        self._view.release()
        return *self.record, self._buffer.getvalue()  # no copy: nothing else has the buffer


class ReportReader:
    """Read the reports of one child."""

    def __init__(self, sock: socket, page: protocol.SharedPage) -> None:
        self._sock = sock
        self._page = page
        #: Whether the child has closed its end.
        self.ended = False
        #: Whether there may be more to read, and how many bytes were read in all.
        self.has_more = False
        self.received = 0
        self._input = bytearray()
        self._large: _LargeResult | None = None
        self._flushes = 0
        self._half = 0
        self._early = 0
        #: Reports of what jobs said that were read.
        self._notes = 0

    def receive(self) -> list[tuple[Report, bytes, list[Record]]]:
        """Return what the child has sent: whole reports with their bodies, results without what was read early.

        `has_more` tells whether there may be more to read.
        """
        try:
            if self._large is None:
                data = self._sock.recv(_READ)
                count = len(data)
                self._input += data
            else:
                count = self._large.receive(self._sock)
        except BlockingIOError:
            self.has_more = False
            return []
        except OSError:  # the child died with our bytes unread
            count = 0
        if not count:
            self.ended = True
            self.has_more = False
            return []
        self.received += count
        large = self._large
        if large is None:
            found = self._whole_reports()
            self.has_more = count == _READ or self._large is not None
            return found
        self.has_more = True
        if not large.complete:
            return []
        self._large, record = None, large.take()
        return [(large.report, b"", [] if self._count_flush() else [record])]

    def _whole_reports(self) -> list[tuple[Report, bytes, list[Record]]]:
        """Return and forget the reports that have been read to their end."""
        buffer, at = self._input, 0
        reports: list[tuple[Report, bytes, list[Record]]] = []
        while len(buffer) - at >= REPORT.size:
            report = Report._make(REPORT.unpack_from(buffer, at))
            end = at + REPORT.size + (report.bytes if report.place == ON_SOCKET else 0)
            if len(buffer) < end:
                if _is_large(report, buffer, at + REPORT.size):
                    self._large = _LargeResult(report, buffer[at + REPORT.size :])
                    at = len(buffer)
                break
            with memoryview(buffer)[at + REPORT.size : end] as body:
                if report.kind == protocol.RESULTS:
                    reports.append((report, b"", self._results(report, body)))
                else:
                    self._notes += report.kind in (protocol.PROGRESS, protocol.NOTE)
                    reports.append((report, bytes(body), []))
            at = end
        del buffer[:at]
        return reports

    def _count_flush(self) -> int:
        """Count a flush; return how many of its bytes were read early."""
        early, self._early = self._early, 0
        self._flushes += 1
        return early

    def _results(self, report: Report, body: memoryview) -> list[Record]:
        """Return the records of a flush that are new, and tell the child that its half of the journal is free."""
        early = self._count_flush()
        if report.place == ON_SOCKET:
            return _records(body, early, len(body))
        found = _records(self._page.journal[self._half], early, report.bytes)
        self._half ^= 1
        self._page.words[protocol.CONSUMED] += 1
        return found

    def journal(self) -> list[Record] | None:
        """Return the records that are committed but neither sent nor read before.

        None: the child is just flushing, or has sent words of a job that must be read before its outcome.
        """
        words = self._page.words
        commit = words[protocol.COMMIT]
        if commit >> protocol.COMMIT_SHIFT != self._flushes or words[protocol.NOTES] > self._notes:
            return None
        end = commit & protocol.COMMIT_MASK
        found = _records(self._page.journal[self._half], self._early, end)
        if words[protocol.COMMIT] >> protocol.COMMIT_SHIFT != self._flushes:
            return None
        self._early = end
        return found


def _is_large(report: Report, buffer: bytearray, body: int) -> bool:
    """Tell whether a report that is not all there is one record, and too large for the input buffer."""
    if report.kind != protocol.RESULTS or report.bytes <= _READ or len(buffer) < body + RECORD.size:
        return False
    size = RECORD.unpack_from(buffer, body)[2]
    return size in {report.bytes - RECORD.size, SIZE_MAX}


def _records(data: memoryview, at: int, end: int) -> list[Record]:
    """Copy the records between two places out of shared memory or a buffer that will be reused.

    Small plain values that follow each other become one record: what is done for each record costs more than to join.
    """
    found: list[Record] = []
    plain: list[bytes] = []
    joined = 0
    source: memoryview | bytes = data
    if end - at <= _COPIED_MAX:  # to cut bytes is quicker than to cut a memoryview and copy
        source, at, end = bytes(data[at:end]), 0, end - at
    while at < end:
        jobs, encoding, size = RECORD.unpack_from(source, at)
        start = at + RECORD.size
        at = start + size
        payload = bytes(source[start:at])
        if encoding == payloads.MSGPACK and size <= _JOINED_MAX * jobs and len(plain) < _JOINED_RECORDS:
            plain.append(payload)
            joined += jobs
            continue
        if plain:
            found.append((joined, payloads.MSGPACK, payloads.join(plain, joined)))
            plain, joined = [], 0
        found.append((jobs, encoding, payload))
    if plain:
        found.append((joined, payloads.MSGPACK, plain[0] if len(plain) == 1 else payloads.join(plain, joined)))
    return found
