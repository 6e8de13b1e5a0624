"""What a user of RQ sees of a job that a `taskq worker` runs is what he sees of one in `rq worker`."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from rq import Callback, Queue, Retry, Webhook
from rq.command import send_kill_horse_command
from rq.group import Group
from rq.job import Dependency, JobStatus
from rq.serializers import DefaultSerializer, JSONSerializer

from tests.rq.test_taking_over import STOCK, ended, noted
from tests.waiting import PATIENCE, eventually
from tests.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

F = "tests.rq.stock."
ALLOWED = "?allow_callbacks=1&allow_pickle=1"
NOTE = Callback(F + "note_status")


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    """Have a worker with one process."""
    with WorkerProcess(url + ALLOWED, tmp_path, imports=(*STOCK, "tests.sample_instrument"), processes=1) as found:
        yield found


@pytest.fixture
def hooks() -> Iterator[tuple[str, Callable[[], str]]]:
    """Give the address of a web server, and a function that waits for the next job whose end it is told of."""
    told: SimpleQueue[str] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["job_id"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", lambda: told.get(timeout=PATIENCE)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("serializer", [DefaultSerializer, JSONSerializer])
def test_value_that_cannot_be_written(worker: WorkerProcess, client: Any, serializer: Any) -> None:
    """A job whose value its serializer cannot write has finished, with RQ's text in its place; it is not run again."""
    queue = Queue("default", connection=client, serializer=serializer)
    job = queue.enqueue(F + "give_lock", on_success=NOTE, retry=Retry(2))
    eventually(lambda: ended(job), "the job to end")
    assert (job.get_status(), job.return_value()) == (JobStatus.FINISHED, "Unserializable return value")
    assert noted(client) == ["finished"]
    assert worker.is_running


def test_status_in_callbacks(worker: WorkerProcess, client: Any) -> None:
    """A callback sees how its job has ended; what asks to run again in taskq's way is an error, as in stock RQ."""
    queue = Queue("default", connection=client)
    for name in ("cancel_myself", "boom", "ask_for_more"):
        job = queue.enqueue(F + name, on_success=NOTE, on_failure=NOTE)
        eventually(lambda job=job: ended(job), "the job to end")  # type: ignore[misc]
    assert noted(client) == ["finished", "failed", "failed"]
    assert worker.is_running


def test_kill_horse(worker: WorkerProcess, client: Any) -> None:
    """RQ's kill-horse is a crash of what runs: a job is tried again as often as it may be, and fails then as in RQ."""
    queue = Queue("default", connection=client)
    job = queue.enqueue(F + "wait_for_the_end", on_stopped=NOTE, retry=Retry(1))
    for started in (1, 2):
        eventually(lambda n=started: len(noted(client)) == n, "the job to begin")  # type: ignore[misc]
        send_kill_horse_command(client, worker.name)
    eventually(lambda: ended(job), "the job to fail")
    latest: Any = job.latest_result()
    assert (job.get_status(), latest.exc_string) == (
        JobStatus.FAILED,
        "Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ",
    )
    assert noted(client) == [f"began {job.id}"] * 2


def test_cancelled_while_it_runs(worker: WorkerProcess, client: Any) -> None:
    """A job that RQ's client cancels runs on, and its end is written, also by itself; the log tells no untruth."""
    queue = Queue("default", connection=client)
    job, itself = queue.enqueue(F + "run_until", "go"), queue.enqueue(F + "cancel_myself")
    eventually(lambda: noted(client), "the job to begin")
    job.cancel()
    client.rpush("go", 1)
    for one in (job, itself):
        eventually(lambda one=one: ended(one), "it to end")  # type: ignore[misc]
        assert one.return_value() == "ran on"
        assert client.ttl(one.key) > 0
        assert not client.keys(f"rq:exec*{one.id}*")
    assert "fenced" not in worker.log()


def test_what_waits_for_a_cancelled_job(worker: WorkerProcess, client: Any) -> None:
    """What waits for a job that RQ's client cancels while it runs stays deferred, unless that frees it."""
    queue = Queue("default", connection=client)
    kept, freeing = queue.enqueue(F + "run_until", "go"), queue.enqueue(F + "cancel_and_free_dependents")
    depends_on = [Dependency([kept], allow_failure=allowed) for allowed in (False, True)]
    waiting = [queue.enqueue(F + "add", 1, 2, depends_on=need) for need in depends_on]
    behind = queue.enqueue(F + "add", 1, 2, depends_on=waiting[0])
    freed = queue.enqueue(F + "add", 1, 2, depends_on=freeing)
    eventually(lambda: noted(client), "the job to begin")
    kept.cancel()
    client.rpush("go", 1)
    client.rpush("free", 1)
    eventually(lambda: ended(kept) and ended(freed), "the jobs to end")
    after = queue.enqueue(F + "add", 1, 2)
    eventually(lambda: ended(after), "a later job to end")
    assert kept.get_status() == JobStatus.FINISHED
    assert {job.get_status() for job in (*waiting, behind)} == {JobStatus.DEFERRED}
    assert client.smembers(kept.dependents_key) == {job.id.encode() for job in waiting}
    assert worker.is_running


def test_webhooks_of_failed_jobs(worker: WorkerProcess, client: Any, hooks: tuple[str, Callable[[], str]]) -> None:
    """They are sent for a job that raises, one whose process dies, and one that asks for one retry too many; once."""
    at, told = hooks
    queue = Queue("default", connection=client)
    for name, args in (("boom", ()), ("die", ()), ("retry_later", (1,)), ("add", (1, "x"))):
        queue.enqueue(F + name, *args, job_id=name, webhooks=[Webhook(at, "failed", method="POST")])
    assert sorted(told() for _ in range(4)) == ["add", "boom", "die", "retry_later"]
    assert worker.is_running


def test_variables(worker: WorkerProcess, client: Any) -> None:
    """A job finds its id and its worker's name in the variables that RQ sets."""
    job = Queue("default", connection=client).enqueue(F + "whoami_by_variables")
    eventually(lambda: ended(job), "the job to end")
    assert job.return_value() == [job.id, worker.name]


def test_what_patches_rq(worker: WorkerProcess, client: Any) -> None:
    """A library that patches RQ's worker to see jobs, as Sentry's does, sees them: their run, and their error."""
    queue = Queue("default", connection=client)
    good, bad = queue.enqueue(F + "add", 1, 2), queue.enqueue(F + "boom")
    eventually(lambda: ended(good) and ended(bad), "the jobs to end")
    assert noted(client) == [
        *(f"run {good.id} default", f"done {good.id} True"),
        *(f"run {bad.id} default", f"error {bad.id} ValueError failed", f"done {bad.id} False"),
    ]
    assert worker.is_running


def test_what_waits_is_shown_as_waiting(worker: WorkerProcess, client: Any) -> None:
    """Jobs that a worker has taken ahead go back behind a long one: RQ counts them as queued, and one as started."""
    queue = Queue("default", connection=client)
    short = [queue.enqueue(F + "add", 1, 2) for _ in range(8)]
    eventually(lambda: all(map(ended, short)), "the worker to learn that they are short")
    long, *rest = [queue.enqueue(F + name, *args) for name, args in [("run_until", ("go",)), *[("add", (1, 2))] * 5]]
    eventually(lambda: (queue.count, queue.started_job_registry.count) == (5, 1), "those that wait to be shown so")
    assert {job.get_status() for job in rest} == {JobStatus.QUEUED}
    client.rpush("go", 1)
    eventually(lambda: all(map(ended, [long, *rest])), "all to end")
    assert worker.is_running


def test_worker_in_rqs_eyes(worker: WorkerProcess, client: Any) -> None:
    """RQ sees where a worker connects from, and that it is suspended as long as it is."""
    at = f"rq:worker:{worker.name}"
    host, _, port = client.hget(at, "ip_address").decode().rpartition(":")
    assert (host, port.isdecimal()) == ("127.0.0.1", True)
    client.set("rq:suspended", 1)
    job = Queue("default", connection=client).enqueue(F + "add", 1, 2)
    eventually(lambda: client.hget(at, "state") == b"suspended", "the worker to be suspended")
    assert job.get_status() == JobStatus.QUEUED
    client.delete("rq:suspended")
    eventually(lambda: ended(job), "the job to end")
    eventually(lambda: client.hget(at, "state") == b"idle", "the worker to be idle")


def test_what_stock_keeps_of_odd_ends(worker: WorkerProcess, client: Any) -> None:
    """A returned Retry is kept as it was, a death as RQ tells it, and a group lets go of what is not kept."""
    queue = Queue("default", connection=client)
    again, dead = queue.enqueue(F + "retry_later", 1), queue.enqueue(F + "die")
    group = Group.create(connection=client, name="crowd")
    group.enqueue_many(queue, [Queue.prepare_data(F + "add", (1, 2), job_id="of", result_ttl=0)])
    eventually(lambda: ended(again) and ended(dead) and not client.exists("rq:job:of"), "all to end")
    first, second = again.results()
    assert (first.return_value.max, second.return_value.max) == (1, 1)
    latest: Any = dead.latest_result()
    assert latest.exc_string == "Work-horse terminated unexpectedly; waitpid returned 768; "
    assert client.exists("rq:group:crowd") == 0
    assert worker.is_running


def test_output_in_the_workers_log(worker: WorkerProcess, client: Any) -> None:
    """What a job prints and logs stands in the worker's log, line by line, while it runs, and so does the traceback."""
    queue = Queue("default", connection=client)
    job = queue.enqueue(F + "talk_until", "go")
    wanted = ("text='printed by a job'", "text='said on stderr'", "text='logged by a job'", "a note for rq")
    eventually(lambda: all(word in worker.log() for word in wanted), "the log to have it")
    assert not ended(job)
    client.rpush("go", 1)
    eventually(lambda: ended(job), "the job to fail")
    eventually(lambda: "text='the rest'" in worker.log(), "the log to have the rest")
    assert "Traceback (most recent call last)" in worker.log()
    assert "\x1b[31m" not in worker.log()
