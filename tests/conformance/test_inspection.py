"""What programs see of jobs, queues and workers, and what they do with them: one meaning on every executor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from taskq import JobInfo, PoolBroken, Reason, Retry, RetryRefused, State
from taskq.errors import ConfigError, JobExists, JobNotFound, QueueClosed
from tests.sample_tasks import add, capture, divide, fail_item_once, fail_until, hold, note_item, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


@pytest.fixture
def fresh(make_queue: Callable[..., TaskQueue]) -> Iterator[TaskQueue]:
    """Give a queue of one process, on which no other test's jobs are; the queue "later" is paused in it."""
    queue = make_queue(processes=1, queues=("default", "mail", "later"))
    queue.purge(state=[state for state in State if state is not State.RUNNING])
    queue.pause("later")  # a worker would claim ahead
    yield queue
    queue.resume("later")


def mixed(queue: TaskQueue, gate: Gate) -> dict[str, Any]:
    """Have a job in each state but scheduled and cancelled; return the handles, which keep local jobs known."""
    done = queue.submit(square, 3)
    failed = queue.options(queue="mail").submit(divide, 1, 0)
    assert done.result(timeout=PATIENCE) == 9
    assert isinstance(failed.exception(timeout=PATIENCE), ZeroDivisionError)
    running = queue.submit(hold, gate.path)
    eventually(running.running, "the only process to be busy")
    queued = queue.options(queue="later", priority=3, key="the-key", label="a label").submit(capture, "x", size=2)
    return {
        "succeeded": done,
        "failed": failed,
        "running": running,
        "queued": queued,
        "blocked": queue.submit(add, queued, 1),
    }


# --- jobs


def test_jobs_by_state_queue_and_task(fresh: TaskQueue, gate: Gate) -> None:
    """Jobs are listed newest first, and narrowed down by state, queue, task and number."""
    jobs = mixed(fresh, gate)
    listed = fresh.jobs()
    assert [info.id for info in listed] == [
        jobs[name].id for name in ("blocked", "queued", "running", "failed", "succeeded")
    ]
    assert {info.id: str(info.state) for info in listed} == {job.id: name for name, job in jobs.items()}
    assert all(type(info) is JobInfo and info.args is None for info in listed)
    assert [info.id for info in fresh.jobs(state="failed")] == [jobs["failed"].id]
    assert [info.id for info in fresh.jobs(state=[State.FAILED, "succeeded"])] == [
        jobs["failed"].id,
        jobs["succeeded"].id,
    ]
    assert [info.id for info in fresh.jobs(queue="mail")] == [jobs["failed"].id]
    assert [info.id for info in fresh.jobs(task=capture)] == [jobs["queued"].id]
    assert [info.id for info in fresh.jobs(task="tests.sample_tasks:square")] == [jobs["succeeded"].id]
    assert [info.id for info in fresh.jobs(limit=2)] == [jobs["blocked"].id, jobs["queued"].id]
    assert fresh.jobs(limit=0) == []
    gate.open()
    fresh.resume("later")
    assert jobs["queued"].result(timeout=PATIENCE) == (("x",), {"size": 2})


def test_counts_and_queues(fresh: TaskQueue, gate: Gate) -> None:
    """Jobs are counted by state, in all queues or in one; a paused queue says so."""
    jobs = mixed(fresh, gate)
    counts = fresh.counts()
    assert list(counts) == list(State)
    assert {str(state): count for state, count in counts.items() if count} == dict.fromkeys(jobs, 1)
    assert {state: count for state, count in fresh.counts(queue="mail").items() if count} == {State.FAILED: 1}
    assert sum(fresh.counts(queue="no-such-queue").values()) == 0
    fresh.pause("mail")
    mail = next(info for info in fresh.queues() if info.name == "mail")
    assert (mail.paused, mail.counts[State.FAILED], mail.counts[State.QUEUED]) == (True, 1, 0)
    fresh.resume("mail")
    assert not next(info for info in fresh.queues() if info.name == "mail").paused
    gate.open()


def test_workers(fresh: TaskQueue, gate: Gate) -> None:
    """A worker is listed with its processes and what it runs; a job names the one that runs it."""
    running = fresh.submit(hold, gate.path)
    eventually(running.running, "the job to start")
    eventually(lambda: any(info.running for info in fresh.workers()), "the worker to say so")
    (worker,) = fresh.workers()
    assert (worker.processes, worker.running, worker.stopping) == (1, 1, False)
    assert worker.pid > 0
    assert worker.host
    assert "default" in worker.queues
    assert running.info().worker == worker.name
    gate.open()


def test_info(fresh: TaskQueue, gate: Gate) -> None:
    """A job tells its task, arguments, options and what it depends on."""
    jobs = mixed(fresh, gate)
    info = jobs["queued"].info()
    assert (info.task, info.queue, info.priority, info.key, info.label) == (
        "tests.sample_tasks:capture",
        "later",
        3,
        "the-key",
        "a label",
    )
    assert (info.args, info.kwargs) == (("x",), {"size": 2})
    assert (info.attempts, info.crashes, info.retries, info.worker, info.error) == (0, 0, 0, None, None)
    failed = jobs["failed"].info()
    assert (failed.reason, failed.error) == (Reason.ERROR, "ZeroDivisionError: division by zero")
    assert (failed.args, failed.attempts) == ((1, 0), 1)
    blocked = jobs["blocked"].info()
    assert blocked.depends_on == (jobs["queued"].id,)
    assert blocked.args is not None
    assert [getattr(blocked.args[0], "id", None), blocked.args[1]] == [jobs["queued"].id, 1]
    gate.open()


def test_info_of_values(queue: TaskQueue) -> None:
    """Arguments come back equal, of whatever size and kind they are."""
    for value in (b"", b"bytes", "text", {"a": (1, 2.5)}, datetime(2026, 1, 2, tzinfo=UTC), "x" * 200_000):
        job = queue.submit(divide, value, "no number")
        job.exception(timeout=PATIENCE)
        assert job.info().args == (value, "no number")


def test_info_counts_attempts(queue: TaskQueue, ledger: Ledger) -> None:
    """Retries are told apart from attempts."""
    job = queue.options(retry=Retry(3, delay=0.0)).submit(fail_until, ledger.path, 3)
    job.result(timeout=PATIENCE)
    info = job.info()
    assert (info.state, info.attempts, info.retries, info.crashes) == (State.SUCCEEDED, 3, 2, 0)


@pytest.mark.needs("durable", why="it keeps no times")
def test_times(fresh: TaskQueue, gate: Gate) -> None:
    """Times are aware and in their order; `since` and `older` go by them."""
    before = datetime.now(UTC)
    early = fresh.submit(square, 2)
    early.result(timeout=PATIENCE)
    info = early.info()
    assert info.submitted_at is not None
    assert info.started_at is not None
    assert info.ended_at is not None
    # by the clock of the store, to the millisecond
    assert before - timedelta(seconds=1) <= info.submitted_at <= info.ended_at + timedelta(milliseconds=1)
    assert info.run_time is not None
    assert info.run_time >= 0
    assert [one.id for one in fresh.jobs(since=before - timedelta(seconds=1))] == [early.id]
    assert [one.id for one in fresh.jobs(since="1h", limit=1)] == [early.id]
    assert [one.id for one in fresh.jobs(since=timedelta(minutes=5))] == [early.id]
    assert fresh.jobs(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert fresh.purge(older="1h") == 0
    due = fresh.options(delay=600).submit(square, 2).info().due_at
    assert due is not None
    assert due > before
    gate.open()


def test_times_are_not_kept_everywhere(queue: TaskQueue) -> None:
    """Where no times are kept, a question for them is refused, with what to do."""
    if "durable" in queue.capabilities:
        assert queue.jobs(since="1h", limit=0) == []
        return
    for ask in (lambda: queue.jobs(since="1h"), lambda: queue.purge(older=60), lambda: queue.retry_failed(since=60)):
        with pytest.raises(ConfigError, match=r"keeps no times .* sqlite:///path"):
            ask()
    assert queue.submit(square, 1).info().submitted_at is None


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"state": "faild"}, "did you mean failed"),
        ({"queue": "a b"}, "queue='a b'"),
        ({"limit": -1}, "limit=-1"),
        ({"since": "soon"}, "since='soon'"),
        ({"since": datetime(2026, 1, 1)}, "aware"),  # noqa: DTZ001  # that is what is refused
    ],
)
def test_bad_questions(queue: TaskQueue, bad: dict[str, Any], words: str) -> None:
    """A question that makes no sense is refused with what is wrong."""
    with pytest.raises(ConfigError, match=words):
        queue.jobs(**bad)


# --- run again


def test_retry(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that failed runs again under its id, as if new; the old handle keeps its outcome."""
    job = queue.submit(fail_item_once, ledger.path, frozenset({2}), 2)
    assert isinstance(job.exception(timeout=PATIENCE), OSError)
    again = job.retry()
    assert again.id == job.id
    assert again.result(timeout=PATIENCE) == 2
    assert (again.state, again.info().attempts) == (State.SUCCEEDED, 1)
    assert isinstance(job.exception(), OSError)
    assert queue.job(job.id).result(timeout=PATIENCE) == 2


def test_retry_right_after_the_end(queue: TaskQueue, tmp_path: Path) -> None:
    """The news of a first end is never taken for that of the second run."""
    for number in range(8):
        path = tmp_path / f"ledger-{number}"
        job = queue.submit(fail_item_once, str(path), frozenset({2}), 2)
        eventually(
            lambda job=job: queue.jobs(state="failed", limit=1)[:1] and job.info().state is State.FAILED, "its end"
        )
        assert job.retry().result(timeout=PATIENCE) == 2


def test_retry_of_what_was_cancelled(fresh: TaskQueue, ledger: Ledger) -> None:
    """A job that was cancelled before it began can be run after all."""
    job = fresh.options(job_id="second-chance", queue="later").submit(note_item, ledger.path, "ran")
    assert job.cancel()
    again = job.retry()
    assert again.id == "second-chance"
    fresh.resume("later")
    assert again.result(timeout=PATIENCE) == "ran"
    assert fresh.options(job_id="second-chance").submit(note_item, ledger.path, "no").result(timeout=PATIENCE) == "ran"
    assert ledger.texts() == ["ran"]


def test_retry_refused(fresh: TaskQueue, gate: Gate) -> None:
    """What waits, runs or has succeeded is not run again, nor what has a new job in its place."""
    running = fresh.submit(hold, gate.path)
    eventually(running.running, "the job to start")
    with pytest.raises(RetryRefused, match=f"{running.id} is running"):
        running.retry()
    later = fresh.options(queue="later", key="one")
    first = later.submit(square, 2)
    with pytest.raises(RetryRefused, match="is queued"):
        first.retry()
    assert first.cancel()
    second = later.submit(square, 3)
    with pytest.raises(RetryRefused, match="has its key"):
        first.retry()
    gate.open()
    fresh.resume("later")
    assert second.result(timeout=PATIENCE) == 9
    with pytest.raises(RetryRefused, match="is succeeded"):
        second.retry()


def test_retried_job_has_its_key(fresh: TaskQueue) -> None:
    """A job that is run again holds its key, as it did."""
    mine = fresh.options(queue="later", key="mine")
    first = mine.submit(square, 2)
    assert first.cancel()
    again = first.retry()
    with pytest.raises(JobExists):
        mine.options(if_exists="reject").submit(square, 3)
    fresh.resume("later")
    assert again.result(timeout=PATIENCE) == 4


def test_retry_failed(fresh: TaskQueue, tmp_path: Path) -> None:
    """All jobs that failed are run again at once, or those of one queue or task."""
    ledgers = [str(tmp_path / name) for name in "abc"]
    mail = fresh.options(queue="mail").submit(fail_item_once, ledgers[0], frozenset({2}), 2)
    others = [fresh.submit(fail_item_once, ledger, frozenset({2}), 2) for ledger in ledgers[1:]]
    broken = fresh.submit(divide, 1, 0)
    for job in (mail, *others, broken):
        assert job.exception(timeout=PATIENCE) is not None
    assert fresh.retry_failed(queue="mail") == 1
    eventually(lambda: fresh.counts(queue="mail")[State.FAILED] == 0, "the job of one queue to be run")
    assert fresh.retry_failed(task=fail_item_once) == 2
    eventually(lambda: [info.task for info in fresh.jobs(state="failed")] == ["tests.sample_tasks:divide"], "the rest")
    assert [job.exception() is not None for job in (mail, *others)] == [True] * 3


# --- forget


def test_purge(fresh: TaskQueue, gate: Gate) -> None:
    """What has ended is forgotten; on demand also what waits, which is cancelled, but never what runs."""
    jobs = mixed(fresh, gate)
    assert fresh.purge(state="failed", queue="default") == 0
    assert fresh.purge(state="failed", task=divide) == 1
    with pytest.raises(JobNotFound):
        fresh.job(jobs["failed"].id)
    with pytest.raises(JobNotFound):
        jobs["failed"].info()
    assert fresh.purge() == 1
    assert {str(info.state) for info in fresh.jobs()} == {"running", "queued", "blocked"}
    with pytest.raises(ConfigError, match="cancel them first"):
        fresh.purge(state="running")
    assert fresh.purge(state=["queued", "blocked"]) == 2
    assert [info.id for info in fresh.jobs()] == [jobs["running"].id]
    gate.open()
    assert jobs["running"].result(timeout=PATIENCE) == "held"


# --- end the processes


@pytest.mark.parametrize("word", ["terminate", "kill"])
def test_end_workers(make_queue: Callable[..., TaskQueue], gate: Gate, word: str) -> None:
    """Processes end at once: what runs fails, what waits is cancelled, and nothing more is taken."""
    queue = make_queue(processes=1)
    end = getattr(queue, f"{word}_workers")
    if "start_methods" not in queue.capabilities:
        with pytest.raises(ConfigError, match="belong to the workers"):
            end()
        return
    running = queue.submit(hold, gate.path)
    eventually(running.running, "the job to start")
    waiting = [queue.submit(square, number) for number in range(5)]
    later = queue.options(delay=600).submit(square, 1)
    end()
    with pytest.raises(PoolBroken, match=f"{word}_workers"):
        running.result(timeout=PATIENCE)
    assert all(job.cancelled() for job in (*waiting, later))
    with pytest.raises(QueueClosed):
        queue.submit(square, 1)
    end()
    assert queue.workers() == []
