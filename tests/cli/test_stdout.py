"""A stdout or stderr that cannot be written: one sentence and an exit code, whatever the command."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import LIMIT, Command, environment, program
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")

COMMANDS = (
    "status",
    "queues --json",
    "completion bash",
    "submit math:sqrt :=4",
    "map --jsonl in -- echo",
)

#: Bytes of the smallest pipe.
FULL = 4096


def ended(project: Path, line: str, code: int) -> str:
    """Run a line of a shell in which $TASKQ is the command; see how it ends, and return its words."""
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=project,
        env=environment(project, TASKQ=program(), TASKQ_URL="sqlite:///q.db"),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (code, ""), done
    return done.stderr


@pytest.fixture(autouse=True)
def lines(project: Path) -> None:
    """Have an input for `map`, whose jobs run here."""
    (project / "in").write_text("1\n2\n", encoding="utf-8")


def of(words: str) -> str:
    """Return a command as the shell runs it; a map's jobs run here, for want of workers."""
    return f"$TASKQ {words.replace(' --jsonl', ' --url local:// --jsonl')}"


@pytest.mark.parametrize("words", [*COMMANDS, "--help", "submit math:sqrt :=4 --url local://"])
def test_a_full_disk_behind_stdout(project: Path, words: str) -> None:
    """Exit code 1, and the reason in a sentence; a job that was kept is named."""
    told = ended(project, f"{of(words)} > /dev/full", 1)
    assert "cannot write stdout: No space left on device" in told
    assert told.count("\n") == 1
    assert ("is kept" in told) == (words == "submit math:sqrt :=4")


@pytest.mark.parametrize("words", COMMANDS)
def test_a_closed_stdout(project: Path, words: str) -> None:
    """Exit code 2 before anything is done."""
    told = ended(project, f"{of(words)} >&-", 2)
    assert "stdout is closed" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("words", [*COMMANDS, "--help"])
def test_a_stdout_that_nobody_reads(project: Path, words: str) -> None:
    """Exit code 141 and no words, as of any program; but a job that was kept is named."""
    told = ended(project, f"{of(words)} | exec sleep 0 >&- <&-; exit ${{PIPESTATUS[0]}}", 141)
    assert ("is kept" in told) if words.startswith("submit") else not told


@pytest.mark.parametrize(("words", "code"), [("status", 0), ("status nosuch", 4), ("nosuch", 2)])
def test_a_full_disk_behind_stderr(project: Path, words: str, code: int) -> None:
    """It changes no exit code."""
    ended(project, f"{of(words)} 2> /dev/full > /dev/null", code)


def test_a_slow_reader_that_does_not_block(project: Path) -> None:
    """All of the output comes through a pipe that who started us has made non-blocking, and that is full at times."""
    (project / "text").write_bytes(whole := b"x" * 3 * FULL)
    reader, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, FULL)
    os.set_blocking(end, False)
    submit = ("submit", "jobs:same", "@text", "--raw", "--wait", "--url", "sqlite:///q.db")
    with Command(project, *submit, stdout=end) as command, open(reader, "rb") as file:
        os.close(end)
        eventually(lambda: _waiting(reader) == FULL, "the pipe to be full")
        assert file.read() == whole + b"\n"
        assert command.wait() == 0


def _waiting(reader: int) -> int:
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_map_stops_when_its_rows_are_not_read(project: Path) -> None:
    """At once: the next row may be an hour away."""
    (project / "in").write_text('"0.01"\n"3600"\n', encoding="utf-8")
    reader, end = os.pipe()
    with Command(project, "map", "--jsonl", "in", "--url", "local://", "-j", 1, "--", "sleep", stdout=end) as command:
        os.close(end)
        assert os.read(reader, 1000).startswith(b'{"exit_code": 0')
        os.close(reader)
        assert command.wait() == 141
        assert command.err == ""
        command.assert_gone()
        eventually(lambda: not command.left(), "the job to be gone")
