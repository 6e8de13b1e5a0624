"""Jobs taken back out of a child's hands while it runs: each is started once, whoever ends up running it."""

from __future__ import annotations

import mmap
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taskq import TaskQueue
from tests.seams import executor_of
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Jobs of one run: enough for some hundred stops of children that are in the midst of them.
JOBS = 150_000

_starts: dict[str, mmap.mmap] = {}


def count_start(path: str, job: int) -> int:
    """Count in a shared file that this job was started; no lock, since each job has a byte of its own."""
    starts = _starts.get(path)
    if starts is None:
        with open(path, "r+b") as file:  # in a child, in the hot path of a test
            starts = _starts[path] = mmap.mmap(file.fileno(), 0)
    starts[job] += 1
    return job


@pytest.fixture
def queue() -> Iterator[TaskQueue]:
    """Give a local queue of two forked children."""
    with TaskQueue("local://", processes=2, start_method="fork") as queue:
        yield queue


def test_no_job_starts_twice_when_children_are_stopped_at_random(queue: TaskQueue, tmp_path: Path) -> None:
    """Hundreds of forced stops at random moments: every item gives its result, and every start is counted once."""
    path = tmp_path / "starts"
    path.write_bytes(bytes(JOBS))
    dispatcher = executor_of(queue).pool.dispatcher
    stops = 0
    seen = 0
    for _ in queue.imap_unordered(partial(count_start, str(path)), range(JOBS)):
        seen += 1
        if random.random() < 0.01:
            stops += 1
            dispatcher.post(
                lambda: [dispatcher.watchdog.stop(child) for child in dispatcher.supervisor.children.values()]
            )
    assert seen == JOBS
    assert stops > JOBS // 1000
    assert path.read_bytes() == bytes([1]) * JOBS


def test_short_jobs_do_not_wait_behind_a_long_one(queue: TaskQueue, tmp_path: Path) -> None:
    """Jobs sent to a child behind one that turns out to be long are run by others while it runs."""
    release = tmp_path / "release"
    short = [queue.submit(wait_for, str(tmp_path)) for _ in range(200)]  # short: the folder is there
    assert all(job.result(PATIENCE) for job in short)  # the pace of wait_for says now: many at once
    long_one = queue.submit(wait_for, str(release))
    others = [queue.submit(wait_for, str(tmp_path)) for _ in range(200)]
    assert all(job.result(PATIENCE) for job in others)
    assert not long_one.done()
    release.touch()
    assert long_one.result(PATIENCE)


def wait_for(path: str) -> bool:
    """Return when a file is there."""
    from pathlib import Path as File  # noqa: PLC0415

    return bool(eventually(File(path).exists, f"{path} exists"))
