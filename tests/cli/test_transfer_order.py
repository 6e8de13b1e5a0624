"""Waiting jobs move from store to store: all of them, once each, with their options, wherever it is interrupted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from taskq.cli.transfer import Transfer
from taskq.codec import encode
from taskq.envelope import CALL, Template, head
from taskq.errors import ConfigError
from taskq.options import JobOptions
from taskq.retry import Retry
from taskq.states import State
from taskq.store import JobRecord, NewJob
from tests.cli.fake_store import FakeStore

if TYPE_CHECKING:
    from taskq.cli.transfer import Moved


class Killed(BaseException):
    """Stands for a SIGKILL."""


def job(number: int, *depends_on: str, **options: object) -> NewJob:
    """Return a job as a client makes it."""
    chosen = JobOptions().merged(**options)  # type: ignore[arg-type]
    envelope = Template(CALL, "jobs:square", chosen).pack(encode([number]), encode({}))
    return NewJob(
        id=f"J{number}", task="jobs:square", envelope=envelope, options=chosen, depends_on=depends_on, label="square"
    )


def stores(*jobs: NewJob) -> tuple[FakeStore, FakeStore]:
    """Return a store with these jobs, and an empty one."""
    old, new = FakeStore(url="sqlite:///old.db"), FakeStore(url="redis://new")
    old.put(jobs)
    return old, new


def move(old: FakeStore, new: FakeStore) -> Moved:
    """Move everything."""
    return Transfer(old, new, lambda _done, _total: None).run()


def run_one(store: FakeStore, job_id: str, state: State) -> None:
    """Have a job come to a state."""
    store.jobs[job_id] = replace(store.jobs[job_id], state=state)


def test_waiting_jobs_move_in_their_order() -> None:
    """With their ids; what runs and what has ended stays."""
    old, new = stores(*(job(number) for number in range(6)))
    run_one(old, "J0", State.SUCCEEDED)
    run_one(old, "J1", State.RUNNING)
    moved = move(old, new)
    assert list(new.jobs) == ["J2", "J3", "J4", "J5"]
    assert list(old.jobs) == ["J0", "J1"]
    assert (moved.jobs, moved.running, moved.stayed) == ({"default": 4}, 1, {})


def test_options_come_along() -> None:
    """Those in the envelope, and those that the store keeps beside it; instants stay the same instants."""
    at = datetime.now(UTC) + timedelta(hours=2)
    options = {
        "queue": "mail",
        "priority": 7,
        "key": "k",
        "at": at,
        "expires": 9000.0,
        "retry": Retry(3),
        "timeout": 60.0,
    }
    old, new = stores(job(1, **options))
    record = replace(old.jobs["J1"], expires_at=at.timestamp() + 1800)
    old.jobs["J1"] = record
    move(old, new)
    got = new.put_jobs["J1"]
    assert got.envelope == record.envelope
    assert head(got.envelope).options.retry == Retry(3, on=("Exception",))
    assert (got.options.queue, got.options.priority, got.options.key) == ("mail", 7, "k")
    assert (got.options.retry, got.options.timeout) == (Retry(3, on=("Exception",)), 60.0)
    assert got.options.at is not None
    assert abs(got.options.at - at) < timedelta(seconds=1)
    assert got.options.expires == pytest.approx(9000, abs=5)


def test_a_job_that_is_due_by_now_is_queued() -> None:
    """An instant in the past is no instant."""
    old, new = stores(job(1, at=datetime.now(UTC) - timedelta(hours=1)))
    move(old, new)
    assert new.jobs["J1"].state is State.QUEUED


def test_dependencies_move_together() -> None:
    """A job whose needs all move moves; one that needs a result of the old store stays, with all that it needs."""
    old, new = stores(job(1), job(2, "J1"), job(3), job(4), job(5, "J3", "J4"), job(6, "J5"), job(7))
    run_one(old, "J3", State.SUCCEEDED)
    moved = move(old, new)
    assert sorted(new.jobs) == ["J1", "J2", "J7"]
    assert sorted(moved.stayed) == ["J4", "J5", "J6"]
    assert new.put_jobs["J2"].depends_on == ("J1",)


@pytest.mark.parametrize("call", range(1, 12))
def test_killed_anywhere_and_done_again(call: int) -> None:
    """Nothing is lost, nothing can run in both, and the second transfer finishes."""
    jobs = [job(number, queue=("a", "b")[number % 2]) for number in range(500)]
    old, new = stores(*jobs)
    calls = 0

    def kill(_name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed

    old.before = new.before = kill
    try:
        move(old, new)
    except Killed:
        assert set(old.jobs) | set(new.jobs) == {job.id for job in jobs}
        both = {old.jobs[job_id].queue for job_id in set(old.jobs) & set(new.jobs)}
        assert both <= old.paused
    old.before = new.before = lambda _: None
    move(old, new)
    assert old.jobs == {}
    assert list(new.jobs) == [job.id for job in jobs]


def test_a_job_that_ran_in_the_new_store_meanwhile_is_not_run_again() -> None:
    """The second transfer only forgets it in the old store."""
    old, new = stores(job(1))
    new.put([job(1)])
    run_one(new, "J1", State.SUCCEEDED)
    move(old, new)
    assert old.jobs == {}
    assert new.jobs["J1"].state is State.SUCCEEDED


def test_queues_go_on_afterwards() -> None:
    """But for those that were paused before, which are named."""
    old, new = stores(job(1, queue="a"), job(2, queue="b"))
    old.pause("b")
    moved = move(old, new)
    assert (old.paused, moved.still_paused) == ({"b"}, ["b"])


def test_a_job_with_a_taken_key_is_the_one_that_is_there() -> None:
    """As if it had been submitted there."""
    old, new = stores(job(1, key="k"))
    new.put([job(9, key="k")])
    moved = move(old, new)
    assert (list(new.jobs), old.jobs, moved.merged) == (["J9"], {}, 1)


def test_a_strangers_job_stays() -> None:
    """What has no envelope of ours cannot be submitted anew."""
    old, new = stores(job(1))
    old.jobs["X"] = JobRecord(id="X", task="theirs", state=State.QUEUED, envelope=b"junk")
    moved = move(old, new)
    assert (list(new.jobs), list(moved.stayed)) == (["J1"], ["X"])


def test_one_store_by_two_names_is_refused() -> None:
    """Before anything is removed."""
    old, _ = stores(job(1))
    with pytest.raises(ConfigError, match="the same store"):
        move(old, old)
    assert (list(old.jobs), old.paused) == (["J1"], set())
