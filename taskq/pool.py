"""`Pool`: the interface of `multiprocessing.Pool` over a `TaskQueue`.

    from multiprocessing import Pool        from taskq import Pool
    with Pool(4) as pool: ...               with Pool(4) as pool: ...        the same calls, the same results

Differences, all on purpose: a killed child process fails its call (`JobCrashed`) instead of hanging the pool;
`imap` reads its input lazily, a window ahead; `chunksize` may be left to the library everywhere; and with
`url="redis://..."` or `url="sqlite:///..."` the calls run in `taskq worker`.
Interface: https://docs.python.org/3/library/multiprocessing.html#multiprocessing.pool.Pool
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import deque
from concurrent.futures import Future, wait
from multiprocessing import TimeoutError as PoolTimeout
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from taskq.errors import EncodeError, QueueClosed, TaskRefused
from taskq.locks import pass_on
from taskq.queue import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from multiprocessing.context import BaseContext
    from types import TracebackType

    from taskq.job import Job

__all__ = ["AsyncResult", "IMapIterator", "Pool"]

R = TypeVar("R")
T = TypeVar("T")

#: States of a pool.
_RUN, _CLOSE, _TERMINATE = "RUN", "CLOSE", "TERMINATE"
#: The end of an iterator, as its reader's thread hands it over.
_END = object()


class AsyncResult(Generic[R]):
    """The result of a call that was not waited for."""

    def __init__(self, future: Future[R]) -> None:
        self._future = future

    def ready(self) -> bool:
        """Return whether the call has ended."""
        return self._future.done()

    def successful(self) -> bool:
        """Return whether the call has ended without an exception.

        Raises:
            ValueError: it has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} is not ready")
        return not self._future.cancelled() and self._future.exception() is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, and its callbacks have been called, for at most `timeout` seconds."""
        wait([self._future], timeout)

    def get(self, timeout: float | None = None) -> R:
        """Return the result.

        Raises:
            multiprocessing.TimeoutError: it is not there after `timeout` seconds.
            Exception: what the call raised.
        """
        if timeout is not None and not wait([self._future], timeout).done:
            raise PoolTimeout(f"no result after {timeout:g} s")
        return self._future.result()


class IMapIterator(Generic[R]):
    """The results of `imap` or `imap_unordered`, as they come. Any thread may read it."""

    def __init__(self, results: Iterator[R]) -> None:
        self._source: Iterator[R] = iter(results)
        self._results = results
        self._reader: _Reader[R] | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return next(self._source)

    def next(self, timeout: float | None = None) -> R:
        """Return the next result.

        Raises:
            StopIteration: there is none.
            multiprocessing.TimeoutError: it is not there after `timeout` seconds.
        """
        if timeout is None:
            return next(self._source)
        return self.read_ahead().take(timeout)

    def read_ahead(self) -> _Reader[R]:
        """Have a thread take all results, so that they are there whether or not they are waited for."""
        with self._lock:
            if self._reader is None:
                self._reader = _Reader(self._source)
                self._source = self._reader
            return self._reader

    def close(self) -> None:
        """Want no more results: what has not started will not."""
        self._results.close()  # type: ignore[attr-defined]  # each iterator of a queue has it


class Pool:
    """Processes that run calls: `multiprocessing.Pool`, crash-safe, and on request on the machines of a store.

    - `processes`: how many calls run at once; None: one per CPU that this program may use.
    - `initializer(*initargs)`: called in each process before its first call.
    - `maxtasksperchild`: calls after which a process is replaced by a fresh one.
    - `context`: of multiprocessing; its start method is used. None: the safest that the platform has.
    - `url`: as of `TaskQueue`. On a store the workers there decide on all of the above.

    Raises:
        ValueError, TypeError: a bad argument.
        ConfigError: a bad URL.
    """

    def __init__(  # the signature of multiprocessing.Pool
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: BaseContext | None = None,
        *,
        url: str = "local://",
    ) -> None:
        self._state = _CLOSE
        if processes is not None and processes < 1:
            raise ValueError(f"processes={processes!r}: give a whole number from 1")
        if maxtasksperchild is not None and (type(maxtasksperchild) is not int or maxtasksperchild < 1):
            raise ValueError(f"maxtasksperchild={maxtasksperchild!r}: give a whole number from 1, or None")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer={initializer!r} cannot be called")
        self._queue = TaskQueue(
            url,
            processes=processes,
            start_method=None if context is None else context.get_start_method(),
            initializer=initializer,
            initargs=tuple(initargs),
            max_tasks_per_child=maxtasksperchild,
        )
        self._iterators: weakref.WeakSet[IMapIterator[Any]] = weakref.WeakSet()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._state = _RUN

    # -- single calls

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> R:
        """Return `func(*args, **kwds)`, called in one of the processes."""
        return self._submit(func, args, kwds).result()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[R]:
        """Have `func(*args, **kwds)` called; the callbacks get the result or the exception, in another thread.

        A call that cannot be sent, or has the wrong arguments, fails too: `get` raises.
        """
        job: Future[R]
        try:
            job = self._submit(func, args, kwds)
        except (EncodeError, TaskRefused) as error:  # Pool tells them by `get`, and calls `error_callback`
            job = Future()
            job.set_exception(error)
        if callback is None and error_callback is None:
            return AsyncResult(job)
        ended: Future[R] = Future()
        job.add_done_callback(lambda job: _pass_on(job, ended, callback, error_callback))
        return AsyncResult(ended)

    def _submit(self, func: Callable[..., R], args: Iterable[Any], kwds: Mapping[str, Any] | None) -> Job[R]:
        self._check_running()
        return self._queue.submit(func, *args, **(kwds or {}))

    # -- many

    def map(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None) -> list[R]:
        """Return `[func(item) for item in iterable]`, called in the processes.

        Raises:
            Exception: the first that a call raised, when all have ended.
        """
        self._check_running()
        return _collect(self._queue.imap(func, iterable, chunksize=chunksize))

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """Do as `map`, calling `func(*item)`."""
        self._check_running()
        return _collect(self._queue.starmap(func, iterable, chunksize=chunksize))

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """Do as `map`, without waiting; the callbacks get the list or the exception, in another thread."""
        self._check_running()
        return self._collect_aside(self._queue.imap(func, iterable, chunksize=chunksize), callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[list[R]]:
        """Do as `starmap`, without waiting; the callbacks get the list or the exception, in another thread."""
        self._check_running()
        return self._collect_aside(self._queue.starmap(func, iterable, chunksize=chunksize), callback, error_callback)

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None) -> IMapIterator[R]:
        """Return an iterator over `func(item)` in order."""
        self._check_running()
        return self._watched(self._queue.imap(func, iterable, chunksize=chunksize))

    def imap_unordered(
        self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None
    ) -> IMapIterator[R]:
        """Return an iterator over `func(item)`, each as soon as it is there."""
        self._check_running()
        return self._watched(self._queue.imap_unordered(func, iterable, chunksize=chunksize))

    def _watched(self, results: Iterator[R]) -> IMapIterator[R]:
        made = IMapIterator(results)
        self._iterators.add(made)
        return made

    def _collect_aside(
        self,
        results: Iterator[R],
        callback: Callable[[list[R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult[list[R]]:
        ended: Future[list[R]] = Future()

        def collect() -> None:
            collected: Future[list[R]] = Future()
            try:
                collected.set_result(_collect(results))
            except BaseException as exc:  # noqa: BLE001  # it is the outcome
                collected.set_exception(exc)
            _pass_on(collected, ended, callback, error_callback)

        self._start(collect)
        return AsyncResult(ended)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="taskq pool", daemon=True)
        self._threads.add(thread)
        thread.start()

    # -- its life

    def close(self) -> None:
        """Take no more calls. Those that were made go on; results of `imap` that were not read are kept."""
        if self._state is _RUN:
            self._state = _CLOSE
            for iterator in tuple(self._iterators):
                self._threads.add(iterator.read_ahead().thread)

    def terminate(self) -> None:
        """End at once: running calls are killed, all others are cancelled."""
        self._state = _TERMINATE
        self._queue.shutdown(cancel_futures=True, grace=0)

    def join(self) -> None:
        """Wait until all calls have ended and the processes have exited.

        Raises:
            ValueError: neither `close` nor `terminate` was called.
        """
        if self._state is _RUN:
            raise ValueError("the pool still runs: call close() or terminate() before join()")
        for thread in tuple(self._threads):
            thread.join()
        self._queue.shutdown()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End at once, as `terminate`."""
        self.terminate()

    def __del__(self) -> None:
        if self._state is _RUN:
            warnings.warn(f"a pool was not closed: {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> str:
        raise NotImplementedError("a pool cannot be passed between processes or pickled")

    def _check_running(self) -> None:
        if self._state is not _RUN:
            raise ValueError("the pool does not run any more: it was closed or terminated")


class _Reader(Generic[R]):
    """A thread that takes all results of an iterator, and an iterator over what it has taken."""

    def __init__(self, source: Iterator[R]) -> None:
        self._taken: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._read, args=(source,), name="taskq pool results", daemon=True)
        self.thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return self.take(None)

    def take(self, timeout: float | None) -> R:
        """Return the next result; wait for it at most so many seconds.

        Raises:
            StopIteration: there is none.
            multiprocessing.TimeoutError: it is not there in time.
        """
        try:
            result, error = self._taken.get(timeout=timeout)
        except Empty:
            raise PoolTimeout(f"no result after {timeout:g} s") from None
        if error is not None:
            raise error
        if result is _END:
            self._taken.put((_END, None))  # for those who ask again
            raise StopIteration
        found: R = result
        return found

    def _read(self, source: Iterator[R]) -> None:
        while True:
            try:
                self._taken.put((next(source), None))
            except StopIteration:
                break
            except BaseException as exc:  # noqa: BLE001  # it is raised where the result would be
                self._taken.put((None, exc))
                if isinstance(exc, QueueClosed):
                    break
        self._taken.put((_END, None))


def _pass_on(
    future: Future[R],
    ended: Future[R],
    callback: Callable[[R], object] | None,
    error_callback: Callable[[BaseException], object] | None,
) -> None:
    """Call the callback for an outcome, and then tell the outcome."""
    try:
        result = future.result()
    except BaseException as exc:  # noqa: BLE001  # it is the outcome
        try:
            if error_callback is not None:
                error_callback(exc)
        finally:
            ended.set_exception(exc)
    else:
        try:
            if callback is not None:
                callback(result)
        finally:
            ended.set_result(result)


def _collect(results: Iterator[R]) -> list[R]:
    """Return all results; raise the first error when all items have ended."""
    found: list[R] = []
    rest = iter(results)
    try:
        found.extend(rest)
    except Exception as first:
        pass_on(first)
        _exhaust(rest, first)
        raise
    return found


def _exhaust(rest: Iterator[Any], error: BaseException) -> None:
    """Go through what is left, whatever is raised at single items, until it ends or repeats its last error."""
    while True:
        try:
            deque(rest, maxlen=0)
        except Exception as another:  # noqa: BLE001  # the first one is what is raised
            pass_on(another)
            if another is error or isinstance(another, QueueClosed):
                return
            error = another
        else:
            return
