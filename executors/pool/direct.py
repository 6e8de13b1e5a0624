"""A free child on offer: who submits a job while the dispatcher sleeps sends it himself, and looks for its outcome.

    dispatcher, about to sleep      submitter                                 dispatcher, awake again
    makes the offer ──────────────▶ take(job): books a frame, sends it
    (does not watch this child)     look(job): sees the outcome, or ──wake──▶ end(): the frames that were booked
                                    take(next job) ...                        reads the reports, settles the jobs

It saves both ways through the dispatcher's thread: two thirds of the time that one job takes on an idle pool.

The child and its books stay the dispatcher's. Booking is one atomic step, and whichever side takes it first has the
child: never do both send to it, and no job is ever in nobody's books. If a submitter is interrupted between booking and
sending (KeyboardInterrupt), the dispatcher finds a child that does not begin: it takes the job back as from any such
child, and replaces the child. Looking consumes nothing: the dispatcher reads the same reports afterwards. It is woken
by the first who wants to know of such a job and does not see its outcome there; if nobody does, it wakes by itself.
"""

from __future__ import annotations

import os
import select
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.executors.pool import payloads
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.jobs import DEFAULTS, SETTLED
from taskq.executors.pool.protocol import END, ON_SOCKET, ORDER, RECORD, REPORT, RESULTS
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.pool.connection import ChildConnection
    from taskq.executors.pool.jobs import LocalJob

#: Seconds that an offer stands at the most: so late at the latest is settled what nobody asks about.
STANDS: Final = 1.0
#: Bytes of arguments that the socket of an idle child takes at once.
_PAYLOAD_MAX: Final = 16 * 1024
#: Frames that can be booked one after the other, each when the one before has been seen to end: their reports pile up.
_FRAMES_MAX: Final = 16
#: Bytes that a look asks for behind what was seen: a small result with its report.
_LOOK: Final = 4096
#: What was booked, of an offer that has ended: no place is left.
_NOTHING_LEFT: Final[dict[int, CallBatch | None]] = dict.fromkeys(range(_FRAMES_MAX))


class DirectPath:
    """The offers of one dispatcher, one at a time. `current` is for any thread, all else for the dispatcher's."""

    def __init__(self, poll: select.poll, wake: Callable[[], None]) -> None:
        """Take children on offer out of what `poll` watches; `wake` wakes the dispatcher, in any thread."""
        self.current: DirectSlot | None = None
        self._child: ChildHandle | None = None
        self._poll = poll
        self._wake = wake
        #: Written to when an offer has ended, for those who wait for a report that the dispatcher reads now.
        self._ended = os.eventfd(0) if hasattr(os, "eventfd") else None

    def introduce(self, connection: ChildConnection) -> None:
        """Prepare the connection of a new child."""
        if connection.waker is not None and self._ended is not None:
            connection.waker.listen_to(self._ended)

    def open(self, child: ChildHandle) -> None:
        """Offer a child to the next submitter, if it is idle and its death would be noticed all the same."""
        if not child.frames and child.connection.waker is not None and child.queue == DEFAULTS.queue:
            self._poll.unregister(child.connection.sock)
            self._child = child
            self.current = DirectSlot(child.connection, child.known, child.next_seq, self._wake)

    def withdraw(self) -> ChildHandle | None:
        """Take the child back, with what submitters have sent to it; return it if it may have reported something."""
        slot, child = self.current, self._child
        if slot is None or child is None:
            return None
        self.current = self._child = None
        self._poll.register(child.connection.sock, select.POLLIN)
        frames = slot.close()
        if not frames:
            return None
        child.adopt(slot, frames)
        if self._ended is not None:
            os.eventfd_write(self._ended, 1)
        return child

    def free(self) -> None:
        """Free what it used."""
        if self._ended is not None:
            os.close(self._ended)
            self._ended = None


class DirectSlot:
    """One child that has nothing to do, for whoever takes it first. All but `end` is for any thread."""

    __slots__ = (
        "_booked",
        "_connection",
        "_frames",
        "_functions",
        "_interrupted",
        "_place",
        "_read",
        "_sent",
        "_start",
        "wake",
    )

    def __init__(self, connection: ChildConnection, functions: set[int], start: int, wake: Callable[[], None]) -> None:
        """Offer the child behind `connection`: it knows these functions, and its next job has the number `start`."""
        #: Makes the dispatcher end the offer.
        self.wake = wake
        self._connection = connection
        self._functions = functions
        self._start = start
        #: Frames by their place. None stands where the offer ended.
        self._booked: dict[int, CallBatch | None] = {}
        #: The place to be booked next, how many frames were sent for certain, and how many were booked when it ended.
        self._place = 0
        self._sent = 0
        self._frames = 0
        #: Whether a submitter was interrupted, and sends nothing more.
        self._interrupted = False
        #: Bytes of the reports that were seen.
        self._read = 0

    def try_send(self, job: LocalJob) -> bool:
        """Send a job that has no options to the child; False: it must go the usual way."""
        place = self._place
        if place in self._booked or place == _FRAMES_MAX or not self._fits(job):
            return False
        frame = CallBatch(job.function, [job])
        order, payload = frame.order()
        data = ORDER.pack(*order) + payload
        job.seq = self._start + place
        job.direct = self
        try:
            if self._booked.setdefault(place, frame) is not frame:
                job.direct = None
                return False
            if self._connection.sock.send(data) == len(data):
                self._sent = place + 1
        except OSError as error:  # the child is dead, or does not read
            self._interrupted = True
            pass_on(error)
            self._interrupted = False
            self.wake()
        except BaseException:
            self._interrupted = True
            raise
        return True

    def _fits(self, job: LocalJob) -> bool:
        return job.function.number in self._functions and len(job.payload) <= _PAYLOAD_MAX

    def poll(self, job: LocalJob, patience: float = 0.0, awake: float = 0.0) -> tuple[int, bytes] | None:
        """Return encoding and bytes of the value that a job came to, if its child reports it within so many seconds.

        `awake`: for how many of them the thread looks again and again, and does not sleep unless others need its core.
        """
        now = monotonic()
        deadline, until = now + patience, now + awake
        bell = self._connection.waker
        while True:
            records = self._records_of(job)
            if records is not None:
                _, encoding, size = RECORD.unpack_from(records)
                value = records[RECORD.size :]
                return None if encoding == payloads.FAILURE or len(value) < size else (encoding, value)
            now = monotonic()
            if now >= deadline or bell is None or self._booked is _NOTHING_LEFT:
                return None
            if now < until:
                os.sched_yield()
            else:
                bell.wait(deadline - now)

    def _records_of(self, job: LocalJob) -> bytes | None:
        """Return what the report says that ends a job's frame, if it is there."""
        try:
            data = self._connection.sock.recv(self._read + _LOOK, MSG_PEEK | MSG_DONTWAIT)
        except OSError as error:  # nothing is there, or the child is gone
            pass_on(error)
            return None
        at = self._read
        if self._booked is _NOTHING_LEFT:  # the dispatcher may have read some of it before
            return None
        while at + REPORT.size + RECORD.size <= len(data):
            size, kind, flags, place, done, _ = REPORT.unpack_from(data, at)
            if kind != RESULTS or flags != END or place != ON_SOCKET:  # progress, or the child retires
                return None
            start = at + REPORT.size
            at = start + size
            if done == job.seq + 1:
                self._seen_to_end(done - self._start, at)
                return data[start:at]
        return None

    def _seen_to_end(self, frames: int, read: int) -> None:
        """Let the next frame be booked."""
        self._place, self._read = frames, read
        if frames == _FRAMES_MAX:
            self.wake()

    def release(self, job: LocalJob) -> None:
        """Hold no job that has its outcome: it may be the last thing that keeps the queue from being dropped."""
        frame = self._booked.get(job.seq - self._start)
        if frame is not None:
            frame.jobs[0] = SETTLED

    def close(self) -> list[CallBatch]:
        """Let nobody take the child any more; return the frames that were sent or are just being sent."""
        frames: list[CallBatch] = []
        while (frame := self._booked.setdefault(len(frames), None)) is not None:
            frames.append(frame)
            for job in frame.jobs:
                job.direct = None  # the dispatcher watches
        self._booked = _NOTHING_LEFT
        self._frames = len(frames)
        return frames

    @property
    def is_sent(self) -> bool:
        """Whether all frames that were booked when it ended have been sent for certain."""
        return self._sent >= self._frames

    @property
    def is_held(self) -> bool:
        """Whether a submitter may be about to send one of them."""
        return not (self.is_sent or self._interrupted)
