"""A pool as a whole: its dispatcher and its children, from the first process to the last descriptor.

    finish:  every job has its outcome → children hang up and exit → dispatcher ends → descriptors are closed

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
from typing import TYPE_CHECKING, Final

from taskq.executors.pool.connection import HandshakeListener
from taskq.executors.pool.dispatcher import Dispatcher
from taskq.executors.pool.process_group import ProcessGroup
from taskq.executors.pool.processes import refuse_while_importing
from taskq.locks import CallLock, SafeCondition, aside

if TYPE_CHECKING:
    from taskq.executors.pool.child import ChildSettings


#: Seconds that interrupted jobs get before a word is said of them.
_MOMENT: Final = 0.3
#: Seconds after which it is said that an error waits for what runs.
_WORD_AFTER: Final = 1.0


class ProcessPool:
    """Start on construction, end by `finish`. Safe to use from several threads."""

    def __init__(self, processes: int, start_method: str, settings: ChildSettings) -> None:
        refuse_while_importing()
        self._pid = os.getpid()
        #: Whether new work is taken.
        self.accepting = True
        #: Why no child can be started; None as long as they can.
        self.broken: str | None = None
        self._listener = HandshakeListener()
        self.dispatcher = Dispatcher(self._listener, processes, self._break_down)
        #: Set when nothing is left of it.
        self.ended = threading.Event()
        self._finishing = CallLock()
        #: Whether nobody waits any more for what runs; rung then, and when nothing does.
        self._hurried = False
        self._changed = SafeCondition()
        _open.add(self)
        try:
            self._process_group = ProcessGroup(processes, start_method, settings, self.dispatcher, self._listener)
        except BaseException:
            self._free()
            raise
        self.dispatcher.start()

    def _break_down(self, message: str) -> None:
        """Fail all work there is and end: the children cannot start. In the dispatcher's thread."""
        if self.broken is None:
            self.broken = message
            self.accepting = False
            self.dispatcher.books.break_down(message)
            self.finish_in_background()

    def is_foreign(self) -> bool:
        """Tell whether this is a forked copy of the process that made it."""
        return os.getpid() != self._pid

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
            disconnect=lambda: dispatcher.post(dispatcher.disconnect),
            kill=lambda: dispatcher.post(dispatcher.kill_children),
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
