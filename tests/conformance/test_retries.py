"""Retries after errors, runs again after crashes: counted apart, and never more than asked for."""

from __future__ import annotations

import itertools
import signal
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry
from taskq.errors import ConfigError, JobCrashed
from tests.ledger import Ledger
from tests.sample_tasks import (
    die,
    die_until,
    exit_process,
    fail_until,
    job_facts,
    note_and_die,
    retry_then_die_then_succeed,
    square,
)
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from taskq import TaskQueue


def test_retry_until_it_succeeds(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that fails twice and then succeeds has its result, in three attempts."""
    job = queue.options(retry=Retry(5, delay=0.01)).submit(fail_until, ledger.path, 3)
    assert job.result(timeout=PATIENCE) == 3
    assert ledger.texts() == ["attempt"] * 3
    assert (job.attempts, job.crashes, job.state) == (3, 0, "succeeded")


def test_retries_are_used_up(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that always fails runs once and as often again as its policy says, then its last error is raised."""
    job = queue.options(retry=Retry(2, delay=0.01)).submit(fail_until, ledger.path, 100)
    with pytest.raises(ValueError, match="attempt 3"):
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["attempt"] * 3
    assert (job.attempts, job.state, job.reason) == (3, "failed", "error")


def test_no_retry_without_a_policy(queue: TaskQueue, ledger: Ledger) -> None:
    """Without a policy, a job that fails runs once."""
    job = queue.submit(fail_until, ledger.path, 2)
    with pytest.raises(ValueError, match="attempt 1"):
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["attempt"]


def test_retry_by_number(queue: TaskQueue, ledger: Ledger) -> None:
    """A number is a policy too."""
    job = queue.options(retry=1).submit(fail_until, ledger.path, 2)
    assert job.result(timeout=PATIENCE) == 2


def test_retry_only_on_listed_errors(queue: TaskQueue, ledger: Ledger) -> None:
    """Only errors of the listed classes, or classes below them, are tried again."""
    bound = queue.options(retry=Retry(3, delay=0.01, on=(OSError,)))
    assert bound.submit(fail_until, ledger.path, 2, "ConnectionResetError").result(timeout=PATIENCE) == 2
    job = bound.submit(fail_until, ledger.path, 2, "ValueError")
    with pytest.raises(ValueError, match="attempt 1"):
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["attempt"] * 3


def test_limits_by_class(queue: TaskQueue, ledger: Ledger) -> None:
    """A mapping says up to how many retries an error of each class is retried; the closest class counts."""
    bound = queue.options(retry=Retry(3, delay=0.01, on={OSError: 3, ConnectionError: 1, ValueError: 0}))
    for kind, attempts in (("OSError", 4), ("ConnectionResetError", 2), ("ValueError", 1), ("KeyError", 1)):
        job = bound.submit(fail_until, ledger.path, 100, kind)
        assert job.exception(timeout=PATIENCE) is not None
        assert job.attempts == attempts, kind


def test_backoff(queue: TaskQueue, ledger: Ledger) -> None:
    """Without jitter, the waits between attempts are at least the delay, growing by the factor."""
    bound = queue.options(retry=Retry(3, delay=0.1, backoff=2.0, jitter=False))
    assert bound.submit(fail_until, ledger.path, 4).result(timeout=PATIENCE) == 4
    starts = [entry.at for entry in ledger.entries()]
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, [0.1, 0.2, 0.4], strict=True)), waits


def test_jitter(queue: TaskQueue, tmp_path: Path) -> None:
    """With jitter, jobs that fail together do not come back together: their waits are spread over the delay."""
    ledgers = [Ledger(tmp_path / str(number)) for number in range(24)]
    bound = queue.options(retry=Retry(1, delay=1.0))
    jobs = [bound.submit(fail_until, ledger.path, 2) for ledger in ledgers]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [2] * 24
    pairs = [[entry.at for entry in ledger.entries()] for ledger in ledgers]
    waits = sorted(second - first for first, second in pairs)
    assert waits[-4] - waits[3] > 0.2, waits


def test_longest_wait(queue: TaskQueue, ledger: Ledger) -> None:
    """However the delays grow, none is longer than `max_delay`."""
    bound = queue.options(retry=Retry(2, delay=0.2, backoff=1_000_000.0, max_delay=0.3, jitter=False))
    assert bound.submit(fail_until, ledger.path, 3).result(timeout=PATIENCE) == 3
    assert len(ledger.texts()) == 3


def test_short_waits_stay_short(queue: TaskQueue, ledger: Ledger) -> None:
    """On an idle queue the end of a wait is noticed: twenty waits of 10 ms are over long before twenty of a second."""
    bound = queue.options(retry=Retry(20, delay=0.01, backoff=1.0, jitter=False))
    assert bound.submit(fail_until, ledger.path, 21).result(timeout=PATIENCE / 2) == 21


def test_other_jobs_run_during_the_wait(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that waits for its retry holds up no other."""
    bound = queue.options(retry=Retry(1, delay=3.0, jitter=False))
    waiting = [bound.submit(fail_until, ledger.path, 2) for _ in range(4)]
    assert list(queue.map(square, range(100))) == [number**2 for number in range(100)]
    assert not any(job.done() for job in waiting)
    assert [job.result(timeout=PATIENCE) for job in waiting] == [2] * 4


def test_attempt_as_the_job_sees_it(queue: TaskQueue) -> None:
    """A job that is run for the first time is in its first attempt."""
    job = queue.submit(job_facts)
    assert job.result(timeout=PATIENCE) == (job.id, 1)


# --- crashes


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGTERM, "SIGTERM"),
    ],
)
def test_crash_limit(queue: TaskQueue, ledger: Ledger, number: int, name: str) -> None:
    """A job that kills its process each time is run three times, then failed: crashes counted, the signal named."""
    job = queue.submit(note_and_die, ledger.path, int(number))
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert (error.crashes, error.exitcode) == (3, -number)
    assert name in str(error)
    assert error.job_id == job.id
    assert ledger.texts() == ["start"] * 3
    assert (job.state, job.reason, job.attempts, job.crashes) == ("failed", "crashed", 3, 3)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


@pytest.mark.parametrize("code", [0, 1, 77])
def test_exit_in_a_job(queue: TaskQueue, code: int) -> None:
    """A job that ends its process by `os._exit`, even with code 0, has crashed, and the code is told."""
    error = queue.submit(exit_process, code).exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert (error.crashes, error.exitcode) == (3, code)
    assert str(code) in str(error)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_settable_crash_limit(queue: TaskQueue, ledger: Ledger, limit: int) -> None:
    """`max_crashes` says how many deaths of its process a job is allowed."""
    job = queue.options(max_crashes=limit).submit(note_and_die, ledger.path)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobCrashed)
    assert error.crashes == limit
    assert ledger.texts() == ["start"] * limit


def test_success_after_crashes(queue: TaskQueue, ledger: Ledger) -> None:
    """A job whose process died twice and not the third time has its result; its attempts went on counting."""
    job = queue.submit(die_until, ledger.path, 3)
    assert job.result(timeout=PATIENCE) == 3
    assert (job.attempts, job.crashes, job.state) == (3, 2, "succeeded")
    assert len(set(ledger.pids())) == 3


def test_crashes_do_not_use_up_retries(queue: TaskQueue, ledger: Ledger) -> None:
    """Crashes and errors are counted apart: two of each, with two retries and three crashes allowed, end well."""
    bound = queue.options(retry=Retry(2, delay=0.0), max_crashes=3)
    job = bound.submit(retry_then_die_then_succeed, ledger.path)
    assert job.result(timeout=PATIENCE) == "done"
    assert ledger.texts() == ["error", "crash", "error", "crash", "done"]
    assert (job.attempts, job.crashes) == (5, 2)


def test_retries_do_not_follow_a_crash(queue: TaskQueue, ledger: Ledger) -> None:
    """A job failed as crashed is final: its retry policy, even for everything, does not run it again."""
    bound = queue.options(retry=Retry(5, delay=0.0), max_crashes=1)
    assert isinstance(bound.submit(note_and_die, ledger.path).exception(timeout=PATIENCE), JobCrashed)
    assert ledger.texts() == ["start"]


def test_many_crashing_jobs(queue: TaskQueue) -> None:
    """Many jobs that crash, among many that do not: each has its own end."""
    bound = queue.options(max_crashes=1)
    jobs = [bound.submit(die) if number % 10 == 0 else bound.submit(square, number) for number in range(60)]
    for number, job in enumerate(jobs):
        if number % 10 == 0:
            assert isinstance(job.exception(timeout=PATIENCE), JobCrashed)
        else:
            assert job.result(timeout=PATIENCE) == number**2


@pytest.mark.parametrize("options", [{"retry": -1}, {"retry": "5"}, {"max_crashes": 0}, {"retries": 3}])
def test_senseless_options(queue: TaskQueue, options: dict[str, Any]) -> None:
    """A policy that makes no sense, or an option that does not exist, is refused with its name."""
    with pytest.raises(ConfigError, match="(?i)" + next(iter(options))):
        queue.options(**options).submit(square, 1)
