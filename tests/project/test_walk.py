"""The count of one job's way, and the figures of the code."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from bench.house import survey
from bench.walk import WALKS, Call, count, follow
from tests.project.commands import ROOT, output_of, run

if TYPE_CHECKING:
    from pathlib import Path

WALK = [sys.executable, "-m", "bench.walk"]


def test_a_move_is_two_calls_of_one_thread_in_different_rooms() -> None:
    """Calls of another thread between two of one thread are no move."""
    one, two = (1, 1), (1, 2)
    way = [(1, one, "a.py"), (2, two, "b.py"), (3, one, "a.py"), (4, one, "b.py"), (5, two, "b.py")]
    figures = count("way", [Call(at=at, thread=thread, room=room, function="f") for at, thread, room in way])
    assert (figures.rooms, figures.calls, figures.moves, figures.threads) == (2, 5, 1, 2)


def test_a_job_leads_from_the_queue_to_its_child() -> None:
    """The walk sees the client's thread and the child, and says so in JSON."""
    (found,) = json.loads(output_of([*WALK, "--only", "local", "--times", "1", "--json"], ROOT))
    assert found["walk"] == "local"
    assert found["rooms"] > 5
    assert found["threads"] >= 2


@pytest.mark.parametrize(
    "store",
    [
        "sqlite",
        pytest.param("redis", marks=pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")),
    ],
)
def test_a_stored_job_leads_through_client_worker_and_child(store: str) -> None:
    """The walk of a job in a store sees the store's own files and the runner's in a third process."""
    calls = follow(WALKS[store], 1)
    rooms = {call.room for call in calls}
    assert {"taskq/queue.py", "taskq/runner.py"} <= rooms
    assert any(room.startswith("executors/worker/") for room in rooms)
    assert len({call.thread[0] for call in calls}) == 3


def test_the_figures_of_the_code_are_printed() -> None:
    """`--house` prints sizes and cycles; at run time there is no cycle of imports."""
    figures = json.loads(output_of([*WALK, "--house", "--json"], ROOT))
    assert figures["files_in_cycles_run_time"] == 0
    assert figures["functions_typed_percent"] == 100
    done = run([*WALK, "--house"], ROOT)
    assert "taskq.codec: files / lines" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_cycles_are_found_by_when_their_imports_run(tmp_path: Path) -> None:
    """A circle that closes in a function runs; one that closes below TYPE_CHECKING does not."""
    house = tmp_path / "taskq"
    house.mkdir()
    files = {
        "a": "import taskq.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from taskq import c\n",
        "b": "def f() -> None:\n    from taskq.a import x\n",
        "c": "from taskq.a import x\n",
    }
    for name, text in files.items():
        (house / f"{name}.py").write_text(text, encoding="utf-8")
    (house / "__init__.py").write_text('"""A class is needed."""\nclass A:\n    def f(self): ...\n', encoding="utf-8")
    figures = survey(tmp_path)
    assert figures["files_and_lines"] == (4, 10)
    assert figures["files_in_cycles_top"] == 0
    assert figures["files_in_cycles_run_time"] == (2,)
    assert figures["files_in_cycles_with_TYPE_CHECKING"] == (3,)
    assert figures["imports_in_functions"] == 1
