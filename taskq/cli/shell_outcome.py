"""What a command that ran as a job has left: its output passed on, its exit code ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.cli.emit import emit_bytes
from taskq.cli.exits import Exit
from taskq.cli.messages import say_text
from taskq.cli.outcome import print_outcome, value_of
from taskq.shell import CommandFailed
from taskq.states import Reason, State

if TYPE_CHECKING:
    from taskq.cli.request import Request
    from taskq.store import JobRecord

__all__ = ["print_command_outcome"]


def print_command_outcome(record: JobRecord, request: Request, *, shown: bool) -> int:
    """Print what a command's job came to; `shown`: its output has been passed on already. Return the exit code."""
    code = _exit_code(record)
    if code is None or request.as_json:
        ended = print_outcome(record, tracebacks=request.tracebacks, as_json=request.as_json)
        timed_out = record.reason is Reason.TIMEOUT
        return Exit.WAIT_TIMEOUT if timed_out else ended if code is None else code
    if not shown and record.state is State.SUCCEEDED:
        value = value_of(record)
        emit_bytes(value["stdout"].encode(errors="replace"))
        say_text(value["stderr"])
    return code


def _exit_code(record: JobRecord) -> int | None:
    """Return the command's own exit code; None where it was not run to its end."""
    if record.state is State.SUCCEEDED:
        return 0
    error = None if record.failure is None else record.failure.to_exception(record.id)
    return error.exit_code if isinstance(error, CommandFailed) else None
