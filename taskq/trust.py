"""Which functions a worker may run: a name in a message must never choose what is imported.

    @task-registered function of an imported module         may run
    a function that a trusted module itself defines          may run
    shell commands (`taskq.shell:run_command`)               only where the operator allows them
    the lines of `taskq map`                                 they look their task, or command, up here in turn
    all else                                                 UnknownTask, with the name and the cure

A message cannot reach a function by way of another module's attributes (`tasks:os.system`): what is found must bear
the very name that it was asked for by.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from taskq.errors import ConfigError, TaskRefused, UnknownTask
from taskq.runner import prepare
from taskq.tasks import name_of, registered, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["COMMAND", "COMMAND_LINE", "IMPORT_VARIABLE", "LINE", "Trust", "from_environment"]

#: The task behind `taskq submit -- command`.
COMMAND = "taskq.shell:run_command"

#: The tasks behind `taskq map`: a line for a task, which asks for it here; and a line for a command.
LINE = "taskq.cli.far_lines:run_far_line"
COMMAND_LINE = "taskq.cli.commands:run_command_line"

#: The variable that names trusted modules, parted by commas, where nobody gives `--import`.
IMPORT_VARIABLE = "TASKQ_IMPORT"

#: Begins the names that Python itself gives to everything: nobody means those as tasks.
DUNDER = ".__"


class Trust:
    """Know which functions may run in this process, ready to be called.

    Raises:
        ConfigError: a module cannot be imported.
    """

    def __init__(self, modules: Iterable[str] = (), *, commands: bool = False) -> None:
        self._modules = frozenset(modules)
        self._commands = commands
        self._ready: dict[str, Callable[..., Any]] = {}
        for module in sorted(self._modules):
            _import(module)

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
        module, _, qualname = name.partition(":")
        if name in (COMMAND, COMMAND_LINE):
            if not self._commands:
                raise UnknownTask("this worker runs no shell commands: start it with --allow-commands to let it")
        elif name != LINE and name not in registered() and (module not in self._modules or DUNDER in f".{qualname}"):
            raise UnknownTask(self._unknown(name, module))
        try:
            found = resolve(name)
            true_name = name_of(found)
        except (ConfigError, TaskRefused) as error:
            raise UnknownTask(f"{name} cannot be run here: {error}") from error
        if true_name != name:
            raise UnknownTask(f"{name} is really {true_name}: submit it under that name and --import its module")
        return found

    def _unknown(self, name: str, module: str) -> str:
        known = f"it trusts {', '.join(sorted(self._modules))}" if self._modules else "it was given no --import"
        return f"this worker does not know the task {name} ({known}): start it with --import {module}"


def from_environment() -> Trust:
    """Return trust in the modules that TASKQ_IMPORT names, for a process that was told of none."""
    text = os.environ.get(IMPORT_VARIABLE, "")
    return Trust(name.strip() for name in text.split(",") if name.strip())


def _import(module: str) -> None:
    try:
        import_module(module)
    except (Exception, SystemExit) as exc:
        raise ConfigError(f"--import {module} failed: {type(exc).__name__}: {exc}") from exc
