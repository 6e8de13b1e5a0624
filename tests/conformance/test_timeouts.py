"""Hard and soft timeouts: what they end, what they leave alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from taskq import Retry
from taskq.errors import ConfigError, JobTimeout, SoftTimeout
from tests.processes import is_running
from tests.sample_tasks import (
    decorated_hanging,
    hold,
    identity,
    ignore_soft_timeout,
    nap,
    note_and_nap,
    pid,
    raise_timeout_error,
    sleep_deaf,
    spin_in_c,
    spin_in_regex,
    square,
    start_grandchild,
    tidy_up_at_soft_timeout,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskq import TaskQueue
    from tests.conftest import Gate
    from tests.ledger import Ledger


@pytest.mark.parametrize(
    ("fn", "args"),
    [(nap, (60,)), (spin_in_c, ()), (spin_in_regex, ()), (sleep_deaf, ())],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_hard_timeout(queue: TaskQueue, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """A job that hangs, in Python, in C, or deaf to all signals, is ended at its timeout, and the queue works on."""
    job = queue.options(timeout=0.3).submit(fn, *args)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobTimeout)
    assert isinstance(error, TimeoutError)
    assert "0.3 s" in str(error)
    assert (job.state, job.reason, job.attempts, job.crashes) == ("failed", "timeout", 1, 0)
    assert queue.submit(square, 3).result(timeout=PATIENCE) == 9


def test_not_before_its_time(queue: TaskQueue) -> None:
    """A timeout counts from the start of the job, and a job within it is left alone."""
    begin = time.monotonic()
    job = queue.options(timeout=0.6).submit(nap, 60)
    assert isinstance(job.exception(timeout=PATIENCE), JobTimeout)
    assert time.monotonic() - begin >= 0.6
    assert queue.options(timeout=PATIENCE).submit(nap, 0.2).result(timeout=PATIENCE) == 0.2


def test_waiting_does_not_count(make_queue: Callable[..., TaskQueue], gate: Gate, ledger: Ledger) -> None:
    """The time that a job waits for a process does not count to its timeout."""
    queue = make_queue(processes=1)
    busy = queue.submit(hold, gate.path, ledger.path)
    eventually(ledger.texts, "the only process to be busy")
    jobs = [queue.options(timeout=0.5).submit(nap, 0.01) for _ in range(5)]
    with pytest.raises(TimeoutError):
        jobs[0].result(timeout=0.8)
    gate.open()
    assert busy.result(timeout=PATIENCE) == "held"
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0.01] * 5


def test_many_timed_jobs_within_their_time(queue: TaskQueue) -> None:
    """Each of many short jobs has the whole timeout for itself, however they are bundled."""
    bound = queue.options(timeout=1.0)
    jobs = [bound.submit(nap, 0.01) for _ in range(150)]
    assert [job.result(timeout=PATIENCE) for job in jobs] == [0.01] * 150
    assert list(bound.map(nap, [0.01] * 150, chunksize=150)) == [0.01] * 150


def test_neighbours_are_left_alone(queue: TaskQueue, ledger: Ledger) -> None:
    """Jobs beside and behind one that times out run once, and to their end."""
    before = [queue.submit(note_and_nap, ledger.path, f"before {number}", 0.01) for number in range(20)]
    hanging = queue.options(timeout=0.4).submit(nap, 60)
    behind = [queue.submit(note_and_nap, ledger.path, f"behind {number}", 0.01) for number in range(60)]
    assert isinstance(hanging.exception(timeout=PATIENCE), JobTimeout)
    assert [job.result(timeout=PATIENCE) for job in before] == [f"before {number}" for number in range(20)]
    assert [job.result(timeout=PATIENCE) for job in behind] == [f"behind {number}" for number in range(60)]
    assert set(ledger.counts().values()) == {1}


def test_timeout_of_the_decorator(queue: TaskQueue) -> None:
    """The timeout given to `@task` holds without further words, and `options` overrides it."""
    assert isinstance(queue.submit(decorated_hanging).exception(timeout=PATIENCE), JobTimeout)
    error = queue.options(timeout=0.2).submit(decorated_hanging).exception(timeout=PATIENCE)
    assert isinstance(error, JobTimeout)
    assert "0.2 s" in str(error)


def test_timeout_takes_the_jobs_own_processes(queue: TaskQueue, ledger: Ledger, gate: Gate) -> None:
    """Programs that a job started go with it at its timeout."""
    job = queue.options(timeout=1.0).submit(start_grandchild, ledger.path, gate.path)
    noted = eventually(ledger.texts, "the job to start its program")[0]
    assert isinstance(job.exception(timeout=PATIENCE), JobTimeout)
    program = int(noted.removeprefix("grandchild "))
    eventually(lambda: not is_running(program), "the job's program to be ended with it")


def test_timeout_is_not_a_crash(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that timed out is not run again unless its retry policy says so; then it is, so many times."""
    job = queue.options(timeout=0.3).submit(note_and_nap, ledger.path, "once", 60)
    assert isinstance(job.exception(timeout=PATIENCE), JobTimeout)
    assert ledger.counts() == {"start once": 1}
    bound = queue.options(timeout=0.3, retry=Retry(2, delay=0.0, on=(TimeoutError,)))
    job = bound.submit(note_and_nap, ledger.path, "thrice", 60)
    assert isinstance(job.exception(timeout=PATIENCE), JobTimeout)
    assert ledger.counts() == {"start once": 1, "start thrice": 3}
    assert (job.attempts, job.crashes) == (3, 0)


def test_the_tasks_own_timeout_error(queue: TaskQueue) -> None:
    """A TimeoutError that the task itself raises is the task's own, not the pool's."""
    job = queue.options(timeout=PATIENCE).submit(raise_timeout_error)
    error = job.exception(timeout=PATIENCE)
    assert type(error) is TimeoutError
    assert job.reason == "error"


# --- soft


def test_soft_timeout_interrupts(queue: TaskQueue, ledger: Ledger) -> None:
    """At its soft timeout, a job gets an exception that it can catch, tidy up, and return a value."""
    job = queue.options(soft_timeout=0.3).submit(tidy_up_at_soft_timeout, ledger.path)
    assert job.result(timeout=PATIENCE) == "tidied"
    assert ledger.texts() == ["tidied"]
    assert (job.state, job.attempts) == ("succeeded", 1)


def test_soft_timeout_that_is_not_caught(queue: TaskQueue) -> None:
    """A job that does not catch it fails with SoftTimeout, and its process lives on."""
    pids = {queue.submit(pid).result(timeout=PATIENCE) for _ in range(30)}
    job = queue.options(soft_timeout=0.2).submit(nap, 60)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, SoftTimeout)
    assert not isinstance(error, OSError)  # which a job takes for a broken connection or file
    assert {queue.submit(pid).result(timeout=PATIENCE) for _ in range(30)} & pids
    assert all(is_running(found) for found in pids)


def test_soft_timeout_does_not_hit_the_next_job(queue: TaskQueue) -> None:
    """A job that ends within its soft timeout leaves no alarm behind for the next."""
    bound = queue.options(soft_timeout=0.15)
    assert [bound.submit(identity, number).result(timeout=PATIENCE) for number in range(50)] == list(range(50))
    assert [queue.submit(nap, 0.3).result(timeout=PATIENCE) for _ in range(3)] == [0.3] * 3


def test_hard_timeout_behind_a_soft_one(queue: TaskQueue) -> None:
    """A job that swallows its soft timeout is ended by the hard one."""
    job = queue.options(soft_timeout=0.2, timeout=0.7).submit(ignore_soft_timeout)
    error = job.exception(timeout=PATIENCE)
    assert isinstance(error, JobTimeout)
    assert not isinstance(error, SoftTimeout)


def test_soft_timeout_in_a_map(queue: TaskQueue) -> None:
    """The soft timeout holds for each item of a map."""
    bound = queue.options(soft_timeout=0.3)
    results: list[Any] = list(bound.imap(nap, [0.0, 60, 0.01], return_exceptions=True))
    assert (results[0], type(results[1]), results[2]) == (0.0, SoftTimeout, 0.01)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"soft_timeout": "soon"}, {"timeout": 1, "soft_timeout": 2}]
)
def test_senseless_timeouts(queue: TaskQueue, options: dict[str, Any]) -> None:
    """A timeout that makes no sense is refused before anything runs, with the name of the option."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        queue.options(**options).submit(square, 1)
