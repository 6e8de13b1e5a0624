"""What a job knows of itself, and what it tells the outside while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskq import JobContext, Retry, current_job
from taskq.errors import NotInJob
from tests.sample_tasks import (
    context_in_a_thread,
    facts_of_item,
    fail_until,
    hold_after_many_reports,
    job_facts,
    log_and_hold,
    meta_of_attempts,
    print_and_hold,
    report_progress,
    set_meta_and_hold,
    square,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import Job, TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


@pytest.fixture
def elsewhere(queue: TaskQueue, make_queue: Callable[..., TaskQueue]) -> Callable[[str], Job[object]]:
    """Find a job by its id, as another program would: where there is a store, through a connection of its own."""
    return (make_queue() if "durable" in queue.capabilities else queue).job


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
    assert {"id", "attempt", "queue", "progress", "log", "meta", "cancelled"} <= set(dir(JobContext))


# --- seen by others while it runs


def test_progress_seen_elsewhere(queue: TaskQueue, gate: Gate, elsewhere: Callable[[str], Job[object]]) -> None:
    """What a job reports is seen while it runs by whoever knows its id, and stays afterwards."""
    job = queue.submit(report_progress, gate.path, 3, 10)
    other = elsewhere(job.id)
    eventually(lambda: other.progress == (3, 10), "the progress to be seen elsewhere")
    gate.open()
    assert other.result(timeout=PATIENCE) == "held"
    assert elsewhere(job.id).progress == (3, 10)


def test_log_seen_elsewhere(queue: TaskQueue, gate: Gate, elsewhere: Callable[[str], Job[object]]) -> None:
    """What a job logs is seen while it runs, line by line in its order, and stays afterwards."""
    job = queue.submit(log_and_hold, gate.path, "first line", "zweite Zeile: äöü")
    other = elsewhere(job.id)
    eventually(lambda: "zweite" in other.logs(), "the log to be seen elsewhere")
    assert [line for line in other.logs().splitlines() if "line" in line or "Zeile" in line] == [
        "first line",
        "zweite Zeile: äöü",
    ]
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"
    assert "first line" in elsewhere(job.id).logs()


def test_no_log(queue: TaskQueue) -> None:
    """A job that says nothing has an empty log, and no meta."""
    job = queue.submit(square, 2)
    job.result(timeout=PATIENCE)
    assert (job.logs(), job.meta) == ("", {})


def test_meta_seen_elsewhere(queue: TaskQueue, gate: Gate, elsewhere: Callable[[str], Job[object]]) -> None:
    """Facts that a job leaves about itself are seen while it runs, with their types, and stay afterwards."""
    facts = {"stage": "resize", "size": (640, 480), "done": [1, 2]}
    job = queue.submit(set_meta_and_hold, gate.path, **facts)
    other = elsewhere(job.id)
    eventually(lambda: other.meta == facts, "the facts to be seen elsewhere")
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"
    assert elsewhere(job.id).meta == facts


def test_meta_survives_a_retry(queue: TaskQueue) -> None:
    """What an attempt leaves in the meta, the next one finds there."""
    job = queue.options(retry=Retry(1, delay=0.01)).submit(meta_of_attempts)
    assert job.result(timeout=PATIENCE) == [1, 2]
    assert job.meta == {"attempts": [1, 2]}


def test_words_of_two_jobs(queue: TaskQueue, gate: Gate) -> None:
    """Jobs side by side log each for itself."""
    one, two = (queue.submit(log_and_hold, gate.path, text) for text in ("of the one", "of the two"))
    eventually(lambda: (one.logs().strip(), two.logs().strip()) == ("of the one", "of the two"), "both logs")
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in (one, two)] == ["held"] * 2


@pytest.mark.needs("durable", why="where there is no worker, jobs print to the program's own output")
def test_output_is_kept(queue: TaskQueue, gate: Gate, elsewhere: Callable[[str], Job[object]]) -> None:
    """What a job prints to stdout and stderr is in its log while it runs, and nothing that other jobs print."""
    before = queue.submit(print, "of the job before")
    before.result(timeout=PATIENCE)
    job = queue.submit(print_and_hold, gate.path, "to stdout", "to stderr")
    other = elsewhere(job.id)
    eventually(lambda: {"to stdout", "to stderr"} <= set(other.logs().splitlines()), "the output to be seen")
    gate.open()
    job.result(timeout=PATIENCE)
    assert sorted(elsewhere(job.id).logs().split("\n")) == ["", "to stderr", "to stdout"]
    eventually(lambda: before.logs() == "of the job before\n", "the first job's output to be kept")
