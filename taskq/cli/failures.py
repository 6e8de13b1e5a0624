"""What is told of a job's error, in rows, documents and sentences."""

from __future__ import annotations

from typing import Any

from taskq.errors import JobFailed, RemoteError
from taskq.names import qualified_name

__all__ = ["describe", "in_words", "traceback_of"]

#: Modules whose errors users know by their bare names, as they know the builtins.
OURS = ("taskq.errors.", "taskq.shell.", "taskq.cli.jsontext.")


def describe(error: BaseException) -> dict[str, Any]:
    """Return the class, as "module.Qualname" (builtins and taskq's own bare), and the message of an error."""
    if isinstance(error, JobFailed) and error.type:
        return {"type": error.type, "message": error.message}
    name = qualified_name(type(error))
    for module in OURS:
        name = name.removeprefix(module)
    return {"type": name, "message": str(error)}


def in_words(error: BaseException) -> str:
    """Return an error as one line: "ValueError: no such size"."""
    told = describe(error)
    message = " ".join(told["message"].split())
    return f"{told['type']}: {message}" if message else str(told["type"])


def traceback_of(error: BaseException) -> str:
    """Return the traceback that came with an error from a child process, or an empty text."""
    cause = error.__cause__
    return str(cause) if isinstance(cause, RemoteError) else ""
