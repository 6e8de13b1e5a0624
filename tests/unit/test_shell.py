"""Commands as jobs: what is put in their places, what is kept of them, and that they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.captured import Kept
from taskq.errors import SoftTimeout
from taskq.runner import run_one
from taskq.shell import BadItem, describe_exit_code, fill, run_attached, run_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("argv", "item", "filled"),
    [
        (["gzip", "-k", "{}"], "a.txt", ["gzip", "-k", "a.txt"]),
        (["gzip", "-k"], "a.txt", ["gzip", "-k", "a.txt"]),
        (["mv", "{}", "{}.bak"], "a b", ["mv", "a b", "a b.bak"]),
        (["{}", "x"], "ls", ["ls", "x"]),
        (["echo", "{}"], 1.5, ["echo", "1.5"]),
        (["echo", "{}"], None, ["echo", "null"]),
        (["echo", "{}"], True, ["echo", "true"]),
        (["echo", "{}"], {"ä": [1]}, ["echo", '{"ä": [1]}']),
        (["echo"], [1, "x"], ["echo", '[1, "x"]']),
        (["cp", "{src}", "{dst}/{n}"], {"src": "a", "dst": "b", "n": 3}, ["cp", "a", "b/3"]),
        (["cp", "{0}", "{1}"], ["a", "b"], ["cp", "a", "b"]),
        (["ffmpeg", "-i", "{}", "{.}.mp4"], "dir/in.mov", ["ffmpeg", "-i", "dir/in.mov", "dir/in.mp4"]),
        (["echo", "{/}", "{//}", "{/.}"], "a/b.tar.gz", ["echo", "b.tar.gz", "a", "b.tar"]),
        (["awk", "{print $1}", "{}"], "f", ["awk", "{print $1}", "f"]),
        (["awk", "{print}", "{}"], "f", ["awk", "{print}", "f"]),
        (["sh", "-c", "${x} {}"], "f", ["sh", "-c", "${x} f"]),
    ],
)
def test_placeholders(argv: list[str], item: object, filled: list[str]) -> None:
    """GNU parallel's, and the fields of objects and arrays; other braces stay."""
    assert fill(argv, item) == filled


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_an_item_is_one_argument_whatever_it_holds(text: str) -> None:
    """Quotes, spaces, braces, semicolons: no shell ever sees them, and nothing is replaced twice."""
    assert fill(["echo", "{}"], text) == ["echo", text]
    assert fill(["echo", "{x}"], {"x": text}) == ["echo", text]


@pytest.mark.parametrize(
    ("argv", "item", "message"),
    [
        (["echo", "{name}"], {"nam": 1}, "no field 'name'; did you mean nam"),
        (["echo", "{zzz}"], {"a": 1, "b": 2}, "no field 'zzz'; it has a, b"),
        (["echo", "{x}"], {}, "no field 'x'; it has none"),
        (["echo", "{2}"], [1], "the item has 1 entries"),
    ],
)
def test_a_missing_field_is_refused(argv: list[str], item: object, message: str) -> None:
    """A typing error must not run the command with a hole in it."""
    with pytest.raises(BadItem, match=message):
        fill(argv, item)


def test_code_output_and_time_are_kept() -> None:
    """Both streams, apart, and the exit code."""
    result = run_command(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert result.pop("duration_s") > 0
    assert result == {"exit_code": 7, "stdout": "out\n", "stderr": "err\n"}


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["/"], 126, "/: cannot be run: Permission denied"),
    ],
)
def test_codes_as_in_a_shell(argv: list[str], code: int, stderr: str) -> None:
    """128 + signal, 127 for what is not there, 126 for what cannot be run."""
    result = run_command(argv)
    assert (result["exit_code"], result["stderr"]) == (code, stderr)
    assert run_attached(argv) == code


def test_codes_in_words() -> None:
    """For messages."""
    assert describe_exit_code(2) == "exited with code 2"
    assert describe_exit_code(137) == "was killed by SIGKILL"
    assert describe_exit_code(250) == "exited with code 250"


def test_there_is_no_input() -> None:
    """A command that reads stdin meets its end instead of a hang."""
    assert run_command(["cat"])["stdout"] == ""


def test_long_output_keeps_its_start_and_end() -> None:
    """The middle goes, its size is told, and the command is not held up."""
    result = run_command(["sh", "-c", "echo start; yes | head -c 3000000; echo end"], limit=1000)
    assert result["stdout"].startswith("start\ny\n")
    assert result["stdout"].endswith("y\nend\n")
    assert len(result["stdout"]) < 1100
    assert result["stdout_dropped_bytes"] == 3_000_010 - 1000
    assert "stderr_dropped_bytes" not in result


@given(st.lists(st.binary(max_size=30)), st.integers(2, 60))
def test_what_is_kept_of_a_stream(pieces: list[bytes], limit: int) -> None:
    """At most the limit, from both ends, whatever pieces it came in."""
    kept, half, data = Kept(limit), limit // 2, b"".join(pieces)
    for piece in pieces:
        kept.add(piece)
    assert kept.dropped == max(0, len(data) - 2 * half)
    if kept.dropped:
        assert kept.text().startswith(data[:half].decode(errors="replace"))
        assert kept.text().endswith(data[-half:].decode(errors="replace"))
    else:
        assert kept.text() == data.decode(errors="replace")


def test_bytes_that_are_no_text_are_replaced() -> None:
    """A row is JSON, so output is text."""
    assert run_command(["printf", r"a\377b"])["stdout"] == "a\ufffdb"


def test_both_streams_may_be_filled() -> None:
    """More than a pipe holds on each, at the same time: no deadlock."""
    result = run_command(["sh", "-c", "yes | head -c 500000 >&2 & yes | head -c 500000; wait"])
    assert (len(result["stdout"]), len(result["stderr"])) == (500_000, 500_000)


def interrupted(argv: list[str], grace: float) -> tuple[BaseException | None, float]:
    """Run a command with a soft timeout; return what came of it and how long it took."""
    results: list[Any] = []
    began = time.monotonic()
    error = run_one(run_command, (argv,), {"grace": grace}, results, 0.2)
    return error, time.monotonic() - began


def test_a_soft_timeout_ends_the_command(tmp_path: Path) -> None:
    """SIGTERM comes first, and the command may tidy up."""
    mark = tmp_path / "tidied"
    script = f"trap 'touch {mark}; exit 1' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.01; done"
    error, _ = interrupted(["sh", "-c", script], 30)
    assert isinstance(error, SoftTimeout)
    assert mark.exists()


def test_a_command_that_will_not_end_is_killed() -> None:
    """After the grace SIGKILL comes, and nothing is left."""
    error, took = interrupted([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(50)"], 0.3)
    assert isinstance(error, SoftTimeout)
    assert took < 40


def test_attached_output_passes_through(capfd: pytest.CaptureFixture[str]) -> None:
    """The command writes where we would."""
    assert run_attached(["sh", "-c", "echo out; echo err >&2; exit 3"]) == 3
    assert capfd.readouterr() == ("out\n", "err\n")
    assert run_attached(["no-such-command"]) == 127
    assert capfd.readouterr().err == "taskq: no-such-command: command not found\n"


def test_no_descriptor_is_left_to_the_command() -> None:
    """Outside a pool a command gets its three streams and nothing else."""
    reader, writer = os.pipe()
    listing = run_command(["sh", "-c", "ls /proc/self/fd | wc -l"])["stdout"]
    os.close(reader)
    os.close(writer)
    assert int(listing) <= 4
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_background_process_holds_nobody() -> None:
    """A command is done when it has ended, with all that it had printed, whatever it leaves running on its streams."""
    result = run_command(["sh", "-c", f"sleep 1000 & echo $!; {sys.executable} -c \"print('x' * 60000)\""])
    pid, text = result["stdout"].split()
    os.kill(int(pid), signal.SIGKILL)  # fails where it has ended
    assert (result["exit_code"], len(text)) == (0, 60000)
