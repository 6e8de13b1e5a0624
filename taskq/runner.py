"""The only code that calls users' functions.

    prepare(fn)                          async functions become plain ones that run on this process's event loop
    run_many(fn, arguments, results)     the fast way: many short jobs in one C loop, stopping at the first error
    run_one(fn, args, kwargs, soft)      one job, with its soft timeout

Each returns the exception instead of raising it: a job's SystemExit or KeyboardInterrupt is the job's outcome and must
not end the process that ran it.

A process that a job forks is not the job's: it ends where the job returns or raises, and never comes back from here.

    job ──fork──▶ copy of the process: the arguments behind it are dropped ──▶ returns, raises, exits ──▶ `_leave`
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from itertools import starmap
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn

from taskq import context
from taskq.errors import SoftTimeout

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

__all__ = ["begin_process", "close_loop", "disown", "prepare", "run_many", "run_one"]

#: The flag of an `async def` in its code object: `inspect.CO_COROUTINE`, without the 5 ms that importing inspect takes.
_CO_COROUTINE: Final = 0x80

#: Seconds until an alarm that is put back comes whose time is over.
_SOON: Final = 0.001


def prepare(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn`, or for a coroutine function a plain function that runs it to its end."""
    called = getattr(fn, "__call__", None)  # noqa: B004  # of an object it may be async
    if not _is_async(fn) and not _is_async(called):
        return fn

    def run(*args: Any, **kwargs: Any) -> Any:
        return _loop().run(fn(*args, **kwargs))

    return run


def _is_async(fn: object) -> bool:
    """Tell what `inspect.iscoroutinefunction` tells: an `async def`, or one marked as such (Python >= 3.12)."""
    while isinstance(fn, partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    code = getattr(fn, "__code__", None)
    return bool(getattr(code, "co_flags", 0) & _CO_COROUTINE) or hasattr(fn, "_is_coroutine_mark")


def run_many(
    fn: Callable[..., Any], arguments: Iterable[Any], results: list[Any], *, star: bool
) -> BaseException | None:
    """Append `fn` of each argument (`star`: of each argument tuple) to `results`; return the error that stopped it.

    After an error the results before it are in the list, and an iterator of arguments stands behind the failed one.
    A job that raises StopIteration looks like the end of the arguments: the caller sees it by the count of results.
    """
    global _ahead  # noqa: PLW0603  # what this process has before it
    before, _ahead = _ahead, arguments
    try:
        results.extend((starmap if star else map)(fn, arguments))
        error = None
    except BaseException as raised:  # noqa: BLE001  # see the module's docstring
        error = raised
    _ahead = before
    if _forked:
        _leave(error)
    return error


def run_one(
    fn: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any], results: list[Any], soft: float = 0.0
) -> BaseException | None:
    """Append `fn(*args, **kwargs)` to `results`, or return its error. SoftTimeout comes after `soft` seconds."""
    try:
        if soft:
            with _soft_timeout(soft):
                results.append(fn(*args, **kwargs))
        else:
            results.append(fn(*args, **kwargs))
        error = None
    except BaseException as raised:  # noqa: BLE001  # see the module's docstring
        error = raised
    if _forked:
        _leave(error)
    return error


@contextmanager
def _soft_timeout(seconds: float) -> Iterator[None]:
    """Raise SoftTimeout in the block once, after `seconds`. Main thread only; the job must not use SIGALRM itself.

    An alarm that was set before, as by a stock `rq worker` for the job's timeout, still comes at its time.
    """
    greenlet = sys.modules.get("greenlet")
    job: Any = None if greenlet is None else greenlet.getcurrent()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if later:
            put_back()
        error = SoftTimeout(f"the job has run for its soft_timeout of {seconds:g} s")
        if greenlet is None or greenlet.getcurrent() is job or "gevent" not in sys.modules:
            raise error
        sys.modules["gevent"].get_hub().loop.run_callback(job.throw, error)  # the job waits; this is gevent's own code

    before = signal.signal(signal.SIGALRM, interrupt)
    began, (later, _) = monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)

    def put_back() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if later:
            signal.setitimer(signal.ITIMER_REAL, max(later - (monotonic() - began), _SOON))

    try:
        with context.clock_running(_Alarm()):
            yield
    finally:
        put_back()


class _Alarm:
    """The clock of a soft timeout."""

    _left = 0.0

    def stop(self) -> None:
        """Count no longer."""
        self._left, _ = signal.setitimer(signal.ITIMER_REAL, 0)

    def go_on(self) -> None:
        """Count on, unless the time was over before."""
        signal.setitimer(signal.ITIMER_REAL, self._left)


# --- processes that jobs fork

#: The arguments behind the job that runs, one of many; None: none is.
_ahead: Iterable[Any] | None = None
#: Whether this process was forked by a job.
_forked = False


def begin_process() -> None:
    """Let this process run jobs, also when it was forked by one."""
    global _ahead, _forked  # what this process is
    _ahead, _forked = None, False


def disown() -> None:
    """Have this process end where its job ends: a job has forked it."""
    global _forked  # noqa: PLW0603  # what this process is
    _forked = True


def _in_forked_process() -> None:
    """Start nothing more in a process that one of many jobs has forked, in whichever thread."""
    if _ahead is not None:
        disown()
        with suppress(Exception):
            deque(_ahead, maxlen=0)  # a C loop finds nothing behind the job that has forked


def _leave(error: BaseException | None) -> NoReturn:
    """End a forked process as Python ends a program, but for the exit handlers, which are the forking process's."""
    code = 1
    try:
        code = _exit_code(error)
        if error is not None:
            traceback.clear_frames(error.__traceback__)  # what the job has open is written and closed
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # no stream, a closed one, a broken pipe
                stream.flush()
    finally:
        os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    """Return what a program ends with that ends by this, and show what it would show."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{error.code}\n")
    return 1


os.register_at_fork(after_in_child=_in_forked_process)


_runner: asyncio.Runner | None = None


def _loop() -> asyncio.Runner:
    """Return this process's event loop, made at the first async job and kept: connections in it stay usable."""
    global _runner  # noqa: PLW0603  # the one event loop of the process
    if _runner is None:
        import asyncio  # noqa: PLC0415  # 20 ms that only async jobs pay

        _runner = asyncio.Runner()
    return _runner


def close_loop() -> None:
    """Close the event loop of this process, if there is one; the next async job makes another."""
    global _runner  # noqa: PLW0603  # the one event loop of the process
    if _runner is not None:
        _runner.close()
        _runner = None
