"""What runs in the child processes when a command stands behind `--`.

A command that fails raises while retries are left, so that the pool runs it again; at its last attempt its
exit code and output are returned, for they say more than an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskq.cli.jsontext import to_json
from taskq.cli.lines import BadLine, parse_line
from taskq.context import current_job
from taskq.shell import BadItem, CommandFailed, describe_failure, fill, run_attached, run_command

if TYPE_CHECKING:
    from taskq.cli.lines import Outcome

__all__ = ["run_attached_command", "run_captured_command", "run_command_line"]


def run_command_line(argv: tuple[str, ...], retries: int, line: bytes, **how: Any) -> Outcome:
    """Run a command for an input line; return its row. `how`: keywords of `run_command`."""
    if not line:  # jsonl.PAUSE
        return b""
    try:
        result = _unless_tried_again(argv, run_command(fill(argv, parse_line(line)), **how), retries)
    except (BadLine, BadItem, ValueError) as exc:  # ValueError: an argument with a NUL in it
        return [type(exc).__name__, str(exc)]
    if result["exit_code"] == 0:
        return to_json(result)
    return ["CommandFailed", describe_failure(argv[0], result), result]


def run_captured_command(argv: tuple[str, ...], retries: int, **how: Any) -> dict[str, Any]:
    """Run a command; return its exit code, output and duration."""
    return _unless_tried_again(argv, run_command(argv, **how), retries)


def run_attached_command(argv: tuple[str, ...], retries: int, **how: Any) -> dict[str, Any]:
    """Run a command on our own stdout and stderr; return its exit code."""
    return _unless_tried_again(argv, {"exit_code": run_attached(argv, **how), "stderr": ""}, retries)


def _unless_tried_again(argv: tuple[str, ...], result: dict[str, Any], retries: int) -> dict[str, Any]:
    if result["exit_code"] != 0 and current_job().attempt <= retries:
        raise CommandFailed(describe_failure(argv[0], result), result["exit_code"])
    return result
