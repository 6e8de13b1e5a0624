"""How a function is named to the children: by its importable name, never by its code.

    parent   unwrap_callable()  a function with a name, and the arguments that a partial, a method's object or a
                                callable object puts in front
             definition()       name, bound arguments and for __main__ a digest, as bytes
    child    find_function()    imports it

The parts of a definition are packed by msgpack.
"""

from __future__ import annotations

import marshal
import os
import sys
import types
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no types

from taskq.allowlist import named
from taskq.errors import TaskRefused, UnknownTask
from taskq.executors.pool import payloads
from taskq.tasks import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["definition", "find_function", "unwrap_callable"]

_MAIN = "__main__:"


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
