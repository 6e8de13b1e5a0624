"""Stock RQ and ours at one table: its classes read our jobs, its worker runs them, its commands reach our workers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue, Worker
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, DeferredJobRegistry, ScheduledJobRegistry

from taskq import TaskQueue
from taskq.codec import decode
from taskq.errors import JobTimeout, SoftTimeout
from taskq.failure import Failure
from taskq.retry import Retry
from taskq.serializer import MsgpackSerializer
from taskq.states import Reason, State
from taskq.store import JobOutcome
from tests.rq.hands import again, failed, new_job, succeeded
from tests.sample_tasks import add, ignore_soft_timeout, nap, total
from tests.subscriber import Subscriber
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq.executors.rq.store import RQStore
    from tests.rq.hands import Hands

#: `rq` beside this Python.
RQ = os.path.join(os.path.dirname(sys.executable), "rq")


def fetch(job_id: str, client: Any) -> Job:
    """Return a job as RQ's own class reads it."""
    return Job.fetch(job_id, connection=client, serializer=MsgpackSerializer)


def rq(*words: str, url: str, **variables: str) -> str:
    """Run RQ's command line and return what it prints."""
    done = subprocess.run(
        [RQ, *words, "--url", url],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_waiting_job(store: RQStore, client: Any) -> None:
    """RQ's Job reads what waits: function, arguments, description, times, retry policy."""
    job = new_job(1, 2, timeout=7, retry=Retry(3, delay=2, backoff=3, jitter=False))
    store.put([job])
    seen = fetch(job.id, client)
    assert (seen.func_name, list(seen.args), seen.kwargs) == ("taskq.rq.run", [job.envelope], {})
    assert (seen.get_status(), seen.origin, seen.description) == (JobStatus.QUEUED, "default", "add(1, 2)")
    assert (seen.timeout, seen.result_ttl, seen.failure_ttl) == (7, 86_400, 7 * 86_400)
    assert (seen.retries_left, seen.retry_intervals) == (3, [2, 6, 18])
    assert seen.created_at is not None
    assert seen.enqueued_at is not None
    assert Queue("default", connection=client).job_ids == [job.id]
    assert seen.get_position() == 0


def test_retries_left(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """RQ's Job reads how many retries are left: one less for each that was counted, no less for the others."""
    job = new_job(1, 2, retry=Retry(3))
    store.put([job])
    hands = join()
    for counted, left in ((False, 3), (True, 2), (False, 2)):
        (claim,) = hands.take()
        hands.tell(replace(again(claim), counted=counted))
        assert fetch(job.id, client).retries_left == left


def test_running_job(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """RQ sees a running job, its execution, and what the worker is at."""
    job = new_job()
    store.put([job])
    (claim,) = join().take()
    seen = fetch(job.id, client)
    assert (seen.get_status(), seen.worker_name) == (JobStatus.STARTED, "w1")
    assert seen.started_at is not None
    (execution,) = seen.get_executions()
    assert (execution.id, execution.job_id, execution.worker_name) == (claim.token, job.id, "w1")
    assert seen.started_job_registry.get_job_and_execution_ids(cleanup=True) == [(job.id, claim.token)]
    (worker,) = Worker.all(connection=client)
    assert (worker.name, worker.get_state(), worker.queue_names()) == ("w1", "busy", ["default"])
    assert worker.pid == os.getpid()
    assert [entry.id for entry in worker.get_current_executions()] == [claim.token]
    assert worker.get_current_job_id() == job.id
    assert client.ttl("rq:worker:w1") > 30


def test_ended_jobs(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """RQ reads values and tracebacks, and finds each job in its registry."""
    jobs = [new_job() for _ in range(4)]
    store.put(jobs)
    hands = join()
    one, two, three, four = hands.take()
    hands.tell(succeeded(one, {"a": (1, 2)}), failed(two), succeeded(three, None), again(four, 60))
    seen = fetch(one.id, client)
    assert (seen.get_status(), seen.return_value()) == (JobStatus.FINISHED, {"a": (1, 2)})
    latest = seen.latest_result()
    assert latest is not None
    assert (latest.worker_name, latest.execution_id) == ("w1", one.token)
    assert fetch(three.id, client).return_value() is None
    bad = fetch(two.id, client).latest_result()
    assert bad is not None
    assert "ValueError: no good" in bad.exc_string
    queue = Queue("default", connection=client)
    assert set(queue.finished_job_registry.get_job_ids()) == {one.id, three.id}
    assert queue.failed_job_registry.get_job_ids() == [two.id]
    assert queue.scheduled_job_registry.get_job_ids() == [four.id]
    (worker,) = Worker.all(connection=client)
    assert (worker.successful_job_count, worker.failed_job_count, worker.get_state()) == (2, 2, "idle")
    assert worker.total_working_time == pytest.approx(0.5)


def test_registries_of_what_waits(store: RQStore, client: Any) -> None:
    """Scheduled, blocked and cancelled jobs stand in RQ's registries, with its kind of dependencies."""
    later, parent, gone = new_job(delay=60), new_job(), new_job()
    child = new_job(depends_on=[parent.id])
    store.put([later, parent, child, gone])
    store.cancel([gone.id])
    assert ScheduledJobRegistry("default", connection=client).get_job_ids() == [later.id]
    assert DeferredJobRegistry("default", connection=client).get_job_ids() == [child.id]
    assert CanceledJobRegistry("default", connection=client).get_job_ids() == [gone.id]
    assert fetch(child.id, client).dependency_ids == [parent.id]
    assert fetch(parent.id, client).dependent_ids == [child.id]
    assert fetch(gone.id, client).get_status() == JobStatus.CANCELED


def test_rq_requeue_of_our_failed_job(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """RQ's own requeue works on a job that we failed, and our worker then runs it."""
    job = new_job()
    store.put([job])
    hands = join()
    hands.tell(failed(*hands.take()))
    fetch(job.id, client).requeue()
    assert hands.run() == [job.id]
    (record,) = store.get([job.id])
    assert record is not None
    assert (record.state, record.failure) == (State.SUCCEEDED, None)


def test_rq_cancel_and_delete(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """What a stock client cancels or deletes, our worker never runs; a running one's outcome is refused."""
    waiting, deleted, running = new_job(), new_job(), new_job()
    store.put([running])
    hands = join()
    (claim,) = hands.take()
    store.put([waiting, deleted])
    fetch(waiting.id, client).cancel()
    fetch(deleted.id, client).delete()
    fetch(running.id, client).cancel()
    assert hands.take() == []
    assert list(hands.tell(succeeded(claim)).fenced) == [running.id]
    assert [record and record.state for record in store.get([waiting.id, deleted.id, running.id])] == [
        State.CANCELLED,
        None,
        State.CANCELLED,
    ]


def test_rq_info(store: RQStore, join: Callable[..., Hands], url: str) -> None:
    """`rq info` shows our queues and workers, and does not disturb what runs."""
    store.put([new_job() for _ in range(3)])
    hands = join()
    (claim, _) = hands.take(2)
    text = rq("info", url=url)
    assert "1, 2 executing, 0 finished, 0 failed" in text
    assert "w1 " in text
    assert "busy" in text
    assert "1 workers, 1 queues" in text
    assert not hands.tell(succeeded(claim)).fenced


@pytest.fixture
def working(url: str) -> Callable[[], str]:
    """Give a function that has a stock worker do all there is."""

    def work() -> str:
        words = ("worker", "--burst", "--quiet", "--serializer", "taskq.serializer.MsgpackSerializer")
        return rq(*words, url=url, TASKQ_IMPORT="_operator:add")

    return work


def test_stock_worker_runs_our_jobs(store: RQStore, working: Callable[[], str]) -> None:
    """A stock `rq worker` runs our jobs; values, errors, keys, dependents and subscriptions come out right."""
    subscription = Subscriber(store.subscribe())
    task = "_operator:add"
    good, bad, keyed = new_job(1, 2, task=task), new_job(1, "x", task=task), new_job(3, 4, task=task, key="k")
    child = new_job(5, 6, task=task, depends_on=[good.id])
    orphan = new_job(5, 6, task=task, depends_on=[bad.id])
    large = new_job("x" * 5000, "y", task=task)
    store.put([good, bad, keyed, child, orphan, large], reply_to=subscription.reply_to)
    subscription.expect([good.id])
    words = working()
    records = {
        record.id: record
        for record in store.get([j.id for j in (good, bad, keyed, child, large)], payload=True)
        if record
    }
    assert decode(records[good.id].result or b"") == 3, words
    assert decode(records[child.id].result or b"") == 11
    assert decode(records[large.id].result or b"") == "x" * 5000 + "y"
    failure = records[bad.id].failure
    assert failure is not None
    assert (failure.type, failure.reason) == ("TypeError", Reason.ERROR)
    again_ = new_job(key="k")
    assert store.put([again_]) == [again_.id]
    assert decode(eventually(lambda: subscription.wait(1), "the subscription to find it")[0].result or b"") == 3
    subscription.close()


def test_maintenance_fails_dependents_of_jobs_that_stock_failed(
    store: RQStore, working: Callable[[], str], join: Callable[..., Hands]
) -> None:
    """Stock RQ leaves dependents of a failed job waiting for ever; our sweep ends those that are ours."""
    bad = new_job(1, "x", task="_operator:add")
    child = new_job(depends_on=[bad.id])
    store.put([bad, child])
    working()
    join().run_maintenance()
    (record,) = store.get([child.id])
    assert record is not None
    assert record.state is State.FAILED


def test_stock_schedule_and_retry(store: RQStore, working: Callable[[], str], join: Callable[..., Hands]) -> None:
    """A job with retries that a stock worker failed waits in RQ's way, and our worker takes it when it is due."""
    job = new_job(1, "x", task="_operator:add", retry=Retry(1, delay=0.0, jitter=False))
    store.put([job])
    hands = join(queues=("other",))
    working()
    hands.run_maintenance()
    (record,) = store.get([job.id])
    assert record is not None
    assert record.state is State.FAILED


def requests_after(hands: Hands, send: Callable[[], None]) -> list[Any]:
    """Return the control requests that a command brings."""
    hands.session.wait(0.01, -1)
    send()
    return list(eventually(lambda: hands.session.poll([], [], 0).control_requests, "the command to come"))


def test_commands(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """RQ's commands come as control requests; for jobs that are not here they are passed over."""
    jobs = [new_job(), new_job()]
    store.put(jobs)
    hands = join()
    one, two = hands.take()
    (request,) = requests_after(hands, lambda: send_shutdown_command(client, "w1"))
    assert request.stop
    (request,) = requests_after(hands, lambda: send_stop_execution_command(client, one.id, one.token))
    assert (request.job_id, request.kill) == (one.id, True)
    (request,) = requests_after(hands, lambda: send_stop_job_command(client, two.id, serializer=MsgpackSerializer))
    assert (request.job_id, request.kill) == (two.id, True)
    (request,) = requests_after(hands, lambda: send_kill_horse_command(client, "w1"))
    assert (request.crash, request.job_id, request.kill) == (True, None, False)
    client.publish("rq:pubsub:w1", b"\xff not json")
    client.publish("rq:pubsub:w1", b'{"command": "stop-job", "job_id": "nobody"}')
    assert list(hands.session.poll([], [], 0).control_requests) == []


def test_stopped_job(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job that RQ's command stopped ends as RQ says it, and as cancelled for us."""
    job = new_job()
    store.put([job])
    hands = join()
    (claim,) = hands.take()
    requests_after(hands, lambda: send_stop_job_command(client, job.id, serializer=MsgpackSerializer))
    hands.tell(JobOutcome(id=claim.id, token=claim.token, state=State.CANCELLED))
    seen = fetch(job.id, client)
    assert seen.get_status() == JobStatus.STOPPED
    latest = seen.latest_result()
    assert latest is not None
    assert "stopped by user" in latest.exc_string
    assert job.id in seen.failed_job_registry
    (record,) = store.get([job.id])
    assert record is not None
    assert record.state is State.CANCELLED
    assert store.retry([job.id]) == [True]


def test_execution_record_is_renewed(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """`heartbeat` moves every time by which RQ's readers would take a running job for abandoned."""
    store.put([new_job()])
    hands = join()
    (claim,) = hands.take()
    composite = f"{claim.id}:{claim.token}"
    for key in (f"rq:execution:{composite}", f"rq:executions:{claim.id}"):
        client.expire(key, 5)
    client.zadd("rq:wip:default", {composite: 1})
    before = Execution.fetch(claim.token, claim.id, client).last_heartbeat
    assert hands.session.heartbeat(hands.record, [(claim.id, claim.token)]) == []
    assert client.ttl(f"rq:execution:{composite}") > 200
    assert client.ttl(f"rq:executions:{claim.id}") > 200
    assert client.zscore("rq:wip:default", composite) > 1_700_000_000
    assert Execution.fetch(claim.token, claim.id, client).last_heartbeat > before


def test_foreign_job_without_trust(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """Pickled jobs and jobs with callbacks are refused with the cure, unless the URL allows them."""
    Queue("default", connection=client).enqueue("math.sqrt", 4)
    (claim,) = join().take()
    foreign: Any = claim.foreign
    with pytest.raises(LookupError, match="allow_pickle=1"):
        foreign.order()
    assert foreign.task == "math.sqrt"
    assert claim.envelope == b""


def test_record_of_a_foreign_job(store: RQStore, join: Callable[..., Hands], client: Any) -> None:
    """A job of stock RQ is listed as any other."""
    job = Queue("default", connection=client).enqueue("math.sqrt", 4, description="root of four")
    (record,) = store.list()
    assert (record.id, record.state, record.label) == (job.id, State.QUEUED, "root of four")
    assert record.submitted_at is not None
    hands = join()
    (claim,) = hands.take()
    failure = Failure.from_exception(ValueError("bad"))
    hands.tell(JobOutcome(id=claim.id, token=claim.token, state=State.FAILED, failure=failure))
    (record,) = store.get([job.id])
    assert record is not None
    assert (record.state, record.attempts) == (State.FAILED, 1)


def test_what_jobs_of_ours_find_there(url: str) -> None:
    """A stock worker gives a job of ours the results of its arguments that are jobs, and keeps its soft timeout."""
    with TaskQueue(url) as queue:
        part = queue.submit(add, 1, 2)
        whole = queue.submit(total, [part, 4])
        soft = queue.options(soft_timeout=0.2, timeout=20).submit(nap, 30.0)
        swallowed = queue.options(soft_timeout=0.2, timeout=1).submit(ignore_soft_timeout)
        serializer = "taskq.serializer.MsgpackSerializer"
        rq("worker", "--burst", "--quiet", "--serializer", serializer, url=url, TASKQ_IMPORT="tests.sample_tasks")
        assert whole.result(timeout=10) == 7
        assert isinstance(soft.exception(timeout=10), SoftTimeout)
        assert isinstance(swallowed.exception(timeout=10), JobTimeout)
