"""The parent's view of one child: its connection, the batches in flight, and what of them is settled.

    in flight   [ head: settled | running | untouched ] [ next: untouched ]
                `settled` jobs have their outcome; from `cut` on, jobs were reclaimed and are in another place

Every job sent to one child has a sequence number, counted on both sides; a batch's jobs have consecutive ones.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from taskq.executors.pool import protocol
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.functions import BEHIND_NS
from taskq.executors.pool.output import JobOutput
from taskq.executors.pool.protocol import ORDER, Order
from taskq.executors.pool.reports import ReportReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from taskq.executors.pool.batches import Batch, WorkItem
    from taskq.executors.pool.connection import ChildConnection
    from taskq.executors.pool.functions import Function
    from taskq.executors.pool.jobs import PoolJob
    from taskq.executors.pool.reports import Record

#: Batches that a child may have: the one it runs, and one behind it so that it never waits for the parent.
DEPTH: Final = 2
#: How often to look at a progress that is just being written.
_PROGRESS_TRIES = 5
#: Payload bytes from which shared memory beats the socket.
_SHARE_FROM = 32 * 1024
#: Bytes that are sent to one child, or read from it, before others have their turn.
TURN = 8 * 1024 * 1024
#: Buffers of one system call.
_BUFFERS_MAX = 64


class InFlight:
    """A batch in a child's hands."""

    __slots__ = ("batch", "cut", "first", "settled")

    def __init__(self, batch: Batch, first: int) -> None:
        self.batch = batch
        self.first = first
        self.settled = 0
        self.cut = batch.count


class KillRequest:
    """A running job that must be ended, and why: it is past its timeout, it was cancelled, or it has expired.

    `by_force`: its process is killed, `grace` seconds after it was interrupted; else the job is asked to stop.
    """

    #: Ticks that a child gets to release the jobs of a run that it has not started.
    RELEASE_TICKS: Final = 2

    def __init__(
        self,
        seq: int,
        *,
        timed_out: bool = False,
        job: PoolJob | None = None,
        answer: Callable[[bool], None] = lambda _: None,
        by_force: bool = True,
        grace: float = 0.0,
        expired: bool = False,
    ) -> None:
        self.seq = seq
        self.timed_out = timed_out
        self.job = job
        self.answer = answer
        self.by_force = by_force
        self._grace = grace
        #: When the process is killed that was interrupted, by the monotonic clock.
        self._kill_at: float | None = None
        #: Whether the job fails as expired if it had not started; else it goes on.
        self.expired = expired
        self.patience = self.RELEASE_TICKS

    def enforce(self, child: ChildHandle, *, alone: bool) -> None:
        """Kill the process; if the job runs `alone` interrupt it first, and give it the grace.

        A process that was interrupted is not used again.
        """
        now = monotonic()
        if self._kill_at is None:
            grace = self._grace if alone else 0.0
            self._kill_at = now + grace
            if grace and not child.interrupted:
                child.connection.page.words[protocol.CANCEL] = self.seq + 1
                child.interrupt()
        if now >= self._kill_at:
            child.connection.kill()

    def conclude(self) -> None:
        """Answer: a job that was reclaimed can be dropped; one that has ended stays as it ended."""
        job = self.job
        if job is not None:
            if not job.done() and self.expired:
                job.expire()
            elif not job.done():
                job.withdraw()
            self.answer(job.cancelled())


class Sending(Protocol):
    """What submitters send to a child themselves; see `direct.py`."""

    @property
    def is_sent(self) -> bool:
        """Whether all of it has been sent for certain."""

    @property
    def is_held(self) -> bool:
        """Whether a submitter may be about to send some of it."""


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
        #: Whether all that a dead child left was taken care of.
        self.dead = False
        self.reports = ReportReader(connection.sock, connection.page)
        self.in_flight: deque[InFlight] = deque()
        #: Running jobs that are to be ended.
        self.kill_requests: list[KillRequest] = []
        #: Whether a job in it was interrupted by itself.
        self.interrupted = False
        #: When, by the monotonic clock, a child that was asked to stop has certainly heard it; None: it was not asked.
        self.stopping: float | None = None
        #: Whether there was no sign of progress for a tick, and what was seen at the last one; -1: it had no work then.
        self.stalled = False
        self.seen_commit = 0
        self.known: set[int] = set()
        #: The queue that the child was told last.
        self.queue = "default"
        #: When the last outcomes came, or work came to an idle child, by the monotonic clock.
        self._counting_from = 0.0
        #: The number that its next job will have.
        self.next_seq = 0
        #: What submitters have sent to it last.
        self._direct: Sending | None = None
        #: What did not fit into the socket, in order.
        self.unsent: deque[memoryview] = deque()
        self._shared_sent = 0

    # -- sending

    @property
    def busy_jobs(self) -> int:
        """How many jobs it has that are not settled."""
        return sum(flight.cut - flight.settled for flight in self.in_flight)

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do and could do something."""
        return self.ready and not self.in_flight and not self.retiring

    def has_room(self) -> bool:
        """Tell whether it can be given another batch now."""
        if not self.ready or self.retiring or self.stopping is not None or self.unsent:
            return False
        if not self.in_flight:
            return True
        head = self.in_flight[0]
        return (
            len(self.in_flight) < DEPTH
            and not self.is_unsure
            and (ns := head.batch.function.sizer.ns) is not None
            and (head.cut - head.settled) * ns < BEHIND_NS
        )

    def send(self, batch: Batch) -> None:
        """Hand over a batch; never blocks."""
        order, payload = batch.order()
        function = batch.function
        if function.number not in self.known:
            self.known.add(function.number)
            self._define(function)
        if batch.options.queue != self.queue:
            self.queue = batch.options.queue
            self._tell(protocol.QUEUE, self.queue.encode())
        if isinstance(batch, CallBatch) and batch.jobs[0].output is not None and batch.jobs[0].output.meta_bytes:
            self._tell(protocol.RECALL, batch.jobs[0].output.meta_bytes)
        if not self.in_flight:
            self._begin()
        self._append(batch)
        words = self.connection.page.words
        size = len(payload)
        if (
            _SHARE_FROM <= size <= protocol.REGION_BYTES
            and self._shared_sent - words[protocol.TAKEN] < protocol.ARGUMENT_REGIONS
        ):
            number = self._shared_sent % protocol.ARGUMENT_REGIONS
            self.connection.page.arguments[number][:size] = payload
            self._shared_sent += 1
            self._write(ORDER.pack(*order._replace(place=1 + number)))
        elif size <= _SHARE_FROM:
            self._write(ORDER.pack(*order) + payload)
        else:
            self.unsent += memoryview(ORDER.pack(*order)), memoryview(payload)
            self.write_on()

    def _tell(self, kind: int, text: bytes) -> None:
        self._write(ORDER.pack(*Order(bytes=len(text), kind=kind)) + text)

    def _begin(self) -> None:
        """Note that a child gets work that had nothing to do."""
        self._counting_from = monotonic()
        self.seen_commit = -1

    def _append(self, batch: Batch) -> None:
        self.in_flight.append(InFlight(batch, self.next_seq))
        self.next_seq += batch.count

    def adopt(self, sending: Sending, batches: Sequence[Batch]) -> None:
        """Note what submitters have sent to it, or are just sending."""
        self._direct = sending
        self._begin()
        for batch in batches:
            self._append(batch)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running job; the child is ended with its batch."""
        self.interrupted = True
        self.connection.page.words[protocol.INTERRUPT] = protocol.ASKED
        self.connection.ask_to_release()

    @property
    def is_held(self) -> bool:
        """Whether a submitter may be about to send to it."""
        return self._direct is not None and self._direct.is_held

    @property
    def is_unsure(self) -> bool:
        """Whether it may not have been sent all that it should have: then nobody else may send anything."""
        return bool(self.in_flight) and self._direct is not None and not self._direct.is_sent

    def _define(self, function: Function) -> None:
        order = Order(bytes=len(function.definition), kind=protocol.DEFINE, function=function.number)
        self._write(ORDER.pack(*order) + function.definition)

    def forget(self, function: Function) -> None:
        """Tell the child that a function is not used any more."""
        if function.number in self.known:
            self.known.discard(function.number)
            self._write(ORDER.pack(*Order(bytes=0, kind=protocol.FORGET, function=function.number)))

    def _write(self, data: bytes) -> None:
        if self.unsent:
            self.unsent.append(memoryview(data))
            return
        try:
            sent = self.connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the child is dead; its pidfd tells
            return
        if sent < len(data):
            self.unsent.append(memoryview(data)[sent:])

    def write_on(self) -> None:
        """Send more of what did not fit."""
        unsent, left = self.unsent, TURN
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

    def settle(self, records: list[Record], record: Callable[[Batch, int, int, int, bytes], None]) -> None:
        """Have outcomes of the jobs at the head of the first batch recorded."""
        told = self.connection.page.words[protocol.TOLD]
        if told:
            job = self._job_at(told - 1)
            if job is not None:  # the page is not looked at any more once the outcome is recorded
                job.last_progress = self.progress_at(told - 1) or job.last_progress
        if records and self.in_flight:
            now = monotonic()
            ended = sum([jobs for jobs, _, _ in records])
            self.in_flight[0].batch.function.sizer.last_ns = (now - self._counting_from) * 1e9 / max(ended, 1)
            self._counting_from = now
        for jobs, encoding, payload in records:
            if not self.in_flight:  # all was taken from the child meanwhile: the pool is breaking down
                return
            head = self.in_flight[0]
            record(head.batch, head.settled, jobs, encoding, payload)
            head.settled += jobs

    def keep_note(self, kind: int, body: bytes) -> None:
        """Keep what a job says of itself: its progress, or a note."""
        if kind == protocol.PROGRESS:
            seq, done, total = protocol.PROGRESS_BODY.unpack(body)
            if (job := self._job_at(seq)) is not None:
                job.last_progress = done, None if total < 0 else total
        else:
            seq, what, size = protocol.NOTE_BODY.unpack_from(body)
            if (job := self._job_at(seq)) is not None:
                job.make_output().take(what, body[protocol.NOTE_BODY.size :], size)

    # -- where it stands

    @property
    def done(self) -> int:
        """The sequence number of the first job without an outcome."""
        return self.in_flight[0].first + self.in_flight[0].settled if self.in_flight else self.next_seq

    @property
    def claim(self) -> int:
        """The sequence number from which on nothing was started."""
        return int(self.connection.page.words[protocol.CLAIM])

    @property
    def end_seq(self) -> int:
        """The sequence number after the last job that is still in the child's hands."""
        return max((flight.first + flight.cut for flight in self.in_flight), default=self.next_seq)

    def find_job(self, job: PoolJob) -> int | None:
        """Return the sequence number of a job in the child's hands."""
        for flight in self.in_flight:
            if isinstance(flight.batch, CallBatch) and flight.batch.function is job.function:
                for at in range(flight.settled, flight.cut):
                    if flight.batch.jobs[at] is job:
                        return flight.first + at
        return None

    def in_hand(self) -> Iterator[tuple[PoolJob, bool]]:
        """Yield the jobs in the child's hands, each with whether it runs, or may be started any moment."""
        first_waiting = max(self.claim, self.done + 1)
        for flight in self.in_flight:
            if isinstance(flight.batch, CallBatch):
                for at in range(flight.settled, flight.cut):
                    yield flight.batch.jobs[at], flight.first + at < first_waiting

    def find(self, seq: int) -> tuple[InFlight, int] | None:
        """Return the batch in flight and the place in it of the job with this sequence number."""
        for flight in self.in_flight:
            if flight.first <= seq < flight.first + flight.batch.count:
                return flight, seq - flight.first
        return None

    def _job_at(self, seq: int) -> PoolJob | None:
        """Return the job with this sequence number; None: it is an item of a map, or is not here."""
        found = self.find(seq)
        if found is None or not isinstance(found[0].batch, CallBatch):
            return None
        return found[0].batch.jobs[found[1]]

    def running_job(self, wanted: Callable[[PoolJob], bool]) -> PoolJob | None:
        """Return the job that it is running, if that is beyond doubt and it is wanted; with its words as of now."""
        if not self.in_flight or self.claim - self.done != 1:
            return None
        job = self._job_at(self.done)
        if job is None or not wanted(job):
            return None
        job.last_progress = self.progress_at(self.done) or job.last_progress
        output = self.connection.output
        if output is not None:
            printed = (job.output or JobOutput()).peek(output)
            if printed and self.claim - self.done == 1:  # else the next one has begun at this very moment
                job.make_output().live += printed
        return job

    def progress_at(self, seq: int) -> tuple[int, int | None] | None:
        """Return the progress that the job with this sequence number told, if it was the last to tell one."""
        words = self.connection.page.words
        for _ in range(_PROGRESS_TRIES):
            if words[protocol.TOLD] not in {0, seq + 1}:
                return None
            done, total = words[protocol.DONE], words[protocol.TOTAL]
            if words[protocol.TOLD] == seq + 1 and (words[protocol.DONE], words[protocol.TOTAL]) == (
                done,
                total,
            ):
                return done, total - 1 if total else None
        return None

    def take_unfinished(self) -> list[WorkItem]:
        """Take all that has no outcome out of its hands; only when it will report nothing more."""
        items: list[WorkItem] = []
        while self.in_flight:
            flight = self.in_flight.popleft()
            items += flight.batch.part(flight.settled, flight.cut)
        return items

    def reclaim(self, boundary: int) -> list[WorkItem]:
        """Take every job from number `boundary` on out of the child's hands; only after it has obeyed STOP."""
        items: list[WorkItem] = []
        for flight in self.in_flight:
            start = max(boundary - flight.first, flight.settled)
            if start < flight.cut:
                items += flight.batch.part(start, flight.cut)
                flight.cut = start
        return items
