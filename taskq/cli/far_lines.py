"""What runs in the workers of `taskq map` on a store: as `lines`, but the worker says which tasks may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq import perform
from taskq.cli.lines import BadLine, call_with, parse_line
from taskq.errors import UnknownTask

if TYPE_CHECKING:
    from taskq.cli.lines import Outcome

__all__ = ["run_far_line"]


def run_far_line(name: str, line: bytes) -> Outcome:
    """Call the task with what the line says.

    Raises:
        UnknownTask: this worker may not run it.
    """
    if not line:  # jsonl.PAUSE
        return b""
    try:
        function = perform.find(name)
    except UnknownTask as exc:
        exc.__before_start__ = True
        raise
    try:
        value = parse_line(line)
    except BadLine as exc:
        return ["BadLine", str(exc)]
    return call_with(function, value)
