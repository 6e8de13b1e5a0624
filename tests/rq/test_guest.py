"""Jobs of ours in a stock `rq worker`: what a task may ask for works there too."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from taskq import TaskQueue
from taskq.errors import DependencyFailed, JobCrashed, JobTimeout, SoftTimeout
from taskq.retry import Retry
from taskq.states import State
from tests import processes
from tests.conftest import close
from tests.sample_tasks import add, die, fail
from tests.sample_trust import note_all, outlast
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (os.path.join(os.path.dirname(sys.executable), "rq"), "worker", "-S", "taskq.serializer.MsgpackSerializer")
TASKS = "tests.sample_tasks,tests.sample_trust"


@pytest.fixture
def queue(url: str) -> Iterator[TaskQueue]:
    """Give a queue that a stock worker serves, and nobody else."""
    environment = {**os.environ, "TASKQ_IMPORT": TASKS, "PYTHONPATH": os.getcwd()}
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*COMMAND, "--url", url], env=environment, start_new_session=True, **quiet) as worker:
        made = TaskQueue(url)
        yield made
        close(made)
        processes.kill(worker.pid)


def test_needs(queue: TaskQueue) -> None:
    """A job is an argument of another; one that needs a failed one fails, though no worker of ours tells it so."""
    three = queue.submit(add, 1, 2)
    assert queue.submit(add, three, 10).result(PATIENCE) == 13
    bad = queue.submit(fail, "ValueError", "no good")
    assert isinstance(queue.submit(add, bad, 10).exception(PATIENCE), DependencyFailed)


def test_limits(queue: TaskQueue) -> None:
    """Soft timeouts stop a job there, and RQ's own goes on behind them; timeouts and deaths come back as ours."""
    assert isinstance(queue.options(soft_timeout=0.5, timeout=30).submit(outlast, 1).exception(PATIENCE), SoftTimeout)
    assert isinstance(queue.options(soft_timeout=0.3, timeout=1).submit(outlast, 2).exception(PATIENCE), JobTimeout)
    assert isinstance(queue.submit(die).exception(PATIENCE), JobCrashed)


def test_current_job(queue: TaskQueue) -> None:
    """A task knows its id and attempt, tells its progress, and keeps notes and texts."""
    job = queue.options(retry=Retry(1, delay=0)).submit(note_all)
    assert job.result(PATIENCE) == [job.id, 2]
    assert (job.progress, dict(job.meta), job.logs()) == ((2, 3), {"first": 1, "page": 2}, "one\ntwo\n")
    assert job.attempts == 2
    assert job.state is State.SUCCEEDED
