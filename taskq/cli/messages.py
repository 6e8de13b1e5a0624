"""What the commands tell people, on stderr: text, or JSON log lines under `--log-format json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from taskq import log

__all__ = ["say", "say_document", "say_text"]

logger = log.get_logger("taskq.cli")


def say(text: str, *, error: bool = False) -> None:
    """Tell one sentence."""
    if log.chosen_format() == "json":
        (logger.error if error else logger.warning)(text)
    else:
        _write(f"taskq: {text}\n")


def say_document(document: dict[str, Any]) -> None:
    """Tell a program, under `--json`."""
    _write(json.dumps(document, ensure_ascii=False) + "\n")


def say_text(text: str) -> None:
    """Write a text to stderr as it is: a traceback, a job's own words."""
    _write(text)


def _write(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # a closed stderr must not change how the command ends
        return
