"""Where a command runs, and with which variables: `--cwd` and `--env`.

local://        the folder and the environment of whoever types it, and --env
a queue file    the folder of whoever types it, the environment of the worker, and --env
Redis           folder and environment of the worker, which may be another machine; --cwd, and --env
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["surroundings_flags", "take_surroundings"]

F = TypeVar("F", bound="Callable[..., Any]")

FLAGS = (
    click.option("--cwd", metavar="FOLDER", help="Run the command there; default: here, on Redis where the worker is."),
    click.option(
        "--env", metavar="NAME[=VALUE]", multiple=True, help="Give the command a variable; without =, that of here."
    ),
)

#: Stores whose workers are on this machine.
HERE = ("local", "sqlite")


def surroundings_flags(command: F) -> F:
    """Add the flags to a command, in their order."""
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


def take_surroundings(flags: dict[str, Any], url: str, *, is_command: bool) -> dict[str, Any]:
    """Take these flags out of a command's flags; return them as keywords of `run_command`.

    Raises:
        ConfigError: the folder or a variable is not there.
        click.UsageError: it is no command that is run.
    """
    cwd, env = flags.pop("cwd"), flags.pop("env")
    if not is_command:
        if cwd is not None or env:
            raise click.UsageError("--cwd and --env are for a command after --: a task runs where its worker does")
        return {}
    scheme = url.partition("://")[0].lower()
    folder = _folder(cwd, scheme)
    variables = _variables(env)
    return {**({"cwd": folder} if folder else {}), **({"env": variables} if variables else {})}


def _folder(said: str | None, scheme: str) -> str | None:
    if said is None:
        return _working_directory() if scheme == "sqlite" else None
    folder = os.path.abspath(said)  # noqa: PTH100 - pathlib would follow symbolic links
    if scheme in HERE and not os.path.isdir(folder):  # noqa: PTH112 - see above
        raise ConfigError(f"--cwd {said}: there is no such folder")
    return folder


def _working_directory() -> str | None:
    """Return the working directory; None where it was deleted under our feet."""
    try:
        return os.getcwd()  # noqa: PTH109 - it is sent as a text
    except FileNotFoundError:
        return None


def _variables(words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not name or "\0" in word:
            raise ConfigError(f"--env {word!r}: write NAME=VALUE, or NAME for the value that it has here")
        if not mark and name not in os.environ:
            raise ConfigError(f"--env {name}: there is no such variable here: write {name}=VALUE")
        found[name] = value if mark else os.environ[name]
    return found
