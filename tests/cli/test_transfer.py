"""`taskq transfer`: waiting jobs from store to store, with real stores, killed and done again."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from taskq import TaskQueue
from taskq.cli import transfer
from taskq.connect import open_store
from taskq.states import State
from tests.cli.command import Command, refused, taskq
from tests.cli.store_queue import Queue
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskq.store import Store


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


def test_families_move_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that need others move with them, however many batches lie between; killed anywhere and done again too."""
    monkeypatch.setattr(transfer, "BATCH", 3)
    for killed_at in (None, 1, 2, 3):
        old, new = (
            open_store(f"sqlite://{project}/{name}-{killed_at}.db?durability=normal") for name in ("old", "new")
        )
        with contextlib.closing(old), contextlib.closing(new):
            queue = TaskQueue(old.url)
            with contextlib.ExitStack() as stack:
                stack.callback(queue.shutdown, wait=False)
                parts = [queue.submit(square, number) for number in range(5)]
                sides = [queue.submit(total, parts[:3]), queue.submit(total, parts[2:])]
                tip = queue.submit(total, sides)
                ids = [one.id for one in (*parts, *sides, tip)]
            if killed_at is not None:
                with pytest.raises(_Killed):
                    transfer.Transfer(old, cast("Store", _Dying(new, killed_at)), lambda _, __: None).run()
            moved = transfer.Transfer(old, new, lambda _, __: None).run()
            assert old.get(ids) == [None] * 8
            states = [record and record.state for record in new.get(ids)]
            assert states == [State.QUEUED] * 5 + [State.BLOCKED] * 3
            assert moved.still_paused == []


class _Killed(BaseException):
    """What stands for the end of a process."""


class _Dying:
    """A store in whose `put` the program is killed at the n-th time, when it is done."""

    def __init__(self, store: Store, at: int) -> None:
        self._store, self._left = store, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, jobs: Any) -> Any:
        found = self._store.put(jobs)
        self._left -= 1
        if self._left <= 0:
            raise _Killed
        return found


def square(number: int) -> int:
    """Stand for a task."""
    return number * number


def total(numbers: list[int]) -> int:
    """Stand for a task that needs others."""
    return sum(numbers)
