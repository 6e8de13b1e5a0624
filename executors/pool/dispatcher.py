"""The one thread that owns all state of a pool in the parent.

    user threads ──post()──▶ inbox ─┐           (straight to a child, while the dispatcher sleeps: `offer.py`)
    Pool's thread ──exited()────────┤            ┌──▶ slot 0 ◀──▶ child 0
    rendezvous ──hello──────────────┼─▶ dispatcher ──▶ slot 1 ◀──▶ child 1
    timers ─────────────────────────┘            └──▶ ...

    each turn:  poll → inbox → reports and deaths → due timers → tick → feed

Only this thread writes the state, so there is no lock, and a KeyboardInterrupt in a user's thread can never find it
half changed. User threads append to the inbox, wake the loop if it sleeps, and wait for their own answer.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskq.executors.pool import frames, page
from taskq.executors.pool.books import Books
from taskq.executors.pool.jobs import LocalJob
from taskq.executors.pool.offer import STANDS, Offers
from taskq.executors.pool.output import said_by
from taskq.executors.pool.overseer import TICK, Overseer
from taskq.executors.pool.slot import Slot
from taskq.executors.pool.work import Calls, Chunk
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.channel import Line, Rendezvous
    from taskq.executors.pool.slot import Record
    from taskq.executors.pool.work import Entry, Sink

T = TypeVar("T")
log = get_logger(__name__)

#: Frames a child may have: the one it runs, and one behind it so that it never waits for the parent.
DEPTH: Final = 2
#: The classes of work; anything else that is posted is a function to call.
WORK: Final = (LocalJob, Chunk)
#: Bytes that a pipe holds at the most: one read empties it.
_PIPE_BYTES: Final = 1 << 16
#: Posts that the loop has not read, at each multiple of which a poster looks if it keeps the loop from running, and the
#: seconds for which it then lets it.
_BURST: Final = 64
_YIELD: Final = 0.00002
#: Nanoseconds of a job for which that is worth it.
_WORTH_NS: Final = 50_000
#: What says that the loop does not sleep.
_AWAKE: Final[list[bool]] = []
#: Seconds a user's thread waits for the dispatcher's answer before it takes the dispatcher for dead.
_ANSWER_WITHIN: Final = 30.0


class Dispatcher:
    """Hand work to children and take their outcomes. What is for other threads stands first."""

    def __init__(self, rendezvous: Rendezvous, processes: int, on_broken: Callable[[str], None]) -> None:
        self.books = Books()
        self.on_idle: list[Callable[[], None]] = []
        self.on_broken = on_broken
        self._processes = processes
        self._rendezvous = rendezvous
        self._inbox: deque[Any] = deque()
        #: True while the loop sleeps; one list for each sleep: who wakes it late does not touch the next one.
        self._asleep: list[bool] = []
        self._hungry = True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._poll.register(rendezvous.parent_end, select.POLLIN)
        self._deaths: dict[int, Slot] = {}  # by pidfd
        self._offers = Offers(self._poll, self.wake)
        #: Lines of dead children to which a submitter may still send: their descriptors must stay what they are.
        self._unclosed: list[Line] = []
        self._overseer = Overseer(self)
        self._next_tick = 0.0
        #: Whether the last sleep was to end at a time: for a tick, or for work that is due.
        self._waits_for_time = False
        self._given_up = False
        #: Whether the program was: then what waits is dropped, also what comes back from children.
        self._interrupted = False
        self._running = True
        self._over = False
        self._thread = threading.Thread(target=self._run, name="taskq-dispatcher", daemon=True)

    # -- for other threads

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def post(self, message: Entry | Callable[[], None]) -> None:
        """Have work queued, or a function called, by the dispatcher's thread. Waits for nothing, but may let it run."""
        inbox = self._inbox
        inbox.append(message)
        if self._asleep and (self._hungry or not isinstance(message, WORK)):
            self.wake()
        elif not len(inbox) % _BURST and isinstance(message, LocalJob) and self._is_kept_waiting(message):
            sleep(_YIELD)
        if self._over:
            self._settle_inbox()

    def _is_kept_waiting(self, job: LocalJob) -> bool:
        """Tell whether a child has nothing to do, for want of the loop, which waits for the interpreter that we hold.

        Jobs so short that to make them takes longer than to run them are left to the interpreter's own switches.
        """
        if (job.function.pace.ns or _WORTH_NS) < _WORTH_NS:
            return False
        try:
            slots = [*self.books.slots.values()]
            return any(slot.ready and slot.line.page.words[page.PHASE] == page.IDLE for slot in slots)
        except (RuntimeError, ValueError):  # children come and go
            return False

    def submit(self, job: LocalJob) -> None:
        """Do as `post` for a job without options; send it to a free child straight away where one is on offer."""
        offer = self._offers.current
        if offer is None or self._inbox or not offer.take(job):
            self.post(job)

    def tick_at(self, when: float) -> None:
        """Have busy children looked at then, by the monotonic clock, if not before; in the loop's thread."""
        self._next_tick = min(self._next_tick, when)

    def wake(self) -> None:
        """End the loop's sleep."""
        asleep = self._asleep
        try:
            os.write(self._wake_write, b"\0")
        except OSError:  # full: it will wake; closed: there is nobody to wake
            return
        asleep.clear()  # behind it, as an interrupt may come between the two

    def ask(self, question: Callable[[], T], otherwise: T) -> T:
        """Return what `question()` gives in the dispatcher's thread; `otherwise` when that has ended."""
        if self.is_this_thread():
            return question()
        answer: SimpleQueue[T] = SimpleQueue()
        self.post(lambda: answer.put(question()))
        while self._thread.is_alive():
            try:
                return answer.get(timeout=_ANSWER_WITHIN if self._running else TICK)
            except Empty:
                continue
        return otherwise

    def exited(self, pid: int | None, exitcode: int | None) -> None:
        """Hear from Pool's thread that it reaped a child."""
        self.post(lambda: self._overseer.reaped(pid, exitcode))

    def is_this_thread(self) -> bool:
        """Tell whether the caller runs in the dispatcher's thread, as callbacks do."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread, wait for it, and free what it used."""
        if self._thread.is_alive():
            self.post(self._end)
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._offers.close()
        for line in self._unclosed:
            line.close()
        self._over = True  # who posts from now on sees it, who posted before is in the inbox
        self._settle_inbox()

    def _settle_inbox(self) -> None:
        """Give an outcome to work that was posted while the thread was ending."""
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, WORK):
                self.books.add(message)
        self.books.drop_waiting()

    def release_in_fork(self) -> None:
        """Close the descriptors that a forked copy of this process holds."""
        for line in (*(slot.line for slot in self.books.slots.values()), *self._unclosed):
            line.release_in_fork()
        self._offers.close()
        for fd in (self._wake_read, self._wake_write, self._rendezvous.parent_end.detach()):
            os.close(fd)

    # -- the loop

    def _run(self) -> None:
        while self._running:
            try:
                self._turn()
            except Exception as error:  # a mistake of ours must not hang everybody who waits
                log.exception("dispatcher_failed")
                self.on_broken(f"the pool's dispatcher failed: {error!r}; please report it")

    def _turn(self) -> None:
        events = self._poll.poll(self._timeout_ms())
        if (sent_to := self._offers.end()) is not None:
            self.read(sent_to)
        for fd, event in events:
            self._attend_to(fd, event)
        self._asleep = _AWAKE
        self._read_inbox()
        if self._waits_for_time:
            now = monotonic()
            self._come_due(now)
            if now >= self._next_tick and self._needs_ticks():
                self._next_tick = now + TICK
                self._overseer.tick()
        if self._interrupted:
            self.books.drop_waiting()
        self._feed()
        if self.on_idle and self._is_idle():
            waiting, self.on_idle = self.on_idle, []
            for call in waiting:
                call()

    def _attend_to(self, fd: int, event: int) -> None:
        if (slot := self.books.slots.get(fd)) is not None:
            if event == select.POLLOUT:
                self._send_on(slot)
            else:
                self.read(slot)
        elif fd in self._deaths:
            self._overseer.bury(self._deaths[fd])
        elif fd == self._wake_read:
            self._drain_wakes()
        else:
            self.welcome()

    def _timeout_ms(self) -> float | None:
        """Return how long to sleep. Says `asleep` first and looks at the inbox after: no message is slept over."""
        due = self.books.next_due()
        if self._needs_ticks():
            due = self._next_tick if due is None else min(due, self._next_tick)
        self._waits_for_time = due is not None
        self._asleep = [True]
        if self._inbox:
            return 0
        if due is None:
            return None if self._offers.current is None else STANDS * 1000
        return max(0.0, due - monotonic()) * 1000 + 0.5

    def _needs_ticks(self) -> bool:
        return self._overseer.mourns or self.books.busy or self.books.awaits_start

    def _is_idle(self) -> bool:
        return self.books.empty and not self._inbox and not self._overseer.mourns

    def _drain_wakes(self) -> None:
        os.read(self._wake_read, _PIPE_BYTES)

    def _read_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            message = inbox.popleft()
            if isinstance(message, WORK):
                self.books.add(message)
            else:
                message()

    def _end(self) -> None:
        self._running = False

    # -- children come, report and go

    def welcome(self) -> None:
        """Take in the children that have said hello."""
        while (line := self._rendezvous.accept()) is not None:
            if isinstance(line, int):
                self._overseer.excuse(line)
                continue
            slot = Slot(line)
            self._offers.introduce(line)
            fd = line.sock.fileno()
            self.books.slots[fd] = slot
            self._poll.register(fd, select.POLLIN)
            if line.pidfd is not None:
                self._deaths[line.pidfd] = slot
                self._poll.register(line.pidfd, select.POLLIN)

    def read(self, slot: Slot) -> None:
        """Take what a child has sent."""
        if slot.has_unsent:
            self._send_on(slot)
        for report, body, records in slot.reports():
            slot.still = False
            if report.kind in (frames.PROGRESS, frames.NOTE):
                slot.notes += 1
                (_note_progress if report.kind == frames.PROGRESS else _note_said)(slot, body)
                continue
            if report.kind == frames.RESULTS:
                self.settle(slot, records)
                if report.flags & frames.END and slot.frames:
                    self._frame_over(slot, report)
            elif report.kind == frames.READY:
                slot.ready = True
                self._overseer.started_well(slot)
            else:
                self._overseer.start_failed(slot, body)
        if slot.ended and slot.line.pidfd is None and not slot.dead:
            self._overseer.bury(slot)

    def settle(self, slot: Slot, records: list[Record]) -> None:
        """Record outcomes of the jobs at the head of the child's first frame."""
        if slot.line.page.words[page.TOLD]:
            _note_told(slot)
        slot.note_time(records)
        for jobs, encoding, payload in records:
            if not slot.frames:  # all was taken from the child meanwhile: the pool is breaking down
                return
            frame = slot.frames[0]
            self.books.outcomes.record(frame.batch, frame.settled, jobs, encoding, payload)
            frame.settled += jobs

    def _frame_over(self, slot: Slot, report: frames.Report) -> None:
        frame = slot.frames.popleft()
        if frame.settled:
            frame.batch.function.pace.observe(frame.settled, report.elapsed_ns)
        if report.flags & frames.UNDECODABLE:
            self.books.backlog.put_back(frame.batch.singles(0, frame.cut))
        elif frame.settled < frame.cut:
            self.books.backlog.put_back(frame.batch.part(frame.settled, frame.cut))
        if report.flags & frames.RETIRING:
            slot.retiring = True
        if not slot.frames:
            self._overseer.rested(slot)
            if slot.retiring and slot.orphan:
                self.forget(slot)

    def forget(self, slot: Slot) -> None:
        """Let go of a child that is dead."""
        slot.dead = True
        fd = slot.line.sock.fileno()
        if self.books.slots.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        if slot.line.pidfd is not None:
            del self._deaths[slot.line.pidfd]
            self._poll.unregister(slot.line.pidfd)
        if slot.is_held:
            self._unclosed.append(slot.line)
        else:
            slot.line.close()

    # -- work goes out

    def _feed(self) -> None:
        """Give work to children that have room. `_hungry` tells posters of work whether it is worth waking us."""
        while not self._given_up:
            slot = self._hungriest()
            self._hungry = slot is not None
            if slot is None:
                return
            if not self.books.backlog:
                if self._running and not self.books.backlog.paused:
                    self._offers.make(slot)
                return
            batch = self.books.backlog.take(DEPTH * self._processes)
            if batch is None:
                return
            if slot.frames and batch.size > page.REGION_BYTES:  # it would be stuck half written behind what runs
                self.books.backlog.put_back(batch.part(0, len(batch)))
                self._hungry = False
                return
            slot.send(batch)
            if slot.has_unsent:
                self._poll.modify(slot.line.sock, select.POLLIN | select.POLLOUT)

    def _hungriest(self) -> Slot | None:
        """Return the child that has the least to do of those that have room."""
        found: Slot | None = None
        for slot in self.books.slots.values():
            if (found is None or len(slot.frames) < len(found.frames)) and _accepts(slot):
                found = slot
        return found

    def _send_on(self, slot: Slot) -> None:
        slot.write_on()
        if not slot.has_unsent:
            self._poll.modify(slot.line.sock, select.POLLIN)

    def _come_due(self, now: float) -> None:
        """Queue the work whose time has come, and fail the jobs that have not started in theirs."""
        self.books.add_due(now)
        for job in self.books.expiries.take(now):
            if isinstance(job, Chunk) or job.done():
                continue
            found = self.books.holder(job)
            if found is None:
                job.expire()
            else:
                self._overseer.expire(*found, job)

    # -- wishes of the users, in this thread

    def pause(self, queue: str) -> None:
        """Start nothing more of this queue; what children have of it in store comes back to the backlog."""
        self.books.backlog.paused.add(queue)
        for slot in self.books.slots.values():
            if any(frame.batch.options.queue == queue for frame in slot.frames):
                self._overseer.stop(slot)

    def resume(self, queue: str | None) -> None:
        """Take back a pause; None: all of them."""
        paused = self.books.backlog.paused
        paused.difference_update([queue] if queue is not None else list(paused))

    def cancel(self, job: LocalJob, answer: Callable[[bool], None], *, kill: bool) -> None:
        """Keep a job from running, or ask it to stop, or kill it; `answer` hears if it is cancelled for certain."""
        found = None if job.done() else self.books.holder(job)
        if found is not None:
            self._overseer.cancel(*found, job, answer, kill=kill)
            return
        if not job.done():
            job.withdraw()
        answer(job.cancelled())

    def end_stream(self, stream: Sink) -> None:
        """Stop what still runs of a map that nobody reads any more, and let its function go."""
        for slot in self.books.slots.values():
            if any(isinstance(frame.batch, Chunk) and frame.batch.sink is stream for frame in slot.frames):
                self._overseer.stop(slot)
            if stream.function.bound:
                slot.forget(stream.function)

    def abandon(self) -> None:
        """Record every job that is left as cancelled: the children are gone and the queue is closed."""
        for slot in list(self.books.slots.values()):
            self.books.backlog.put_back(self.books.take_from(slot))
            self.forget(slot)
        self.books.drop_waiting()

    def hang_up(self) -> None:
        """Close the line of every child: an idle one exits by itself."""
        self._overseer.ending = True
        self.welcome()
        for slot in self.books.slots.values():
            slot.line.hang_up()

    def give_up(self) -> None:
        """Start nothing more and kill what runs."""
        self._given_up = self._overseer.ending = True
        self.kill_children()

    def wind_down(self) -> None:
        """Start nothing more; what children have in store comes back to the backlog, what runs goes on."""
        self._given_up = True
        for slot in self.books.slots.values():
            slot.line.page.words[page.LEAVING] = 1
            self._overseer.stop(slot)

    def interrupt(self) -> None:
        """Start nothing more, drop what waits, and raise KeyboardInterrupt in the jobs that run."""
        self._interrupted = True
        self.wind_down()
        for slot in self.books.slots.values():
            if slot.frames:
                slot.frames[0].batch.ask_to_stop()
                slot.line.page.words[page.INTERRUPT] = page.ASKED
                slot.line.ask_to_release()

    def busy_children(self) -> int:
        """Return how many children have work."""
        return sum(bool(slot.frames) for slot in self.books.slots.values())

    def kill_children(self) -> None:
        """Kill every child that there still is."""
        for slot in self.books.slots.values():
            slot.line.kill()


def _accepts(slot: Slot) -> bool:
    """Tell whether a child can be given another frame now."""
    if not slot.ready or slot.retiring or slot.stopping is not None or slot.is_unsure or slot.has_unsent:
        return False
    if not slot.frames:
        return True
    head = slot.frames[0]
    return len(slot.frames) < DEPTH and head.batch.function.pace.fits_behind(head.cut - head.settled)


def _note_told(slot: Slot) -> None:
    """Keep the progress that is on the page, before its job's outcome is recorded and nobody looks there for it."""
    line = slot.line.page.words[page.TOLD] - 1
    found = slot.find(line)
    if found is not None and isinstance(found[0].batch, Calls):
        job = found[0].batch.jobs[found[1]]
        job.told = slot.progress_at(line) or job.told


def _note_said(slot: Slot, body: bytes) -> None:
    line, what, size = frames.NOTE_BODY.unpack_from(body)
    found = slot.find(line)
    if found is not None and isinstance(found[0].batch, Calls):
        said_by(found[0].batch.jobs[found[1]]).take(what, body[frames.NOTE_BODY.size :], size)


def _note_progress(slot: Slot, body: bytes) -> None:
    line, done, total = frames.PROGRESS_BODY.unpack(body)
    found = slot.find(line)
    if found is not None and isinstance(found[0].batch, Calls):
        found[0].batch.jobs[found[1]].told = (done, None if total < 0 else total)
