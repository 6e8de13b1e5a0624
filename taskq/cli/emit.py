"""Data on stdout: one JSON document for programs, or lines for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from taskq.cli.jsontext import to_json
from taskq.cli.output import need_stdout
from taskq.cli.screen import harmless, stdout_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskq.cli.screen import Line, Screen

__all__ = ["emit", "emit_bytes", "emit_document", "emit_foreign", "emit_line"]


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
