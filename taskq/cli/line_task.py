"""Tasks behind `taskq map` and behind commands: what child processes and workers run for a line.

    b'{"path": "a.py"}'  ──run_line──▶  function(path="a.py")  ──▶  b'{"functions": 3}'
                                                                or  ["BadLine", "not JSON: ..."]

The parent moves bytes only: lines are parsed and results written here, on all cores. What would fail again
in the same way is returned as a list, [type, message] or [type, message, fields]; what the task raises is
left to the pool, which may run it again.

A command that fails raises while retries are left, so that the pool runs it again; at its last attempt its
exit code and output are returned, for they say more than an exception.

Stored jobs name `taskq.cli:map_line` and `taskq.cli:map_command`, which lead here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.allowlist import named
from taskq.cli.jsontext import Unwritable, to_json
from taskq.context import current_job
from taskq.errors import TaskqError, UnknownTask
from taskq.runner import prepare
from taskq.shell import BadItem, CommandFailed, describe_failure, fill, run_attached, run_command

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_LINE",
    "TOO_LONG",
    "BadLine",
    "Outcome",
    "call_with",
    "parse_line",
    "run_attached_command",
    "run_captured_command",
    "run_command_line",
    "run_line",
    "run_remote_line",
]

#: A result as JSON, or why there is none.
Outcome: TypeAlias = "bytes | list[Any]"

#: Bytes of the longest line that is read; an input without line ends must not fill the memory.
MAX_LINE = 256 << 20

#: What the parent sends in the place of a line that is too long to be read.
TOO_LONG = b"\0too long"


class BadLine(TaskqError, ValueError):
    """A line is not a JSON value; the message says why."""


def run_line(name: str, line: bytes) -> Outcome:
    """Call the task with what the line says: an object is its keywords, an array its arguments."""
    if not line:  # jsonl.PAUSE
        return b""
    try:
        value = parse_line(line)
    except BadLine as exc:
        return ["BadLine", str(exc)]
    return call_with(_task(name), value)


def call_with(function: Callable[..., Any], value: Any) -> Outcome:
    """Call a function with a line's value: an object is its keywords, an array its arguments; return JSON."""
    if type(value) is dict:
        result = function(**value)
    elif type(value) is list:
        result = function(*value)
    else:
        result = function(value)
    try:
        return to_json(result)
    except Unwritable as exc:
        return ["Unwritable", str(exc)]


def parse_line(line: bytes) -> Any:
    """Return the value that a line holds.

    Raises:
        BadLine: it is not UTF-8, not JSON, or beyond what can be read.
    """
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as exc:
        raise BadLine(f"not UTF-8: byte {exc.start + 1} is 0x{line[exc.start]:02x}") from None
    except RecursionError:
        raise BadLine("not JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as exc:
        why = f"longer than {MAX_LINE >> 20} MiB" if line == TOO_LONG else f"not JSON: {exc.msg} at column {exc.colno}"
        raise BadLine(why) from None
    except ValueError as exc:  # a number of more digits than Python reads
        raise BadLine(f"not JSON that can be read: {exc}") from None


@cache
def _task(name: str) -> Callable[..., Any]:
    return prepare(named(name))


def run_remote_line(name: str, line: bytes) -> Outcome:
    """Call the task with what the line says.

    Raises:
        UnknownTask: this worker may not run it.
    """
    if not line:  # jsonl.PAUSE
        return b""
    from taskq import perform  # noqa: PLC0415 - local maps do without

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
