"""From "module:function" on the command line to the function, as `python -m` would find it."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from taskq.allowlist import named
from taskq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.cli.arguments import Arguments

__all__ = ["check_call", "find_task", "import_from_here"]


def import_from_here() -> None:
    """Make the working directory importable; child processes get this process's `sys.path`."""
    if not sys.flags.safe_path:
        with contextlib.suppress(FileNotFoundError):
            here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
            if here not in sys.path:
                sys.path.insert(0, here)


def find_task(name: str) -> Callable[..., Any]:
    """Import the function of a name.

    Raises:
        UnknownTask: nothing of that name is there.
        ConfigError: the name is malformed, or its module cannot be imported.
    """
    import_from_here()
    return named(name)


def check_call(name: str, function: Callable[..., Any], arguments: Arguments) -> None:
    """See that a function takes these arguments, before a process is started for it.

    Raises:
        ConfigError: it does not; the message shows what it takes.
    """
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as exc:
        takes = str(signature).partition(" -> ")[0]
        raise ConfigError(f"{name} takes {takes}: {exc}") from None


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return what a function takes, with its annotations as written; None where it does not tell."""
    with contextlib.suppress(Exception):  # annotations are a stranger's code, and need not mean anything
        return inspect.signature(function, eval_str=True)
    with contextlib.suppress(TypeError, ValueError):  # some builtins do not tell
        return inspect.signature(function)
    return None
