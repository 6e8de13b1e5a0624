"""Functions as tasks: their names, the `@task` decorator with its registry, and the way back from a name.

    function ──name_of──▶ "module:qualname" ──resolve──▶ the same function, in any process

`resolve` imports what it is told to: which names are allowed is the caller's rule (a worker on a
durable executor asks `registered()` first).
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from types import BuiltinFunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from taskq.context import clocks_paused
from taskq.errors import ConfigError, TaskRefused, UnknownTask
from taskq.names import did_you_mean
from taskq.options import JobOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Unpack

    from taskq.options import JobOptionFields

__all__ = ["name_of", "options_of", "registered", "resolve", "task"]

#: The attribute of a task that holds its options; on the function, so that copies and wrappers keep it.
OPTIONS_ATTRIBUTE = "__taskq_options__"

#: Options of a function that no `@task` was put on.
NO_OPTIONS = JobOptions()

F = TypeVar("F", bound="Callable[..., Any]")

registry: dict[str, Callable[..., Any]] = {}


@overload
def task(fn: F, /) -> F: ...
@overload
def task(**options: Unpack[JobOptionFields]) -> Callable[[F], F]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Unpack[JobOptionFields]) -> Any:
    """Register a function as a task, with the options that its jobs get unless told otherwise.

    Returns the same function: calling it runs it here, as before. Use it bare (`@task`) or with options
    (`@task(timeout=60)`), above or below `@staticmethod` and `@classmethod`.

    Raises:
        TaskRefused: the function has no name by which other processes could import it.
        ConfigError: an option is unknown or has a value that makes no sense.
    """
    chosen = NO_OPTIONS.merged(**options)
    if fn is None:
        return partial(_register, chosen)
    return _register(chosen, fn)


def _register(options: JobOptions, fn: F) -> F:
    function = fn.__func__ if isinstance(fn, (staticmethod, classmethod)) else fn
    if not callable(function):
        raise TaskRefused(f"@task is for functions, not {fn!r}: give options by name, as @task(timeout=60)")
    name = _checked_name(function)
    try:
        setattr(function, OPTIONS_ATTRIBUTE, options)
    except (AttributeError, TypeError) as exc:
        raise TaskRefused(f"{name} takes no attributes, so wrap it in a function to make it a task") from exc
    registry[name] = function
    return fn


def registered() -> Mapping[str, Callable[..., Any]]:
    """Return a live, read-only view of the functions that `@task` was put on in this process, by name.

    It says which names are tasks. To call one use `resolve`: of a class method this holds the bare function.
    """
    return MappingProxyType(registry)


def options_of(fn: Callable[..., Any]) -> JobOptions:
    """Return the options that `@task` gave the function, or the defaults; those of a partial's function."""
    while isinstance(fn, partial):
        fn = fn.func
    found = getattr(fn, OPTIONS_ATTRIBUTE, NO_OPTIONS)
    return found if type(found) is JobOptions else NO_OPTIONS


def name_of(fn: Callable[..., Any]) -> str:
    """Return the name "module:qualname" by which any process can import the function.

    Raises:
        TaskRefused: there is no such name, or it leads to something else; the message says what to do.
    """
    name = _checked_name(fn)
    module, _, qualname = name.partition(":")
    loaded = sys.modules.get(module)
    if loaded is None:
        return name
    try:
        found = _walk(loaded, qualname.split("."))
    except AttributeError:
        cure = "define it at the module's top level"
        raise TaskRefused(f"{fn!r} is not found under its name {name}: {cure}") from None
    if found is not fn and not (isinstance(fn, (MethodType, BuiltinFunctionType)) and found == fn):
        raise TaskRefused(
            f"{name} now names another object than this {type(fn).__name__} (redefined or decorated?): "
            "submit the one that the module holds, or give this one a name of its own"
        )
    return name


def resolve(name: str) -> Callable[..., Any]:
    """Import the callable of a name, "module:qualname" or "package.module.function".

    Raises:
        UnknownTask: there is no such module, or nothing of that name in it, or it is not callable.
        ConfigError: the name is malformed, or importing its module failed.
    """
    module, attributes = _split(name) if ":" in name else _find_module(name)
    try:
        found = _walk(module, attributes)
    except AttributeError:
        raise UnknownTask(_no_attribute(name, module, attributes)) from None
    if not callable(found):
        raise UnknownTask(f"{name} is not callable: it is a {type(found).__name__}")
    return cast("Callable[..., Any]", found)


# --- from a function to its name


def _checked_name(fn: Callable[..., Any]) -> str:
    owner = getattr(fn, "__self__", None)
    if isinstance(fn, partial):
        raise TaskRefused(f"{fn!r} has no name of its own: submit its function with the same arguments")
    if owner is not None and not isinstance(owner, (type, ModuleType)):
        raise TaskRefused(_bound(fn, owner))
    module, qualname = _module_and_qualname(fn, owner)
    if not module or not qualname:
        raise TaskRefused(
            f"a {type(fn).__name__} object has no name that another process could import: write a function "
            "at the top level of a module that calls it"
        )
    if "<lambda>" in qualname:
        raise TaskRefused(
            f"a lambda (in {module}) has no name that another process could import: write it as a def "
            "at the top level of a module"
        )
    if "<locals>" in qualname:
        raise TaskRefused(
            f"{module}:{qualname} is defined inside a function, where no other process can import it: move "
            "it to the top level of a module and pass what it needs as arguments"
        )
    return f"{module}:{qualname}"


def _module_and_qualname(fn: Callable[..., Any], owner: object) -> tuple[str | None, str | None]:
    if isinstance(owner, type):
        return owner.__module__, f"{owner.__qualname__}.{getattr(fn, '__name__', '')}"
    module = getattr(fn, "__module__", None) or getattr(getattr(fn, "__objclass__", None), "__module__", None)
    qualname = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    return module, qualname


def _bound(fn: Callable[..., Any], owner: object) -> str:
    cls, method = type(owner).__qualname__, getattr(fn, "__name__", "method")
    return (
        f"the method {method} is bound to a {cls} object, which has no name that another process could "
        f"import: submit {cls}.{method} with the object as its first argument, or a function"
    )


# --- from a name to a function


def _split(name: str) -> tuple[ModuleType, list[str]]:
    module, _, qualname = name.partition(":")
    parts = qualname.split(".")
    if not all(part.isidentifier() for part in (*module.split("."), *parts)):
        raise ConfigError(f"{name!r} does not name a task: write module:function, as shop.images:thumbnail")
    found = _import(module)
    if found is None:
        raise UnknownTask(_no_module(name, module))
    return found, parts


def _find_module(name: str) -> tuple[ModuleType, list[str]]:
    """Take the longest part of a dotted name that is a module; the rest are attributes."""
    parts = name.split(".")
    if len(parts) == 1 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{name!r} does not name a task: write module:function, as shop.images:thumbnail")
    for cut in range(len(parts) - 1, 0, -1):
        found = _import(".".join(parts[:cut]))
        if found is not None:
            return found, parts[cut:]
    raise UnknownTask(_no_module(name, parts[0]))


def _import(module: str) -> ModuleType | None:
    """Import a module; return None when there is none of that name."""
    try:
        with clocks_paused():
            return import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{module}.".startswith(f"{exc.name}."):
            return None
        raise _broken(module, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _broken(module, exc) from exc


def _broken(module: str, exc: BaseException) -> ConfigError:
    return ConfigError(f"importing {module} failed: {type(exc).__name__}: {exc}")


def _walk(start: object, attributes: Iterable[str]) -> object:
    for attribute in attributes:
        start = getattr(start, attribute)
    return start


def _no_attribute(name: str, module: ModuleType, attributes: list[str]) -> str:
    where: object = module
    label = module.__name__
    for attribute in attributes:
        if not hasattr(where, attribute):
            hint = did_you_mean(attribute, [word for word in dir(where) if not word.startswith("_")])
            return f"{name}: {label} has no {attribute!r}{hint}"
        where, label = getattr(where, attribute), f"{label}.{attribute}"
    return f"{name} cannot be found"


def _no_module(name: str, module: str) -> str:
    import pkgutil  # noqa: PLC0415  # wanted after a mistake only, not at start-up

    parent, _, last = module.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    siblings = [entry.name for entry in pkgutil.iter_modules(path)] if path or not parent else []
    return f"{name}: there is no module {module!r}{did_you_mean(last, siblings)}"
