"""Which jobs are one job, how long a job may wait, and how long it is kept: job_id, key, expires, result_ttl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq import Reason, State
from taskq.errors import ConfigError, JobError, JobExists, JobExpired, JobNotFound
from tests.sample_tasks import divide, hold, note_item, square
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


@pytest.fixture
def busy_queue(make_queue: Callable[..., TaskQueue], gate: Gate) -> TaskQueue:
    """Give a queue whose only process is busy until the gate is opened."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path)
    assert eventually(busy.running, "the only process to be busy")
    return queue


def is_gone(queue: TaskQueue, job_id: str) -> bool:
    """Return whether the queue no longer knows the job."""
    try:
        queue.job(job_id)
    except JobNotFound:
        return True
    return False


# --- the same id


def test_own_id(queue: TaskQueue, ledger: Ledger) -> None:
    """A job may be given its id, by which it is found."""
    job = queue.options(job_id="order-4711_a").submit(note_item, ledger.path, "one")
    assert job.id == "order-4711_a"
    assert queue.job("order-4711_a").result(timeout=PATIENCE) == "one"


def test_same_id_is_the_same_job(busy_queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A submit repeated with the same id is the same job: it runs once, and all handles have its result."""
    bound = busy_queue.options(job_id="same-one")
    jobs = [bound.submit(note_item, ledger.path, number) for number in range(4)]
    gate.open()
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0] * 4
    assert {job.id for job in jobs} == {"same-one"}
    assert ledger.texts() == ["0"]


def test_same_id_after_the_end(queue: TaskQueue, ledger: Ledger) -> None:
    """Also a job that has ended is not run again by a submit with its id."""
    bound = queue.options(job_id="ended-one")
    first = bound.submit(note_item, ledger.path, "first")
    assert first.result(timeout=PATIENCE) == "first"
    assert bound.submit(note_item, ledger.path, "second").result(timeout=PATIENCE) == "first"
    assert ledger.texts() == ["first"]


def test_taken_id_can_be_refused(queue: TaskQueue, ledger: Ledger) -> None:
    """With `if_exists="reject"` a taken id is an error that names it, before and after the job has ended."""
    bound = queue.options(job_id="taken-one", if_exists="reject")
    job = bound.submit(note_item, ledger.path, "first")
    for _ in range(2):
        with pytest.raises(JobExists, match="taken-one") as raised:
            bound.submit(note_item, ledger.path, "second")
        assert raised.value.job_id == job.id
        assert job.result(timeout=PATIENCE) == "first"
    assert ledger.texts() == ["first"]


@pytest.mark.parametrize("job_id", ["", "two words", "a/b", "ä", "x" * 129, 7])
def test_senseless_ids(queue: TaskQueue, job_id: Any) -> None:
    """An id that could not stand in a key or a path is refused, with the name of the option."""
    with pytest.raises(ConfigError, match="job_id"):
        queue.options(job_id=job_id)


# --- the same key


def test_taken_key_can_be_refused(busy_queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """With `if_exists="reject"` the key of a job that has not ended is an error that names the job."""
    bound = busy_queue.options(key="thumb:x", if_exists="reject")
    job = bound.submit(note_item, ledger.path, "first")
    with pytest.raises(JobExists) as raised:
        bound.submit(note_item, ledger.path, "second")
    assert raised.value.job_id == job.id
    assert job.id in str(raised.value)
    gate.open()
    assert job.result(timeout=PATIENCE) == "first"
    assert bound.submit(note_item, ledger.path, "third").result(timeout=PATIENCE) == "third"
    assert ledger.texts() == ["first", "third"]


def test_key_of_a_cancelled_job(busy_queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A cancelled job lets its key go."""
    bound = busy_queue.options(key="thumb:y")
    assert bound.submit(note_item, ledger.path, "cancelled").cancel() is True
    job = bound.submit(note_item, ledger.path, "second")
    gate.open()
    assert job.result(timeout=PATIENCE) == "second"
    assert ledger.texts() == ["second"]


def test_key_of_a_failed_job(queue: TaskQueue, ledger: Ledger) -> None:
    """So does one that failed."""
    bound = queue.options(key="thumb:z")
    assert isinstance(bound.submit(divide, 1, 0).exception(timeout=PATIENCE), ZeroDivisionError)
    assert bound.submit(note_item, ledger.path, "second").result(timeout=PATIENCE) == "second"


def test_senseless_answer(queue: TaskQueue) -> None:
    """What to do about a taken id is one of two words."""
    with pytest.raises(ConfigError, match="if_exists"):
        queue.options(key="k", if_exists="explode")  # type: ignore[call-arg]


# --- expires


def test_expired_job(busy_queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A job that has not started in its time fails as expired, without running, and says so in every way."""
    job = busy_queue.options(expires=0.3).submit(note_item, ledger.path, "too late")
    patient = busy_queue.options(expires=1_000).submit(note_item, ledger.path, "in time")
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobExpired)
    assert isinstance(error, JobError)
    assert (error.job_id, job.state, job.reason) == (job.id, State.FAILED, Reason.EXPIRED)
    assert not patient.done()
    gate.open()
    assert patient.result(timeout=PATIENCE) == "in time"
    assert ledger.texts() == ["in time"]


def test_expires_counts_from_the_submit(queue: TaskQueue, ledger: Ledger) -> None:
    """A delay counts too: a job that may not start before it expires never runs."""
    job = queue.options(delay=1.0, expires=0.2).submit(note_item, ledger.path, "never")
    assert isinstance(job.exception(timeout=PATIENCE), JobExpired)
    assert ledger.texts() == []


def test_expires_does_not_end_running_jobs(queue: TaskQueue, gate: Gate, ledger: Ledger) -> None:
    """A job that has started in time may run as long as it likes."""
    assert queue.submit(square, 2).result(timeout=PATIENCE) == 4  # now there is a process that can start it in time
    job = queue.options(expires=1.5).submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the job to start")
    late = queue.options(delay=1.8).submit(square, 3)
    assert late.result(timeout=PATIENCE) == 9
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"


@pytest.mark.parametrize("seconds", [0, -1, "soon", True])
def test_senseless_expiry(queue: TaskQueue, seconds: Any) -> None:
    """A time that makes no sense is refused with the name of the option."""
    with pytest.raises(ConfigError, match="expires"):
        queue.options(expires=seconds)


# --- result_ttl


def test_result_that_is_not_kept(queue: TaskQueue) -> None:
    """With `result_ttl=0` who waits is told, and then the job is forgotten; its handle keeps what it was told."""
    job = queue.options(result_ttl=0).submit(square, 3)
    assert job.result(timeout=PATIENCE) == 9
    eventually(lambda: is_gone(queue, job.id), "the job to be forgotten")
    assert job.result() == 9


def test_result_that_is_kept_for_a_while(queue: TaskQueue) -> None:
    """A job is found after its end until its `result_ttl` has passed, whichever way it ended."""
    bound = queue.options(result_ttl=2)
    good, bad = bound.submit(square, 4), bound.submit(divide, 1, 0)
    assert good.result(timeout=PATIENCE) == 16
    assert isinstance(bad.exception(timeout=PATIENCE), ZeroDivisionError)
    assert (queue.job(good.id).state, queue.job(bad.id).state) == (State.SUCCEEDED, State.FAILED)
    for job in (good, bad):
        eventually(lambda gone=job: is_gone(queue, gone.id), "the job to be forgotten")


def test_result_is_kept_without_further_words(queue: TaskQueue) -> None:
    """A job whose handle is held is found after its end."""
    job = queue.submit(square, 5)
    job.result(timeout=PATIENCE)
    found = queue.job(job.id)
    assert (found.id, found.state, found.result(timeout=PATIENCE)) == (job.id, State.SUCCEEDED, 25)


def test_result_ttl_does_not_count_before_the_end(queue: TaskQueue, gate: Gate) -> None:
    """A job that runs longer than its `result_ttl` is there as long as it runs."""
    job = queue.options(result_ttl=1).submit(hold, gate.path)
    assert queue.options(delay=2.0).submit(square, 3).result(timeout=PATIENCE) == 9
    assert queue.job(job.id).state is State.RUNNING
    gate.open()
    assert job.result(timeout=PATIENCE) == "held"


@pytest.mark.parametrize("seconds", [-1, "long", float("inf"), float("nan")])
def test_senseless_result_ttl(queue: TaskQueue, seconds: Any) -> None:
    """A time that makes no sense is refused with the name of the option."""
    with pytest.raises(ConfigError, match="result_ttl"):
        queue.options(result_ttl=seconds)
