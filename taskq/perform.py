"""The execution of envelopes: what a child process, or a stock `rq worker`, calls to run a stored job.

    perform            in a stock `rq worker`, see rq.py            ──▶ the value itself
    perform_call       one call, in a child of our own worker       ──▶ its value as codec bytes
    perform_chunk      all items of a chunk of a map                ──▶ the outcome of each, see chunks.py
    perform_item       one of them alone                            ──▶ its value as codec bytes

Which functions may run is said by `allowlist`; what they raise is raised.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq import allowlist, context
from taskq.chunks import ItemOutcome, outcome_of, pack_outcomes, pack_values, read_items
from taskq.codec import decode, encode
from taskq.context import JobContext
from taskq.envelope import CHUNK, MAX_BYTES, Parts, parts
from taskq.errors import DecodeError, UnknownTask
from taskq.failure import Failure
from taskq.runner import run_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["allow", "exception_handlers", "find", "perform", "perform_call", "perform_chunk", "perform_item"]

#: Which functions this process may run, and how large results may be; set once, before its first job.
_allowed: allowlist.AllowList | None = None
_max_bytes = MAX_BYTES
#: What is called with jobs of other programs that have failed.
_handlers: tuple[Callable[..., Any], ...] = ()


def allow(  # noqa: PLR0917  # the pool gives an initializer its arguments by their places
    modules: Iterable[str],
    commands: bool = False,
    max_bytes: int = MAX_BYTES,
    home: str = "",
    keys: tuple[str, ...] = (),
    handlers: Iterable[str] = (),
) -> None:
    """Import these modules and let this process run their functions, and `commands`; the initializer of a pool.

    `home`: the URL of the store whose jobs it runs, which a `TaskQueue()` of theirs means; `keys` sign what they put.
    `handlers`: what `exception_handlers` returns, by name.

    Raises:
        ConfigError: a module cannot be imported, or a handler is not there.
    """
    context.set_home(home, keys)
    global _allowed, _max_bytes, _handlers  # noqa: PLW0603  # what a process may run is said once in its life
    _allowed = allowlist.AllowList(modules, commands=commands)
    _max_bytes = max_bytes
    _handlers = tuple(allowlist.handler(name) for name in handlers)


def disallow() -> None:
    """Forget what was allowed: the next job goes by the environment, as in a new process."""
    global _allowed  # noqa: PLW0603  # see allow
    _allowed = None


def exception_handlers() -> tuple[Callable[..., Any], ...]:
    """Return what the operator wants called with each job of another program that has failed; no job can call these."""
    return _handlers


def find(task: str) -> Callable[..., Any]:
    """Return the function of a task's name, as a plain one, if this process may run it.

    Raises:
        UnknownTask: it may not.
    """
    global _allowed  # noqa: PLW0603  # see allow
    if _allowed is None:
        _allowed = allowlist.from_environment()
    return _allowed.find(task)


def perform(envelope: bytes, job_id: str = "", attempt: int = 1, results: bytes = b"") -> Any:
    """Run an envelope in a stock `rq worker` and return the value; of a chunk, the bytes of its outcomes.

    `results`: those of the jobs that it needs, see `pack_results`.

    It runs @task functions of modules that the worker has imported, and what the modules named in TASKQ_IMPORT define.

    Raises:
        UnknownTask, DecodeError: it cannot be run here.
        Exception: whatever the task raises.
    """
    found = parts(envelope)
    if found.head.kind == CHUNK:
        return perform_chunk(envelope, job_id, attempt)
    before = _act_as(job_id, attempt)
    try:
        function, args, kwargs = _ready(found, results)
        return function(*args, **kwargs)
    finally:
        context.provide(before)


def perform_call(envelope: bytes, job_id: str, attempt: int, results: bytes = b"") -> bytes:
    """Run a call in a child of our pool and return its value as codec bytes. `results`: see `pack_results`.

    Raises:
        UnknownTask: this process may not run the task.
        DecodeError: the envelope or its arguments cannot be read.
        EncodeError: the value cannot travel, or is too large.
        Exception: whatever the task raises.
    """
    before = _act_as(job_id, attempt)
    try:
        try:
            function, args, kwargs = _ready(parts(envelope), results)
        except (UnknownTask, DecodeError) as error:
            error.__before_start__ = True
            raise
        return encode(function(*args, **kwargs), limit=_max_bytes, root="result")
    finally:
        context.provide(before)


def perform_chunk(envelope: bytes, job_id: str, attempt: int) -> bytes:
    """Run all items of a chunk in a child of our pool; return what became of each, see `chunks`.

    Raises:
        UnknownTask, DecodeError: as `perform_call`; what single items raise is in their outcomes.
    """
    run = _ChunkRun(envelope)
    before = _act_as(job_id, attempt, run)
    try:
        return run.result()
    finally:
        context.provide(before)


def perform_item(envelope: bytes, index: int, job_id: str, attempt: int) -> bytes:
    """Run one item of a chunk alone, and return its value as codec bytes. The envelope has only this item.

    Raises:
        UnknownTask, DecodeError, EncodeError, Exception: as `perform_call`.
    """
    before = _act_as(f"{job_id}.{index}", attempt)
    try:
        function, star, item = _open_item(envelope)
        value = function(*item) if star else function(item)
        return encode(value, limit=_max_bytes, root="result")
    finally:
        context.provide(before)


def _act_as(job_id: str, attempt: int, run: _ChunkRun | None = None) -> Callable[[], JobContext] | None:
    """Let `current_job()` name the job of the store instead of the pool's own; return the provider before."""
    before = context.provide(None)

    def provide() -> JobContext:
        name = job_id if run is None else f"{job_id}.{run.done}"
        return JobContext(name, attempt, 0, _Silent()) if before is None else before().renamed(name, attempt)

    context.provide(provide)
    return before


class _Silent:
    """A reporter that drops everything."""

    def progress(self, number: int, done: int, total: int | None) -> None:
        """Drop it."""

    def is_cancelled(self, number: int) -> bool:  # noqa: ARG002  # the interface's signature
        """Know of nothing."""
        return False

    def log(self, number: int, text: str) -> None:
        """Drop it."""

    def meta(self, number: int) -> dict[str, Any]:  # noqa: ARG002  # the interface's signature
        """Keep nothing."""
        return {}

    def tell_meta(self, number: int, changed: dict[str, Any]) -> None:
        """Drop it."""


def _ready(found: Parts, results: bytes) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return the function of a call and its arguments."""
    function = find(found.head.task)
    resolve = _resolver(results)
    args, kwargs = decode(found.args, resolve=resolve), decode(found.kwargs, resolve=resolve)
    if type(args) is not list or type(kwargs) is not dict:
        raise DecodeError("the arguments of a call are a list and a dict")
    return function, args, kwargs


def _resolver(results: bytes) -> Callable[[str], Any]:
    """Return the function that gives the results of other jobs; each is decoded again, so that none is shared."""

    def resolve(job_id: str) -> Any:
        found: dict[str, bytes] = msgpack.unpackb(results) if results else {}
        if job_id not in found:
            raise ValueError(f"the result of job {job_id}, which it needs, did not come with it: use a `taskq worker`")
        return decode(found[job_id])

    return resolve


def _open_chunk(envelope: bytes) -> tuple[Callable[..., Any], bool, list[Any]]:
    """Return the function of a chunk with what is bound to it, whether items are spread, and the items."""
    try:
        return _opened(parts(envelope))
    except (UnknownTask, DecodeError) as error:
        error.__before_start__ = True
        raise


def _open_item(envelope: bytes) -> tuple[Callable[..., Any], bool, Any]:
    """Return the same, of a chunk of one item."""
    function, star, items = _open_chunk(envelope)
    if len(items) != 1:
        error = DecodeError(f"a chunk of {len(items)} items is not one item")
        error.__before_start__ = True
        raise error
    return function, star, items[0]


def _opened(found: Parts) -> tuple[Callable[..., Any], bool, list[Any]]:
    function = find(found.head.task)
    shape = decode(found.kwargs)
    if type(shape) is list and len(shape) == len(("star", "args", "kwargs")):
        shape, args, kwargs = shape
        if type(args) is not list or type(kwargs) is not dict:
            raise DecodeError("what is bound to the function of a chunk is a list and a dict")
        function = partial(function, *args, **kwargs)
    if type(shape) is not bool:
        raise DecodeError("a chunk does not say how its items become arguments")
    return function, shape, read_items(found.args)


class _ChunkRun:
    """The run of all items of one chunk."""

    def __init__(self, envelope: bytes) -> None:
        self._envelope = envelope
        self._values: list[Any] = []
        self._failures: dict[int, Failure] = {}

    @property
    def done(self) -> int:
        """How many items have ended: the index of the one that runs."""
        return len(self._values) + len(self._failures)

    def result(self) -> bytes:
        """Run them and return what became of each."""
        function, star, items = _open_chunk(self._envelope)
        rest = iter(items)
        started = perf_counter_ns()
        while True:
            error = run_many(function, rest, self._values, star=star)
            if error is None and self.done == len(items):
                break
            if isinstance(error, KeyboardInterrupt) and context.current_job().cancelled:
                raise error  # it was raised in the item because nobody wants the rest
            self._failures[self.done] = Failure.from_exception(
                error or StopIteration()
            )  # a C loop takes it for its end
        elapsed = perf_counter_ns() - started
        if not self._failures:
            return pack_values(elapsed, self._values, limit=_max_bytes)
        return pack_outcomes(elapsed, self._outcomes(len(items)))

    def _outcomes(self, items: int) -> list[ItemOutcome]:
        good = iter(self._values)
        failures = self._failures
        return [failures[at] if at in failures else outcome_of(next(good), _max_bytes) for at in range(items)]
