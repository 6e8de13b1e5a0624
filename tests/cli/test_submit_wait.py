"""`taskq submit --wait` on a store: by a worker, or here when none is about; tasks and commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.store_queue import Queue


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (("jobs:square", ":=12"), 0, "144\n"),
        (("jobs:same", "text", "--raw"), 0, "text\n"),
        (("jobs:later", ":=1"), 0, "2\n"),
        (("jobs:second_time", "x", "--retries", 1), 0, "2\n"),
        (("jobs:fail", "x"), 1, ""),
        (("jobs:hang", "--timeout", "0.3s"), 1, ""),
    ],
)
def test_without_a_worker_the_job_runs_here(queue: Queue, words: tuple[object, ...], code: int, out: str) -> None:
    """Submit --wait is as submit on local://: the result, the exit code; and the job stands in the store."""
    done = queue.run("submit", "--wait", *words, code=code)
    assert done.out == out
    assert len(done.err.splitlines()) == (code != 0), done.err
    (found,) = json.loads(queue.run("status", "--json").out)["jobs"]
    assert found["state"] == ("failed" if code else "succeeded")


def test_what_a_task_prints_here_goes_to_stderr(queue: Queue) -> None:
    """Only the result is on stdout."""
    done = queue.run("submit", "--wait", "jobs:talk", ":=1")
    assert done.out == "1\n"
    assert sorted(done.err.split()) == ["printed", "written"]


def test_with_a_worker_it_runs_there(queue: Queue, worker: Callable[..., Command]) -> None:
    """The result comes from the worker, whose name the job bears."""
    worker(queue.url, "--name", "far-away")
    done = queue.run("submit", "--wait", "jobs:talk", ":=1", "--json")
    assert json.loads(done.out)["result"] == 1
    assert done.err == ""
    assert queue.job(json.loads(done.out)["id"])["worker"] == "far-away"


def test_when_the_worker_dies_it_runs_here(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """SIGKILL of the only worker half way: who waits for the job runs it again himself."""
    dying = worker(file_queue.url)
    gate = file_queue.project / "gate"
    words = ("submit", "--url", file_queue.url, "--wait", "jobs:watched", gate, "--raw")
    with Command(file_queue.project, *words, name="w-") as command:
        eventually(
            lambda: '"done": 3' in file_queue.run("status", "--json").out, "the worker to tell that it has begun"
        )
        dying.process.kill()
        eventually(lambda: "step 3" in command.err, "it to begin here")
        gate.touch()
        assert command.wait() == 0
        assert command.out == "through\n"
    (found,) = json.loads(file_queue.run("status", "--json").out)["jobs"]
    assert (found["crashes"], found["state"]) == (1, "succeeded")


def test_ctrl_c_keeps_the_job(queue: Queue) -> None:
    """130, at once; what ran here waits again, and the message says how to go on."""
    with Command(queue.project, "submit", "--url", queue.url, "--wait", "jobs:watched", "gate", name="w-") as command:
        eventually(lambda: "step 3" in command.err, "the job to begin")
        command.interrupt()
        assert command.wait() == 130
        command.assert_gone()
        assert "is kept: taskq wait" in command.err
        assert "Traceback" not in command.err
    (found,) = json.loads(queue.run("status", "--json").out)["jobs"]
    assert found["state"] == "queued"
    (queue.project / "gate").touch()
    queue.run("worker", "--import", "jobs", "--burst")
    assert queue.run("result", found["id"]).out == '"through"\n'


# --- commands


def test_a_command_runs_here(queue: Queue) -> None:
    """Its output passes, each stream on its own; its exit code is ours."""
    done = queue.run("submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.out, done.err) == ("out\n", "err\n")
    (found,) = json.loads(queue.run("status", "--json").out)["jobs"]
    assert (found["state"], found["error"]["message"]) == ("failed", "sh exited with code 7: err")
    assert queue.run("submit", "--wait", "--timeout", "0.5s", "--", "sleep", "60", code=124).out == ""


def test_a_command_runs_where_that_is_allowed(queue: Queue, worker: Callable[..., Command]) -> None:
    """Its output is in logs as it comes, and passes to who waits; its exit code is kept."""
    worker(queue.url, "--allow-commands")
    done = queue.run("submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")
    job_id = queue.submit("--", "sh", "-c", "echo said; exit 3")
    queue.run("wait", job_id, code=1)
    assert queue.run("logs", job_id).out == "said\n"
    assert queue.job(job_id)["error"]["message"] == "sh exited with code 3"
    assert queue.run("submit", "--wait", "--", "sh", "-c", "exit 3", code=3).out == ""


def test_commands_by_lines(file_queue: Queue) -> None:
    """The line's value stands in the place of {}; secrets are not shown."""
    lines = b'"a.txt"\n"b.txt"\n'
    done = file_queue.run("submit", "--jsonl", "-", "--", "touch", "{}", stdin=lines)
    assert [file_queue.job(job_id)["label"] for job_id in done.out.split()] == ["touch a.txt", "touch b.txt"]
    job_id = file_queue.submit("--", "mail", "--password=hunter2", "smtp://ann:hunter2@host")
    assert "hunter2" not in file_queue.run("status", job_id, "--json").out
    file_queue.run("worker", "--allow-commands", "--burst", "--max-jobs", 2)
    assert (file_queue.project / "b.txt").exists()


def test_refusal_is_said(file_queue: Queue, worker: Callable[..., Command]) -> None:
    """While a refused job is waited for, the refusal is printed."""
    worker(file_queue.url)
    with Command(
        file_queue.project, "submit", "--url", file_queue.url, "--wait", "math:sqrt", ":=9", name="s-"
    ) as waiting:
        eventually(lambda: "a worker refused it" in waiting.err, "the refusal to be said")
        assert "--import math" in waiting.err
        assert waiting.process.poll() is None
