"""The one thread that owns all state of a pool in the parent.

    user threads ──post()──▶ inbox ────────┐       (straight to a child, while the dispatcher sleeps: `direct.py`)
    multiprocessing's thread ──exited()────┤           ┌──▶ child 0
    listener ──hello───────────────────────┼─▶ dispatcher ──▶ child 1
    timers ────────────────────────────────┘           └──▶ ...

    each turn:  poll → inbox → reports and deaths → due timers → tick → feed

Only this thread writes the state, so there is no lock, and a KeyboardInterrupt in a user's thread can never find it
half changed. User threads append to the inbox, wake the loop if it sleeps, and wait for their own answer.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskq.executors.pool import protocol
from taskq.executors.pool.batches import MapChunk
from taskq.executors.pool.child_handle import DEPTH
from taskq.executors.pool.direct import OPEN_FOR, DirectPath
from taskq.executors.pool.jobs import PoolJob
from taskq.executors.pool.scheduler import Scheduler
from taskq.executors.pool.supervisor import Supervisor
from taskq.executors.pool.wakepipe import WakePipe
from taskq.executors.pool.watchdog import TICK, Watchdog
from taskq.locks import pass_on
from taskq.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.pool.batches import Sink, WorkItem
    from taskq.executors.pool.child_handle import ChildHandle
    from taskq.executors.pool.connection import ChildConnection, HandshakeListener

T = TypeVar("T")
log = get_logger(__name__)

#: The classes of work; anything else that is posted is a function to call.
WORK: Final = (PoolJob, MapChunk)
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
        self.scheduler = Scheduler()
        self.on_idle: list[Callable[[], None]] = []
        self._on_broken = on_broken
        self._processes = processes
        self._inbox: deque[Any] = deque()
        #: True while the loop sleeps; one list for each sleep: who wakes it late does not touch the next one.
        self._asleep: list[bool] = []
        self._wants_work = True
        self._wake_pipe = WakePipe()
        self._poll = select.poll()
        self._poll.register(self._wake_pipe.fd, select.POLLIN)
        self._poll.register(listener.parent_end, select.POLLIN)
        #: The way of a submitter to a free child while the loop sleeps.
        self.direct = DirectPath(self._poll, self.wake, self._inbox, self.post)
        #: Does as `post` for a job without options, or sends it to a free child.
        self.submit = self.direct.submit
        self.supervisor = Supervisor(self.scheduler, listener, self._poll, on_broken)
        self.supervisor.on_connect = self.direct.introduce
        self.watchdog = Watchdog(self.scheduler, self.supervisor)
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

    def post(self, message: WorkItem | Callable[[], object]) -> None:
        """Have work queued, or a function called, by the dispatcher's thread. Waits for nothing, but may let it run."""
        inbox = self._inbox
        inbox.append(message)
        if self._asleep and (self._wants_work or not isinstance(message, WORK)):
            self.wake()
        elif not len(inbox) % _BURST and isinstance(message, PoolJob) and self._is_kept_waiting(message):
            sleep(_YIELD)
        if self._over:
            self._settle_inbox()

    def _is_kept_waiting(self, job: PoolJob) -> bool:
        """Tell whether a child has nothing to do, for want of the loop, which waits for the interpreter that we hold.

        Jobs so short that to make them takes longer than to run them are left to the interpreter's own switches.
        """
        if (job.function.sizer.ns or _WORTH_NS) < _WORTH_NS:
            return False
        try:
            children = [*self.supervisor.children.values()]
            return any(
                child.ready and child.connection.page.words[protocol.PHASE] == protocol.IDLE for child in children
            )
        except (RuntimeError, ValueError):  # children come and go
            return False

    def wake(self) -> None:
        """End the loop's sleep."""
        asleep = self._asleep
        try:
            self._wake_pipe.wake()
        except OSError as error:  # full: it will wake; closed: nothing is to be woken
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
        """Note that multiprocessing's thread has reaped a child."""
        self.post(lambda: self.supervisor.reaped(pid, exitcode))

    def is_this_thread(self) -> bool:
        """Tell whether the caller runs in the dispatcher's thread, as callbacks do."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread, wait for it, and free what it used."""
        if self._thread.is_alive():
            self.post(self._end)
            self._thread.join()
        self._wake_pipe.close()
        self.direct.free()
        self.supervisor.close()
        self._over = True  # who posts from now on sees it, who posted before is in the inbox
        self._settle_inbox()

    def _settle_inbox(self) -> None:
        """Give an outcome to work that was posted while the thread was ending."""
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, WORK):
                self.scheduler.add(message)
        self.scheduler.drop_waiting()

    def close_in_fork(self) -> None:
        """Close the descriptors that a forked copy of this process holds."""
        self.supervisor.close_in_fork()
        self.direct.free()
        self._wake_pipe.close()

    # -- the loop

    def _run(self) -> None:
        while self._running:
            try:
                self._turn()
            except Exception as error:  # a mistake of ours must not hang everybody who waits
                log.exception("dispatcher_failed")
                self._on_broken(f"the pool's dispatcher failed: {error!r}; please report it")

    def _turn(self) -> None:
        events = self._poll.poll(self._timeout_ms())
        if self.direct.current is not None and (sent_to := self.direct.withdraw()) is not None:
            self.supervisor.read(sent_to)
        for fd, event in events:
            self._attend_to(fd, event)
        self._asleep = _AWAKE
        if self._inbox:
            self._read_inbox()
        if self._waits_for_time:
            now = monotonic()
            self._come_due(now)
            if now >= self.watchdog.next_tick and self._needs_ticks():
                self.watchdog.tick(now)
        if self._interrupted:
            self.scheduler.drop_waiting()
        self._feed()
        if self.on_idle and self._is_idle():
            waiting, self.on_idle = self.on_idle, []
            for call in waiting:
                call()

    def _attend_to(self, fd: int, event: int) -> None:
        supervisor = self.supervisor
        if (child := supervisor.children.get(fd)) is not None:
            if event == select.POLLOUT:
                supervisor.send_on(child)
            else:
                supervisor.read(child)
        elif fd in supervisor.deaths:
            supervisor.handle_death(supervisor.deaths[fd])
        elif fd == self._wake_pipe.fd:
            self._wake_pipe.drain()
        else:
            supervisor.accept_children()

    def _timeout_ms(self) -> float | None:
        """Return how long to sleep. Says `asleep` first and looks at the inbox after: no message is slept over."""
        scheduler = self.scheduler
        due = scheduler.timers.due if scheduler.expiries.due is None else scheduler.next_due()
        if self._needs_ticks():
            due = self.watchdog.next_tick if due is None else min(due, self.watchdog.next_tick)
        self._waits_for_time = due is not None
        self._asleep = [True]
        if self._inbox:
            return 0
        if due is None:
            return None if self.direct.current is None else OPEN_FOR * 1000
        return max(0.0, due - monotonic()) * 1000 + 0.5

    def _needs_ticks(self) -> bool:
        """Tell whether there is something to watch."""
        starting = False
        for child in self.supervisor.children.values():
            if child.in_flight:
                return True
            starting = starting or not child.ready
        return bool(self.supervisor.awaiting_exit) or (starting and bool(self.scheduler.backlog))

    def _is_idle(self) -> bool:
        supervisor = self.supervisor
        return not (self._inbox or supervisor.busy or supervisor.awaiting_exit) and self.scheduler.is_empty

    def _read_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            message = inbox.popleft()
            if isinstance(message, WORK):
                self.scheduler.add(message)
            else:
                message()

    def _end(self) -> None:
        self._running = False

    # -- work goes out

    def _feed(self) -> None:
        """Give work to children that have room. `_wants_work` tells posters of work whether it is worth waking us."""
        backlog = self.scheduler.backlog
        while not self._aborted:
            child = self._least_loaded()
            self._wants_work = child is not None
            if child is None:
                return
            if not backlog:
                if self._running and not (child.in_flight or backlog.paused):
                    self.direct.open(child)
                return
            batch = backlog.take(DEPTH * self._processes)
            if batch is None:
                return
            if child.in_flight and batch.size > protocol.REGION_BYTES:  # it would be half written behind what runs
                backlog.put_back(batch.part(0, len(batch)))
                self._wants_work = False
                return
            child.send(batch)
            if child.unsent:
                self._poll.modify(child.connection.sock, select.POLLIN | select.POLLOUT)

    def _least_loaded(self) -> ChildHandle | None:
        """Return the child that has the least to do of those that have room."""
        found: ChildHandle | None = None
        for child in self.supervisor.children.values():
            if (found is None or len(child.in_flight) < len(found.in_flight)) and child.has_room():
                found = child
        return found

    def _come_due(self, now: float) -> None:
        """Queue the work whose time has come, and fail the jobs that have not started in theirs."""
        scheduler = self.scheduler
        if scheduler.timers.due is not None:
            scheduler.add_due(now)
        if scheduler.expiries.due is None:
            return
        for job in scheduler.expiries.take(now):
            if isinstance(job, MapChunk) or job.done() or job.attempt > 1:
                continue
            found = self.supervisor.find_child(job)
            if found is None:
                job.expire()
            else:
                self.watchdog.expire(found, job)

    # -- wishes of the users, in this thread

    def pause(self, queue: str) -> None:
        """Start nothing more of this queue; what children have of it in store comes back to the backlog."""
        self.scheduler.backlog.paused.add(queue)
        for child in self.supervisor.children.values():
            if any(flight.batch.options.queue == queue for flight in child.in_flight):
                self.watchdog.stop(child)

    def resume(self, queue: str | None) -> None:
        """Take back a pause; None: all of them."""
        paused = self.scheduler.backlog.paused
        paused.difference_update([queue] if queue is not None else list(paused))

    def cancel(self, job: PoolJob, answer: Callable[[bool], None], *, kill: bool, grace: float = 0.0) -> None:
        """Keep a job from running, or ask it to stop, or kill it; `answer` hears if it is cancelled for certain.

        `grace`: seconds for which one that is to be killed is interrupted first.
        """
        found = None if job.done() else self.supervisor.find_child(job)
        if found is not None:
            self.watchdog.cancel(found, job, answer, kill=kill, grace=grace)
            return
        if not job.done():
            job.withdraw()
        answer(job.cancelled())

    def end_map(self, sink: Sink) -> None:
        """Stop what still runs of a map that was given up, and let its function go."""
        for child in self.supervisor.having(sink):
            self.watchdog.stop(child)
        if sink.function.bound:
            for child in self.supervisor.children.values():
                child.forget(sink.function)

    def break_down(self, message: str) -> None:
        """Fail all work: the children cannot start."""
        self.scheduler.break_down(message, self.supervisor.take_all_unfinished())

    def cancel_all(self) -> None:
        """Record every job that is left as cancelled: the children are gone and the queue is closed."""
        for child in list(self.supervisor.children.values()):
            self.scheduler.backlog.put_back(child.take_unfinished())
            self.supervisor.forget(child)
        self.scheduler.drop_waiting()

    def abort(self) -> None:
        """Start nothing more and kill what runs."""
        self._aborted = self.supervisor.ending = True
        self.supervisor.kill_all()

    def end_children(self, message: str, end: Callable[[ChildConnection], None]) -> None:
        """Cancel what waits, fail with `message` what runs, and end each child by `end`."""
        self._interrupted = self._aborted = self.supervisor.ending = True
        self.scheduler.drop_waiting()
        for child in self.supervisor.children.values():
            for job, runs in child.in_hand():
                if not job.done() and runs:
                    self.scheduler.fail(job, message)
                elif not job.done():
                    job.withdraw()
            end(child.connection)

    def drain(self) -> None:
        """Start nothing more; what children have in store comes back to the backlog, what runs goes on."""
        self._aborted = True
        for child in self.supervisor.children.values():
            child.connection.page.words[protocol.LEAVING] = 1
            self.watchdog.stop(child)

    def interrupt(self) -> None:
        """Start nothing more, drop what waits, and raise KeyboardInterrupt in the jobs that run."""
        self._interrupted = True
        self.drain()
        self.watchdog.interrupt()

    def busy_children(self) -> int:
        """Return how many children have work."""
        return sum(bool(child.in_flight) for child in self.supervisor.children.values())
