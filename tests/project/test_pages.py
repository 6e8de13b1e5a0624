"""The pages that show how to use a part of taskq tell the truth: their programs and commands run, and print this."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.project.commands import ROOT, run
from tests.project.markdown import Block, Command, blocks, commands

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("look-and-act.md", "retries.md")


def of_language(language: str) -> list[object]:
    """Return the blocks of one language with the text that is shown right below each, as parameters."""
    found = []
    for page in PAGES:
        all_blocks = list(blocks(ROOT / "docs" / page))
        for at, block in enumerate(all_blocks):
            below = "".join(after.text for after in all_blocks[at + 1 : at + 2] if after.language == "text")
            if block.language == language:
                found.append(pytest.param(block, below, id=f"{page}-line{block.line}"))
    return found


@pytest.mark.parametrize(("block", "below"), of_language("python"))
def test_programs_run(block: Block, below: str, tmp_path: Path) -> None:
    """Every Python block is a whole program, and prints what the `text` block right below it shows."""
    program = tmp_path / "program.py"
    program.write_text(block.text, encoding="utf-8")
    done = run([sys.executable, "-W", "error", program.name], tmp_path)
    assert done.returncode == 0, done.stderr
    assert Command(text=program.name, output=below).shows(done.stdout), done.stdout


@pytest.mark.parametrize(("block", "below"), of_language("console"))
def test_commands_run(block: Block, below: str, tmp_path: Path) -> None:
    """Every command of a console block exits 0, and prints what is shown below it."""
    assert not below
    wanted = list(commands(block))
    script = "".join(f"printf '\\x1e'\n{command.text.rstrip()}\nprintf '\\x1f%s' $?\n" for command in wanted)
    done = run(["bash", "-c", script], tmp_path, environment={"XDG_STATE_HOME": str(tmp_path / "state")})
    outcomes = [part.split("\x1f") for part in done.stdout.split("\x1e")[1:]]
    assert [status for _, status in outcomes] == ["0"] * len(wanted), done.stderr
    for command, (stdout, _) in zip(wanted, outcomes, strict=True):
        assert command.shows(stdout), f"{command.text} printed:\n{stdout}"
