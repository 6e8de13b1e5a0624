"""`taskq map`: a JSON line in, a JSON line out; every way to fail; every place for the rows."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cli.command import (
    LIMIT,
    Command,
    assert_golden,
    environment,
    program,
    refused,
    taskq,
)
from tests.waiting import eventually

#: Lines of every kind, for `jobs:fail_odd` and friends.
MIXED = b'0\n\n[2]\n{"number": 4}\nnot json\n1\n"\xff"\n6'


def write(path: Path, *lines: object) -> Path:
    """Write values as JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def rows(text: str) -> list[object]:
    """Read rows."""
    return [json.loads(line) for line in text.splitlines()]


def test_rows_in_the_order_of_the_lines(project: Path) -> None:
    """Objects, arrays, values, blank lines, bad lines, failures: one row each, at its place."""
    (project / "in.jsonl").write_bytes(MIXED)
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "in.jsonl")
    assert done.code == 1
    assert_golden("map-ordered.out", done.out)
    assert_golden("map-ordered.err", done.err)


def test_rows_in_any_order_with_their_index(project: Path) -> None:
    """The same rows, each under its index, the first item's being 0."""
    (project / "in.jsonl").write_bytes(MIXED)
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "in.jsonl", "--unordered", "-o", "out.jsonl")
    assert (done.code, done.out) == (1, "")
    found = (project / "out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert_golden("map-unordered.out", "".join(sorted(found)))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_all_rows_arrive_under_every_start_method(project: Path, method: str) -> None:
    """The task is found in the working directory, and options of the pool change nothing but the speed."""
    write(project / "in.jsonl", *range(500))
    options = ("--start-method", method, "-j", 3, "--chunksize", 7)
    done = taskq(project, "map", "jobs:square", "--jsonl", "in.jsonl", *options)
    assert (done.code, done.err) == (0, "")
    assert rows(done.out) == [number * number for number in range(500)]


def test_stdin_is_an_input(project: Path) -> None:
    """--jsonl - reads a pipe to its end; the last line needs no end."""
    done = taskq(project, "map", "jobs:square", "--jsonl", "-", stdin=b"1\n2\n3")
    assert (done.code, done.out) == (0, "1\n4\n9\n")
    assert taskq(project, "map", "jobs:square", "--jsonl", "-", stdin=b"").out == ""


def test_prints_of_a_task_do_not_get_among_the_rows(project: Path) -> None:
    """Only rows are on stdout, whatever tasks print and however."""
    done = taskq(project, "map", "jobs:talk", "--jsonl", "-", stdin=b"1\n2\n")
    assert done.out == "1\n2\n"
    assert sorted(done.err.split()) == ["printed", "printed", "written", "written"]


def test_a_line_that_kills_its_process_fails_alone(project: Path) -> None:
    """Its row names the signal; its neighbours are whole."""
    write(project / "in.jsonl", *range(20), "die", *range(20))
    done = taskq(project, "map", "jobs:die_at", "--jsonl", "in.jsonl", "-j", 2)
    found = rows(done.out)
    error = found.pop(20)
    assert (done.code, found) == (1, [*range(20), *range(20)])
    assert isinstance(error, dict)
    assert (error["error"]["type"], error["error"]["line"]) == ("JobCrashed", 21)
    assert "SIGKILL" in error["error"]["message"]


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("jobs:hang_at", ("--timeout", "0.3s")),
        ("jobs:short_lived", ()),
        ("jobs:hang_at", ("--soft-timeout", "0.2")),
    ],
)
def test_a_line_that_hangs_fails_alone(project: Path, task: str, flags: tuple[str, ...]) -> None:
    """By the flag or by the task's own option."""
    write(project / "in.jsonl", *range(10), "hang", *range(10))
    done = taskq(project, "map", task, "--jsonl", "in.jsonl", "-j", 2, *flags)
    found = rows(done.out)
    error = found.pop(10)
    assert (done.code, found) == (1, [*range(10), *range(10)])
    assert isinstance(error, dict)
    assert error["error"]["type"] == ("SoftTimeout" if "--soft-timeout" in flags else "JobTimeout")


def test_time_limits_do_not_count_the_import(project: Path) -> None:
    """A line's time begins when its task does, not when a process imports the task's module for its first line."""
    write(project / "in.jsonl", *range(4))
    flags = ("--timeout", "0.6", "--soft-timeout", "0.5")
    done = taskq(project, "map", "slow_import:same", "--jsonl", "in.jsonl", "-j", 2, *flags)
    assert (done.code, rows(done.out)) == (0, [0, 1, 2, 3])


def test_retries_by_the_task_and_by_the_flag(project: Path) -> None:
    """The task's own options hold; a flag goes over them."""
    write(project / "in.jsonl", 1, 2)
    assert rows(taskq(project, "map", "jobs:third_time", "--jsonl", "in.jsonl").out) == [3, 3]
    assert rows(taskq(project, "map", "jobs:second_time", "--jsonl", "in.jsonl", "--retries", 1).out) == [
        2,
        2,
    ]
    assert taskq(project, "map", "jobs:third_time", "--jsonl", "in.jsonl", "--retries", 0).code == 1


def test_stop_at_the_first_error_and_go_on_later(project: Path) -> None:
    """--on-error stop ends with the row of the error; --resume tries that line again and goes on."""
    write(project / "in.jsonl", 0, 2, 3, 4, *range(6, 100, 2))
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "in.jsonl", "-o", "out.jsonl", "--on-error", "stop")
    assert done.code == 1
    assert done.err == "taskq: map: stopped at line 3: ValueError: 3 is odd\n"
    out = project / "out.jsonl"
    assert rows(out.read_text()) == [
        0,
        2,
        {"error": {"type": "ValueError", "message": "3 is odd", "line": 3}},
    ]
    source = (project / "jobs.py").read_text(encoding="utf-8")
    (project / "jobs.py").write_text(source.replace("number % 2:", "number % 2 > 5:"), encoding="utf-8")
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "in.jsonl", "-o", "out.jsonl", "--resume")
    assert (done.code, done.err) == (0, "")
    assert rows(out.read_text()) == [0, 2, 3, 4, *range(6, 100, 2)]


def test_stopping_does_not_wait_for_long_jobs(project: Path) -> None:
    """What still runs when the command is told to stop is ended."""
    write(project / "in.jsonl", "a", 60)
    done = taskq(project, "map", "jobs:hang", "--jsonl", "in.jsonl", "-j", 2, "--on-error", "stop")
    assert (done.code, len(rows(done.out))) == (1, 1)


def test_tracebacks_in_rows_on_request(project: Path) -> None:
    """They name the line of the task."""
    done = taskq(project, "map", "jobs:fail", "--jsonl", "-", "--tracebacks", stdin=b"1\n")
    assert "raise ValueError" in json.loads(done.out)["error"]["traceback"]


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
@pytest.mark.parametrize("cut", [0, 1, 57, 100, 101, 5000])
def test_a_torn_output_is_gone_on_with(project: Path, flags: tuple[str, ...], cut: int) -> None:
    """Whatever a crash left, --resume makes the whole of it, and runs only what is missing."""
    write(project / "in.jsonl", *range(60))
    (project / "marks").mkdir()
    write(project / "args.jsonl", *([str(project / "marks"), number] for number in range(60)))
    command = ("map", "jobs:note", "--jsonl", "args.jsonl", "-o", "out.jsonl", *flags)
    assert taskq(project, *command).code == 0
    out = project / "out.jsonl"
    whole = out.read_bytes()
    out.write_bytes(whole[:cut])
    kept = {json.dumps(row) for row in rows(whole[:cut].decode().rpartition("\n")[0])}
    done = taskq(project, *command, "--resume")
    assert (done.code, done.err) == (0, "")
    assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert out.read_bytes().startswith(whole[: whole[:cut].rfind(b"\n") + 1])
    twice = sum(len(mark.read_text()) == 2 for mark in (project / "marks").iterdir())
    assert twice == 60 - len(kept)


def test_resuming_what_is_complete_does_nothing(project: Path) -> None:
    """Safe to repeat; errors of the earlier run still count."""
    write(project / "in.jsonl", 1, 2)
    command = ("map", "jobs:fail_odd", "--jsonl", "in.jsonl", "-o", "out.jsonl", "--resume")
    assert taskq(project, *command).code == 1
    before = (project / "out.jsonl").read_bytes()
    done = taskq(project, *command)
    assert (done.code, done.err) == (1, "taskq: map: 1 of 2 lines failed, all in an earlier run\n")
    assert (project / "out.jsonl").read_bytes() == before


def test_resuming_an_appended_stdout(project: Path) -> None:
    """`>> FILE` can be read back; `> FILE` has already emptied it, and a pipe cannot: the cure is named."""
    write(project / "in.jsonl", *range(5))
    command = f"{program()} map jobs:square --jsonl in.jsonl --resume"

    def shell(line: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", "-c", line], cwd=project, env=environment(project), capture_output=True, check=False
        )

    (project / "out").write_bytes(b'0\n1\n"torn')
    assert shell(f"{command} >> out").returncode == 0
    assert rows((project / "out").read_text()) == [0, 1, 4, 9, 16]
    for line in (f"{command} > out", f"{command} | cat; exit 2"):
        done = shell(line)
        assert done.returncode == 2
        assert b"use -o FILE (or >> FILE)" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(project: Path) -> None:
    """`taskq map ... | head` on an endless input: no message, no process left, 141 as for any program."""
    line = f"yes 1 | {program()} map jobs:square --jsonl - | head -3; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=project,
        env=environment(project),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.stdout, done.stderr) == (b"1\n1\n1\n141\n", b"")


def test_an_endless_input_takes_no_memory(project: Path) -> None:
    """The parent holds a window of the lines, however many there are."""
    reader, end = os.pipe()
    with subprocess.Popen(["yes", '{"number": 123456789}'], stdout=end, start_new_session=True) as yes:
        os.close(end)
        with Command(project, "map", "jobs:square", "--jsonl", "-", "-o", os.devnull, stdin=reader) as command:
            os.close(reader)
            peaks = []
            for _ in range(3):
                enough = _cpu_ticks(command.process.pid) + 60
                eventually(partial(_has_worked, command.process.pid, enough), "it to work on")
                peaks.append(_peak_bytes(command.process.pid))
            command.interrupt()
            assert command.wait() == 130
        yes.kill()
    assert peaks[-1] - peaks[0] < 20 << 20


def _has_worked(pid: int, ticks: int) -> bool:
    return _cpu_ticks(pid) > ticks


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11])


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_a_row_comes_out_while_the_input_is_silent(project: Path) -> None:
    """`tail -f log | taskq map ...`: results do not wait for the next line."""
    reader, end = os.pipe()
    with Command(project, "map", "jobs:square", "--jsonl", "-", stdin=reader) as command:
        os.close(reader)
        for number in (2, 3, 4):
            os.write(end, b"%d\n" % number)
            eventually(lambda: command.out.endswith(f"{number * number}\n"), "the row")  # noqa: B023 - used at once
        os.close(end)
        assert command.wait() == 0
        assert command.out == "4\n9\n16\n"


def test_json_tells_how_it_went(project: Path) -> None:
    """One document on stderr, after the rows."""
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "-", "--json", stdin=b"1\n2\n")
    document = json.loads(done.err)
    assert document.pop("duration_s") > 0
    assert (done.code, document) == (1, {"rows": 2, "failed": 1, "skipped": 0})


def test_messages_as_log_lines(project: Path) -> None:
    """--log-format json makes every message a JSON line."""
    done = taskq(project, "map", "jobs:fail_odd", "--jsonl", "-", "--log-format", "json", stdin=b"1\n2\n")
    assert json.loads(done.err)["event"] == "map: 1 of 2 lines failed; the first: line 1: ValueError: 1 is odd"


def test_progress_without_a_terminal_only_on_request(project: Path) -> None:
    """--progress writes plain lines to a file; by default there is nothing."""
    write(project / "in.jsonl", *range(10))
    done = taskq(project, "map", "jobs:square", "--jsonl", "in.jsonl", "--progress")
    assert done.err.startswith("jobs:square: 10 of 10 (100 %), ")


@pytest.mark.parametrize(("flags", "shown"), [(("-o", "out"), True), (("-o", "out", "--no-progress"), False)])
def test_a_terminal_shows_a_bar(project: Path, flags: tuple[str, ...], shown: bool) -> None:
    """With count, total and speed; --no-progress leaves it out."""
    write(project / "in.jsonl", *range(40))
    text = _on_a_terminal(project, "map", "jobs:square", "--jsonl", "in.jsonl", *flags)
    assert ("40 of 40 (100 %)" in text) is shown
    assert ("━" in text) is shown


def test_rows_on_a_terminal_need_no_bar(project: Path) -> None:
    """The rows scroll by: that is progress enough."""
    write(project / "in.jsonl", 2)
    assert _on_a_terminal(project, "map", "jobs:square", "--jsonl", "in.jsonl") == "4\r\n"


def _on_a_terminal(project: Path, *words: str) -> str:
    """Run a command on a terminal of its own; return all that it showed."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [program(), *words],
        cwd=project,
        env=environment(project, TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    shown = b""
    try:
        while data := os.read(main, 4096):
            shown += data
    except OSError:  # how Linux says that nobody holds the other side
        pass
    os.close(main)
    assert process.wait(LIMIT) == 0
    return shown.decode()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("jobs:square",), "Missing option '--jsonl'. (see taskq map --help)"),
        (("--jsonl", "in.jsonl"), "give a task, as module:function, or a command after --"),
        (("jobs:square", "--jsonl", "in.jsonl", "--", "echo"), "give a task or a command after --, not both"),
        (("jobs:square", "--jsonl", "nowhere"), "cannot read nowhere: No such file or directory"),
        (("jobs:square", "--jsonl", "."), "cannot read .: it is a directory"),
        (("nowhere:f", "--jsonl", "in.jsonl"), "nowhere:f: there is no module 'nowhere'"),
        (
            ("jobs:square", "--jsonl", "in.jsonl", "-o", "no/out"),
            "cannot write no/out: No such file or directory",
        ),
        (("jobs:square", "--jsonl", "in.jsonl", "-o", "in.jsonl"), "in.jsonl is the input itself"),
        (
            ("jobs:square", "--jsonl", "in.jsonl", "--processes", "0"),
            "--processes: '0' is not a whole number from 1",
        ),
        (
            ("jobs:square", "--jsonl", "in.jsonl", "--chunksize", "x"),
            "--chunksize: 'x' is not a whole number",
        ),
        (("jobs:square", "--jsonl", "in.jsonl", "--on-error", "x"), "'x' is not one of 'continue', 'stop'"),
        (("--jsonl", "in.jsonl", "--", "no-such-command", "{}"), "no-such-command: command not found"),
        (
            ("jobs:square", "--jsonl", "in.jsonl", "-o", "rows", "--resume"),
            "rows does not end in rows of taskq map",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(project: Path, words: tuple[str, ...], sentence: str) -> None:
    """Nothing is run, nothing is written, exit code 2."""
    write(project / "in.jsonl", 1, 2)
    (project / "rows").write_text("these are no rows\n", encoding="utf-8")
    assert sentence in refused(project, "map", *words)
    assert (project / "in.jsonl").read_text() == "1\n2\n"


def test_the_output_of_another_input_is_refused(project: Path) -> None:
    """More rows than lines: --resume would make nonsense of both."""
    write(project / "in.jsonl", 1, 2)
    (project / "out").write_text("1\n2\n3\n", encoding="utf-8")
    sentence = refused(project, "map", "jobs:square", "--jsonl", "in.jsonl", "-o", "out", "--resume")
    assert sentence.startswith("out has rows for 3 items, the input has 2")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_sentence(project: Path) -> None:
    """Exit code 1, and the reason."""
    write(project / "in.jsonl", 1, 2)
    sentence = refused(project, "map", "jobs:square", "--jsonl", "in.jsonl", "-o", "/dev/full", code=1)
    assert sentence == "cannot write /dev/full: No space left on device"


def test_closed_stdin_and_stderr_are_no_trouble(project: Path) -> None:
    """Started by a daemon with its streams closed, rows still arrive; without stdout the cure is named."""
    write(project / "in.jsonl", 2)
    command = f"{program()} map jobs:talk --jsonl in.jsonl"
    for redirect, code, out in (("<&- 2>&-", 0, b"2\n"), (">&-", 2, b""), ("<&- >&- 2>&- -o out", 0, b"")):
        done = subprocess.run(
            ["sh", "-c", f"{command} {redirect}"],
            cwd=project,
            env=environment(project),
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, out), redirect


# --- commands


def test_a_command_for_every_line(project: Path) -> None:
    """The issue's example: files are packed, the row tells code and output."""
    names = ["a.txt", "b c.txt"]
    for name in names:
        (project / name).write_text("text", encoding="utf-8")
    write(project / "files.jsonl", *names, "missing.txt")
    done = taskq(project, "map", "--jsonl", "files.jsonl", "--", "gzip", "-k", "{}")
    found = rows(done.out)
    assert (done.code, len(found)) == (1, 3)
    assert all((project / f"{name}.gz").exists() for name in names)
    for row in found[:2]:
        assert isinstance(row, dict)
        assert row.pop("duration_s") > 0
        assert row == {"exit_code": 0, "stdout": "", "stderr": ""}
    failed = found[2]
    assert isinstance(failed, dict)
    error = failed["error"]
    assert (error["type"], error["line"], error["exit_code"]) == ("CommandFailed", 3, 1)
    assert error["message"].startswith("gzip exited with code 1: gzip: missing.txt")
    assert error["stderr"].startswith("gzip: missing.txt")


def test_fields_and_retries_of_a_command(project: Path) -> None:
    """{name} takes a field; a command that fails is run again as often as is said."""
    write(project / "in.jsonl", {"word": "a b", "n": 2}, {"word": "c"})
    script = 'echo "$0 $1 $TASKQ_ATTEMPT"; test "$TASKQ_ATTEMPT" = "$1"'
    done = taskq(project, "map", "--jsonl", "in.jsonl", "--retries", 1, "--", "sh", "-c", script, "{word}", "{n}")
    first, second = rows(done.out)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["stdout"] == "a b 2 2\n"
    assert second["error"]["message"] == "the item has no field 'n'; it has word"


def test_commands_beyond_their_timeout_leave_nothing(project: Path) -> None:
    """What they started goes, too (`taskq` in the tests looks for that)."""
    write(project / "in.jsonl", 0, 60)
    done = taskq(project, "map", "--jsonl", "in.jsonl", "--timeout", "0.4s", "--", "sh", "-c", "sleep {} & sleep {}")
    good, bad = rows(done.out)
    assert isinstance(good, dict)
    assert isinstance(bad, dict)
    assert good["exit_code"] == 0
    assert (bad["error"]["type"], bad["error"]["line"]) == ("JobTimeout", 2)


def test_an_earlier_output_is_not_written_over(project: Path) -> None:
    """A file that holds something is left as it is, unless --force says so."""
    (project / "in.jsonl").write_text("1\n2\n")
    (project / "out").write_text("precious\n")
    command = ("map", "jobs:square", "--jsonl", "in.jsonl", "-o", "out")
    assert "--force overwrites it" in refused(project, *command)
    assert (project / "out").read_text() == "precious\n"
    assert taskq(project, *command, "--force").code == 0
    assert (project / "out").read_text() == "1\n4\n"


def test_a_link_of_others_is_not_written_through(project: Path) -> None:
    """A link in a folder in which anybody may put one is no output."""
    (project / "in.jsonl").write_text("1\n")
    (project / "important").write_text("")
    (project / "open").mkdir()
    (project / "open").chmod(0o1777)
    (project / "open" / "out").symlink_to(project / "important")
    command = ("map", "jobs:square", "--jsonl", "in.jsonl", "-o", "open/out")
    assert "symbolic link that somebody else may have put there" in refused(project, *command)
    assert (project / "important").read_text() == ""
