"""The README tells the truth: its programs run, its commands do, and print what is shown."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from bench.readme import section_of
from bench.suite import SUITES
from tests.project.commands import ROOT, run
from tests.project.markdown import Block, Command, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = list(blocks(ROOT / "README.md"))

#: The ways to install, in the first block of the README.
INSTALLS = tuple(command.text.split(" #")[0].strip() for command in commands(BLOCKS[0]))

#: Commands of the README that are not run here, each with the reason.
NOT_RUN_HERE = {
    "make demo": "it makes a virtual environment; test_examples.py runs what it starts, on fewer files",
    "make test": "this test is a part of it",
    **dict.fromkeys(INSTALLS, "test_packaging.py runs it, in an environment of its own"),
    "make bench": "it takes minutes, and its figures are of no use from a machine that runs tests",
}


def of_language(language: str) -> list[object]:
    """Return the blocks of one language as parameters that are named by their lines."""
    return [pytest.param(block, id=f"line{block.line}") for block in BLOCKS if block.language == language]


def without_comment(command: Command) -> str:
    """Return a command's text as the reader will type it."""
    return command.text.split(" #")[0].strip()


def marked(command: Command) -> str:
    """Wrap a command for a shell, so that its output and exit status can be told from those of the next."""
    return f"printf '\\x1e'; (exit ${{s:-0}})\n{command.text.rstrip()}\ns=$?; printf '\\x1f%s' $s\n"


def at_home_in(folder: Path) -> dict[str, str]:
    """Return the environment that keeps the command line's own queue file in a folder of the test."""
    return {"XDG_STATE_HOME": str(folder / "state")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files that the README shows under a name."""
    for block in BLOCKS:
        if block.file_name:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("block", of_language("python"))
def test_programs_run(block: Block, folder: Path) -> None:
    """Every Python block is a whole program, and prints what the `text` block right below it shows."""
    program = folder / (block.file_name or "program.py")
    program.write_text(block.text, encoding="utf-8")
    done = run([sys.executable, "-W", "error", program.name], folder, environment=at_home_in(folder))
    assert done.returncode == 0, done.stderr
    below = BLOCKS[BLOCKS.index(block) + 1 :][:1]
    if below and below[0].language == "text":
        assert Command(text=program.name, output=below[0].text).shows(done.stdout), done.stdout


@pytest.mark.parametrize("block", of_language("console"))
def test_commands_run(block: Block, folder: Path) -> None:
    """Every command of a console block exits 0, or shows its code by `echo $?`, and prints what is shown."""
    wanted = [command for command in commands(block) if without_comment(command) not in NOT_RUN_HERE]
    script = folder / "commands.sh"
    script.write_text("".join(marked(command) for command in wanted), encoding="utf-8")
    done = run(["bash", script.name], folder, environment=at_home_in(folder))
    outcomes = [part.split("\x1f") for part in done.stdout.split("\x1e")[1:]]
    assert len(outcomes) == len(wanted), done.stderr
    for position, (command, (stdout, status)) in enumerate(zip(wanted, outcomes, strict=True), 1):
        code_is_shown = any(after.text.startswith("echo $?") for after in wanted[position : position + 1])
        assert status == "0" or code_is_shown, f"{command.text} exited {status}:\n{done.stderr}"
        assert command.shows(stdout), f"{command.text} printed:\n{stdout}"


def test_every_block_is_of_a_known_kind() -> None:
    """No block escapes the tests above by its language; `text` is for drawings and output."""
    assert {block.language for block in BLOCKS} <= {"python", "console", "text"}


def test_install_and_the_two_commands_come_first() -> None:
    """A newcomer first reads how to install, then `make demo` and `make test`; CI runs the latter."""
    headings = re.findall(r"^## (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Install"
    consoles = [block for block in BLOCKS if block.language == "console"]
    first = [without_comment(command) for block in consoles for command in commands(block)]
    assert first[len(INSTALLS) : len(INSTALLS) + 2] == ["make demo", "make test"]
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1] == "make test"


@pytest.mark.parametrize("suite", SUITES)
def test_figures_are_those_of_the_last_published_run(suite: str) -> None:
    """No figure is typed by hand: each section is what `python -m bench.readme` makes of the results in bench/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- bench {suite} -->\n{section_of(suite)}<!-- end -->" in text
