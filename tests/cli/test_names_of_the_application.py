"""An application whose own modules have the names of folders of this project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import taskq

if TYPE_CHECKING:
    from pathlib import Path

#: Folders at the top of this repository, which an editable installation puts on the path.
NAMES = ("executors", "bench", "tests", "examples")

APP = f"""
import {", ".join(NAMES)}

def work(number):
    return [number, *({", ".join(f"{name}.OWN" for name in NAMES)})]
"""

EXPECTED = [7, *NAMES]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with such an application: one of the names as a module, the others as packages."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    for name in NAMES:
        path = folder / f"{name}.py" if name == "executors" else folder / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"OWN = {name!r}\n")
    return folder


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_on_this_machine(project: Path, method: str) -> None:
    """Its jobs run in child processes of each start method, with its own modules."""
    done = taskq(project, "submit", "app:work", ":=7", "--url", "local://", "--wait", "--start-method", method)
    assert json.loads(done.out) == EXPECTED, done.err


def test_on_a_store(project: Path, url: str) -> None:
    """Its jobs run in workers of each store, with its own modules."""
    job = taskq(project, "submit", "app:work", ":=7", "--url", url).out.strip()
    worker = taskq(project, "worker", "--import", "app", "--burst", "--url", url)
    assert worker.code == 0, worker.err
    assert json.loads(taskq(project, "result", job, "--url", url).out) == EXPECTED
