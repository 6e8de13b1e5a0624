"""`docs/writing-a-store.md` tells the truth: its class is a store, its entry point is found, its test passes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.project.commands import ROOT
from tests.project.markdown import blocks

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = list(blocks(ROOT / "docs" / "writing-a-store.md"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the page's files, and what an installed distribution with its entry point has on the disk."""
    for block in BLOCKS:
        if block.file_name is not None:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
    (toml,) = [tomllib.loads(block.text) for block in BLOCKS if block.language == "toml"]
    ((name, target),) = toml["project"]["entry-points"]["taskq.stores"].items()
    info = tmp_path / "logged_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: logged-store\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[taskq.stores]\n{name} = {target}\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Run Python in the folder, with it on its path; return what it said."""
    env = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_scheme_of_another_distribution(folder: Path) -> None:
    """The store of an installed distribution is found by the scheme that its entry point names."""
    run(folder, "use_it.py")


def test_commands_find_it(folder: Path) -> None:
    """Commands take the URL of such a store."""
    code = "from taskq.cli import main; raise SystemExit(main())"
    assert "no jobs" in run(folder, "-c", code, "status", "--url", "logged://here")


def test_testing_an_application(folder: Path) -> None:
    """The example of a test of one's own application passes."""
    code = "import test_app; test_app.test_adding()"
    run(folder, "-c", code)


def test_unknown_scheme() -> None:
    """A scheme that nobody brings is refused with those that there are."""
    from taskq.connect import open_store  # noqa: PLC0415 - only here
    from taskq.errors import ConfigError  # noqa: PLC0415 - only here

    with pytest.raises(ConfigError, match="keeps no jobs that workers could take"):
        open_store("nobody://x")
