"""Jobs that ask to be run again: when, how often, and what of it is counted."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import pytest

from taskq import Retry, RetryLater
from tests.sample_retries import (
    ask_by_another_class,
    ask_for_item_once,
    ask_until,
    do_in_turn,
    pass_on_the_wish_of_another,
)
from tests.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from taskq import TaskQueue
    from tests.ledger import Ledger


def test_uncounted(queue: TaskQueue, ledger: Ledger) -> None:
    """A job without any retries that asks for it, uncounted, runs again; its attempts rise, its retries do not."""
    job = queue.submit(ask_until, ledger.path, 4)
    assert job.result(timeout=PATIENCE) == 4
    assert ledger.texts() == ["attempt"] * 4
    info = job.info()
    assert (info.attempts, info.retries, info.crashes, info.state) == (4, 0, 0, "succeeded")


def test_counted(queue: TaskQueue, ledger: Ledger) -> None:
    """A job with two retries that asks for both runs three times, whatever errors its policy is for."""
    bound = queue.options(retry=Retry(2, delay=1000.0, on=(OSError,)))
    job = bound.submit(ask_until, ledger.path, 3, counted=True)
    assert job.result(timeout=PATIENCE) == 3
    info = job.info()
    assert (info.attempts, info.retries) == (3, 2)


@pytest.mark.parametrize("retries", [None, 0, 1])
def test_none_left(queue: TaskQueue, ledger: Ledger, retries: int | None) -> None:
    """A job that asks for one retry more than it has fails, and its wish is the error."""
    job = queue.options(retry=retries).submit(ask_until, ledger.path, 9, "20ms", counted=True)
    with pytest.raises(RetryLater, match="if it has a retry left") as raised:
        job.result(timeout=PATIENCE)
    assert (raised.value.delay, raised.value.counted) == (0.02, True)
    assert (job.state, job.reason) == ("failed", "error")
    assert job.attempts == len(ledger.texts()) == 1 + (retries or 0)


def test_counted_together_with_errors(queue: TaskQueue, ledger: Ledger) -> None:
    """Of errors and wishes, those that are counted use up the same retries, and the others none."""
    steps = ("uncounted", "error", "uncounted", "counted", "uncounted", "error", "never")
    job = queue.options(retry=Retry(2, delay=0.0)).submit(do_in_turn, ledger.path, *steps)
    with pytest.raises(OSError, match="try again"):
        job.result(timeout=PATIENCE)
    assert ledger.texts() == list(steps[:-1])
    info = job.info()
    assert (info.attempts, info.retries) == (6, 2)


def test_delay(queue: TaskQueue, ledger: Ledger) -> None:
    """The wait before the next attempt is the one that the job has named, not that of its policy."""
    bound = queue.options(retry=Retry(2, delay=1000.0, jitter=False))
    assert bound.submit(ask_until, ledger.path, 3, "200ms", counted=True).result(timeout=PATIENCE) == 3
    starts = [entry.at for entry in ledger.entries()]
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(starts)), starts


def test_cancelled_while_it_waits(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that waits because it asked to is scheduled, and can be cancelled."""
    job = queue.submit(ask_until, ledger.path, 2, "1h")
    eventually(lambda: job.state == "scheduled", "the job to wait")
    assert job.attempts == 1
    assert job.cancel()
    assert job.cancelled()
    assert ledger.texts() == ["attempt"]


def test_started_in_time(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that has been started in time does not expire while it waits because it asked to."""
    queue.submit(ask_until, ledger.path, 1).result(timeout=PATIENCE)
    job = queue.options(expires="5s").submit(ask_until, ledger.path, 2, "6s")
    assert job.result(timeout=PATIENCE) == 2


def test_wish_of_another_job(queue: TaskQueue, ledger: Ledger) -> None:
    """A job that lets the wish of another job through, as that one's error, fails by it and is not run again."""
    job = queue.submit(pass_on_the_wish_of_another, ledger.path)
    with pytest.raises(RetryLater, match="whatever retries"):
        job.result(timeout=PATIENCE)
    assert ledger.texts() == ["attempt"]


def test_classes_below(queue: TaskQueue) -> None:
    """A class below RetryLater asks just as well, also with a cause."""
    assert queue.submit(ask_by_another_class, 2).result(timeout=PATIENCE) == 2


@pytest.mark.parametrize("counted", [False, True])
def test_items_of_a_map(queue: TaskQueue, ledger: Ledger, counted: bool) -> None:
    """Items of a map ask by themselves: they alone are run again, and all results come in order."""
    bound = queue.options(retry=1) if counted else queue
    assert list(bound.map(partial(ask_for_item_once, ledger.path, counted), range(20))) == list(range(20))
    assert sorted(map(int, ledger.texts())) == sorted([*range(20), *range(1, 20, 4)])


def test_items_of_a_map_with_none_left(queue: TaskQueue, ledger: Ledger) -> None:
    """An item that asks for a retry and has none fails by its wish; the others have their results."""
    function = partial(ask_for_item_once, ledger.path, True)  # counted
    found = queue.imap(function, range(4), return_exceptions=True)
    assert [type(one) for one in found] == [int, RetryLater, int, int]
