"""`taskq transfer`: waiting jobs from store to store, with real stores, killed and done again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from taskq.connect import open_store
from tests.cli.command import Command, refused, taskq
from tests.cli.far_queue import Queue
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_transfer_to_the_other_store(project: Path, redis: Any, worker: Callable[..., Command]) -> None:
    """From the file to Redis and back: ids, order and options stay."""
    there, back = redis.fresh_url(), f"sqlite://{project}/back.db"
    start = Queue(project, f"sqlite://{project}/queue.db")
    first = start.submit("jobs:second_time", "x", "--retries", 1, "--queue", "a", "--priority", 3)
    second = start.submit("jobs:square", ":=5", "--delay", "2h", "--key", "k")
    before = [start.job(first), start.job(second)]
    done = taskq(project, "transfer", start.url, there)
    assert (done.code, done.out, done.err) == (0, "2\n", "")
    assert json.loads(start.run("status", "--json").out)["jobs"] == []
    assert taskq(project, "transfer", there, back).out == "2\n"
    assert taskq(project, "transfer", there, back).out == "0\n"
    end = Queue(project, back)
    for old, new in zip(before, [end.job(first), end.job(second)], strict=True):
        for name in ("id", "task", "label", "state", "queue", "priority", "key"):
            assert new[name] == old[name]
    due = [datetime.fromisoformat(row["due_at"]) for row in (before[1], end.job(second))]
    assert abs(due[0] - due[1]) < timedelta(seconds=2)
    worker(back, "--queues", "a")
    assert end.run("result", first, "--wait").out == "2\n"


def test_a_killed_transfer_is_done_again(project: Path) -> None:
    """SIGKILL half way: no job is lost, none can run twice, the second transfer finishes."""
    start, end = Queue(project, f"sqlite://{project}/old.db"), Queue(project, f"sqlite://{project}/new.db")
    lines = b"".join(b"%d\n" % number for number in range(4000))
    ids = start.run("submit", "jobs:square", "--jsonl", "-", stdin=lines).out.split()
    open_store(end.url).close()
    with Command(project, "transfer", start.url, end.url, name="t-") as command:
        eventually(lambda: end.waiting() > 0, "some jobs to be moved")
        command.process.kill()
        command.process.wait()
    done = taskq(project, "transfer", start.url, end.url, "--json")
    assert done.code == 0
    assert (start.waiting(), end.waiting()) == (0, 4000)
    assert json.loads(done.out)["paused"] in (["default"], [])
    end.run("status", *ids[::500])


def test_transfer_to_itself_is_refused(project: Path) -> None:
    """By whatever name; nothing is lost."""
    queue = Queue(project, f"sqlite://{project}/queue.db")
    job_id = queue.submit("jobs:square", ":=1")
    (project / "link").symlink_to(project)
    assert "the same store" in refused(project, "transfer", queue.url, f"sqlite://{project}/link/queue.db")
    assert queue.state(job_id) == "queued"
