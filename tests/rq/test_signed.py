"""Signing on Redis: stock RQ's jobs and commands, news that is forged, a stock worker beside."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.command import send_shutdown_command, send_stop_job_command
from rq.exceptions import InvalidJobOperation
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from taskq import TaskQueue
from taskq.codec import encode
from taskq.connect import open_store
from taskq.errors import ConfigError, NotSigned
from taskq.serializer import MsgpackSerializer
from taskq.states import Reason, State
from tests.rq.test_stock import rq
from tests.sample_tasks import hold, square
from tests.waiting import PATIENCE, eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taskq.store import Store

KEY = "a-key-of-this-test-" * 3


@pytest.fixture(autouse=True)
def _signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKQ_SIGNING_KEYS", KEY)


@pytest.fixture
def signing(url: str) -> Iterator[Store]:
    """Give a store that signs."""
    with contextlib.closing(open_store(url)) as store:
        yield store


@pytest.fixture
def rq_queue(client: Any) -> Queue:
    """Give RQ's own queue."""
    return Queue("default", connection=client, serializer=JSONSerializer)


def test_stock_jobs_are_refused(url: str, tmp_path: Path, rq_queue: Queue, signing: Store) -> None:
    """They are set aside with the cure; a signed job behind them runs."""
    job = rq_queue.enqueue("tests.sample_tasks.square", 5)
    with WorkerProcess(url, tmp_path) as worker, TaskQueue(url) as queue:
        assert queue.submit(square, 3).result(PATIENCE) == 9
        eventually(lambda: "allow_unsigned_rq=1" in worker.log(), "the worker to say why")
    (record,) = signing.get([job.id])
    assert record is not None
    assert record.state in (State.QUEUED, State.SCHEDULED)
    assert record.refusal is not None
    assert record.refusal.reason is Reason.UNSIGNED


def test_stock_jobs_run_where_the_url_says_so(url: str, tmp_path: Path, rq_queue: Queue) -> None:
    """Their results are read by RQ, and by clients of ours that were told the same; our own are signed there too."""
    job = rq_queue.enqueue("tests.sample_tasks.square", 5)
    told = f"{url}?allow_unsigned_rq=1"
    with WorkerProcess(told, tmp_path), TaskQueue(told) as queue:
        assert queue.job(job.id).result(PATIENCE) == 25
        assert queue.submit(square, 3).result(PATIENCE) == 9
        failed = rq_queue.enqueue("tests.sample_tasks.divide", 1, 0)
        assert isinstance(queue.job(failed.id).exception(PATIENCE), ZeroDivisionError)
    assert job.latest_result().return_value == 25
    with TaskQueue(url) as queue:
        assert isinstance(queue.job(job.id).exception(PATIENCE), NotSigned)


def test_forged_news_is_dropped(client: Any, url: str, tmp_path: Path) -> None:
    """What somebody pushes to a client's list of news ends no job of its: the true end is told."""
    with WorkerProcess(url, tmp_path), TaskQueue(url) as queue:
        waits = queue.submit(square, 1)
        assert waits.result(PATIENCE) == 1  # from here on the queue listens
        gate = tmp_path / "gate"
        job = queue.submit(hold, str(gate))
        job.add_done_callback(lambda _: None)
        eventually(job.running, "it to run")
        address = client.hget(f"rq:job:{job.id}", "tq_reply").decode()
        client.rpush(f"rq:tq:replies:{address}", b"s1 0 " + job.id.encode() + b" " + b64encode(encode("FORGED")))
        client.rpush(f"rq:tq:replies:{address}", b"f1 0 " + job.id.encode() + b" " + encode([1]))
        eventually(lambda: not client.exists(f"rq:tq:replies:{address}"), "the client to read it")
        assert not job.done()
        gate.touch()
        assert job.result(PATIENCE) != "FORGED"


@pytest.mark.parametrize(
    ("query", "obeyed"), [("", False), ("?rq_commands=shutdown", True), ("?rq_commands=stop", False)]
)
def test_shutdown_only_where_listed(client: Any, url: str, tmp_path: Path, query: str, obeyed: bool) -> None:
    """RQ's shutdown ends a worker only if its URL lists it."""
    with WorkerProcess(f"{url}{query}", tmp_path, look_at=url) as worker, TaskQueue(url) as queue:

        def send() -> bool:  # it may not listen yet
            send_shutdown_command(client, worker.name)
            return "command_refused" in worker.log() or not worker.is_running

        eventually(send, "the command to be heard")
        if obeyed:
            assert worker.wait() == 0
        else:
            assert worker.is_running
            assert queue.submit(square, 2).result(PATIENCE) == 4


@pytest.mark.parametrize(("query", "obeyed"), [("", False), ("?rq_commands=stop,shutdown", True)])
def test_stop_job_only_where_listed(client: Any, url: str, tmp_path: Path, query: str, obeyed: bool) -> None:
    """RQ's stop-job ends a running job only if the worker's URL lists it; our own kill, signed, always does."""
    gate = tmp_path / "gate"
    with WorkerProcess(f"{url}{query}", tmp_path, look_at=url) as worker, TaskQueue(url) as queue:
        job = queue.submit(hold, str(gate))
        eventually(job.running, "it to run")

        def send() -> bool:  # the worker may not know the job yet
            with contextlib.suppress(InvalidJobOperation):  # it runs no longer
                send_stop_job_command(client, job.id, serializer=MsgpackSerializer)
            return "command_refused" in worker.log() or not job.running()

        eventually(send, "the command to be heard")
        if not obeyed:
            assert job.running()
            assert job.cancel(kill=True)
        eventually(lambda: job.state is State.CANCELLED, "it to end")


def test_garbage_ends_no_worker(client: Any, url: str, tmp_path: Path) -> None:
    """Whatever is published to a worker that signs, it runs on."""
    garbage = (
        *(b"[", b"{}", b'{"command":[]}', b'{"command":{"a":1}}', b'{"command":null}', b'{"command":1e999}'),
        *(b'{"command":"stop-job","job_id":{"a":1},"taskq":1}', b'{"command":"stop-job","job_id":[],"taskq":[]}'),
        *(b'{"command":"stop-job","job_id":"x","taskq":"kill !"}', b"\xff\xfe", b"[" * 4000),
    )
    with WorkerProcess(url, tmp_path) as worker, TaskQueue(url) as queue:
        for entry in garbage:
            client.publish(f"rq:pubsub:{worker.name}", entry)
            assert queue.submit(square, 2).result(PATIENCE) == 4
        assert worker.is_running
        assert "Traceback" not in worker.log()


def test_unknown_commands_are_refused(url: str) -> None:
    """A word that RQ has no command for is told, with the ones that there are."""
    with pytest.raises(ConfigError, match="stop-job"):
        open_store(f"{url}?rq_commands=reboot")


def test_a_stock_worker_runs_no_signed_job(client: Any, url: str) -> None:
    """It could not sign the result: the job fails there with that reason before it begins."""
    with TaskQueue(url) as queue:
        job = queue.submit(square, 3)
        words = ("worker", "--burst", "--quiet", "--serializer", "taskq.serializer.MsgpackSerializer")
        rq(*words, url=url, TASKQ_IMPORT="tests.sample_tasks")
        found = Job.fetch(job.id, connection=client, serializer=MsgpackSerializer)
        assert found.get_status() == JobStatus.FAILED
        result = found.latest_result()
        assert result is not None
        assert "TASKQ_SIGNING_KEYS" in (result.exc_string or "")
        assert isinstance(job.exception(PATIENCE), NotSigned)
