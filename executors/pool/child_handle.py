"""The parent's view of one child: its connection, the frames it has, and what of them is settled.

    frames   [ head: settled | running | untouched ] [ next: untouched ]
              `settled` jobs have their outcome; from `cut` on, jobs were taken back and belong to nobody here

Every job sent to one child has a sequence number, counted on both sides; a frame's jobs have consecutive ones.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from taskq.executors.pool import payloads, protocol, shared_page
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.protocol import ON_SOCKET, ORDER, RECORD, REPORT, SIZE_MAX, Order, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from socket import socket

    from taskq.executors.pool.batches import Batch, WorkItem
    from taskq.executors.pool.connection import ChildConnection
    from taskq.executors.pool.direct import DirectSlot
    from taskq.executors.pool.jobs import Function, LocalJob

#: Jobs, encoding and payload of one record.
Record: TypeAlias = tuple[int, int, bytes]

#: How often to look at a progress that is just being written.
_PROGRESS_TRIES = 5
#: Bytes asked of the socket at once. More would be taken from the system and given back with every read.
_READ = 1 << 16
#: Bytes of a value up to which it is joined with others.
_JOINED_MAX = 256
#: Bytes of records up to which they are copied at once.
_COPIED_MAX = 1 << 16
#: Payload bytes from which shared memory beats the socket.
_SHARE_FROM = 32 * 1024
#: Bytes that are sent to one child, or read from it, before others have their turn.
_TURN = 8 * 1024 * 1024
#: Buffers of one system call.
_BUFFERS_MAX = 64


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
        return *self.record, self._buffer.getvalue()  # no copy: nobody else has the buffer


class InFlight:
    """A batch in a child's hands."""

    __slots__ = ("batch", "cut", "first", "settled")

    def __init__(self, batch: Batch, first: int) -> None:
        self.batch = batch
        self.first = first
        self.settled = 0
        self.cut = len(batch)


class ChildHandle:
    """One child. Used by the dispatcher's thread only."""

    def __init__(self, connection: ChildConnection) -> None:
        self.connection = connection
        self.ready = False
        #: Whether it was said that it imports for long.
        self.warned = False
        #: Whether it gets no more work, and whether Pool has lost sight of it besides.
        self.retiring = False
        self.orphan = False
        #: Whether the child has closed its end, and whether all it left was taken care of.
        self.ended = False
        self.dead = False
        self.frames: deque[InFlight] = deque()
        #: When, by the monotonic clock, a child that was asked to stop has certainly heard it; None: it was not asked.
        self.stopping: float | None = None
        #: Whether there was no sign of progress for a tick, and what was seen at the last one; -1: it had no work then.
        self.stalled = False
        self.seen_commit = 0
        self.known: set[int] = set()
        #: Reports of what jobs said that were read; the queue that the child was told last.
        self.notes = 0
        self.queue = "default"
        #: When the last outcomes came, or work came to an idle child, by the monotonic clock.
        self._counting_from = 0.0
        #: The number that its next job will have.
        self.next_seq = 0
        #: The last offer by which submitters sent to it.
        self._direct: DirectSlot | None = None
        #: What did not fit into the socket, in order.
        self._unsent: deque[memoryview] = deque()
        self._input = bytearray()
        self._large: _LargeResult | None = None
        self._flushes = 0
        self._half = 0
        self._early = 0
        self._shared_sent = 0

    # -- sending

    @property
    def busy_jobs(self) -> int:
        """How many jobs it has that are not settled."""
        return sum(frame.cut - frame.settled for frame in self.frames)

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do and could do something."""
        return self.ready and not self.frames and not self.retiring

    def send(self, batch: Batch) -> None:
        """Hand over a batch; never blocks."""
        function = batch.function
        if function.number not in self.known:
            self.known.add(function.number)
            self._define(function)
        if batch.options.queue != self.queue:
            self.queue = batch.options.queue
            self._tell(protocol.QUEUE, self.queue.encode())
        if isinstance(batch, CallBatch) and batch.jobs[0].output is not None and batch.jobs[0].output.meta_bytes:
            self._tell(protocol.RECALL, batch.jobs[0].output.meta_bytes)
        if not self.frames:
            self._begin()
        order, payload = batch.order()
        self._append(batch)
        words = self.connection.page.words
        size = len(payload)
        if (
            _SHARE_FROM <= size <= shared_page.REGION_BYTES
            and self._shared_sent - words[shared_page.TAKEN] < shared_page.ARGUMENT_REGIONS
        ):
            number = self._shared_sent % shared_page.ARGUMENT_REGIONS
            self.connection.page.arguments[number][:size] = payload
            self._shared_sent += 1
            self._write(ORDER.pack(*order._replace(place=1 + number)))
        elif size <= _SHARE_FROM:
            self._write(ORDER.pack(*order) + payload)
        else:
            self._unsent += memoryview(ORDER.pack(*order)), memoryview(payload)
            self.write_on()

    def _tell(self, kind: int, text: bytes) -> None:
        self._write(ORDER.pack(*Order(bytes=len(text), kind=kind)) + text)

    def _begin(self) -> None:
        """Take note that a child gets work that had nothing to do."""
        self._counting_from = monotonic()
        self.seen_commit = -1

    def _append(self, batch: Batch) -> None:
        self.frames.append(InFlight(batch, self.next_seq))
        self.next_seq += len(batch)

    def adopt(self, slot: DirectSlot, batches: Sequence[Batch]) -> None:
        """Take note of what submitters have sent to it, or are just sending."""
        self._direct = slot
        self._begin()
        for batch in batches:
            self._append(batch)

    @property
    def is_held(self) -> bool:
        """Whether a submitter may be about to send to it."""
        return self._direct is not None and self._direct.is_held

    @property
    def is_unsure(self) -> bool:
        """Whether it may not have been sent all that it should have: then nobody else may send anything."""
        return bool(self.frames) and self._direct is not None and not self._direct.is_sent

    def _define(self, function: Function) -> None:
        order = Order(bytes=len(function.definition), kind=protocol.DEFINE, function=function.number)
        self._write(ORDER.pack(*order) + function.definition)

    def forget(self, function: Function) -> None:
        """Tell the child that a function is not used any more."""
        if function.number in self.known:
            self.known.discard(function.number)
            self._write(ORDER.pack(*Order(bytes=0, kind=protocol.FORGET, function=function.number)))

    @property
    def has_unsent(self) -> bool:
        """Whether the socket was full."""
        return bool(self._unsent)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self.connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the child is dead; its pidfd tells
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])

    def write_on(self) -> None:
        """Send more of what did not fit."""
        unsent, left = self._unsent, _TURN
        try:
            while unsent and left > 0:
                sent = self.connection.sock.sendmsg(islice(unsent, _BUFFERS_MAX))
                left -= sent
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.popleft())
                if sent:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            return
        except OSError:  # as above
            unsent.clear()

    # -- receiving

    def reports(self) -> Iterator[tuple[Report, bytes, list[Record]]]:
        """Read what the child has sent; yield whole reports with their bodies, results without what was read early."""
        left = _TURN
        while left > 0 or self.dead:
            try:
                if self._large is None:
                    data = self.connection.sock.recv(_READ)
                    count = len(data)
                    self._input += data
                else:
                    count = self._large.receive(self.connection.sock)
            except BlockingIOError:
                return
            except OSError:  # the child died with our bytes unread
                count = 0
            if not count:
                self.ended = True
                return
            left -= count
            large = self._large
            if large is None:
                yield from self._whole_reports()
            elif large.complete:
                self._large, record = None, large.take()
                yield large.report, b"", [] if self._count_flush() else [record]
            if large is None and self._large is None and count < _READ:
                return

    def _whole_reports(self) -> Iterator[tuple[Report, bytes, list[Record]]]:
        """Yield and forget the reports that have been read to their end."""
        buffer, at = self._input, 0
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
                    found = report, b"", self._results(report, body)
                else:
                    found = report, bytes(body), []
            at = end
            yield found
        del buffer[:at]

    def _count_flush(self) -> int:
        """Take note of a flush; return how many of its bytes were read early."""
        early, self._early = self._early, 0
        self._flushes += 1
        return early

    def _results(self, report: Report, body: memoryview) -> list[Record]:
        """Return the records of a flush that are new, and tell the child that its half of the journal is free."""
        early = self._count_flush()
        if report.place == ON_SOCKET:
            return _records(body, early, len(body))
        found = _records(self.connection.page.journal[self._half], early, report.bytes)
        self._half ^= 1
        self.connection.page.words[shared_page.CONSUMED] += 1
        return found

    def journal(self) -> list[Record] | None:
        """Return the records that are committed but neither sent nor read before.

        None: the child is just flushing, or has sent words of a job that must be read before its outcome.
        """
        words = self.connection.page.words
        commit = words[shared_page.COMMIT]
        if commit >> shared_page.COMMIT_SHIFT != self._flushes or words[shared_page.NOTES] > self.notes:
            return None
        end = commit & shared_page.COMMIT_MASK
        found = _records(self.connection.page.journal[self._half], self._early, end)
        if words[shared_page.COMMIT] >> shared_page.COMMIT_SHIFT != self._flushes:
            return None
        self._early = end
        return found

    def note_time(self, records: list[Record]) -> None:
        """Take note of how long the jobs took whose outcomes are there."""
        if records and self.frames:
            now = monotonic()
            jobs = sum(record[0] for record in records)
            self.frames[0].batch.function.sizer.last_ns = (now - self._counting_from) * 1e9 / max(jobs, 1)
            self._counting_from = now

    # -- where it stands

    @property
    def done(self) -> int:
        """The sequence number of the first job without an outcome."""
        return self.frames[0].first + self.frames[0].settled if self.frames else self.next_seq

    @property
    def claim(self) -> int:
        """The sequence number from which on nothing was started."""
        return int(self.connection.page.words[shared_page.CLAIM])

    @property
    def end_seq(self) -> int:
        """The sequence number after the last job that is still in the child's hands."""
        return max((frame.first + frame.cut for frame in self.frames), default=self.next_seq)

    def find_job(self, job: LocalJob) -> int | None:
        """Return the sequence number of a job in the child's hands."""
        for frame in self.frames:
            if isinstance(frame.batch, CallBatch) and frame.batch.function is job.function:
                for at in range(frame.settled, frame.cut):
                    if frame.batch.jobs[at] is job:
                        return frame.first + at
        return None

    def find(self, seq: int) -> tuple[InFlight, int] | None:
        """Return the frame and the place in it of the job with this sequence number."""
        for frame in self.frames:
            if frame.first <= seq < frame.first + len(frame.batch):
                return frame, seq - frame.first
        return None

    def progress_at(self, seq: int) -> tuple[int, int | None] | None:
        """Return the progress that the job with this sequence number told, if it was the last to tell one."""
        words = self.connection.page.words
        for _ in range(_PROGRESS_TRIES):
            if words[shared_page.TOLD] not in {0, seq + 1}:
                return None
            done, total = words[shared_page.DONE], words[shared_page.TOTAL]
            if words[shared_page.TOLD] == seq + 1 and (words[shared_page.DONE], words[shared_page.TOTAL]) == (
                done,
                total,
            ):
                return done, total - 1 if total else None
        return None

    def reclaim(self, boundary: int) -> list[WorkItem]:
        """Take every job from number `boundary` on out of the child's hands; only after it has obeyed STOP."""
        entries: list[WorkItem] = []
        for frame in self.frames:
            start = max(boundary - frame.first, frame.settled)
            if start < frame.cut:
                entries += frame.batch.part(start, frame.cut)
                frame.cut = start
        return entries


def _is_large(report: Report, buffer: bytearray, body: int) -> bool:
    """Tell whether a report that is not all there is one record, and too large for the input buffer."""
    if report.kind != protocol.RESULTS or report.bytes <= _READ or len(buffer) < body + RECORD.size:
        return False
    size = RECORD.unpack_from(buffer, body)[2]
    return size in {report.bytes - RECORD.size, SIZE_MAX}


def _records(data: memoryview, at: int, end: int) -> list[Record]:
    """Copy the records between two places out of shared memory or a buffer that will be reused.

    Small plain values that follow each other become one record: to settle them together costs a third.
    """
    found: list[Record] = []
    plain: list[bytes] = []
    source: memoryview | bytes = data
    if end - at <= _COPIED_MAX:  # to cut bytes is quicker than to cut a memoryview and copy
        source, at, end = bytes(data[at:end]), 0, end - at
    while at < end:
        jobs, encoding, size = RECORD.unpack_from(source, at)
        start = at + RECORD.size
        at = start + size
        payload = bytes(source[start:at])
        if encoding == payloads.MSGPACK and jobs == 1 and size <= _JOINED_MAX:
            plain.append(payload)
            continue
        if plain:
            found.append((len(plain), payloads.MSGPACK, payloads.join(plain)))
            plain = []
        found.append((jobs, encoding, payload))
    if plain:
        found.append((len(plain), payloads.MSGPACK, payloads.join(plain)))
    return found
