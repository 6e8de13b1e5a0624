"""What every command has: version, help, completion, a quick start, and helpful words after a mistake."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import taskq as package
from taskq.cli.app import CATALOG, cli
from taskq.cli.exits import Exit, code_for, sentence
from taskq.errors import BackendUnavailable, ConfigError, JobCancelled, JobFailed, JobNotFound, TaskqError
from tests.cli.command import assert_golden, environment, program, refused, taskq
from tests.scripts import run

if TYPE_CHECKING:
    from pathlib import Path

#: All that have a page of help, by the words that ask for it.
COMMANDS = ["", *(name for name, entry in CATALOG.items() if not entry.hidden), "config show"]


def test_version(project: Path) -> None:
    """Name and version, on stdout."""
    done = taskq(project, "--version")
    assert (done.code, done.out, done.err) == (0, f"taskq {package.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(project: Path, command: str) -> None:
    """What people read, word for word; -h is --help."""
    done = taskq(project, *command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert_golden(f"help-{command.replace(' ', '-') or 'taskq'}.out", done.out, words=True)
    assert taskq(project, *command.split(), "-h").out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_that_are_valid(command: str) -> None:
    """Every example of a command line is one that the parser takes."""
    text = CliRunner().invoke(cli, [*command.split(), "--help"]).output
    lines = [line.strip() for line in text.splitlines() if line.startswith("    taskq ")]
    assert lines
    for line in lines:
        words = shlex.split(re.split(r" > |   ", line)[0])
        name, *rest = words[words.index("taskq") + 1 :]
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        found.make_context(name, rest).close()


def test_no_command_shows_help(project: Path) -> None:
    """Typing the name alone is a question, and no success."""
    done = taskq(project)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: taskq")


def test_a_mistyped_command_is_told(project: Path) -> None:
    """One sentence, and where to look."""
    sentence = refused(project, "mpa")
    assert "'mpa'" in sentence
    assert "(see taskq --help)" in sentence


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(project: Path, shell: str) -> None:
    """It is the shell's language, and asks taskq for words."""
    done = taskq(project, "completion", shell)
    assert (done.code, done.err) == (0, "")
    assert "_TASKQ_COMPLETE" in done.out
    refused(project, "completion", "tcsh")


def test_completion_completes(project: Path) -> None:
    """The shell's question is answered with commands and flags."""
    for words, expected in (("taskq su", "submit"), ("taskq map --unor", "--unordered")):
        more = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_TASKQ_COMPLETE": "bash_complete",
        }
        done = subprocess.run(
            [program()],
            env=environment(project, **more),
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout


def test_the_door_is_light(tmp_path: Path) -> None:
    """Children load no click, no rich, no structlog for the functions they run; --version loads no pool."""
    source = """
        import sys
        import taskq.cli
        heavy = {"click", "rich", "structlog", "multiprocessing", "asyncio"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        import taskq.cli.line_task
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        sys.argv = ["taskq", "--version"]
        try:
            taskq.cli.main()
        except SystemExit:
            pass
        assert not (heavy - {"click"}) & set(sys.modules), heavy & set(sys.modules)
    """
    assert run(tmp_path, source).stdout.startswith("taskq ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.USAGE),
        (click.UsageError("x"), Exit.USAGE),
        (BackendUnavailable("x"), Exit.BACKEND),
        (JobNotFound("x"), Exit.NOT_FOUND),
        (JobCancelled("x"), Exit.CANCELLED),
        (JobFailed("x"), Exit.FAILED),
        (TaskqError("x"), Exit.FAILED),
    ],
)
def test_exit_codes_of_errors(error: Exception, code: Exit) -> None:
    """The table of the documentation."""
    assert code_for(error) is code


def test_a_sentence_is_one_line() -> None:
    """Whatever the message holds; an error without words is told by its name."""
    assert sentence(ConfigError("two\n  lines")) == "two lines"
    assert sentence(TaskqError()) == "TaskqError"


def test_a_message_of_many_lines_does_not_break_the_rule(project: Path) -> None:
    """A module whose import fails with a page of text is still one sentence."""
    (project / "wordy.py").write_text('raise RuntimeError("one\\ntwo\\nthree")\n', encoding="utf-8")
    assert refused(project, "submit", "wordy:f") == "importing wordy failed: RuntimeError: one two three"


@pytest.mark.parametrize("name", CATALOG)
def test_every_command_is_where_the_catalog_says(name: str) -> None:
    """Its line in the list is the one in its own help; a hidden word stands for one that is listed."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    entry = CATALOG[name]
    if entry.hidden:
        assert entry.place in {other.place for other in CATALOG.values() if not other.hidden}
    else:
        assert found.get_short_help_str(100) == entry.line
        assert found.name == name


def test_the_list_of_commands_loads_none(tmp_path: Path) -> None:
    """--help stays quick however many commands there are: no rich, no codec, no command."""
    source = """
        import sys
        from taskq.cli.app import run
        assert run(["--help"]) == 0
        heavy = {"rich", "structlog", "msgpack", "sqlite3", "taskq.cli.submit", "taskq.cli.top", "taskq.cli.show"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    assert "transfer" in run(tmp_path, source).stdout


def test_a_mistyped_command_is_guessed(project: Path) -> None:
    """The nearest name is offered."""
    assert "did you mean status?" in refused(project, "statsu")
