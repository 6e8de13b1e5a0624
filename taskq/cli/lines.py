"""What runs in the child processes of `taskq map`: one input line in, one result as JSON out.

    b'{"path": "a.py"}'  ──run_line──▶  function(path="a.py")  ──▶  b'{"functions": 3}'
                                                                or  ["BadLine", "not JSON: ..."]

The parent moves bytes only: lines are parsed and results written here, on all cores. What would fail again
in the same way is returned as a list, [type, message] or [type, message, fields]; what the task raises is
left to the pool, which may run it again.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from taskq.allowlist import named
from taskq.cli.jsontext import Unwritable, to_json
from taskq.errors import TaskqError
from taskq.runner import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_LINE", "TOO_LONG", "BadLine", "Outcome", "call_with", "parse_line", "run_line"]

#: A result as JSON, or why there is none.
Outcome: TypeAlias = "bytes | list[Any]"

#: Bytes of the longest line that is read; an input without line ends must not fill the memory.
MAX_LINE = 256 << 20

#: What the parent sends in the place of a line that is too long to be read.
TOO_LONG = b"\0too long"


class BadLine(TaskqError, ValueError):
    """Say why a line is not a value of JSON."""


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
