"""What the commands tell people, on stderr: text, or JSON log lines under `--log-format json`."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from taskq import log
from taskq.cli.jsontext import to_text
from taskq.cli.screen import harmless, printable

__all__ = ["ask", "say", "say_document", "say_foreign"]

logger = log.get_logger("taskq.cli")


def say(text: str, *, error: bool = False) -> None:
    """Tell one sentence."""
    if log.chosen_format() == "json":
        (logger.error if error else logger.warning)(text)
    else:
        _write(f"taskq: {printable(text)}\n")


def ask(text: str) -> None:
    """Write a question, whose answer is typed behind it."""
    _write(text)


def say_document(document: dict[str, Any]) -> None:
    """Tell a program, under `--json`."""
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
