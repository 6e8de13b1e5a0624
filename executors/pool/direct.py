"""The direct way to a free child: while the dispatcher sleeps, a submitter sends its job itself and polls for its end.

    dispatcher, about to sleep      submitter                                dispatcher, awake again
    open(): a slot ───────────────▶ try_send(job): books a batch, sends it
    (does not watch this child)     poll(job): sees the value, or ──wake──▶  withdraw(): the batches that were booked
                                    try_send(next job) ...                   reads the reports, settles the jobs

It saves both ways through the dispatcher's thread: two thirds of the time that one job takes on an idle pool.

The child stays the dispatcher's. Booking is one atomic step, and the side that takes it first has the child: never do
both send to it, and no job is lost between them. If a submitter is interrupted between booking and sending
(KeyboardInterrupt), the dispatcher finds a child that does not begin: it reclaims the job as from any such child, and
replaces the child. Polling consumes nothing: the dispatcher reads the same reports afterwards. It is woken by the first
who wants to know of such a job and does not see its outcome there; otherwise it wakes by itself.
"""

from __future__ import annotations

import os
import select
from concurrent.futures._base import FINISHED
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic
from typing import TYPE_CHECKING, Final

from taskq.executors.pool import payloads
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.jobs import DEFAULTS, PoolJob
from taskq.executors.pool.protocol import END, ON_SOCKET, ORDER, RECORD, REPORT, RESULTS
from taskq.locks import pass_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.pool.connection import ChildConnection

#: Seconds for which a slot stays open: the outcome of a job that is not asked for is settled so late at most.
OPEN_FOR: Final = 1.0
#: Bytes of arguments that the socket of an idle child takes at once.
_PAYLOAD_MAX: Final = 16 * 1024
#: Batches that can be booked one after the other, each when the one before has been seen to end: their reports pile up.
_BATCHES_MAX: Final = 16
#: Bytes that a look asks for behind what was seen: a small result with its report.
_LOOK: Final = 4096
#: What was booked, in a slot that was closed: no place is left.
_NOTHING_LEFT: Final[dict[int, CallBatch | None]] = dict.fromkeys(range(_BATCHES_MAX))


class _Settled(PoolJob):
    """Stands in a batch for jobs that got their outcome early."""

    _state = FINISHED

    def __init__(self) -> None:  # it is never run
        pass


_SETTLED: Final = _Settled()


class DirectPath:
    """The slots of one dispatcher, one at a time. `current` and `submit` are for any thread, all else for its own."""

    def __init__(
        self, poll: select.poll, wake: Callable[[], None], inbox: Sized, post: Callable[[PoolJob], None]
    ) -> None:
        """Take children with an open slot out of what `poll` watches; `wake` wakes the dispatcher, in any thread.

        `inbox`, when it is not empty, has jobs that come first; `post` puts one there.
        """
        self.current: DirectSlot | None = None
        self._child: ChildHandle | None = None
        self._poll = poll
        self._wake = wake
        self._inbox = inbox
        self._post = post
        #: Written to when a slot was closed, for those who wait for a report that the dispatcher reads now.
        self._ended = os.eventfd(0) if hasattr(os, "eventfd") else None

    def submit(self, job: PoolJob) -> None:
        """Send a job without options to a free child straight away where one has an open slot, else post it."""
        slot = self.current
        if slot is None or self._inbox or not slot.try_send(job):
            self._post(job)

    def introduce(self, connection: ChildConnection) -> None:
        """Prepare the connection of a new child."""
        if connection.waker is not None and self._ended is not None:
            connection.waker.listen_to(self._ended)

    def open(self, child: ChildHandle) -> None:
        """Offer a child to the next submitter, if it is idle and its death would be noticed all the same."""
        if not child.in_flight and child.connection.waker is not None and child.queue == DEFAULTS.queue:
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
        batches = slot.close()
        if not batches:
            return None
        child.adopt(slot, batches)
        if self._ended is not None:
            os.eventfd_write(self._ended, 1)
        return child

    def free(self) -> None:
        """Free what it used."""
        if self._ended is not None:
            os.close(self._ended)
            self._ended = None


class DirectSlot:
    """One child that has nothing to do, for the submitter that takes it first. All but `close` is for any thread."""

    __slots__ = (
        "_count",
        "_left",
        "_place",
        "_read",
        "_sent",
        "_start",
        "booked",
        "connection",
        "functions",
        "wake",
    )

    def __init__(self, connection: ChildConnection, functions: set[int], start: int, wake: Callable[[], None]) -> None:
        """Offer the child behind `connection`: it knows these functions, and its next job has the number `start`."""
        #: Makes the dispatcher close the slot.
        self.wake = wake
        #: The child, and the functions that it knows, by number.
        self.connection = connection
        self.functions = functions
        self._start = start
        #: Batches by their place. None stands where the slot was closed.
        self.booked: dict[int, CallBatch | None] = {}
        #: The place to be booked next, how many batches were sent for certain, and how many were booked at the end.
        self._place = 0
        self._sent = 0
        self._count = 0
        #: How many batches nobody will send any more: they were sent, failed to be, or their submitter was interrupted.
        self._left = 0
        #: Bytes of the reports that were seen.
        self._read = 0

    def try_send(self, job: PoolJob) -> bool:
        """Send a job that has no options to the child; False: it must go the usual way."""
        place = self._place
        if place in self.booked or place == _BATCHES_MAX or not self._fits(job):
            return False
        batch = CallBatch(job.function, [job])
        order, payload = batch.order()
        data = ORDER.pack(*order) + payload
        job.seq = self._start + place
        job.direct = self
        booked = self.booked
        try:
            if booked.setdefault(place, batch) is not batch:
                job.direct = None
                return False
            if self.connection.sock.send(data) == len(data):
                self._sent = place + 1
        except OSError as error:  # the child is dead, or does not read
            pass_on(error)
            self.wake()
        finally:
            if booked.get(place) is batch:
                self._left = place + 1
        return True

    def _fits(self, job: PoolJob) -> bool:
        return job.function.number in self.functions and len(job.payload) <= _PAYLOAD_MAX

    def poll(self, job: PoolJob, patience: float = 0.0, awake: float = 0.0) -> tuple[int, bytes] | None:
        """Return encoding and bytes of the value that a job came to, if its child reports it within so many seconds.

        `awake`: for how many of them the thread looks again and again, and does not sleep unless others need its core.
        """
        now = monotonic()
        deadline, until = now + patience, now + awake
        waker = self.connection.waker
        while True:
            records = self._records_of(job)
            if records is not None:
                _, encoding, size = RECORD.unpack_from(records)
                value = records[RECORD.size :]
                return None if encoding == payloads.FAILURE or len(value) < size else (encoding, value)
            now = monotonic()
            if now >= deadline or waker is None or self.booked is _NOTHING_LEFT:
                return None
            if now < until:
                os.sched_yield()
            else:
                waker.wait(deadline - now)

    def _records_of(self, job: PoolJob) -> bytes | None:
        """Return what the report says that ends a job's batch, if it is there."""
        try:
            data = self.connection.sock.recv(self._read + _LOOK, MSG_PEEK | MSG_DONTWAIT)
        except OSError as error:  # nothing is there, or the child is gone
            pass_on(error)
            return None
        at = self._read
        if self.booked is _NOTHING_LEFT:  # the dispatcher may have read some of it before
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

    def _seen_to_end(self, batches: int, read: int) -> None:
        """Let the next batch be booked."""
        self._place, self._read = batches, read
        if batches == _BATCHES_MAX:
            self.wake()

    def release(self, job: PoolJob) -> None:
        """Hold no job that has its outcome: it may be the last thing that keeps the queue from being dropped."""
        batch = self.booked.get(job.seq - self._start)
        if batch is not None:
            batch.jobs[0] = _SETTLED

    def close(self) -> list[CallBatch]:
        """Let no submitter take the child any more; return the batches that were sent or are just being sent."""
        batches: list[CallBatch] = []
        while (batch := self.booked.setdefault(len(batches), None)) is not None:
            batches.append(batch)
            for job in batch.jobs:
                job.direct = None  # the dispatcher watches
        self.booked = _NOTHING_LEFT
        self._count = len(batches)
        return batches

    @property
    def is_sent(self) -> bool:
        """Whether all batches that were booked when it ended have been sent for certain."""
        return self._sent >= self._count

    @property
    def is_held(self) -> bool:
        """Whether a submitter may be about to send one of them."""
        return self._left < self._count
