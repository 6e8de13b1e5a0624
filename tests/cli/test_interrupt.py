"""Ctrl-C, SIGTERM and SIGKILL in the middle of a map: what is left is a file that --resume goes on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command, taskq
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.store_queue import Queue

#: Items of a run that takes long enough to be interrupted in the middle.
ITEMS = 600


@pytest.fixture
def slow(project: Path) -> tuple[str, ...]:
    """Give a command whose items take 5 ms and leave marks."""
    (project / "marks").mkdir()
    lines = (json.dumps([str(project / "marks"), number]) + "\n" for number in range(ITEMS))
    (project / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    return ("map", "jobs:note_slowly", "--jsonl", "in.jsonl", "-o", "out.jsonl", "-j", "2")


def numbers_in(project: Path, *, unordered: bool) -> list[int]:
    """Return the items that have rows; fail on a row that is torn."""
    text = (project / "out.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    return [json.loads(line)["result"] if unordered else json.loads(line) for line in text.splitlines()]


def rows_written(project: Path) -> int:
    """Count the rows so far."""
    path = project / "out.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_rows(project: Path, count: int) -> bool:
    """Tell whether there are more rows than that."""
    return rows_written(project) > count


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_then_resumed(
    project: Path, slow: tuple[str, ...], flags: tuple[str, ...], number: int, code: int
) -> None:
    """The signal's exit code, one sentence, no process, whole rows; --resume makes the rest of them."""
    with Command(project, *slow, *flags) as command:
        eventually(lambda: rows_written(project) > 50, "some rows to be written")
        command.interrupt(number)
        assert command.wait() == code
        command.assert_gone()
        found = numbers_in(project, unordered=bool(flags))
        last = f"taskq: map: interrupted after {len(found):,} rows; run it again with --resume to go on\n"
        assert command.err.endswith(last)
        assert command.err.count("\n") <= 2  # a busy machine may be told what is waited for
    assert 50 < len(found) < ITEMS
    if not flags:
        assert found == list(range(len(found)))
    done = taskq(project, *slow, *flags, "--resume")
    assert (done.code, done.err) == (0, "")
    assert sorted(numbers_in(project, unordered=bool(flags))) == list(range(ITEMS))
    again = sum(len(mark.read_text()) > 1 for mark in (project / "marks").iterdir())
    assert again <= ITEMS - len(found)


@pytest.mark.parametrize("flags", [(), ("--unordered",)])
def test_killed_then_resumed(project: Path, slow: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """After SIGKILL the children end by themselves, and --resume makes the file what it would have been.

    A killed forkserver leaves its folder behind: no program can tidy up after SIGKILL.
    """
    for _ in range(3):
        enough = rows_written(project) + 50
        with Command(project, *slow, *flags, "--resume") as command:
            eventually(partial(has_rows, project, enough), "some more rows")
            command.process.kill()
            command.assert_gone()
    shutil.rmtree(project / "tmp")
    done = taskq(project, *slow, *flags, "--resume")
    assert (done.code, done.err) == (0, "")
    assert sorted(numbers_in(project, unordered=bool(flags))) == list(range(ITEMS))


def test_a_job_that_does_not_end_is_killed(project: Path) -> None:
    """Ctrl-C does not wait for an hour's job; rows that are done are in the file."""
    (project / "marks").mkdir()
    lines = (json.dumps([str(project / "marks"), number]) + "\n" for number in range(40))
    (project / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    with Command(project, "map", "jobs:wait_for_gate", "--jsonl", "in.jsonl", "-o", "out.jsonl") as command:
        eventually(lambda: rows_written(project) == 10, "the first ten rows")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()
    assert numbers_in(project, unordered=False) == list(range(10))


def has_marks(project: Path, count: int, text: str) -> bool:
    """Tell whether so many jobs have left these marks."""
    return [mark.read_text() for mark in (project / "marks").iterdir()] == [text] * count


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["map", "submit"])
def test_running_jobs_tidy_up(project: Path, command: str, number: int) -> None:
    """Jobs that run are interrupted where they are, so that their `finally` runs."""
    (project / "marks").mkdir()
    jobs = 2 if command == "map" else 1
    (project / "in.jsonl").write_text("".join(json.dumps([str(project / "marks"), n]) + "\n" for n in range(jobs)))
    words = {
        "map": ("map", "jobs:tidy", "--jsonl", "in.jsonl", "-o", "out.jsonl", "-j", "2"),
        "submit": ("submit", "jobs:tidy", str(project / "marks"), ":=0", "--wait", "--url", "local://"),
    }[command]
    with Command(project, *words) as running:
        eventually(lambda: has_marks(project, jobs, "x"), "the jobs to start")
        running.interrupt(number)
        assert running.wait() == 128 + number
        running.assert_gone()
        assert has_marks(project, jobs, "xx")
        assert "killed" not in running.err


def test_stopping_at_an_error_interrupts_what_runs(project: Path) -> None:
    """`--on-error stop` raises KeyboardInterrupt in the lines that run, so that their `finally` runs."""
    (project / "marks").mkdir()
    (project / "in.jsonl").write_text(f"{json.dumps([str(project / 'marks'), 0])}\n[1]\n", encoding="utf-8")
    words = ("map", "jobs:tidy_or_fail", "--jsonl", "in.jsonl", "-j", "2", "--unordered", "--on-error", "stop")
    done = taskq(project, *words)
    assert done.code == 1
    assert has_marks(project, 1, "xx")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stored_job_that_runs_here_tidies_up(queue: Queue, number: int) -> None:
    """`submit --wait` runs it as a worker would: it is interrupted, its `finally` runs, and it is kept."""
    marks = queue.project / "marks"
    marks.mkdir()
    words = ("submit", "--url", queue.url, "--wait", "jobs:tidy", str(marks), ":=0")
    with Command(queue.project, *words, name="w-") as running:
        eventually(lambda: has_marks(queue.project, 1, "x"), "the job to start")
        running.interrupt(number)
        assert running.wait() == 128 + number
        running.assert_gone()
        assert has_marks(queue.project, 1, "xx")
        assert "killed the running job" not in running.err
        assert "is kept: taskq wait" in running.err
    (found,) = json.loads(queue.run("status", "--json").out)["jobs"]
    assert (found["state"], found["crashes"]) == ("queued", 0)


def test_a_stored_job_that_stays_in_c_is_killed_here(queue: Queue) -> None:
    """What cannot be interrupted gets its grace, then it is killed; stderr says both, and the job is kept."""
    marks = queue.project / "marks"
    marks.mkdir()
    words = ("submit", "--url", queue.url, "--wait", "jobs:spin", str(marks), ":=0")
    with Command(queue.project, *words, name="w-") as running:
        eventually(lambda: has_marks(queue.project, 1, "x"), "the job to start")
        running.interrupt()
        assert running.wait() == 130
        running.assert_gone()
        assert "interrupted, and with it the running job" in running.err
        assert "killed the running job" in running.err
    (found,) = json.loads(queue.run("status", "--json").out)["jobs"]
    assert (found["state"], found["crashes"]) == ("queued", 0)


def test_a_job_that_stays_in_c_is_killed(project: Path) -> None:
    """What cannot be interrupted gets its grace, then it is killed; stderr says both."""
    (project / "marks").mkdir()
    with Command(
        project, "submit", "jobs:spin", str(project / "marks"), ":=0", "--wait", "--url", "local://"
    ) as running:
        eventually(lambda: has_marks(project, 1, "x"), "the job to start")
        running.interrupt()
        assert running.wait() == 130
        running.assert_gone()
        assert "interrupted, and with it 1 running job" in running.err
        assert "killed 1 running job" in running.err


def test_interrupted_commands_end_with_all_they_started(project: Path) -> None:
    """A command runs in a process group of its own, where the terminal's Ctrl-C does not come."""
    (project / "in.jsonl").write_text("60\n61\n", encoding="utf-8")
    script = "touch started-{}; sleep {} & sleep {}"
    with Command(project, "map", "--jsonl", "in.jsonl", "-j", "2", "--", "sh", "-c", script) as command:
        eventually(lambda: len(list(project.glob("started-*"))) == 2, "both commands to begin")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()


def test_killed_commands_end_with_all_they_started(project: Path) -> None:
    """SIGKILL of taskq: the kernel ends its children, and what those run."""
    (project / "in.jsonl").write_text("60\n61\n", encoding="utf-8")
    script = "touch started-{}; sleep {} & sleep {}"
    with Command(project, "map", "--jsonl", "in.jsonl", "-j", "2", "--", "sh", "-c", script) as command:
        eventually(lambda: len(list(project.glob("started-*"))) == 2, "both commands to begin")
        command.process.kill()
        command.assert_gone()


def test_interrupted_while_waiting_for_input(project: Path) -> None:
    """A silent pipe, or a person at the keyboard, does not hold it."""
    reader, end = os.pipe()
    with Command(project, "map", "jobs:square", "--jsonl", "-", stdin=reader) as command:
        eventually(lambda: len(command.left()) > 1, "the pool to start")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()
    os.close(reader)
    os.close(end)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(project: Path, slow: tuple[str, ...], number: int) -> None:
    """Under nohup, or behind a script's &, a signal is not ours to take: neither the command nor its jobs do."""
    with Command(project, *slow, ignored=[number]) as command:
        eventually(lambda: rows_written(project) > 20, "some rows")
        command.interrupt(number)
        after = rows_written(project)
        eventually(lambda: rows_written(project) > after + 50, "more rows after the signal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_worker_keeps_an_ignored_signal_ignored(file_queue: Queue, number: int) -> None:
    """`nohup taskq worker` goes on when the terminal is gone, and so do the jobs that it runs."""
    job_id = file_queue.submit("jobs:watched", "gate")
    words = ("worker", "--url", file_queue.url, "--import", "jobs", "-j", "1", "--max-jobs", "1")
    place = file_queue.project / "w"  # its temporary files stay as long as it runs
    place.mkdir()
    with Command(file_queue.project, *words, name="w-", env={"TMPDIR": str(place)}, ignored=[number]) as command:
        file_queue.until_one_runs()
        command.interrupt(number)
        (file_queue.project / "gate").touch()
        assert command.wait() == 0
        assert "worker_stopping" not in command.err
    assert file_queue.run("result", job_id).out == '"through"\n'
