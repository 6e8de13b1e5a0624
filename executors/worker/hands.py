"""The hands of a worker: the pool that runs what it has claimed.

    worker's loop                                  dispatcher's thread             children
    ─────────────                                  ───────────────────             ────────
    start(errands) ──── one message for all ────▶  backlog ──▶ frames ──────────▶  taskq.perform.perform_*
    take() ◀── ended, a list; wake pipe ─────────  Errand.settle, Errand.drop ◀──  bytes, or a failure

Each task has a function of its own in the pool, all with the same definition, so that the pool's pace is measured for
each task by itself: it is what says how much work may be claimed ahead.
"""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskq.executors.cpus import usable_cpus
from taskq.executors.pool import payloads
from taskq.executors.pool.child import ChildSettings
from taskq.executors.pool.functions import definition
from taskq.executors.pool.jobs import DEFAULTS, Function
from taskq.executors.pool.pool import ProcessPool
from taskq.executors.pool.processes import default_start_method
from taskq.executors.worker.errand import Errand
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.options import JobOptions

__all__ = ["UNKNOWN_NS", "Hands"]

#: Nanoseconds that a run of a task is thought to take before one was measured.
UNKNOWN_NS: Final = 60_000_000.0
#: Functions known to the children at the most: names come with the jobs, from anybody.
_FUNCTIONS_MAX: Final = 2_000
#: Bytes that a pipe holds at the most: one read empties it.
_PIPE_BYTES: Final = 1 << 16
#: Seconds between two looks at whether a child is ready.
_LOOK: Final = 0.005


class Hands:
    """A pool and what is in it. Used by the worker's thread, except where it says otherwise."""

    session = ""

    def __init__(
        self,
        *,
        processes: int | None = None,
        start_method: str | None = None,
        max_tasks_per_child: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        capture: bool = False,
        queues: tuple[str, ...] = (),
    ) -> None:
        self.processes = processes or usable_cpus()
        #: What has come to an end and was not taken yet. Appended to by the dispatcher's thread.
        self.ended: deque[Errand] = deque()
        #: Nanoseconds that all that was started and not taken out again is thought to take.
        self.ahead_ns = 0.0
        #: Whether the worker's thread sleeps until something ends.
        self.sleeping = False
        self._woken = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._functions: dict[tuple[Callable[..., Any], str], Function] = {}
        self._numbers = count(1)
        self._start_method = start_method or default_start_method()
        settings = ChildSettings(
            session="worker",
            strict=True,
            max_tasks=max_tasks_per_child,
            initializer=initializer,
            initargs=initargs,
            capture=capture,
            outlasts_stop=True,
        )
        self._pool = ProcessPool(self.processes, self._start_method, settings)
        self.dispatcher = self._pool.dispatcher
        self.dispatcher.books.backlog.prefer(queues)

    # -- work in

    def errand(self, run: Callable[..., Any], task: str, args: tuple[Any, ...], options: JobOptions) -> Errand:
        """Return a run of `run(*args)` on behalf of a task; the arguments are plain scalars."""
        function = self._functions.get((run, task)) or self._function(run, task)
        number = next(self._numbers)
        errand = Errand(self, function, number, b"", options)
        errand.load(payloads.pack_call(number, args, {}, strict=True))
        errand.cost = function.sizer.ns or UNKNOWN_NS
        errand.task = task
        return errand

    def _function(self, run: Callable[..., Any], task: str) -> Function:
        if len(self._functions) >= _FUNCTIONS_MAX:
            task = ""
        found = self._functions.get((run, task))
        if found is None:
            described = definition(run, (), {}, start_method=self._start_method, strict=True)
            number = len(self._functions)
            found = self._functions[run, task] = Function(number, name_of(run), described, DEFAULTS, bound=False)
        return found

    def start(self, errands: list[Errand]) -> None:
        """Have these run, in this order."""
        if not errands:
            return
        self.ahead_ns += sum(errand.cost for errand in errands)
        first = errands[0]
        if len(errands) > 1 or first.options is not DEFAULTS or first.isolated:
            self.dispatcher.post(partial(self._add, errands))
        else:
            first.sent_at = monotonic()
            self.dispatcher.submit(first)
            first.watch()

    def _add(self, errands: list[Errand]) -> None:
        for errand in errands:
            self.dispatcher.books.add(errand)

    def start_in(self, delay: float, errand: Errand) -> None:
        """Have this run after `delay` seconds."""
        self.ahead_ns += errand.cost
        self.dispatcher.post(partial(self.dispatcher.books.timers.add, monotonic() + delay, errand))

    # -- work out

    def take(self) -> Errand:
        """Return the first that has ended, of at least one."""
        errand = self.ended.popleft()
        self.ahead_ns -= errand.cost
        return errand

    def wake(self) -> None:
        """End the worker's sleep; from any thread, and from signal handlers."""
        self.sleeping = False
        self._woken = True
        with suppress(OSError):  # full: it will wake
            os.write(self._wake_write, b"\0")
        self._woken = True  # again, as the worker may have looked before it was written: the pipe is never left full

    @property
    def wake_fd(self) -> int:
        """Readable when something has ended."""
        return self._wake_read

    def awake(self) -> None:
        """Take note that the sleep is over; empty the wake pipe if it was written to."""
        self.sleeping = False
        if self._woken:
            self._woken = False
            with suppress(BlockingIOError):
                os.read(self._wake_read, _PIPE_BYTES)

    def sleep(self, seconds: float) -> None:
        """Wait until something ends, `wake` is called, or so many seconds have passed."""
        self.sleeping = True
        if not self.ended:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            poll.poll(max(0.0, seconds) * 1000)
        self.awake()

    # -- taking it back

    def requeue(self, *, everything: bool) -> None:
        """Drop what no child has in its hands: it comes out as dropped. Not `everything`: only what never began."""
        self.dispatcher.post(self.dispatcher.books.drop_waiting if everything else self._drop_untouched)

    def _drop_untouched(self) -> None:
        for entry in list(self.dispatcher.books.backlog):
            if isinstance(entry, Errand) and entry.is_untouched and not entry.done():
                entry.withdraw()

    def wind_down(self, *, interrupt: bool = False) -> None:
        """Start nothing more; what children hold in store comes back, for `requeue`.

        `interrupt`: raise KeyboardInterrupt in what runs, so that it tidies up; it comes out as dropped, too.
        """
        self.dispatcher.post(self.dispatcher.interrupt if interrupt else self.dispatcher.drain)

    def cancel(self, errands: Iterable[Errand], *, kill: bool) -> None:
        """Drop those that have not begun; ask those that run to stop, or kill their processes."""
        dispatcher = self.dispatcher
        for errand in errands:
            dispatcher.post(partial(dispatcher.cancel, errand, _nobody, kill=kill))

    def crash(self) -> None:
        """Kill the processes that run something: for what they run that is a crash."""
        self.dispatcher.post(self._kill_busy)

    def _kill_busy(self) -> None:
        for child in self.dispatcher.books.children.values():
            if child.frames:
                child.connection.kill()

    # -- life

    def is_ready(self) -> bool:
        """Return whether a child is ready for work, after a moment's wait if none is."""
        children = self.dispatcher.books.children
        if self.dispatcher.ask(lambda: any(child.ready for child in children.values()), otherwise=False):
            return True
        self.sleep(_LOOK)
        return False

    @property
    def broken(self) -> str | None:
        """Why no child can be started; None as long as they can."""
        return self._pool.broken

    def close(self) -> None:
        """Kill what still runs, and free everything."""
        self._pool.accepting = False
        self._pool.finish(0)
        os.close(self._wake_read)
        os.close(self._wake_write)


def _nobody(_cancelled: bool) -> None:
    """Take the answer to a cancel; the errand's end tells the same."""
