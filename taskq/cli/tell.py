"""Output of the commands: data on stdout, messages on stderr, and errors of jobs in words.

Data is one JSON document for programs, or lines for people. Messages are text, or JSON log lines under
`--log-format json`.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from taskq import log
from taskq.cli.jsontext import to_json, to_text
from taskq.cli.screen import harmless, printable, stdout_screen
from taskq.cli.streams import need_stdout
from taskq.errors import JobFailed, RemoteError
from taskq.names import qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.cli.screen import Line, Screen

__all__ = [
    "ask",
    "describe",
    "emit",
    "emit_bytes",
    "emit_document",
    "emit_foreign",
    "emit_line",
    "in_words",
    "say",
    "say_document",
    "say_foreign",
    "traceback_of",
]

logger = log.get_logger("taskq.cli")


def say(text: str, *, error: bool = False) -> None:
    """Write a sentence to stderr."""
    if log.chosen_format() == "json":
        (logger.error if error else logger.warning)(text)
    else:
        _write(f"taskq: {printable(text)}\n")


def ask(text: str) -> None:
    """Write a question, whose answer is typed behind it."""
    _write(text)


def say_document(document: dict[str, Any]) -> None:
    """Write a JSON document to stderr, for `--json`."""
    _write(to_text(document) + "\n")


def say_foreign(data: bytes, *, raw: bool = False) -> None:
    """Write what a job has written to stderr: on a terminal as printable text, unless `raw`."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        for piece in [data] if raw or not sys.stderr.isatty() else harmless([data]):
            sys.stderr.flush()
            sys.stderr.buffer.write(piece)
            sys.stderr.buffer.flush()


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # a closed stderr must not change how the command ends
        return


def emit(document: Callable[[], Any], lines: Callable[[Screen], Iterable[Line]], *, as_json: bool) -> None:
    """Print the one or the other; only the one that is wanted is made."""
    if as_json:
        emit_document(document())
    else:
        need_stdout()
        stdout_screen().show(lines(stdout_screen()))


def emit_document(document: Any) -> None:
    """Print a document on a line of its own."""
    emit_bytes(to_json(document) + b"\n")


def emit_line(text: str) -> None:
    """Print one line, at once."""
    emit_bytes(text.encode(errors="replace") + b"\n")


def emit_foreign(pieces: Iterable[bytes], *, raw: bool) -> None:
    """Write what a job has written to stdout, as it comes: on a terminal as printable text, unless `raw`."""
    need_stdout()
    for piece in pieces if raw or not sys.stdout.isatty() else harmless(pieces):
        emit_bytes(piece)


def emit_bytes(data: bytes) -> None:
    """Write bytes to stdout, as they are and at once."""
    need_stdout()
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


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
