"""`taskq map --retry-failed`: each line that failed runs again, and its row takes the place of the error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import Command, taskq
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.store_queue import Queue

#: Lines of the input, of which every third fails at first.
ITEMS = 60
FAILING = range(1, ITEMS, 3)

JOBS = '''
import os, time
from pathlib import Path

def once(folder, number):
    """Fail for every third number while the file `broken` is there; leave a mark for each run."""
    with open(os.path.join(folder, str(number)), "a") as mark:
        mark.write("x")
    if number % 3 == 1 and os.path.exists(os.path.join(folder, "broken")):
        raise ValueError(f"{number} is broken")
    while number == 31 and os.path.exists(os.path.join(folder, "held")):
        time.sleep(0.01)
    return number
'''


@pytest.fixture
def marks(project: Path) -> Path:
    """Give the folder in which jobs leave their marks; every third one fails."""
    folder = project / "marks"
    folder.mkdir()
    (folder / "broken").touch()
    (project / "retried.py").write_text(JOBS, encoding="utf-8")
    lines = (json.dumps([str(folder), number]) + "\n" for number in range(ITEMS))
    (project / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def command(*flags: str) -> tuple[str, ...]:
    """Return the words of the map."""
    return ("map", "retried:once", "--jsonl", "in.jsonl", "-o", "out.jsonl", "-j", "2", *flags)


def rows_of(project: Path) -> list[Any]:
    """Return the rows of the output."""
    return [json.loads(row) for row in (project / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def runs_of(marks: Path) -> dict[int, int]:
    """Return how often each item has run."""
    return {int(mark.name): len(mark.read_text()) for mark in marks.iterdir() if mark.name.isdecimal()}


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
def test_each_failed_line_runs_again(project: Path, marks: Path, flags: tuple[str, ...]) -> None:
    """Each failed line runs once more, no other does, and the output is as if nothing had failed."""
    assert taskq(project, *command(*flags)).code == 1
    assert taskq(project, *command(*flags, "--retry-failed")).code == 1  # all of them fail once more
    (marks / "broken").unlink()
    done = taskq(project, *command(*flags, "--retry-failed"))
    assert (done.code, done.err) == (0, "")
    rows = rows_of(project)
    if flags:
        assert sorted((row["index"], row["result"]) for row in rows) == [(number, number) for number in range(ITEMS)]
    else:
        assert rows == list(range(ITEMS))
    assert runs_of(marks) == {number: 3 if number in FAILING else 1 for number in range(ITEMS)}
    assert not (project / "out.jsonl.new").exists()


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
def test_lines_without_a_row_run_too(project: Path, marks: Path, flags: tuple[str, ...]) -> None:
    """As with --resume, lines that have no row yet are run as well."""
    assert taskq(project, *command(*flags)).code == 1
    kept = (project / "out.jsonl").read_bytes().splitlines(keepends=True)[:20]
    (project / "out.jsonl").write_bytes(b"".join(kept))
    (marks / "broken").unlink()
    assert taskq(project, *command(*flags, "--retry-failed")).code == 0
    assert sorted(row["result"] if flags else row for row in rows_of(project)) == list(range(ITEMS))


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
def test_interrupted_then_retried(project: Path, marks: Path, flags: tuple[str, ...]) -> None:
    """After Ctrl-C the file has a row for each line: the new ones, and the errors of those that did not run again."""
    assert taskq(project, *command(*flags)).code == 1
    (marks / "broken").unlink()
    (marks / "held").touch()
    with Command(project, *command(*flags, "--retry-failed")) as running:
        eventually(lambda: runs_of(marks)[31] == 2, "the line that waits to run again")
        eventually(lambda: (project / "out.jsonl.new").stat().st_size, "a new row")
        running.interrupt()
        assert running.wait() == 130
        running.assert_gone()
        assert "run it again with --retry-failed to go on" in running.err
    rows = rows_of(project)
    assert len(rows) == ITEMS
    assert sum("error" in row for row in rows if isinstance(row, dict)) in range(1, len(FAILING))
    if not flags:
        assert all(row == at or row["error"]["line"] == at + 1 for at, row in enumerate(rows))
    (marks / "held").unlink()
    assert taskq(project, *command(*flags, "--retry-failed")).code == 0
    assert sorted(row["result"] if flags else row for row in rows_of(project)) == list(range(ITEMS))


def test_a_killed_retry_leaves_the_file_as_it_was(project: Path, marks: Path) -> None:
    """SIGKILL in the middle of a retry loses no row of the earlier run."""
    assert taskq(project, *command()).code == 1
    before = (project / "out.jsonl").read_bytes()
    (marks / "broken").unlink()
    (marks / "held").touch()
    with Command(project, *command("--retry-failed")) as running:
        eventually(lambda: runs_of(marks)[31] == 2, "the line that waits to run again")
        running.process.kill()
        running.assert_gone()
    assert (project / "out.jsonl").read_bytes() == before
    (marks / "held").unlink()
    assert taskq(project, *command("--retry-failed")).code == 0
    assert rows_of(project) == list(range(ITEMS))


def test_failed_lines_run_again_on_a_store(queue: Queue, worker: Callable[..., Command]) -> None:
    """The same on a store, whose journal goes with the map."""
    words = ("map", "jobs:fail_odd", "--jsonl", "in.jsonl", "-o", "out.jsonl", "--url", queue.url)
    (queue.project / "in.jsonl").write_text("".join(f"{number}\n" for number in range(9)), encoding="utf-8")
    worker(queue.url)
    assert taskq(queue.project, *words).code == 1
    (queue.project / "in.jsonl").write_text("0\n2\n2\n4\n4\n6\n6\n8\n8\n", encoding="utf-8")
    done = taskq(queue.project, *words, "--retry-failed")
    assert (done.code, done.err) == (0, "")
    assert rows_of(queue.project) == [0, 2, 2, 4, 4, 6, 6, 8, 8]
    assert not (queue.project / "out.jsonl.chunks").exists()


def test_retry_needs_a_file(project: Path, marks: Path) -> None:
    """On an appended stdout, which cannot be replaced, it is refused with the cure."""
    assert taskq(project, *command()).code == 1
    stdout = (project / "out.jsonl").open("ab")
    with stdout, Command(project, "map", "retried:once", "--jsonl", "in.jsonl", "--retry-failed", stdout=stdout) as run:
        assert run.wait() == 2
        assert "use -o FILE" in run.err
