"""Locks and waits that stay whole when a signal handler raises.

A signal handler runs in the main thread, between any two instructions of it, and what it raises there (Ctrl-C, an
alarm, a soft timeout) may end a call of ours at any of them. Nothing that others need may be left in the middle then:

    CallLock        belongs to the call that took it: when that is over, the lock is free, given back or not
    SafeCondition   a condition without a lock: each waiter leaves a lock of its own with it, and holds nothing
    SafeEvent       an Event made of it
    aside           work in a thread of ours, where no handler runs; its caller may be interrupted
    pass_on         what a handler raised, where an error of the same class would be taken for a broken connection
    hangups_blocked     a block in which no SIGHUP comes

The standard Condition and Event, and `with lock` since CPython 3.14, do their parts in several instructions, so a lock
stays taken for ever when an exception comes between them. Here each step that others see is one call of a function
written in C, which is done or not done: `dict.setdefault` decides who is next, an assignment gives the lock back.
"""

from __future__ import annotations

import concurrent.futures._base
import contextlib
import sys
import threading
from _thread import allocate_lock, get_ident, start_new_thread
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "CallLock",
    "SafeCondition",
    "SafeEvent",
    "aside",
    "detach",
    "hangups_blocked",
    "is_running",
    "may_be_interrupted",
    "pass_on",
]

T = TypeVar("T")

#: Seconds between two looks of a waiter at a lock: whether its holder is still there.
_LOOK: Final = 0.01
#: Seconds after which a waiter looks again by itself: a notification may be lost with an interrupted caller.
_LOST: Final = 1.0
#: inspect.CO_VARARGS, without inspect: a function takes *args.
_VARARGS: Final = 4
#: Our package, and the libraries under it in whose code a call may be interrupted.
_BELOW: Final = ("taskq", "redis", "hiredis")
#: The standard library's code that takes locks for its callers.
_BETWEEN: Final = vars(threading)
_FUTURES: Final = vars(concurrent.futures._base)  # noqa: SLF001  # what takes the locks of futures, several at once


class _Hold:
    """One time that a lock is taken, and what came after it."""

    __slots__ = ("after", "call", "depth", "over", "thread")

    def __init__(self, call: FrameType | None) -> None:
        self.thread = get_ident()
        #: The call for which the lock is taken.
        self.call = call
        self.depth = 1
        self.over = False
        #: The hold that came next, once there is one: the one that sets it has the lock.
        self.after: dict[int, _Hold] = {}


class CallLock:
    """A lock like RLock; it is free as well when the call that took it is over without having given it back.

    The call is the caller's function; where the standard library took it for `concurrent.futures.wait` and its like,
    that function. It serves as the lock of a Condition.
    """

    __slots__ = ("_last", "_sleepers")

    def __init__(self) -> None:
        self._last = _Hold(None)
        self._last.over = True
        self._sleepers: list[Any] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # as RLock
        """Take the lock; return whether it is ours."""
        call: FrameType | None = sys._getframe(1)  # noqa: SLF001  # it has no public name
        if call is not None and (call.f_globals is _BETWEEN or call.f_globals is _FUTURES):
            call = _caller(call)
        hold = _Hold(call)
        last = self._last
        if last.over and last.after.setdefault(0, hold) is hold:
            self._last = hold
            return True
        if self._take(hold, look=False):
            return True
        return blocking and self._sleep(hold, None if timeout < 0 else monotonic() + timeout)

    def release(self) -> None:
        """Give it free; nothing happens where it is not ours any more."""
        hold = self._last
        if hold.after:
            hold = self._newest()
        if hold.over or hold.thread != get_ident():
            return
        if hold.depth > 1:
            hold.depth -= 1
            return
        hold.over = True
        hold.call = None
        if self._sleepers:
            self._wake_one()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _release_save(self) -> int:
        """Give it free, however often it was taken; return that for `_acquire_restore`. A Condition calls both."""
        hold = self._newest()
        depth, hold.depth = hold.depth, 1
        self.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
        self._newest().depth = depth

    def _is_owned(self) -> bool:
        """Return whether it is this thread's; a Condition asks."""
        hold = self._newest()
        return not hold.over and hold.thread == get_ident()

    def _newest(self) -> _Hold:
        last = self._last
        while last.after:  # an interrupted call has not set the last one
            last = last.after[0]
        return last

    def _take(self, hold: _Hold, *, look: bool) -> bool:
        """Take it if it is free; `look`: also from a call of another thread that is over."""
        while True:
            last = self._newest()
            if not last.over:
                if last.thread == hold.thread:
                    if is_running(last.call, sys._getframe()):  # noqa: SLF001  # as above
                        last.depth += 1
                        return True
                elif not look or _goes_on(last):
                    return False
            if last.after.setdefault(0, hold) is hold:
                self._last = hold
                return True

    def _sleep(self, hold: _Hold, deadline: float | None) -> bool:
        """Wait until it is free."""
        look = False
        while True:
            turn = allocate_lock()
            turn.acquire()
            self._sleepers.append(turn)
            if self._take(hold, look=look):
                break
            left = _LOOK if deadline is None else deadline - monotonic()
            if left <= 0:
                return False
            look = not turn.acquire(timeout=min(left, _LOOK))
        self._forget(turn)
        return True

    def _forget(self, turn: Any) -> None:
        with contextlib.suppress(ValueError):  # another thread has just woken it
            self._sleepers.remove(turn)

    def _wake_one(self) -> None:
        try:
            while self._sleepers:
                self._sleepers.pop(0).release()
        except (IndexError, RuntimeError):
            return


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the call that takes a lock, behind what the standard library has in between."""
    while frame is not None and frame.f_globals is _BETWEEN:
        frame = frame.f_back
    if frame is not None and frame.f_globals is _FUTURES:
        while frame.f_back is not None and frame.f_back.f_globals is _FUTURES:
            frame = frame.f_back
    return frame


def is_running(call: FrameType | None, frame: FrameType | None) -> bool:
    """Return whether a call is this frame or one of those that have called it."""
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None


def _goes_on(hold: _Hold) -> bool:
    """Return whether another thread is still in the call that has a lock; one that is not known here is."""
    frame = sys._current_frames().get(hold.thread)  # noqa: SLF001  # documented
    return frame is None or is_running(hold.call, frame)


class SafeCondition:
    """A condition variable without a lock: a waiter tests what it waits for after each notification."""

    __slots__ = ("_sleepers",)

    def __init__(self) -> None:
        self._sleepers: list[Any] = []

    def wait_for(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """Wait until `ready()` is true; return whether it is."""
        deadline = None if timeout is None else monotonic() + timeout
        while not ready():
            turn = allocate_lock()
            turn.acquire()
            self._sleepers.append(turn)
            try:
                if ready():
                    break
                left = _LOST if deadline is None else deadline - monotonic()
                if left <= 0:
                    return False
                turn.acquire(timeout=min(left, _LOST))
            finally:
                with contextlib.suppress(ValueError):
                    self._sleepers.remove(turn)
        return True

    def notify_all(self) -> None:
        """Wake all waiters, so that they test again."""
        for turn in self._sleepers.copy():
            with contextlib.suppress(RuntimeError):  # it is awake already
                turn.release()


class SafeEvent:
    """An event like `threading.Event`."""

    __slots__ = ("_changed", "_is_set")

    def __init__(self) -> None:
        self._changed = SafeCondition()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it and wake all waiters."""
        self._is_set = True
        self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return whether it is."""
        return self._changed.wait_for(self.is_set, timeout)


def aside(work: Callable[[], T]) -> T:
    """Return what `work()` gives, done where no signal handler runs; interrupted, its caller leaves it to its end."""
    if not may_be_interrupted():
        return work()
    answer: list[tuple[T | None, BaseException | None]] = []
    done = SafeEvent()

    def run() -> None:
        try:
            answer.append((work(), None))
        except BaseException as error:  # noqa: BLE001  # it is raised where it is waited for
            answer.append((None, error))
        done.set()

    detach(run)
    done.wait()
    value, error = answer.pop()
    if error is not None:
        try:
            raise error
        finally:
            error = None
    return value  # type: ignore[return-value]


def detach(work: Callable[[], None]) -> None:
    """Have work done where no signal handler runs, and do not wait for it."""

    def start() -> None:  # not here: Thread.start is Python code, and takes the lock of all threads
        threading.Thread(target=work, name="taskq-aside", daemon=True).start()

    try:
        start_new_thread(start, ())
    except RuntimeError:  # there can be no more threads, as at the interpreter's end
        work()


def pass_on(error: BaseException) -> None:
    """Raise what a signal handler raised, if that is what this error is, or what it comes of.

    An alarm that raises in the middle of a call says nothing of what was called: its TimeoutError, an OSError, is no
    broken connection, and in a decoder it is no damaged value. It is known by its traceback, which begins in our code,
    or in a library's under it, and goes through a function that was given a frame, as signal handlers are.
    """
    cause: BaseException | None = error
    seen: set[int] = set()  # an exception may have been made its own cause, by way of others
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        trace = cause.__traceback__
        if trace is not None and _is_below(trace.tb_frame):
            while (trace := trace.tb_next) is not None:
                if _has_frame(trace.tb_frame):
                    raise cause
        cause = cause.__cause__ or cause.__context__


def _is_below(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in _BELOW or package in sys.stdlib_module_names


def _has_frame(frame: FrameType) -> bool:
    code, values = frame.f_code, frame.f_locals
    given = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & _VARARGS:
        given += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    return any(isinstance(value, FrameType) for value in given)


def may_be_interrupted() -> bool:
    """Return whether signal handlers run in this thread."""
    return get_ident() == threading.main_thread().ident


@contextlib.contextmanager
def hangups_blocked() -> Iterator[None]:
    """Put SIGHUP off until after the block; processes and threads begun in it never get it.

    For the helpers of multiprocessing, which must outlive a hangup to tidy up.
    """
    import signal  # noqa: PLC0415  # `import taskq` does without it

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
