"""What child processes do with a line: parse, call, write; and what they say when one of these fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq import context, shell
from taskq.cli.jsonl import PAUSE
from taskq.cli.line_task import TOO_LONG, run_attached_command, run_captured_command, run_command_line, run_line
from taskq.context import JobContext
from taskq.shell import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


def everything(*args: Any, **kwargs: Any) -> list[Any]:
    """Give back the arguments."""
    return [list(args), kwargs]


def returns_bytes() -> bytes:
    """Give what JSON cannot carry."""
    return b"x"


def raises(value: object) -> None:
    """Fail."""
    raise OSError(f"no {value}")


HERE = __name__


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (b'{"a": 1, "b": [2]}', b'[[], {"a": 1, "b": [2]}]'),
        (b"[1, {}]", b"[[1, {}], {}]"),
        (b"5", b"[[5], {}]"),
        (b'"\xc3\xa4"\r', '[["ä"], {}]'.encode()),
        (b"null", b"[[null], {}]"),
        (b" [] ", b"[[], {}]"),
        (b"{}", b"[[], {}]"),
    ],
)
def test_what_a_line_calls(line: bytes, result: bytes) -> None:
    """An object is keywords, an array positions, anything else one argument."""
    assert run_line(f"{HERE}:everything", line) == result


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", "not JSON: Expecting value at column 1"),
        (b'{"a": }', "not JSON: Expecting value at column 7"),
        (b"1 2", "not JSON: Extra data at column 3"),
        (b'"\xff"', "not UTF-8: byte 2 is 0xff"),
        (b"[" * 100_000, "not JSON that can be read: nested too deeply"),
        (b"9" * 10_000, "not JSON that can be read: Exceeds the limit"),
        (TOO_LONG, "longer than 256 MiB"),
    ],
)
def test_a_bad_line_is_told_not_raised(line: bytes, message: str) -> None:
    """It would fail again in the same way, so it is no matter of retries."""
    outcome = run_line(f"{HERE}:everything", line)
    assert isinstance(outcome, list)
    assert outcome[0] == "BadLine"
    assert outcome[1].startswith(message)


def test_what_a_task_raises_is_raised() -> None:
    """Retries, timeouts and the error's class are the pool's affair."""
    with pytest.raises(OSError, match="no 5"):
        run_line(f"{HERE}:raises", b"5")
    with pytest.raises(TypeError, match="unexpected keyword"):
        run_line(f"{HERE}:raises", b'{"wrong": 1}')


def test_an_unwritable_result_is_told() -> None:
    """The place of the bad value is in the message."""
    assert run_line(f"{HERE}:returns_bytes", b"[]") == [
        "Unwritable",
        "result is of type bytes, which JSON cannot carry: return text, numbers, lists or dicts",
    ]


def test_a_pause_runs_nothing() -> None:
    """It is there to wake the parent."""
    assert run_line("no:such", PAUSE) == b""
    assert run_command_line(("false",), 0, PAUSE) == b""


class Attempt:
    """Say which attempt this is."""

    def __init__(self) -> None:
        self.number = 1

    def progress(self, number: int, done: int, total: int | None) -> None:
        """Take no reports."""

    def is_cancelled(self, number: int) -> bool:
        """Go on."""
        return False

    def context(self) -> JobContext:
        """Be what `current_job()` returns."""
        return JobContext("job-1", self.number, 0, self)


@pytest.fixture
def attempt() -> Iterator[Attempt]:
    """Pretend that this process runs a job."""
    found = Attempt()
    context.provide(found.context)
    yield found
    context.provide(None)


def test_a_command_gives_its_code_and_output(attempt: Attempt) -> None:
    """The row of a command that went well."""
    outcome = run_command_line(("printf", "%s!", "{}"), 0, b'"hi"')
    assert isinstance(outcome, bytes)
    assert outcome.startswith(b'{"exit_code": 0, "stdout": "hi!", "stderr": "", "duration_s": ')


def test_a_failing_command_is_raised_while_retries_are_left(attempt: Attempt) -> None:
    """The pool runs it again; the last time its code and output are told in full."""
    argv = ("sh", "-c", 'echo "out $TASKQ_JOB_ID $TASKQ_ATTEMPT"; echo err >&2; exit 3')
    with pytest.raises(CommandFailed, match="sh exited with code 3: err"):
        run_command_line(argv, 1, b"1")
    attempt.number = 2
    outcome = run_command_line(argv, 1, b"1")
    assert isinstance(outcome, list)
    assert outcome[:2] == ["CommandFailed", "sh exited with code 3: err"]
    assert outcome[2]["stdout"] == "out job-1 2\n"
    assert outcome[2]["exit_code"] == 3


@pytest.mark.parametrize("run", [run_captured_command, run_attached_command])
def test_single_commands_follow_the_same_rule(run: Any, attempt: Attempt) -> None:
    """Raise while retries are left, then return the code."""
    with pytest.raises(CommandFailed, match="sh exited with code 4"):
        run(("sh", "-c", "exit 4"), 1)
    attempt.number = 2
    assert run(("sh", "-c", "exit 4"), 1)["exit_code"] == 4
    assert run(("true",), 5)["exit_code"] == 0


@pytest.mark.parametrize(
    ("argv", "line", "outcome"),
    [
        (("echo", "{name}"), b'{"nam": 1}', ["BadItem", "the item has no field 'name'; did you mean nam?"]),
        (("echo", "{1}"), b"[0]", ["BadItem", "the item has 1 entries, {0} is the first: there is no {1}"]),
        (("echo", "{}"), b'"a\\u0000b"', ["ValueError", "embedded null byte"]),
        (("echo", "{}"), b"oops", ["BadLine", "not JSON: Expecting value at column 1"]),
    ],
)
def test_items_that_do_not_fit_are_told(
    argv: tuple[str, ...], line: bytes, outcome: list[str], attempt: Attempt
) -> None:
    """They would not fit next time either."""
    assert run_command_line(argv, 3, line) == outcome


def test_a_long_stderr_is_shortened_in_the_message(attempt: Attempt) -> None:
    """The message has the end of it, where errors are told; the row has all."""
    outcome = run_command_line(("sh", "-c", "yes long | head -1000 >&2; echo end >&2; exit 1"), 0, b"1")
    assert isinstance(outcome, list)
    assert outcome[1].endswith("end")
    assert len(outcome[1]) < shell.STDERR_SHOWN + 40
    assert outcome[2]["stderr"].count("long") == 1000
