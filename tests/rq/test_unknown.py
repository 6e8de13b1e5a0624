"""Functions and callbacks of stock RQ's jobs that are not to be found: here, or anywhere."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

import pytest
from rq import Callback, Queue
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from rq.job import Job

STOCK = "tests.rq.stock."


@pytest.fixture
def queue(client: Any) -> Queue:
    """Give RQ's own queue."""
    return Queue("default", connection=client, serializer=JSONSerializer)


def work_off(url: str, folder: Path) -> None:
    """Run what is there."""
    worker = WorkerProcess(f"{url}?allow_callbacks=1", folder, imports=("tests.rq.stock",), arguments=("--burst",))
    try:
        worker.start()
        assert worker.wait() == 0, worker.log()
    finally:
        worker.close()


def noted(client: Any) -> list[str]:
    """Return what functions and callbacks have noted."""
    return [entry.decode() for entry in client.lrange("noted", 0, -1)]


def enqueue(queue: Queue, function: str, **callbacks: str) -> Job:
    """Enqueue a call without arguments."""
    return queue.enqueue(STOCK + function, **{name: Callback(path) for name, path in callbacks.items()})


def test_callback_that_is_nowhere(client: Any, url: str, tmp_path: Path, queue: Queue) -> None:
    """As in RQ the function runs once, then its job fails by its callback's name, and the other callback is called."""
    job = enqueue(queue, "note_and_go", on_success=f"{STOCK}gone", on_failure=f"{STOCK}note_failure")
    work_off(url, tmp_path)
    assert job.get_status() == "failed"
    assert noted(client)[0] == f"ran {job.id}"
    assert len(noted(client)) == 2
    assert noted(client)[1].startswith(f"failure {job.id}")


@pytest.mark.parametrize("name", ["tests.rq.no_such_module.call", "json.tool.main"])
def test_callback_of_another_module(client: Any, url: str, tmp_path: Path, queue: Queue, name: str) -> None:
    """As in RQ a job runs once whose callback cannot be called here; it fails, and its error names the callback."""
    succeeds = enqueue(queue, "note_and_go", on_success=name)
    fails = enqueue(queue, "boom", on_failure=name)
    work_off(url, tmp_path)
    assert noted(client) == [f"ran {succeeds.id}"]
    for job in (succeeds, fails):
        assert job.get_status() == JobStatus.FAILED
        result = job.latest_result()
        assert result is not None
        assert f"--import {':'.join(name.rsplit('.', 1))}" in (result.exc_string or "")


def test_function_that_is_nowhere(client: Any, url: str, tmp_path: Path, queue: Queue) -> None:
    """As in RQ a job fails at once whose module has no such function; its callback is called."""
    job = enqueue(queue, "nowhere", on_failure=f"{STOCK}note_failure")
    work_off(url, tmp_path)
    assert job.get_status() == "failed"
    assert noted(client) == [f"failure {job.id} ValueError Invalid attribute name: nowhere"]


def test_callback_that_raises_our_refusal(client: Any, url: str, tmp_path: Path, queue: Queue) -> None:
    """UnknownTask raised by a function or a callback of a job fails that job, which is not run again."""
    first = enqueue(queue, "refuse")
    second = enqueue(queue, "note_and_go", on_success=f"{STOCK}refuse")
    work_off(url, tmp_path)
    assert {job.get_status() for job in (first, second)} == {JobStatus.FAILED}
    assert noted(client) == [f"ran {second.id}"]


def test_function_that_nobody_has_known(client: Any, url: str, tmp_path: Path, queue: Queue) -> None:
    """A job that every worker has refused for ten minutes fails as in RQ: its callback is called, with the reason."""
    job = queue.enqueue("tests.rq.no_such_module.call", on_failure=Callback(f"{STOCK}note_failure"))
    client.hset(f"rq:job:{job.id}", "tq_refused", time() - 700)
    work_off(url, tmp_path)
    assert job.get_status() == JobStatus.FAILED
    (told,) = noted(client)
    assert told.startswith(f"failure {job.id} UnknownTask")
    result = job.latest_result()
    assert result is not None
    assert "--import tests.rq.no_such_module:call" in (result.exc_string or "")
