"""`taskq worker` in the place of `rq worker`: what stock RQ has enqueued runs in its processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from tests.sample_trust import Handler
from tests.scripts import environment
from tests.waiting import eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from rq.job import Job

STOCK = ("tests.rq.stock",)


def noted(client: Any) -> list[str]:
    """Return what the jobs' functions and callbacks have noted."""
    return [entry.decode() for entry in client.lrange("noted", 0, -1)]


def ended(job: Job) -> bool:
    """Tell whether RQ says that a job has ended."""
    return job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED)


def test_stopped_job(client: Any, url: str, tmp_path: Path) -> None:
    """A job that RQ's command stops is killed, its callback for that has run, and the worker's other jobs go on."""
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    with WorkerProcess(f"{url}?allow_callbacks=1", tmp_path, imports=STOCK):
        job = queue.enqueue("tests.rq.stock.wait_for_the_end", on_stopped=Callback("tests.rq.stock.note_stop"))
        bad = queue.enqueue("tests.rq.stock.wait_for_the_end", on_stopped=Callback("os.abort"))
        eventually(lambda: len(noted(client)) == 2, "both to begin")
        for one in (job, bad):
            send_stop_job_command(client, one.id, serializer=JSONSerializer)
        eventually(lambda: ended(job) and ended(bad), "them to be stopped")
        assert job.get_status() == bad.get_status() == JobStatus.STOPPED
        assert noted(client)[2:] == [f"stopped {job.id} started"]
        sound = queue.enqueue("tests.rq.stock.add", 1, 2, on_success=Callback("tests.rq.stock.note_success"))
        eventually(lambda: ended(sound), "another job to end")
        assert noted(client)[3:] == [f"success {sound.id} 3"]


@pytest.mark.parametrize("value", [3, "text", None, [1, {"a": 2.5}]])
def test_result_on_the_command_line(client: Any, url: str, tmp_path: Path, value: object) -> None:
    """`taskq result` prints what a job with RQ's JSON serializer returned."""
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    job = queue.enqueue("tests.rq.stock.give", value)
    with WorkerProcess(url, tmp_path, imports=STOCK):
        eventually(lambda: ended(job), "the job to end")
    shown = result(url, job.id, tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["result"] == value


def test_pickled_result_on_the_command_line(client: Any, url: str, tmp_path: Path) -> None:
    """A result that only pickle could read is said to be one, and not taken for None."""
    job = Queue("default", connection=client).enqueue("tests.rq.stock.give", {1, 2})
    with WorkerProcess(f"{url}?allow_pickle=1", tmp_path, imports=STOCK):
        eventually(lambda: ended(job), "the job to end")
    assert job.return_value(refresh=True) == {1, 2}
    shown = result(url, job.id, tmp_path)
    assert shown.returncode == 1
    assert "pickle" in shown.stderr
    assert shown.stderr.count("\n") == 1


def result(url: str, job_id: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `taskq result`."""
    command = [sys.executable, "-m", "taskq", "result", job_id, "--url", url, "--json"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def test_callables_that_are_named(client: Any, url: str, tmp_path: Path) -> None:
    """Class methods, inherited ones, callable objects: refused with the line to add; opened by it, each for itself."""
    queue = Queue("default", connection=client)
    calls = {
        "Handler.made": (Handler.made, "Handler"),
        "Handler.method": (Handler().method, "Handler"),
        "Handler.__call__": (Handler(), "called"),
        "lent": ("tests.sample_trust.lent", "lent"),
    }
    jobs = {name: queue.enqueue(function) for name, (function, _) in calls.items()}
    at = f"{url}?allow_pickle=1"
    with WorkerProcess(at, tmp_path, imports=("tests.sample_trust",)) as worker:
        for name in calls:
            line = f"--import tests.sample_trust:{name}"
            eventually(lambda line=line: line in worker.log(), f"the worker to name {line}")  # type: ignore[misc]
    with WorkerProcess(at, tmp_path, imports=[f"tests.sample_trust:{name}" for name in calls]):
        eventually(lambda: all(map(ended, jobs.values())), "the jobs to end")
    assert {name: job.return_value(refresh=True) for name, job in jobs.items()} == {
        name: value for name, (_, value) in calls.items()
    }
