"""Functions as the children know them: how they are named, and how many of their jobs go at once.

    parent   unwrap_callable()  a function with a name, and the arguments that a partial, a method's object or a
                                callable object puts in front
             definition()       name, bound arguments and for __main__ a digest, as bytes
    child    find_function()    imports it

A function travels by its importable name, never by its code. The parts of a definition are packed by msgpack.

The size of a batch is steered by measured time and bytes. It is small enough that a result never waits long behind its
batch-mates, and large enough that the share of the parent is lost in the noise: a batch costs it 0.2 ms, so one of
50 ms costs less than half a percent of a core. It must exceed the switch interval of the interpreter (5 ms) by far: a
busy user thread may keep the dispatcher waiting for that long.
"""

from __future__ import annotations

import marshal
import os
import sys
import types
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.allowlist import named
from taskq.errors import TaskRefused, UnknownTask
from taskq.executors.pool import payloads
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.options import JobOptions
    from taskq.signatures import Shape

_MAIN: Final = "__main__:"

#: Nanoseconds of work in one batch.
TARGET_NS: Final = 50_000_000
#: Nanoseconds of work behind which another batch may wait at a child.
BEHIND_NS: Final = 1.5 * TARGET_NS
#: Nanoseconds of work below which the last batches are not shortened: less is not worth a message.
SHORT_NS: Final = 1_000_000
#: Most jobs in one batch: it bounds the memory of a window of no-ops.
BATCH_MAX: Final = 8192
#: Bytes of arguments, or of results, in one batch: beyond, the caches lose more than fewer messages gain.
BATCH_BYTES: Final = 256 * 1024
#: A batch holds at most this many times the jobs of the last one, and one slow batch counts at most so much.
_STEP: Final = 4
#: Weight of the newest batch in the running mean.
_WEIGHT: Final = 0.3


class BatchSizer:
    """What was measured of one function. Written by the dispatcher alone, read by any thread."""

    __slots__ = ("_bytes", "_known_to", "last_ns", "ns")

    def __init__(self) -> None:
        #: Nanoseconds per job, running mean; None: no batch is back yet.
        self.ns: float | None = None
        #: Nanoseconds per job of those whose outcomes came last.
        self.last_ns = 0.0
        self._bytes = 0.0
        self._known_to = 0

    def observe(self, jobs: int, elapsed_ns: int) -> None:
        """Note that a batch of this many jobs took so long."""
        sample = elapsed_ns / jobs
        if self.ns is None:
            self.ns = sample
        else:
            self.ns += _WEIGHT * (min(sample, _STEP * self.ns) - self.ns)
        self._known_to = max(jobs, self._known_to)

    def observe_bytes(self, jobs: int, size: int) -> None:
        """Note the bytes that this many arguments or results took, whichever are larger."""
        sample = size / jobs
        self._bytes = max(sample, self._bytes + _WEIGHT * (sample - self._bytes))

    def next_size(self) -> int:
        """Return how many jobs the next batch should hold."""
        if self.ns is None:
            return 1
        jobs = min(TARGET_NS / max(self.ns, 1.0), _STEP * self._known_to, BATCH_MAX)
        if self._bytes:
            jobs = min(jobs, BATCH_BYTES / self._bytes)
        return max(1, int(jobs))

    def share(self, left: int, batches: int) -> int:
        """Return how many jobs the next batch should hold, if so many are left and so many batches can be out.

        Fewer and fewer where the end is near, so that no child ends late.
        """
        shortest = SHORT_NS / max(self.ns or 1.0, 1.0)
        return min(self.next_size(), max(left // batches, int(shortest), 1))


class Function:
    """A function as the children know it: by a number and a definition that each gets once."""

    __slots__ = ("bound", "definition", "name", "number", "options", "shapes", "sizer")

    def __init__(self, number: int, name: str, definition: bytes, options: JobOptions, *, bound: bool) -> None:
        #: The shapes of calls that it is known to take.
        self.shapes: set[Shape] = set()
        self.number = number
        #: Whether arguments are bound to it: then it serves one map and is forgotten.
        self.bound = bound
        self.name = name
        self.definition = definition
        self.options = options
        self.sizer = BatchSizer()


def unwrap_callable(fn: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Split a callable into a function that has a name and the arguments bound to it.

    Raises:
        TaskRefused: it is not callable.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(fn, partial):
        args, kwargs = fn.args + args, {**fn.keywords, **kwargs}
        fn = fn.func
    owner = getattr(fn, "__self__", None)
    if isinstance(fn, types.MethodType) and not isinstance(owner, type):
        return fn.__func__, (owner, *args), kwargs
    if isinstance(fn, types.BuiltinMethodType) and not isinstance(owner, type | types.ModuleType | None):
        return getattr(type(owner), fn.__name__), (owner, *args), kwargs
    if not _is_routine(fn):
        if not callable(fn):
            raise TaskRefused(f"{fn!r} is not callable: pass the function itself, then its arguments")
        return type(fn).__call__, (fn, *args), kwargs
    return fn, args, kwargs


def _is_routine(fn: object) -> bool:
    """Tell whether it is a function of any kind or a class, and no object that is merely callable."""
    kind = type(fn)
    binds = hasattr(kind, "__get__") and not hasattr(kind, "__set__")  # as functions do, those of C extensions too
    return binds or isinstance(fn, type | types.MethodType | types.BuiltinFunctionType | types.MethodWrapperType)


def definition(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, start_method: str, strict: bool
) -> bytes:
    """Describe a function to the children.

    Raises:
        TaskRefused: they could not import it; says why and what to do.
        EncodeError: a bound argument cannot travel.
    """
    name = name_of(fn)
    digest = None
    if name.startswith(_MAIN):
        if start_method == "fork":
            digest = _digest(fn)
        elif not _main_is_importable():
            message = (
                f"{name} lives in a session that child processes cannot import (start method {start_method}): "
                "save it in a module and import it, or run the program from a file"
            )
            raise TaskRefused(message)
    bound = payloads.pack_call(0, args, kwargs, strict=strict) if args or kwargs else None
    return bytes(msgpack.packb([name, digest, bound, strict]))


def find_function(described: bytes) -> Callable[..., Any]:
    """Import the function of a definition.

    Raises:
        UnknownTask, TaskRefused: it is not to be found here, or is not the same.
    """
    name, digest, bound, strict = msgpack.unpackb(described)
    try:
        function = named(name)
    except UnknownTask as error:
        if not name.startswith(_MAIN):
            raise
        message = (
            f"{name} is not there in the child processes: it was defined after the pool was made, "
            'or under `if __name__ == "__main__":`. Define it above that line, or in a module'
        )
        raise UnknownTask(message) from error
    if digest is not None and digest != _digest(function):
        raise TaskRefused(f"{name} was changed after the pool forked its processes: make a new TaskQueue")
    if bound is None:
        return function
    call = msgpack.unpackb(bound)
    args, kwargs = call[1:] if len(call) > 2 else payloads.unpack_call(call[1], strict=strict)  # noqa: PLR2004
    return partial(function, *args, **(kwargs or {}))


def _digest(fn: Callable[..., Any]) -> int | None:
    """Return a number that changes with a function's code, so that a forked child sees when it has an older one."""
    code = getattr(fn, "__code__", None)
    return None if code is None else zlib.crc32(marshal.dumps(code))


def _main_is_importable() -> bool:
    """Tell whether multiprocessing can import the main module in a child, as it does for a script or `python -m`."""
    main = sys.modules["__main__"]
    if getattr(getattr(main, "__spec__", None), "name", None) is not None:
        return True
    path = getattr(main, "__file__", None)
    return path is not None and os.path.exists(path)  # noqa: PTH110  # a str from the interpreter
