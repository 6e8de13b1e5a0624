"""The end of a `with` block on a store: what it waits for, what it says, and when it leaves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from taskq import State
from taskq.codec import encode
from taskq.executors.durable import executor, shutdown
from taskq.store import WorkerRecord
from tests.sample_tasks import square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from taskq.job import Job
    from tests.observed_store import ObservedStore


#: Seconds for which `shutdown` has patience with a store that nobody serves.
SHORT = 0.3


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the looks come often and the patience be short."""
    monkeypatch.setattr(executor, "LOOK", 0.02)
    monkeypatch.setattr(shutdown, "_PATIENCE", SHORT)


def worker(*queues: str, name: str = "one", **more: Any) -> WorkerRecord:
    """Return a worker as the store would tell of it."""
    return WorkerRecord(name=name, host="here", pid=1, queues=queues, processes=1, **more)


def in_thread(act: Callable[[], object]) -> threading.Thread:
    """Run this beside the test."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def leave(queue: TaskQueue) -> None:
    """Come to the end of a block."""
    with queue:
        pass


def test_an_error_leaves_at_once(queue: TaskQueue, store: ObservedStore) -> None:
    """The error of the block is the one raised, though a job is held that nobody runs; the job stays as it was."""
    with pytest.raises(TimeoutError), queue:
        job = queue.submit(square, 3)
        job.result(timeout=0)
    assert store.records[job.id].state is State.QUEUED
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    assert job.result(timeout=PATIENCE) == 9


def test_left_when_no_worker_serves_the_queue(
    queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block whose jobs nobody would run ends with a sentence on stderr, and the handles still hear of their ends."""
    store.workers_now = [worker("other"), worker("default", name="two", stopping=True)]
    with queue:
        job = queue.submit(square, 3)
    said = capsys.readouterr().err
    assert "left 1 job in memory://" in said
    assert "no worker serves queue default" in said
    assert store.records[job.id].state is State.QUEUED
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    assert job.result(timeout=PATIENCE) == 9


@pytest.mark.parametrize("held", [True, False])
def test_left_when_nobody_runs_what_a_job_waits_for(
    queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str], held: bool
) -> None:
    """A job that waits for another, whose queue no worker serves, is left, too, though its own queue is served."""
    store.workers_now = [worker("default")]
    with queue:
        first = queue.options(queue="far").submit(square, 3)
        job = queue.submit(square, first)
        store.records[job.id].state, store.records[job.id].depends_on = State.BLOCKED, (first.id,)
        if not held:
            del first
    said = capsys.readouterr().err
    assert f"left {2 if held else 1} job" in said
    assert "no worker serves queue far" in said


@pytest.mark.parametrize("taken", ["queue", "job"])
def test_waits_for_a_worker(
    queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    """A worker that serves the queue, or one that stops and has the job in its hands, is waited for, and that said."""
    job = queue.submit(square, 3)
    store.workers_now = [worker("default", stopping=taken == "job")]
    if taken == "job":
        store.records[job.id].state, store.records[job.id].worker = State.RUNNING, "one"
    closer = in_thread(lambda: leave(queue))
    closer.join(2 * SHORT)
    assert closer.is_alive()
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    closer.join(PATIENCE)
    assert not closer.is_alive()
    assert job.result() == 9
    assert capsys.readouterr().err.count("waiting for 1 job in memory://") == 1


def test_a_worker_that_comes_late_is_waited_for(queue: TaskQueue, store: ObservedStore) -> None:
    """A worker that starts while the patience lasts is one like any other."""
    job = queue.submit(square, 3)
    closer = in_thread(lambda: leave(queue))
    eventually(lambda: "get" in store.calls, "the first look")
    store.workers_now = [worker("default")]
    closer.join(2 * SHORT)
    assert closer.is_alive()
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    closer.join(PATIENCE)
    assert job.result() == 9


def test_a_paused_queue_is_said(queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs of a paused queue with a worker are waited for, and the pause is named."""
    store.workers_now = [worker("default")]
    job = queue.submit(square, 3)
    queue.pause()
    said: list[str] = []
    closer = in_thread(lambda: leave(queue))
    eventually(lambda: said.append(capsys.readouterr().err) or "paused" in "".join(said), "a word on the pause")
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    closer.join(PATIENCE)
    assert not closer.is_alive()


def test_an_explicit_shutdown_waits_on(
    queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """`shutdown()` waits for jobs that nobody runs, for as long as it takes, and says why."""
    job = queue.submit(square, 3)
    closer = in_thread(queue.shutdown)
    closer.join(2 * SHORT)
    assert closer.is_alive()
    assert "no worker serves queue default; shutdown(wait=True) waits until one does" in capsys.readouterr().err
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    closer.join(PATIENCE)
    assert not closer.is_alive()


def test_an_outage_is_waited_out(queue: TaskQueue, store: ObservedStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that cannot be reached tells nothing of its workers: the block waits, and says so."""
    job: Job[int] = queue.submit(square, 3)
    closer = in_thread(lambda: leave(queue))
    eventually(lambda: "ask" in store.calls, "the wait")
    store.fail_next = 3
    said: list[str] = []
    eventually(lambda: said.append(capsys.readouterr().err) or "cannot be reached" in "".join(said), "a word on it")
    store.end(job.id, State.SUCCEEDED, result=encode(9))
    closer.join(PATIENCE)
    assert not closer.is_alive()
