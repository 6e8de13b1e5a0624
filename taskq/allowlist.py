"""The allow list of a worker: a name in a message must never choose what is imported, or reached.

    @task functions of imported modules                      may run
    what the operator named, `--import app.tasks:resize`     may run, whatever it is that is called there
    plain functions that an `--import app.tasks` defines     may run, unless a part of their name begins with `_`;
                                                             in C only those of `math` and `cmath` that end soon
    shell commands (`taskq.shell:run_command`)               only where the operator allows them
    the lines of `taskq map`                                 they look their task, or command, up here in turn
    all else                                                 UnknownTask, with the name and the line that opens it

A function that was not named one by one is looked for in the `vars()` of a module and of the classes that it defines,
never by `getattr` and never in a base class: else a class of the user's own would lend all that its bases can do to the
writer of a message. What is found must be a plain function (that of a `staticmethod` too) which bears that very module
and name.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from taskq.errors import ConfigError, TaskRefused, UnknownTask
from taskq.names import did_you_mean
from taskq.runner import prepare
from taskq.tasks import registered, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["COMMAND", "IMPORT_VARIABLE", "AllowList", "from_environment", "handler", "named", "opens"]

#: The task behind `taskq submit -- command`.
COMMAND = "taskq.shell:run_command"

#: The package that lists the tasks behind `taskq map` by the names that stored jobs have.
_COMMAND_LINE: Final = "taskq.cli"

#: The variable that names trusted modules and functions, separated by commas, for a process without `--import`.
IMPORT_VARIABLE = "TASKQ_IMPORT"

#: How a task is named: module, colon, function, both of them perhaps with dots.
NAME: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")

#: Modules in C that are lent as a whole. Of others, as builtins, posix and _pickle, a module's name does not tell what
#: its functions can do: each is to be named.
COMPUTING: Final = frozenset({"math", "cmath"})

#: Functions of theirs that may take for ever and all memory, by arguments of a few bytes: each is to be named too.
UNBOUNDED: Final = frozenset({"comb", "factorial", "lcm", "perm", "prod", "sumprod"})

#: Decorators on top of each other that are looked through.
WRAPPERS_MAX: Final = 32

#: Nothing, where None could be what is meant.
_NOTHING: Final = object()


class AllowList:
    """The functions that may run in this process, ready to be called.

    - `imports`: modules, and functions by name as `app.tasks:resize`; imported in this order.
    - `commands`: whether shell commands may run.

    Raises:
        ConfigError: a module cannot be imported, or a function is not there.
    """

    def __init__(self, imports: Iterable[str] = (), *, commands: bool = False) -> None:
        self._imports = tuple(dict.fromkeys(imports))
        self._modules = frozenset(entry for entry in self._imports if ":" not in entry)
        self._commands = commands
        self._ready: dict[str, Callable[..., Any]] = {}
        for entry in self._imports:
            if ":" in entry:
                self._ready[entry] = prepare(_opened(entry))
            else:
                _import(entry)

    def find(self, name: str) -> Callable[..., Any]:
        """Return the function of a name, a coroutine function as a plain one.

        Raises:
            UnknownTask: there is none that may run here.
        """
        found = self._ready.get(name)
        if found is None:
            found = self._ready[name] = prepare(self._look_up(name))
        return found

    def _look_up(self, name: str) -> Callable[..., Any]:
        place, runs_command = _own(name)
        if runs_command and not self._commands:
            raise UnknownTask("this worker runs no shell commands: start it with --allow-commands to let it")
        if place is not None:
            return resolve(place)
        if not _is_name(name):
            raise UnknownTask(f"{name!r} names no task: that is module:function, as shop.images:thumbnail")
        task = registered().get(name)
        if task is not None:
            return _registered(name, task)
        if name.partition(":")[0] not in self._modules:
            raise UnknownTask(self._unknown(name))
        return _defined(name)

    def _unknown(self, name: str) -> str:
        known = f"it trusts {', '.join(self._imports)}" if self._imports else "it was given no --import"
        opens = f"--import {name}" if _needs_its_name(self._imports, name) else _both(name)
        return f"this worker does not know the task {name} ({known}): start it with {opens}"


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _own(name: str) -> tuple[str | None, bool]:
    """Return where a task of taskq's own stands, None for any other; and whether it runs a command.

    The command line says it of its own: no name in a message chooses what is imported.
    """
    if name == COMMAND:
        return COMMAND, True
    if not name.startswith(_COMMAND_LINE):
        return None, False
    found: tuple[str | None, bool] = import_module(_COMMAND_LINE).TASKS.get(name, (None, False))
    return found


def _needs_its_name(imports: Iterable[str], name: str) -> bool:
    """Tell whether importing the module of a task would not be enough, or more than its operator wants."""
    module, _, qualname = name.partition(":")
    if "." in qualname or qualname.startswith("_") or any(entry.startswith(f"{module}:") for entry in imports):
        return True
    try:
        return module in sys.modules and _defined(name) is None
    except UnknownTask:
        return True


def _both(name: str) -> str:
    return f"--import {name.partition(':')[0]}, or --import {name} for this one alone"


def named(name: str) -> Callable[..., Any]:
    """Return the object of a name that comes from the user of this machine: by the command line, or as a function.

    Raises:
        UnknownTask, ConfigError: nothing does.
    """
    return resolve(name)


def opens(task: str) -> str:
    """Return the flag of `taskq worker` that lets it run a task."""
    if _own(task)[1]:
        return "--allow-commands"
    named_alone = _is_name(task) and _needs_its_name((), task)
    return f"--import {task if named_alone else task.partition(':')[0] or 'MODULE'}"


def from_environment() -> AllowList:
    """Return the allow list that TASKQ_IMPORT names, for a process that was given none."""
    text = os.environ.get(IMPORT_VARIABLE, "")
    return AllowList(name.strip() for name in text.split(",") if name.strip())


# --- what the operator names


def _import(module: str) -> None:
    try:
        import_module(module)
    except (Exception, SystemExit) as exc:
        hint = _meant(module) if isinstance(exc, ModuleNotFoundError) else ""
        raise ConfigError(f"--import {module} failed: {type(exc).__name__}: {exc}{hint}") from exc


def _meant(module: str) -> str:
    """Return the cure where the last part of a module's name is a function."""
    parent, _, last = module.rpartition(".")
    is_function = callable(getattr(sys.modules.get(parent), last, None))
    return f" (a function is named as {parent}:{last})" if is_function else ""


def _opened(name: str, flag: str = "--import") -> Callable[..., Any]:
    try:
        return named(name)
    except (ConfigError, TaskRefused, UnknownTask) as exc:
        raise ConfigError(f"{flag} {name} failed: {exc}") from exc


def handler(name: str) -> Callable[..., Any]:
    """Return an exception handler by its name, as module:function or, as RQ has it, module.function.

    Raises:
        ConfigError: there is none.
    """
    return _opened(name, "--exception-handler")


# --- what modules define


def _registered(name: str, task: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `@task` function as its module holds it now: it may be bound to its class, or wrapped."""
    found, owner = _held(name)
    inner = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    if not _wraps(inner, task):
        raise UnknownTask(f"{name} leads to something else than the function that @task was put on")
    return found.__get__(None, owner) if isinstance(found, classmethod) else inner


def _wraps(found: object, task: object) -> bool:
    """Tell whether it is the task, or the task behind decorators that keep `__wrapped__`."""
    for _ in range(WRAPPERS_MAX):
        if found is task or found is None:
            break
        found = getattr(found, "__wrapped__", None)
    return found is task


def _defined(name: str) -> Callable[..., Any]:
    """Return a plain function that its module, or a class in it, defines under this name.

    Raises:
        UnknownTask: there is none; says what is there, and what opens it.
    """
    module, _, qualname = name.partition(":")
    opens = f"to let it run, start the worker with --import {name}"
    found, _ = _held(name)
    function = found.__func__ if isinstance(found, staticmethod) else found
    if type(function) is BuiltinFunctionType and not _computes(function, module):
        raise UnknownTask(f"{name} is written in C, of which nothing runs that was not named: {opens}")
    if type(function) not in (FunctionType, BuiltinFunctionType):
        raise UnknownTask(f"{name} is no plain function but a {type(function).__name__}: {opens}")
    if (function.__module__, function.__qualname__) != (module, qualname):
        raise UnknownTask(f"{name} is really {function.__module__}:{function.__qualname__}: {opens}")
    if any(part.startswith("_") for part in qualname.split(".")):
        raise UnknownTask(f"{name} begins with _, as what is not for others: {opens}")
    return function


def _computes(function: BuiltinFunctionType, module: str) -> bool:
    """Tell whether it is a function in C of a module whose functions only compute, bound to it, and ends soon."""
    is_bound = module in COMPUTING and function.__self__ is sys.modules.get(module)
    return is_bound and function.__name__ not in UNBOUNDED


def _held(name: str) -> tuple[Any, Any]:
    """Return what stands under a name in its module's `vars()`, and the class or module that holds it.

    Raises:
        UnknownTask: nothing does, or the way there leads through something that this module does not define.
    """
    module, _, qualname = name.partition(":")
    owner: Any = sys.modules.get(module)
    if not isinstance(owner, ModuleType):
        raise UnknownTask(f"{name} cannot be run here: {module} is no module that this worker has imported")
    *classes, last = qualname.split(".")
    for depth, part in enumerate(classes, 1):
        owner = _class_in(owner, part, module, ".".join(classes[:depth]), name)
    found = vars(owner).get(last, _NOTHING)
    if found is _NOTHING:
        raise UnknownTask(_not_there(name, owner, last))
    return found, owner


def _class_in(owner: Any, part: str, module: str, qualname: str, name: str) -> type:
    """Return the class of this name that the module itself defines."""
    found = vars(owner).get(part, _NOTHING)
    if found is _NOTHING:
        raise UnknownTask(_not_there(name, owner, part))
    if not isinstance(found, type) or (vars(found).get("__module__"), found.__qualname__) != (module, qualname):
        raise UnknownTask(
            f"{name}: {part} is no class that {module} defines: to let it run, start the worker with --import {name}"
        )
    return found


def _not_there(name: str, owner: Any, part: str) -> str:
    hint = did_you_mean(part, [word for word in vars(owner) if not word.startswith("_")])
    if isinstance(owner, type) and any(part in vars(base) for base in owner.__mro__):
        return f"{name} is inherited: to let it run, start the worker with --import {name}"
    return f"{name} cannot be run here: {owner.__name__} has no {part!r}{hint}"
