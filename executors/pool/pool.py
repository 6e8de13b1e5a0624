"""The pool's front door, and its life from the first process to the last descriptor.

    callers ──▶ ProcessPool ──▶ Dispatcher: scheduler, supervisor, watchdog ──▶ children

    finish:  every job has its outcome → children disconnect and exit → dispatcher ends → descriptors are closed

While it waits for the jobs, dead children are still replaced. At the interpreter's end every open pool is finished, so
that what was submitted is run, as `concurrent.futures` promises.
"""

from __future__ import annotations

import atexit
import multiprocessing.util  # noqa: F401  # registers its own exit handler, which must come after ours
import os
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from taskq.executors.pool.connection import HandshakeListener
from taskq.executors.pool.dispatcher import Dispatcher
from taskq.executors.pool.process_group import ProcessGroup
from taskq.executors.pool.processes import refuse_while_importing
from taskq.locks import CallLock, SafeCondition, aside
from taskq.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.executors.pool.batches import Sink
    from taskq.executors.pool.child import ChildSettings
    from taskq.executors.pool.connection import ChildConnection
    from taskq.executors.pool.jobs import PoolJob


#: Seconds that interrupted jobs get before a word is said of them.
_MOMENT: Final = 0.3
#: Seconds after which it is said that an error waits for what runs.
_WORD_AFTER: Final = 1.0
#: Seconds between two looks at whether the pool that should answer still exists.
_LOOK: Final = 1.0


class PoolView(NamedTuple):
    """A pool at one moment: jobs in the hands of children with their states, jobs that wait, paused queues."""

    in_hand: dict[PoolJob, State]
    waiting: frozenset[PoolJob]
    paused: frozenset[str]


class ProcessPool:
    """Start on construction, end by `finish`. Safe to use from several threads."""

    def __init__(
        self, processes: int, start_method: str, settings: ChildSettings, *, queues: Iterable[str] | None = ()
    ) -> None:
        """Start `processes` children. Jobs of `queues` are taken first, in this order; None: as they come."""
        refuse_while_importing()
        self._pid = os.getpid()
        #: Whether new work is taken.
        self.accepting = True
        #: Why no child can be started; None as long as they can.
        self.broken: str | None = None
        self._listener = HandshakeListener()
        #: The thread that owns all its state.
        self.dispatcher = dispatcher = Dispatcher(self._listener, processes, self._break_down)
        dispatcher.scheduler.backlog.prefer(queues)
        #: `submit` starts a job without options; `post` queues work, or a function to call in the dispatcher's thread.
        self.submit = dispatcher.submit
        self.post = dispatcher.post
        #: Tells whether this is the thread that settles jobs: what waits in it for one, waits for ever.
        self.delivers_here = dispatcher.is_this_thread
        #: Set when nothing is left of it.
        self.ended = threading.Event()
        self._finishing = CallLock()
        #: Whether nobody waits any more for what runs; rung then, and when nothing does.
        self._hurried = False
        self._changed = SafeCondition()
        _open.add(self)
        try:
            self._process_group = ProcessGroup(processes, start_method, settings, dispatcher, self._listener)
        except BaseException:
            self._free()
            raise
        dispatcher.start()

    def _break_down(self, message: str) -> None:
        """Fail all work there is and end: the children cannot start. In the dispatcher's thread."""
        if self.broken is None:
            self.broken = message
            self.accepting = False
            self.dispatcher.break_down(message)
            self.finish_in_background()

    def is_foreign(self) -> bool:
        """Tell whether this is a forked copy of the process that made it."""
        return os.getpid() != self._pid

    # -- work in

    def post_all(self, jobs: list[PoolJob]) -> None:
        """Queue these jobs in their order, by one message."""
        self.post(partial(self._add_all, jobs))

    def _add_all(self, jobs: list[PoolJob]) -> None:
        for job in jobs:
            self.dispatcher.scheduler.add(job)

    def submit_at(self, due: float, job: PoolJob) -> None:
        """Queue a job at a time of the monotonic clock."""
        self.post(partial(self.dispatcher.scheduler.timers.add, due, job))

    def expire_at(self, when: float, job: PoolJob) -> None:
        """Fail a job that has not started by a time of the monotonic clock."""
        self.post(partial(self.dispatcher.scheduler.expiries.add, when, job))

    def count_blocked(self, jobs: int) -> None:
        """Count jobs that wait for others, so that the pool does not end before them; in the dispatcher's thread."""
        self.dispatcher.scheduler.blocked += jobs

    def end_map(self, sink: Sink) -> None:
        """Stop what still runs of a map that was given up."""
        self.post(partial(self.dispatcher.end_map, sink))

    # -- work back

    def cancel(self, job: PoolJob, *, kill: bool) -> bool:
        """Do as `Job.cancel`, and return its answer."""
        if self.delivers_here():  # from a callback: the loop cannot wait for itself
            answers: list[bool] = []
            self.dispatcher.cancel(job, answers.append, kill=kill)
            return any(answers)
        answer: SimpleQueue[bool] = SimpleQueue()
        self.post(partial(self.dispatcher.cancel, job, answer.put, kill=kill))
        while not self.ended.is_set():
            try:
                return answer.get(timeout=_LOOK)
            except Empty:
                continue
        return job.cancelled()

    def cancel_soon(self, jobs: Iterable[PoolJob], *, kill: bool = False, grace: float = 0.0) -> None:
        """Cancel jobs whose ends tell the answer. `grace`: seconds from an interrupt to the kill."""
        for job in jobs:
            self.post(partial(self.dispatcher.cancel, job, _no_answer, kill=kill, grace=grace))

    def cancel_now(self, jobs: Iterable[PoolJob]) -> None:
        """Cancel jobs, and return when the dispatcher has done so, or has had to ask their children."""
        self.dispatcher.ask(partial(self._cancel_all, jobs), None)

    def _cancel_all(self, jobs: Iterable[PoolJob]) -> None:
        for job in jobs:
            self.dispatcher.cancel(job, _no_answer, kill=False)

    def drop_waiting(self) -> None:
        """Cancel all that has not been handed to a child."""
        self.post(self.dispatcher.scheduler.drop_waiting)

    def drop_jobs(self, which: Callable[[PoolJob], bool]) -> None:
        """Cancel those jobs for which `which` is true and which have not been handed to a child."""
        self.post(partial(self.dispatcher.scheduler.drop_jobs, which))

    def drain(self, *, interrupt: bool = False) -> None:
        """Start nothing more; what children have in store comes back, what runs goes on.

        `interrupt`: drop what waits, and raise KeyboardInterrupt in what runs.
        """
        self.post(self.dispatcher.interrupt if interrupt else self.dispatcher.drain)

    def kill_busy(self) -> None:
        """Kill the processes that run something: for what they run that is a crash."""
        self.post(self.dispatcher.supervisor.kill_busy)

    def pause(self, queue: str) -> None:
        """Start nothing more of this queue."""
        self.dispatcher.ask(lambda: self.dispatcher.pause(queue), None)

    def resume(self, queue: str) -> None:
        """Take back a pause."""
        self.dispatcher.ask(lambda: self.dispatcher.resume(queue), None)

    def resume_all(self) -> None:
        """Take back every pause; waits for nothing."""
        self.post(lambda: self.dispatcher.resume(None))

    # -- questions

    def state_of(self, job: PoolJob) -> State:
        """Return where a job that has not ended stands."""
        return self.dispatcher.ask(lambda: self.dispatcher.supervisor.state_of(job), State.QUEUED)

    def progress_of(self, job: PoolJob) -> tuple[int, int | None] | None:
        """Return what a job said last of its progress."""
        return self.dispatcher.ask(lambda: self.dispatcher.supervisor.progress_of(job), job.last_progress)

    def running(self, wanted: Callable[[PoolJob], bool]) -> list[PoolJob]:
        """Return the wanted jobs that run for certain, with their progress and output as of now."""
        none: list[PoolJob] = []
        return self.dispatcher.ask(lambda: self.dispatcher.supervisor.running(wanted), none)

    def look(self) -> PoolView:
        """Return how it stands."""
        return self.dispatcher.ask(self._look, PoolView({}, frozenset(), frozenset()))

    def _look(self) -> PoolView:
        scheduler, supervisor = self.dispatcher.scheduler, self.dispatcher.supervisor
        waiting = frozenset(scheduler.jobs() | supervisor.lost())
        return PoolView(supervisor.in_hand(), waiting, frozenset(scheduler.backlog.paused))

    def is_ready(self) -> bool:
        """Return whether a child is ready for work."""
        children = self.dispatcher.supervisor.children
        return self.dispatcher.ask(lambda: any(child.ready for child in children.values()), otherwise=False)

    # -- the end

    def finish(self, grace: float | None = None) -> None:
        """Wait until every job has its outcome, then end everything.

        What still runs after `grace` seconds, or when the wait is interrupted, is killed and recorded as cancelled.
        """
        if self.is_foreign() or self.ended.is_set():
            return
        try:
            aside(lambda: self._finish(grace))
        except BaseException:
            self._hurried = True
            self._changed.notify_all()
            aside(lambda: self._finish(0.0))
            raise

    def _finish(self, grace: float | None) -> None:
        with self._finishing:
            if self.ended.is_set():
                return
            if not self._wait_until_idle(grace):
                self.dispatcher.post(self.dispatcher.abort)
            self._end()

    def finish_at_once(self, grace: float) -> None:
        """Raise KeyboardInterrupt in what runs, kill what has not ended after `grace` seconds, and end everything."""
        if self.is_foreign() or self.ended.is_set():
            return
        dispatcher = self.dispatcher
        try:
            dispatcher.post(dispatcher.interrupt)
            if not self._wait_until_idle(_MOMENT):
                running = dispatcher.ask(dispatcher.busy_children, 0)
                _say(f"interrupted, and with it {_jobs(running)}; what runs on for {grace:g} s is killed")
                if not self._wait_until_idle(grace - _MOMENT):
                    _say(f"killed {_jobs(dispatcher.ask(dispatcher.busy_children, 0))}")
        finally:
            self.finish(0)

    def finish_after(self, error: BaseException, grace: float) -> None:
        """End everything because of an error: what runs gets `grace` seconds, and after one of them a word says so."""
        if self.is_foreign() or self.ended.is_set():
            return
        first = min(_WORD_AFTER, grace)
        try:
            if not self._wait_until_idle(first):
                running = self.dispatcher.ask(self.dispatcher.busy_children, 0)
                _say(f"left by {type(error).__name__}; {_jobs(running)} may take {grace:g} s, then killed")
                if not self._wait_until_idle(grace - first):
                    _say(f"killed {_jobs(self.dispatcher.ask(self.dispatcher.busy_children, 0))}")
        finally:
            self.finish(0)

    def end_at_once(self, message: str, end: Callable[[ChildConnection], None], grace: float) -> None:
        """Cancel what waits, fail what runs with `message`, and end each child by `end`, killed after `grace` s."""
        if self.is_foreign() or self.ended.is_set():
            return
        self.accepting = False
        self.dispatcher.ask(partial(self.dispatcher.end_children, message, end), None)
        if self.delivers_here():
            self.finish_in_background()
        else:
            self.finish(grace)

    def finish_in_background(self) -> None:
        """Do as `finish` in a thread; the interpreter does not end before it."""
        if not self.ended.is_set() and not self.is_foreign():
            aside(threading.Thread(target=self._finish, args=(None,), name="taskq-close").start)

    def _wait_until_idle(self, timeout: float | None) -> bool:
        idle: list[bool] = []

        def tell() -> None:
            idle.append(True)
            self._changed.notify_all()

        self.dispatcher.post(lambda: self.dispatcher.on_idle.append(tell))
        self._changed.wait_for(lambda: idle or self._hurried, timeout)
        return bool(idle)

    def _end(self) -> None:
        dispatcher = self.dispatcher
        self._process_group.end(
            disconnect=lambda: dispatcher.post(dispatcher.supervisor.disconnect),
            kill=lambda: dispatcher.post(dispatcher.supervisor.kill_all),
        )
        dispatcher.post(dispatcher.cancel_all)
        self._free()

    def _free(self) -> None:
        self.dispatcher.stop()
        self._listener.close()
        self.ended.set()
        _open.discard(self)

    def close_in_fork(self) -> None:
        """Take no work in a forked copy of the process, and close its copies of the descriptors."""
        self.accepting = False
        self.dispatcher.close_in_fork()


def _no_answer(_cancelled: bool) -> None:
    """Take the answer to a cancel that nobody waits for."""


def _jobs(count: int) -> str:
    return f"{count} running job{'s' if count > 1 else ''}"


def _say(text: str) -> None:
    with suppress(AttributeError, OSError, ValueError):  # no stream, a closed one: no reason to fail
        sys.stderr.write(f"taskq: {text}\n")
        sys.stderr.flush()


_open: weakref.WeakSet[ProcessPool] = weakref.WeakSet()


def _finish_all() -> None:
    for pool in list(_open):
        pool.accepting = False
        pool.finish()


def _close_all_in_fork() -> None:
    for pool in list(_open):
        _open.discard(pool)  # a copy of this copy has other files behind the same numbers
        pool.close_in_fork()


atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all_in_fork)
