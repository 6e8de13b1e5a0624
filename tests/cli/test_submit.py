"""`taskq submit --url local://`: one task or one command, run here: its outcome, its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command, Done, environment, refused, taskq
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

#: What makes submit run the job itself.
HERE = ("--url", "local://")


def here(project: Path, *words: object, stdin: bytes | None = None, **more: str) -> Done:
    """Submit on local://, unless the words name another URL."""
    return taskq(project, "submit", *HERE, *words, stdin=stdin, **more)


def refused_here(project: Path, *words: object, code: int = 2) -> str:
    """Submit on local:// what must be refused; return the sentence."""
    return refused(project, "submit", *HERE, *words, code=code)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("jobs:square", ":=12"), "144\n"),
        (("jobs.square", ":=12"), "144\n"),
        (("math:factorial", ":=20"), "2432902008176640000\n"),
        (("jobs:describe", "a.jpg", "size:=128"), '{"path": "a.jpg", "size": 128}\n'),
        (("jobs:describe", "--args-json", '{"path": "ä", "size": 1}'), '{"path": "ä", "size": 1}\n'),
        (("jobs:echo", "a", "k=v", ":=[1]", "n:=null"), '[["a", [1]], {"k": "v", "n": null}]\n'),
        (("jobs:echo", "a", "--", "-x", "--y"), '[["a", "-x", "--y"], {}]\n'),
        (("jobs:same", "text"), '"text"\n'),
        (("jobs:same", "text", "--raw"), "text\n"),
        (("jobs:same", ":=[1]", "--raw"), "[1]\n"),
        (("jobs:same", ":=null"), "null\n"),
        (("jobs:later", ":=1", "--wait"), "2\n"),
        (("jobs:third_time", "x"), "3\n"),
        (("jobs:second_time", "x", "--retries", "1"), "2\n"),
    ],
)
def test_the_result_is_printed_as_json(project: Path, words: tuple[str, ...], out: str) -> None:
    """One line on stdout, nothing on stderr, exit code 0."""
    done = here(project, *words)
    assert (done.code, done.out, done.err) == (0, out, "")


def test_stdin_and_files_are_arguments(project: Path) -> None:
    """@FILE is its text, :=@- the JSON on stdin."""
    (project / "note.txt").write_text("hello", encoding="utf-8")
    done = here(project, "jobs:echo", "@note.txt", "data:=@-", stdin=b'{"a": 1}')
    assert done.out == '[["hello"], {"data": {"a": 1}}]\n'


def test_json_gives_one_document(project: Path) -> None:
    """For programs: id, state, attempts, and the result or the error; the exit code stays."""
    done = here(project, "jobs:third_time", "x", "--json")
    document = json.loads(done.out)
    assert document.pop("id")
    assert (done.code, document) == (0, {"state": "succeeded", "attempts": 3, "result": 3})
    done = here(project, "jobs:fail", "x", "--json")
    document = json.loads(done.out)
    assert document.pop("id")
    error = {"type": "ValueError", "message": "no x"}
    assert (done.code, document) == (1, {"state": "failed", "attempts": 1, "error": error})


def test_what_a_task_prints_goes_to_stderr(project: Path) -> None:
    """Only the result is on stdout."""
    done = here(project, "jobs:talk", ":=1")
    assert done.out == "1\n"
    assert sorted(done.err.split()) == ["printed", "written"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("jobs:fail", "x"), 1, "jobs:fail failed: ValueError: no x"),
        (("jobs:hang", "--timeout", "0.3s"), 1, "jobs:hang failed: JobTimeout: "),
        (("jobs:hang", "--soft-timeout", "200ms"), 1, "jobs:hang failed: SoftTimeout: "),
        (("jobs:die",), 1, "SIGKILL"),
        (("jobs:cancelled",), 5, "jobs:cancelled failed: JobCancelled"),
        (("jobs:raw_bytes",), 1, "result is of type bytes, which JSON cannot carry"),
    ],
)
def test_a_failed_job_is_one_sentence(project: Path, words: tuple[str, ...], code: int, sentence: str) -> None:
    """What happened, in one line on stderr, and the right exit code."""
    assert sentence in refused_here(project, *words, code=code)


def test_tracebacks_are_shown_on_request(project: Path) -> None:
    """Who writes the task wants to see where."""
    done = here(project, "jobs:fail", "x", "--tracebacks")
    assert done.code == 1
    assert 'raise ValueError(f"no {value}")' in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "give a task, as module:function, or a command after -- (see taskq submit --help)"),
        (("nowhere:f",), "nowhere:f: there is no module 'nowhere'"),
        (("jobs:sqare", ":=1"), "jobs:sqare: jobs has no 'sqare'; did you mean square"),
        (("jobs:__doc__",), "jobs:__doc__ is not callable: it is a str"),
        (("jobs",), "'jobs' does not name a task: write module:function"),
        (("jobs:",), "does not name a task"),
        (("broken:f",), "importing broken failed: RuntimeError: half configured"),
        (("script:f",), "importing script failed: SystemExit: usage: script.py FILE"),
        (("jobs:square",), "jobs:square takes (number: int): missing a required argument: 'number'"),
        (("jobs:square", "a", "b"), "jobs:square takes (number: int): too many positional arguments"),
        (("jobs:describe", "a", "sise:=1"), "got an unexpected keyword argument 'sise'"),
        (("jobs:same", ":=x"), "':=x': 'x' is not JSON"),
        (("jobs:same", "@nowhere"), "cannot read 'nowhere': No such file or directory"),
        (("jobs:same", "a", "--retrys", "1"), "'--retrys'"),
        (("jobs:same", "a", "--retries", "many"), "--retries: 'many' is not a whole number from 0 up"),
        (("jobs:same", "a", "--timeout", "soon"), "--timeout: 'soon' is not a length of time"),
        (("jobs:same", "a", "--timeout", "1", "--soft-timeout", "2"), "soft_timeout=2.0 would never come"),
        (("jobs:same", "a", "--start-method", "thread"), "'thread' is not one of"),
        (("jobs:same", "a", "--url", "local://?x=1"), "there is no setting 'x'"),
        (("--raw", "--", "echo"), "--args-json, --raw and --unchecked are for tasks"),
        (("--",), "give a task, as module:function, or a command after --"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(project: Path, words: tuple[str, ...], sentence: str) -> None:
    """What is wrong and what would be right, exit code 2, never a traceback."""
    assert sentence in refused_here(project, *words)


def test_errors_as_json(project: Path) -> None:
    """Under --json a program gets the error as a document, on stderr."""
    done = here(project, "nowhere:f", "--json")
    assert json.loads(done.err) == {
        "error": {
            "type": "UnknownTask",
            "message": "nowhere:f: there is no module 'nowhere'",
            "exit_code": 2,
        }
    }


def test_errors_as_log_lines(project: Path) -> None:
    """Under --log-format json messages are JSON lines, too."""
    done = here(project, "jobs:fail", "x", "--log-format", "json")
    line = json.loads(done.err)
    assert (line["event"], line["level"]) == ("jobs:fail failed: ValueError: no x", "error")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_working_directory_is_importable_in_children_too(project: Path, method: str) -> None:
    """As for `python -m`, under every start method."""
    done = here(project, "jobs:where", "--start-method", method)
    assert json.loads(done.out) == [str(project), str(project)]


def test_a_temporary_folder_too_long_for_sockets(project: Path) -> None:
    """One sentence with the cure, where the system would say only that a path is too long."""
    folder = project / ("t" * 100)
    folder.mkdir()
    done = here(project, "jobs:square", ":=3", "--start-method", "forkserver", TMPDIR=str(folder))
    assert done.code == 2
    assert "is too long a path for the sockets in it: set TMPDIR to a shorter one" in done.err
    assert "Traceback" not in done.err


def test_python_m_taskq_is_the_command(project: Path) -> None:
    """Where the program's folder is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "taskq", "submit", *HERE, "jobs:square", ":=3"],
        cwd=project,
        env=environment(project),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"9\n", b"")


def test_settings_come_from_the_environment_and_a_file(project: Path) -> None:
    """A flag over a variable over a file; a mistake in them is told with its place."""
    (project / "taskq.toml").write_text("retries = 1\n", encoding="utf-8")
    assert here(project, "jobs:second_time", "x").out == "2\n"
    assert here(project, "jobs:second_time", "x", TASKQ_RETRIES="0").code == 1
    assert here(project, "jobs:second_time", "x", "--retries", "1", TASKQ_RETRIES="0").code == 0
    (project / "taskq.toml").write_text("retrys = 1\n", encoding="utf-8")
    assert "taskq.toml: retrys: no such setting; did you mean retries?" in refused_here(project, "jobs:same")


# --- commands


def test_a_command_passes_through(project: Path) -> None:
    """Its output is ours, its exit code too."""
    done = here(project, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("kill -TERM $$", 143), ("exit 255", 255), ('test "$TASKQ_ATTEMPT" = 1', 0)],
)
def test_a_commands_exit_code_is_ours(project: Path, script: str, code: int) -> None:
    """Signals as in a shell; the job's facts are in the environment."""
    assert here(project, "--", "sh", "-c", script).code == code


def test_a_command_that_is_not_there(project: Path) -> None:
    """127, and its name, as a shell says it."""
    assert refused_here(project, "--", "no-such-command", code=127) == "no-such-command: command not found"


def test_a_command_is_run_again(project: Path) -> None:
    """--retries counts a bad exit code as a failure; the last attempt's code is ours."""
    script = 'echo "attempt $TASKQ_ATTEMPT"; test "$TASKQ_ATTEMPT" = 3'
    done = here(project, "--retries", "2", "--", "sh", "-c", script)
    assert (done.code, done.out) == (0, "attempt 1\nattempt 2\nattempt 3\n")
    done = here(project, "--retries", "1", "--", "sh", "-c", script + "; exit 9")
    assert (done.code, done.out) == (9, "attempt 1\nattempt 2\n")


def test_a_command_beyond_its_timeout_ends_with_all_it_started(project: Path) -> None:
    """124 as timeout(1), and no process of it is left."""
    script = "sleep 60 & sleep 60; echo never"
    sentence = refused_here(project, "--timeout", "0.5s", "--", "sh", "-c", script, code=124)
    assert sentence.startswith("sh failed: JobTimeout: ")


def test_a_command_as_json(project: Path) -> None:
    """Its output is captured into the document."""
    done = here(project, "--json", "--", "sh", "-c", "echo out; exit 3")
    document = json.loads(done.out)
    assert document.pop("id")
    assert document["result"].pop("duration_s") > 0
    assert document == {
        "state": "succeeded",
        "attempts": 1,
        "result": {"exit_code": 3, "stdout": "out\n", "stderr": ""},
    }
    assert done.code == 3


def test_interrupting_a_task_kills_it(project: Path) -> None:
    """Ctrl-C: exit code 130, at once, and nothing is left."""
    (project / "w.py").write_text("import time\ndef f():\n    print('up', flush=True)\n    time.sleep(60)\n")
    with Command(project, "submit", *HERE, "w:f") as command:
        eventually(lambda: "up" in command.err, "the task to begin")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()
        assert "Traceback" not in command.err


def test_interrupting_a_command_kills_all_it_started(project: Path) -> None:
    """The command runs in a process group of its own, and dies all the same."""
    with Command(project, "submit", *HERE, "--", "sh", "-c", "echo up; sleep 60 & sleep 60") as command:
        eventually(lambda: "up" in command.out, "the command to begin")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()


def test_killing_taskq_kills_the_command(project: Path) -> None:
    """SIGKILL leaves no time to tidy up; the kernel does it."""
    with Command(project, "submit", *HERE, "--", "sh", "-c", "echo up; sleep 60 & sleep 60") as command:
        eventually(lambda: "up" in command.out, "the command to begin")
        command.process.kill()
        command.assert_gone()


def test_arguments_count_together_against_the_limit(project: Path) -> None:
    """Arguments that fit one by one, but not together, are refused by the submit, with size, limit and cure."""
    words = ("--url", "sqlite:///q.db?max_bytes=1000", "jobs:echo", "a" * 600, f"k={'b' * 600}")
    said = refused(project, "submit", *words, code=2)
    assert "above the limit of 1,000" in said
    assert "max_bytes" in said
