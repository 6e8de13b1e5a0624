"""The only code that calls users' functions.

    prepare(fn)                          async functions become plain ones that run on this process's event loop
    run_many(fn, arguments, results)     the fast way: many short jobs in one C loop, stopping at the first error
    run_one(fn, args, kwargs, soft)      one job, with its soft timeout

Each returns the exception instead of raising it: a job's SystemExit or KeyboardInterrupt is the job's outcome and must
not end the process that ran it.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import SoftTimeout

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

__all__ = ["prepare", "run_many", "run_one"]

#: The flag of an `async def` in its code object: `inspect.CO_COROUTINE`, without the 5 ms that importing inspect takes.
_CO_COROUTINE: Final = 0x80


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
    try:
        results.extend((starmap if star else map)(fn, arguments))
    except BaseException as error:  # noqa: BLE001  # see the module's docstring
        return error
    return None


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
    except BaseException as error:  # noqa: BLE001  # see the module's docstring
        return error
    return None


@contextmanager
def _soft_timeout(seconds: float) -> Iterator[None]:
    """Raise SoftTimeout in the block once, after `seconds`. Main thread only; the job must not use SIGALRM itself."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise SoftTimeout(f"the job has run for its soft_timeout of {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_runner: asyncio.Runner | None = None


def _loop() -> asyncio.Runner:
    """Return this process's event loop, made at the first async job and kept: connections in it stay usable."""
    global _runner  # noqa: PLW0603  # the one event loop of the process
    if _runner is None:
        import asyncio  # noqa: PLC0415  # 20 ms that only async jobs pay

        _runner = asyncio.Runner()
    return _runner
