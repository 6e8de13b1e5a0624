"""The line of waiting work: queues in their order, priorities in each, pauses; and which names are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from taskq.errors import JobExists
from taskq.executors.job_registry import JobRegistry
from taskq.executors.pool.batches import CallBatch
from taskq.executors.pool.functions import Function
from taskq.executors.pool.jobs import DEFAULTS, LocalJob
from taskq.executors.pool.scheduler import Backlog
from taskq.options import JobOptions
from taskq.states import State

if TYPE_CHECKING:
    from taskq.executors.pool.jobs import JobOwner


class Somewhere:
    """Be where jobs belong."""

    session = "s"

    def remember(self, job: LocalJob) -> None:
        """Do nothing."""

    def state_of(self, job: LocalJob) -> State:
        """Know nothing."""
        return State.QUEUED


HOME: JobOwner = Somewhere()  # type: ignore[assignment]
FUNCTION = Function(1, "m:f", b"", DEFAULTS, bound=False)


def job(number: int, **options: Any) -> LocalJob:
    """Make a job."""
    made = LocalJob(HOME, FUNCTION, number, b"")
    made.options = JobOptions(**options) if options else None
    return made


def taken(backlog: Backlog) -> list[int]:
    """Take all there is to take, and return the numbers."""
    numbers = []
    while (batch := backlog.take(1)) is not None:
        assert isinstance(batch, CallBatch)
        numbers += [entry.number for entry in batch.jobs]
    return numbers


def test_order() -> None:
    """Preferred queues come first in their order, then the others as they turned up; in each, by priority."""
    backlog = Backlog()
    backlog.prefer(["high", "default"])
    entries = [
        job(1, queue="z"), job(2), job(3, queue="a"), job(4, queue="high"), job(5, priority=9),
        job(6, queue="high", priority=-1), job(7, queue="z", priority=99), job(8),
    ]  # fmt: skip
    for entry in entries:
        backlog.add(entry)
    assert (len(backlog), bool(backlog)) == (8, True)
    assert [entry.number for entry in backlog if isinstance(entry, LocalJob)] == [4, 6, 5, 2, 8, 7, 1, 3]
    assert taken(backlog) == [4, 6, 5, 2, 8, 7, 1, 3]
    assert (len(backlog), bool(backlog)) == (0, False)


def test_one_line() -> None:
    """Where queues are one line, they start in the order in which they come, in it by priority."""
    backlog = Backlog()
    backlog.prefer(None)
    for entry in (job(1, queue="b"), job(2, queue="a"), job(3), job(4, queue="b", priority=1), job(5, queue="a")):
        backlog.add(entry)
    assert taken(backlog) == [4, 1, 2, 3, 5]


def test_put_back() -> None:
    """What comes back stands before what waited in its own line."""
    backlog = Backlog()
    backlog.add(job(3))
    backlog.put_back([job(1), job(2), job(9, queue="other")])
    backlog.add(job(10, queue="other"))
    assert taken(backlog) == [1, 2, 3, 9, 10]


def test_pause() -> None:
    """Of a paused queue nothing is taken; what waits there still counts, but not as work that may start."""
    backlog = Backlog()
    for entry in (job(1), job(2, queue="other"), job(3, priority=3)):
        backlog.add(entry)
    backlog.paused.add("default")
    assert bool(backlog)
    assert taken(backlog) == [2]
    assert (len(backlog), bool(backlog)) == (2, False)
    backlog.paused.clear()
    assert taken(backlog) == [3, 1]


def test_pause_of_an_unknown_queue() -> None:
    """A pause holds for jobs that come later, too."""
    backlog = Backlog()
    backlog.paused.add("late")
    assert (backlog.take(1), bool(backlog)) == (None, False)
    backlog.add(job(1, queue="late"))
    assert taken(backlog) == []
    backlog.paused.discard("late")
    assert taken(backlog) == [1]


# --- names


def test_key_is_free_again_after_the_end() -> None:
    """A key leads to its job until that has ended."""
    register = JobRegistry()
    first, second = job(1, key="k"), job(2, key="k")
    options = JobOptions(key="k")
    assert register.admit(first, options) is first
    assert register.admit(second, options) is first
    with pytest.raises(JobExists, match="the key 'k'") as raised:
        register.admit(second, JobOptions(key="k", if_exists="reject"))
    assert raised.value.job_id == first.id
    first.settle(1)
    assert register.admit(second, options) is second


def test_id_is_kept_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id leads to its job, ended or not and held or not, until `result_ttl` after its end."""
    now = [100.0]
    monkeypatch.setattr("taskq.executors.job_registry.monotonic", lambda: now[0])
    register = JobRegistry()
    options = JobOptions(job_id="mine", result_ttl=5)
    register.admit(job(1, job_id="mine"), options)
    found = register.find("mine")
    assert found is not None
    assert found.number == 1
    found.settle(1)
    del found
    now[0] = 104.9
    assert register.find("mine") is register.admit(job(2), options)
    now[0] = 105.1
    assert register.find("mine") is None
    assert register.admit(job(3), options).number == 3


def test_default_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without words, an ended job with an id of its own is kept a day, a failed one a week."""
    now = [0.0]
    monkeypatch.setattr("taskq.executors.job_registry.monotonic", lambda: now[0])
    register = JobRegistry()
    good, bad = job(1), job(2)
    register.admit(good, JobOptions(job_id="good"))
    register.admit(bad, JobOptions(job_id="bad"))
    good.settle(1)
    bad.settle(None, ValueError())
    now[0] = 2 * 86_400
    assert (register.find("good"), register.find("bad")) == (None, bad)
    now[0] = 8 * 86_400
    assert register.find("bad") is None
