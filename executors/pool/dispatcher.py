"""The one thread that owns all state of a pool in the parent.

    user threads ──post()──▶ inbox ─┐           (straight to a child, while the dispatcher sleeps: `offer.py`)
    Pool's thread ──exited()────────┤            ┌──▶ child 0 ◀──▶ child 0
    listener ──hello──────────────┼─▶ dispatcher ──▶ child 1 ◀──▶ child 1
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

from taskq.executors.pool import protocol, shared_page
from taskq.executors.pool.batches import CallBatch, MapChunk
from taskq.executors.pool.books import Books
from taskq.executors.pool.child_handle import ChildHandle
from taskq.executors.pool.direct import STANDS, DirectPath
from taskq.executors.pool.jobs import LocalJob
from taskq.executors.pool.output import output_of
from taskq.executors.pool.supervisor import TICK, Supervisor
from taskq.locks import pass_on
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.batches import Sink, WorkItem
    from taskq.executors.pool.child_handle import Record
    from taskq.executors.pool.connection import ChildConnection, HandshakeListener

T = TypeVar("T")
log = get_logger(__name__)

#: Frames a child may have: the one it runs, and one behind it so that it never waits for the parent.
DEPTH: Final = 2
#: The classes of work; anything else that is posted is a function to call.
WORK: Final = (LocalJob, MapChunk)
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

    def __init__(self, listener: HandshakeListener, processes: int, on_broken: Callable[[str], None]) -> None:
        self.books = Books()
        self.on_idle: list[Callable[[], None]] = []
        self.on_broken = on_broken
        self._processes = processes
        self._listener = listener
        self._inbox: deque[Any] = deque()
        #: True while the loop sleeps; one list for each sleep: who wakes it late does not touch the next one.
        self._asleep: list[bool] = []
        self._wants_work = True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._poll.register(listener.parent_end, select.POLLIN)
        self._deaths: dict[int, ChildHandle] = {}  # by pidfd
        self._direct = DirectPath(self._poll, self.wake)
        #: Lines of dead children to which a submitter may still send: their descriptors must stay what they are.
        self._closing: list[ChildConnection] = []
        self._supervisor = Supervisor(self)
        self._next_tick = 0.0
        #: Whether the last sleep was to end at a time: for a tick, or for work that is due.
        self._waits_for_time = False
        self._aborted = False
        #: Whether the program was: then what waits is dropped, also what comes back from children.
        self._interrupted = False
        self._running = True
        self._over = False
        self._thread = threading.Thread(target=self._run, name="taskq-dispatcher", daemon=True)

    # -- for other threads

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def post(self, message: WorkItem | Callable[[], None]) -> None:
        """Have work queued, or a function called, by the dispatcher's thread. Waits for nothing, but may let it run."""
        inbox = self._inbox
        inbox.append(message)
        if self._asleep and (self._wants_work or not isinstance(message, WORK)):
            self.wake()
        elif not len(inbox) % _BURST and isinstance(message, LocalJob) and self._is_kept_waiting(message):
            sleep(_YIELD)
        if self._over:
            self._settle_inbox()

    def _is_kept_waiting(self, job: LocalJob) -> bool:
        """Tell whether a child has nothing to do, for want of the loop, which waits for the interpreter that we hold.

        Jobs so short that to make them takes longer than to run them are left to the interpreter's own switches.
        """
        if (job.function.sizer.ns or _WORTH_NS) < _WORTH_NS:
            return False
        try:
            children = [*self.books.children.values()]
            return any(
                child.ready and child.connection.page.words[shared_page.PHASE] == shared_page.IDLE for child in children
            )
        except (RuntimeError, ValueError):  # children come and go
            return False

    def submit(self, job: LocalJob) -> None:
        """Do as `post` for a job without options; send it to a free child straight away where one is on offer."""
        slot = self._direct.current
        if slot is None or self._inbox or not slot.try_send(job):
            self.post(job)

    def tick_at(self, when: float) -> None:
        """Have busy children looked at then, by the monotonic clock, if not before; in the loop's thread."""
        self._next_tick = min(self._next_tick, when)

    def wake(self) -> None:
        """End the loop's sleep."""
        asleep = self._asleep
        try:
            os.write(self._wake_write, b"\0")
        except OSError as error:  # full: it will wake; closed: there is nobody to wake
            pass_on(error)
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
        self.post(lambda: self._supervisor.reaped(pid, exitcode))

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
        self._direct.free()
        for connection in self._closing:
            connection.close()
        self._over = True  # who posts from now on sees it, who posted before is in the inbox
        self._settle_inbox()

    def _settle_inbox(self) -> None:
        """Give an outcome to work that was posted while the thread was ending."""
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, WORK):
                self.books.add(message)
        self.books.drop_waiting()

    def close_in_fork(self) -> None:
        """Close the descriptors that a forked copy of this process holds."""
        for connection in (*(child.connection for child in self.books.children.values()), *self._closing):
            connection.close_in_fork()
        self._direct.free()
        for fd in (self._wake_read, self._wake_write, self._listener.parent_end.detach()):
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
        if (sent_to := self._direct.withdraw()) is not None:
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
                self._supervisor.tick()
        if self._interrupted:
            self.books.drop_waiting()
        self._feed()
        if self.on_idle and self._is_idle():
            waiting, self.on_idle = self.on_idle, []
            for call in waiting:
                call()

    def _attend_to(self, fd: int, event: int) -> None:
        if (child := self.books.children.get(fd)) is not None:
            if event == select.POLLOUT:
                self._send_on(child)
            else:
                self.read(child)
        elif fd in self._deaths:
            self._supervisor.handle_death(self._deaths[fd])
        elif fd == self._wake_read:
            self._drain_wakes()
        else:
            self.accept_children()

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
            return None if self._direct.current is None else STANDS * 1000
        return max(0.0, due - monotonic()) * 1000 + 0.5

    def _needs_ticks(self) -> bool:
        return self._supervisor.awaits_exit or self.books.busy or self.books.awaits_start

    def _is_idle(self) -> bool:
        return self.books.empty and not self._inbox and not self._supervisor.awaits_exit

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

    def accept_children(self) -> None:
        """Take in the children that have said hello."""
        while (connection := self._listener.accept()) is not None:
            if isinstance(connection, int):
                self._supervisor.expect_exit(connection)
                continue
            child = ChildHandle(connection)
            self._direct.introduce(connection)
            fd = connection.sock.fileno()
            self.books.children[fd] = child
            self._poll.register(fd, select.POLLIN)
            if connection.pidfd is not None:
                self._deaths[connection.pidfd] = child
                self._poll.register(connection.pidfd, select.POLLIN)

    def read(self, child: ChildHandle) -> None:
        """Take what a child has sent."""
        if child.has_unsent:
            self._send_on(child)
        for report, body, records in child.reports():
            child.stalled = False
            if report.kind in (protocol.PROGRESS, protocol.NOTE):
                child.notes += 1
                (_keep_progress if report.kind == protocol.PROGRESS else _keep_note)(child, body)
                continue
            if report.kind == protocol.RESULTS:
                self.settle(child, records)
                if report.flags & protocol.END and child.frames:
                    self._frame_over(child, report)
            elif report.kind == protocol.READY:
                child.ready = True
                self._supervisor.became_ready(child)
            else:
                self._supervisor.start_failed(child, body)
        if child.ended and child.connection.pidfd is None and not child.dead:
            self._supervisor.handle_death(child)

    def settle(self, child: ChildHandle, records: list[Record]) -> None:
        """Record outcomes of the jobs at the head of the child's first frame."""
        if child.connection.page.words[shared_page.TOLD]:
            _keep_progress_on_page(child)
        child.note_time(records)
        for jobs, encoding, payload in records:
            if not child.frames:  # all was taken from the child meanwhile: the pool is breaking down
                return
            frame = child.frames[0]
            self.books.outcomes.record(frame.batch, frame.settled, jobs, encoding, payload)
            frame.settled += jobs

    def _frame_over(self, child: ChildHandle, report: protocol.Report) -> None:
        frame = child.frames.popleft()
        if frame.settled:
            frame.batch.function.sizer.observe(frame.settled, report.elapsed_ns)
        if report.flags & protocol.UNDECODABLE:
            self.books.backlog.put_back(frame.batch.singles(0, frame.cut))
        elif frame.settled < frame.cut:
            self.books.backlog.put_back(frame.batch.part(frame.settled, frame.cut))
        if report.flags & protocol.RETIRING:
            child.retiring = True
        if not child.frames:
            self._supervisor.went_idle(child)
            if child.retiring and child.orphan:
                self.forget(child)

    def forget(self, child: ChildHandle) -> None:
        """Let go of a child that is dead."""
        child.dead = True
        fd = child.connection.sock.fileno()
        if self.books.children.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        if child.connection.pidfd is not None:
            del self._deaths[child.connection.pidfd]
            self._poll.unregister(child.connection.pidfd)
        if child.is_held:
            self._closing.append(child.connection)
        else:
            child.connection.close()

    # -- work goes out

    def _feed(self) -> None:
        """Give work to children that have room. `_wants_work` tells posters of work whether it is worth waking us."""
        while not self._aborted:
            child = self._least_loaded()
            self._wants_work = child is not None
            if child is None:
                return
            if not self.books.backlog:
                if self._running and not self.books.backlog.paused:
                    self._direct.open(child)
                return
            batch = self.books.backlog.take(DEPTH * self._processes)
            if batch is None:
                return
            if (
                child.frames and batch.size > shared_page.REGION_BYTES
            ):  # it would be stuck half written behind what runs
                self.books.backlog.put_back(batch.part(0, len(batch)))
                self._wants_work = False
                return
            child.send(batch)
            if child.has_unsent:
                self._poll.modify(child.connection.sock, select.POLLIN | select.POLLOUT)

    def _least_loaded(self) -> ChildHandle | None:
        """Return the child that has the least to do of those that have room."""
        found: ChildHandle | None = None
        for child in self.books.children.values():
            if (found is None or len(child.frames) < len(found.frames)) and _accepts(child):
                found = child
        return found

    def _send_on(self, child: ChildHandle) -> None:
        child.write_on()
        if not child.has_unsent:
            self._poll.modify(child.connection.sock, select.POLLIN)

    def _come_due(self, now: float) -> None:
        """Queue the work whose time has come, and fail the jobs that have not started in theirs."""
        self.books.add_due(now)
        for job in self.books.expiries.take(now):
            if isinstance(job, MapChunk) or job.done():
                continue
            found = self.books.find_child(job)
            if found is None:
                job.expire()
            else:
                self._supervisor.expire(*found, job)

    # -- wishes of the users, in this thread

    def pause(self, queue: str) -> None:
        """Start nothing more of this queue; what children have of it in store comes back to the backlog."""
        self.books.backlog.paused.add(queue)
        for child in self.books.children.values():
            if any(frame.batch.options.queue == queue for frame in child.frames):
                self._supervisor.stop(child)

    def resume(self, queue: str | None) -> None:
        """Take back a pause; None: all of them."""
        paused = self.books.backlog.paused
        paused.difference_update([queue] if queue is not None else list(paused))

    def cancel(self, job: LocalJob, answer: Callable[[bool], None], *, kill: bool) -> None:
        """Keep a job from running, or ask it to stop, or kill it; `answer` hears if it is cancelled for certain."""
        found = None if job.done() else self.books.find_child(job)
        if found is not None:
            self._supervisor.cancel(*found, job, answer, kill=kill)
            return
        if not job.done():
            job.withdraw()
        answer(job.cancelled())

    def end_stream(self, stream: Sink) -> None:
        """Stop what still runs of a map that nobody reads any more, and let its function go."""
        for child in self.books.children.values():
            if any(isinstance(frame.batch, MapChunk) and frame.batch.sink is stream for frame in child.frames):
                self._supervisor.stop(child)
            if stream.function.bound:
                child.forget(stream.function)

    def cancel_all(self) -> None:
        """Record every job that is left as cancelled: the children are gone and the queue is closed."""
        for child in list(self.books.children.values()):
            self.books.backlog.put_back(self.books.take_unfinished(child))
            self.forget(child)
        self.books.drop_waiting()

    def disconnect(self) -> None:
        """Close the connection of every child: an idle one exits by itself."""
        self._supervisor.ending = True
        self.accept_children()
        for child in self.books.children.values():
            child.connection.disconnect()

    def abort(self) -> None:
        """Start nothing more and kill what runs."""
        self._aborted = self._supervisor.ending = True
        self.kill_children()

    def drain(self) -> None:
        """Start nothing more; what children have in store comes back to the backlog, what runs goes on."""
        self._aborted = True
        for child in self.books.children.values():
            child.connection.page.words[shared_page.LEAVING] = 1
            self._supervisor.stop(child)

    def interrupt(self) -> None:
        """Start nothing more, drop what waits, and raise KeyboardInterrupt in the jobs that run."""
        self._interrupted = True
        self.drain()
        for child in self.books.children.values():
            if child.frames:
                child.frames[0].batch.ask_to_stop()
                child.connection.page.words[shared_page.INTERRUPT] = shared_page.ASKED
                child.connection.ask_to_release()

    def busy_children(self) -> int:
        """Return how many children have work."""
        return sum(bool(child.frames) for child in self.books.children.values())

    def kill_children(self) -> None:
        """Kill every child that there still is."""
        for child in self.books.children.values():
            child.connection.kill()


def _accepts(child: ChildHandle) -> bool:
    """Tell whether a child can be given another frame now."""
    if not child.ready or child.retiring or child.stopping is not None or child.is_unsure or child.has_unsent:
        return False
    if not child.frames:
        return True
    head = child.frames[0]
    return len(child.frames) < DEPTH and head.batch.function.sizer.fits_behind(head.cut - head.settled)


def _keep_progress_on_page(child: ChildHandle) -> None:
    """Keep the progress that is on the page, before its job's outcome is recorded and nobody looks there for it."""
    seq = child.connection.page.words[shared_page.TOLD] - 1
    found = child.find(seq)
    if found is not None and isinstance(found[0].batch, CallBatch):
        job = found[0].batch.jobs[found[1]]
        job.last_progress = child.progress_at(seq) or job.last_progress


def _keep_note(child: ChildHandle, body: bytes) -> None:
    seq, what, size = protocol.NOTE_BODY.unpack_from(body)
    found = child.find(seq)
    if found is not None and isinstance(found[0].batch, CallBatch):
        output_of(found[0].batch.jobs[found[1]]).take(what, body[protocol.NOTE_BODY.size :], size)


def _keep_progress(child: ChildHandle, body: bytes) -> None:
    seq, done, total = protocol.PROGRESS_BODY.unpack(body)
    found = child.find(seq)
    if found is not None and isinstance(found[0].batch, CallBatch):
        found[0].batch.jobs[found[1]].last_progress = (done, None if total < 0 else total)
