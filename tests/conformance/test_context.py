"""What a job knows of itself, and what it tells the outside while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskq import JobContext, current_job
from taskq.errors import NotInJob
from tests.sample_tasks import (
    context_in_a_thread,
    facts_of_item,
    fail_until,
    hold_after_many_reports,
    job_facts,
    report_progress,
    square,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


def test_outside_a_job() -> None:
    """Outside a job there is no current one, and the error says so."""
    with pytest.raises(NotInJob, match="job"):
        current_job()
    assert issubclass(NotInJob, LookupError)


def test_id_and_attempt(queue: TaskQueue) -> None:
    """A job knows its id, and that this is its first attempt."""
    jobs = [queue.submit(job_facts) for _ in range(30)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [(job.id, 1) for job in jobs]


def test_attempt_counts_retries(queue: TaskQueue, ledger: Ledger) -> None:
    """In its third attempt a job knows that it is the third."""
    job = queue.options(retry=2).submit(fail_until, ledger.path, 1)
    assert job.result(timeout=PATIENCE) == 1
    job = queue.options(retry=5).submit(fail_until, ledger.path, 3)
    assert job.result(timeout=PATIENCE) == 3


def test_items_of_a_map_have_contexts(queue: TaskQueue) -> None:
    """Items of a map too are in a first attempt, and each has an id of its own."""
    facts = list(queue.map(facts_of_item, range(50)))
    assert {attempt for _, attempt in facts} == {1}
    assert len({job_id for job_id, _ in facts}) == 50


def test_progress_is_seen_while_it_runs(queue: TaskQueue, gate: Gate) -> None:
    """What a job reports is seen by its handle while it runs, and stays afterwards."""
    job = queue.submit(report_progress, gate.path, 3, 10)
    eventually(lambda: job.progress == (3, 10), "the progress to be seen")
    assert not job.done()
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"
    assert job.progress == (3, 10)


def test_progress_without_a_total(queue: TaskQueue, gate: Gate) -> None:
    """The total may be unknown."""
    job = queue.submit(report_progress, gate.path, 7, None)
    eventually(lambda: job.progress == (7, None), "the progress to be seen")
    gate.open()
    job.result(timeout=PATIENCE)


def test_no_progress(queue: TaskQueue) -> None:
    """A job that never reports has no progress."""
    job = queue.submit(square, 2)
    job.result(timeout=PATIENCE)
    assert job.progress is None


def test_last_word_of_many(queue: TaskQueue, gate: Gate) -> None:
    """Of very many reports the last one is seen in the end, and none of them goes back."""
    job = queue.submit(hold_after_many_reports, gate.path, 20_000)
    seen: list[int] = []

    def look() -> bool:
        seen.append(job.progress[0] if job.progress else 0)
        return seen[-1] == 20_000

    eventually(look, "the last report to be seen")
    assert seen == sorted(seen)
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"


def test_progress_of_two_jobs(queue: TaskQueue, gate: Gate) -> None:
    """Jobs side by side report each for itself."""
    one, two = (queue.submit(report_progress, gate.path, done, 9) for done in (1, 2))
    eventually(lambda: (one.progress, two.progress) == ((1, 9), (2, 9)), "both to report")
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in (one, two)] == ["held"] * 2


def test_context_in_a_thread_of_the_job(queue: TaskQueue) -> None:
    """Threads that a job starts find the same current job."""
    job = queue.submit(context_in_a_thread)
    assert job.result(timeout=PATIENCE) == job.id


def test_context_has_a_name(queue: TaskQueue) -> None:
    """The context's type is public."""
    assert {"id", "attempt", "progress", "cancelled"} <= set(dir(JobContext))
