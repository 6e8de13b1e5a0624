"""`taskq worker` as a command: its flags, its refusals, its exit codes."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import new_project, refused, taskq

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a user's project."""
    return new_project(tmp_path / "project")


def test_burst_works_off_what_is_there(folder: Path) -> None:
    """Jobs that were submitted before a worker was started are run by it, from modules of the working directory."""
    ids = [taskq(folder, "submit", "jobs:square", f":={n}").out.strip() for n in range(3)]
    done = taskq(folder, "worker", "--import", "jobs", "--burst", "--processes", 2)
    assert done.code == 0, done.err
    assert done.out == ""
    assert "worker_started" in done.err
    assert "worker_stopped" in done.err
    assert [json.loads(taskq(folder, "result", job_id).out) for job_id in ids] == [0, 1, 4]


def test_nothing_to_do(folder: Path) -> None:
    """A burst on an empty queue ends at once with 0, and tells nothing at the level of warnings."""
    done = taskq(folder, "worker", "--burst", "--log-level", "warning")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_max_jobs(folder: Path) -> None:
    """A worker with --max-jobs runs so many and leaves the rest."""
    for n in range(3):
        taskq(folder, "submit", "jobs:square", f":={n}")
    assert taskq(folder, "worker", "--import", "jobs", "--max-jobs", 2).code == 0
    assert (
        taskq(folder, "worker", "--import", "jobs", "--burst", "--log-format", "json").err.count('"succeeded": 1') == 1
    )


def test_queues_in_their_order(folder: Path) -> None:
    """Only the named queues are served."""
    here = taskq(folder, "submit", "jobs:square", ":=1", "--queue", "high").out.strip()
    there = taskq(folder, "submit", "jobs:square", ":=2", "--queue", "other").out.strip()
    assert taskq(folder, "worker", "--import", "jobs", "--burst", "--queues", "high,default").code == 0
    states = [json.loads(taskq(folder, "status", job_id, "--json").out) for job_id in (here, there)]
    assert "succeeded" in json.dumps(states[0])
    assert "queued" in json.dumps(states[1])


def test_queues_by_turns(folder: Path) -> None:
    """With --dequeue-strategy round_robin, a job of each queue runs before the second one of any."""
    for queue in ("a", "b"):
        for n in range(2):
            taskq(folder, "submit", "jobs:append", "ran", f"{queue}{n}", "--queue", queue)
    words = ("--queues", "a,b", "--dequeue-strategy", "round_robin", "--processes", 1)
    done = taskq(folder, "worker", "--import", "jobs", "--burst", *words)
    assert done.code == 0, done.err
    assert (folder / "ran").read_text().split() == ["a0", "b0", "a1", "b1"]


def test_command_runs_where_it_may(folder: Path) -> None:
    """A command is run by a worker with --allow-commands."""
    job_id = taskq(folder, "submit", "--", "sh", "-c", "echo made; exit 4").out.strip()
    assert taskq(folder, "worker", "--burst").code == 0
    assert taskq(folder, "worker", "--burst", "--allow-commands").code == 0
    assert taskq(folder, "status", job_id, "--json").code in (0, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--url", "local://"), "no workers"),
        (("--import", "nowhere"), "--import nowhere failed: ModuleNotFoundError"),
        (("--import", "broken"), "--import broken failed"),
        (("--queues", "high,,low"), "queue"),
        (("--processes", "0"), "processes"),
        (("--grace", "soon"), "soon"),
        (("--max-jobs", "0"), "max-jobs"),
        (("--url", "redis+nothing://host"), "redis+nothing"),
        (("surplus",), "surplus"),
        (("--dequeue-strategy", "sideways"), "sideways"),
        (("--exception-handler", "jobs:square"), "--exception-handler is for jobs that RQ enqueued"),
        (("--disable-default-exception-handler",), "is for jobs that RQ enqueued"),
        (("--results-ttl", "60"), "--results-ttl is for jobs that RQ enqueued"),
        (("--results-ttl", "-2"), "results-ttl"),
    ],
)
def test_refusals(folder: Path, words: tuple[str, ...], says: str) -> None:
    """What cannot be is refused in one sentence, with exit code 2."""
    assert says in refused(folder, "worker", *words)


def test_health_port_that_is_taken(folder: Path) -> None:
    """A port that somebody else has is refused with its number."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert str(port) in refused(folder, "worker", "--health-port", port)


def test_help(folder: Path) -> None:
    """The help has examples and the exit codes."""
    done = taskq(folder, "worker", "--help")
    assert done.code == 0
    assert "Examples:" in done.out
    assert "Exit codes:" in done.out
